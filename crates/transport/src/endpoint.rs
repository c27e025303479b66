//! Listens, dials, and refuses whoever has no certificate of ours.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crrl_types::{Digest, HostPort, NodeName};
use quinn::crypto::rustls::{HandshakeData, QuicClientConfig, QuicServerConfig};
use quinn::crypto::{CryptoError, HmacKey};
use quinn::{MtuDiscoveryConfig, TransportConfig, VarInt};
use quinn_proto::HashedConnectionIdGenerator;

use crate::faults::Faults;
use crate::identity::{Credentials, Identity};
use crate::keys::{Keys, server_tls};
use crate::lookup::{self, Unresolved};
use crate::net_thread::NetThread;
use crate::options::Options;
pub use crate::protocol::Purpose;
use crate::protocol::{Protocols, Spoken, compare, names, spoken};
use crate::revocation::Revocations;
use crate::stranger::Stranger;

/// Datagram payload on loopback, where it measured best; elsewhere quinn's own discovery rules.
pub(crate) const LOOPBACK_MTU: u16 = 6400;
/// Handshakes waiting to be accepted: some kilobytes each. Past it a dialler is refused and tries again.
const HANDSHAKES_MAX: usize = 1024;
/// Bytes sent on a bulk connection and not yet acknowledged by the peer's QUIC.
const BULK_WINDOW_BYTES: u32 = 16 << 20;
/// The same on a control connection.
const CONTROL_WINDOW_BYTES: u32 = 4 << 20;

/// An endpoint that could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Somebody else has the port.
    #[error(
        "UDP port {port} of {ip} is in use; end the program that holds it (ss -lunp) or set cluster.listen to another port",
        port = .0.port(), ip = .0.ip()
    )]
    InUse(SocketAddr),
    /// Any other refusal.
    #[error("cannot open UDP {address}: {source}")]
    Socket {
        /// Where.
        address: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// Certificate, key and authority do not go together.
    #[error("the certificate of {name} cannot be used: {message}")]
    Tls {
        /// Whose.
        name: NodeName,
        /// Why.
        message: String,
    },
}

/// A connection that did not come about.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// The address or name cannot be dialled at all.
    #[error("cannot dial {name} at {address}: {message}")]
    Refused {
        /// Who was dialled.
        name: NodeName,
        /// Where.
        address: SocketAddr,
        /// Why.
        message: String,
    },
    /// Where it is has a name, and the name cannot be looked up right now.
    #[error("cannot dial {name}: {source}")]
    Unresolved {
        /// Who was dialled.
        name: NodeName,
        /// Why.
        source: Unresolved,
    },
    /// Where it is has a name that stands for several addresses, and it was found at none of them.
    #[error("cannot dial {name} at {at}: {}", .tried.join("; "))]
    Nowhere {
        /// Who was dialled.
        name: NodeName,
        /// Where.
        at: HostPort,
        /// What went wrong at each address.
        tried: Vec<String>,
    },
    /// Nobody answered in time.
    #[error("{name} at {address} did not answer within {} ms", .after.as_millis())]
    Timeout {
        /// Who was dialled.
        name: NodeName,
        /// Where.
        address: SocketAddr,
        /// How long it was waited.
        after: Duration,
    },
    /// The two have no version of the protocol in common.
    #[error(
        "{name} at {address} speaks protocol {theirs}, this node speaks {ours}: copy the same build \
         to both machines"
    )]
    Protocol {
        /// Who.
        name: NodeName,
        /// Where.
        address: SocketAddr,
        /// What is spoken there.
        theirs: Protocols,
        /// What is spoken here.
        ours: Protocols,
    },
    /// An incoming handshake failed.
    #[error("a handshake from {address} failed: {message}")]
    Handshake {
        /// From where.
        address: SocketAddr,
        /// Why.
        message: String,
    },
}

/// A connection whose peer was verified.
#[derive(Debug, Clone)]
pub struct Connection {
    /// The QUIC connection.
    pub quic: quinn::Connection,
    /// Who the peer is, by its certificate.
    pub peer: Identity,
    /// BLAKE3 of its certificate.
    pub fingerprint: Digest,
    /// What it is for.
    pub purpose: Purpose,
    /// The version of the protocol that is spoken on it.
    pub protocol: u8,
}

/// Who has come in.
#[derive(Debug)]
pub enum Arrival {
    /// A member, by its certificate.
    Member(Connection),
    /// Somebody without a certificate; only where [`Options::strangers`] allows it.
    Stranger(Stranger),
}

impl Connection {
    /// Closes it; the peer is told why.
    pub fn close(&self, reason: &str) {
        self.quic.close(VarInt::from_u32(0), reason.as_bytes());
    }
}

/// A UDP socket that speaks QUIC.
#[derive(Debug, Clone)]
pub struct Endpoint {
    quic: quinn::Endpoint,
    /// A socket that only dials, for addresses of the family the first has not; opened when one is
    /// dialled.
    other: Arc<Mutex<Option<quinn::Endpoint>>>,
    config: quinn::EndpointConfig,
    keys: Arc<Keys>,
    options: Arc<Options>,
    loopback: bool,
    net: NetThread,
    faults: Faults,
    revocations: Revocations,
}

impl Endpoint {
    /// Opens a socket. With `listen` it accepts connections there; without it only dials, from a
    /// port the system picks.
    ///
    /// # Errors
    /// [`BindError`].
    pub fn bind(
        net: &NetThread,
        credentials: &Credentials,
        listen: Option<SocketAddr>,
        options: Options,
    ) -> Result<Self, BindError> {
        let address = listen.unwrap_or(SocketAddr::from(([0, 0, 0, 0], 0)));
        let loopback = address.ip().is_loopback() || listen.is_none();
        let faults = Faults::default();
        let socket = net.bind(address, &faults).map_err(|source| match source.kind() {
            std::io::ErrorKind::AddrInUse => BindError::InUse(address),
            _ => BindError::Socket { address, source },
        })?;
        let tls =
            |message: String| BindError::Tls { name: credentials.identity.name.clone(), message };
        let keys = Keys::of(credentials).map_err(tls)?;
        let server = match listen {
            None => None,
            Some(_) => {
                let keys = Arc::clone(&keys);
                let crypto = server_tls(credentials, keys, options.protocols, options.strangers)
                    .map_err(tls)?;
                let crypto =
                    QuicServerConfig::try_from(crypto).map_err(|error| tls(error.to_string()))?;
                let mut server = quinn::ServerConfig::with_crypto(Arc::new(crypto));
                server.max_incoming(HANDSHAKES_MAX);
                server.transport_config(Arc::new(transport(&options, loopback, BULK_WINDOW_BYTES)));
                Some(server)
            }
        };
        let config = endpoint_config(credentials, loopback);
        let quic =
            quinn::Endpoint::new_with_abstract_socket(config.clone(), server, socket, net.quic())
                .map_err(|source| BindError::Socket { address, source })?;
        Ok(Self {
            quic,
            other: Arc::default(),
            config,
            keys,
            options: Arc::new(options),
            loopback,
            net: net.clone(),
            faults,
            revocations: credentials.revocations.clone(),
        })
    }

    /// Where it is bound, with the port the system picked.
    ///
    /// # Errors
    /// The system does not say.
    pub fn local_addr(&self) -> std::io::Result<SocketAddr> {
        self.quic.local_addr()
    }

    /// The thread it runs on.
    #[must_use]
    pub fn net(&self) -> &NetThread {
        &self.net
    }

    /// Certificates that count no more.
    #[must_use]
    pub fn revocations(&self) -> &Revocations {
        &self.revocations
    }

    /// What goes wrong on purpose.
    #[must_use]
    pub fn faults(&self) -> &Faults {
        &self.faults
    }

    /// Its options.
    #[must_use]
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// Proves itself with these credentials from now on. Connections that are there go on.
    ///
    /// # Errors
    /// Certificate and key do not go together; nothing has changed then.
    pub fn renew(&self, credentials: &Credentials) -> Result<(), BindError> {
        self.keys
            .replace(credentials)
            .map_err(|message| BindError::Tls { name: credentials.identity.name.clone(), message })
    }

    /// As [`Endpoint::dial`], of a host that may have a name: it is looked up now, and of its addresses
    /// the first that is good is taken, and said.
    ///
    /// # Errors
    /// [`DialError`].
    pub async fn dial_host(
        &self,
        name: &NodeName,
        at: &HostPort,
        purpose: Purpose,
    ) -> Result<(Connection, SocketAddr), DialError> {
        let addresses = lookup::addresses(&self.net, at)
            .await
            .map_err(|source| DialError::Unresolved { name: name.clone(), source })?;
        if let [address] = addresses[..] {
            return Ok((self.dial(name, address, purpose).await?, address));
        }
        let dial = |address: SocketAddr| {
            let (endpoint, name) = (self.clone(), name.clone());
            async move {
                let dialled = endpoint.dial(&name, address, purpose).await;
                dialled.map(|connection| (connection, address))
            }
        };
        lookup::first_of(addresses, dial).await.map_err(|mut errors| {
            let silent = |error: &DialError| matches!(error, DialError::Timeout { .. });
            if errors.iter().all(silent)
                && let Some(error) = errors.pop()
            {
                return error;
            }
            let tried = errors.iter().map(ToString::to_string).collect();
            DialError::Nowhere { name: name.clone(), at: at.clone(), tried }
        })
    }

    /// The socket an address is dialled from.
    fn toward(&self, address: SocketAddr) -> std::io::Result<quinn::Endpoint> {
        let here = self.quic.local_addr()?;
        let both = here.is_ipv6() && here.ip().is_unspecified();
        if both || here.is_ipv6() == address.is_ipv6() {
            return Ok(self.quic.clone());
        }
        let mut other = self.other.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(open) = &*other {
            return Ok(open.clone());
        }
        let any: SocketAddr = match address {
            SocketAddr::V4(_) => ([0, 0, 0, 0], 0).into(),
            SocketAddr::V6(_) => ([0_u16; 8], 0).into(),
        };
        let socket = self.net.bind(any, &self.faults)?;
        let (config, net) = (self.config.clone(), self.net.quic());
        let open = quinn::Endpoint::new_with_abstract_socket(config, None, socket, net)?;
        *other = Some(open.clone());
        Ok(open)
    }

    /// Connects to `name`; whoever answers must prove to be it.
    ///
    /// # Errors
    /// [`DialError`], within [`Options::handshake_timeout`].
    pub async fn dial(
        &self,
        name: &NodeName,
        address: SocketAddr,
        purpose: Purpose,
    ) -> Result<Connection, DialError> {
        let refused = |message: String| DialError::Refused { name: name.clone(), address, message };
        let protocols = self.options.protocols;
        let mut tls = self.keys.client();
        tls.alpn_protocols = names(purpose, protocols);
        let crypto = QuicClientConfig::try_from(tls).map_err(|error| refused(error.to_string()))?;
        let mut config = quinn::ClientConfig::new(Arc::new(crypto));
        let loopback = self.loopback && address.ip().is_loopback();
        let window = match purpose {
            Purpose::Bulk | Purpose::Weights => BULK_WINDOW_BYTES,
            Purpose::Control | Purpose::Operator => CONTROL_WINDOW_BYTES,
        };
        config.transport_config(Arc::new(transport(&self.options, loopback, window)));
        let connecting = self
            .toward(address)
            .map_err(|error| refused(error.to_string()))?
            .connect_with(config, address, name.as_str())
            .map_err(|error| refused(error.to_string()))?;
        let after = self.options.handshake_timeout;
        let quic = tokio::time::timeout(after, connecting)
            .await
            .map_err(|_| DialError::Timeout { name: name.clone(), address, after })?
            .map_err(|error| match error {
                quinn::ConnectionError::TimedOut => {
                    DialError::Timeout { name: name.clone(), address, after }
                }
                other => refused(why(&other)),
            })?;
        match verified(quic, &self.options, &self.revocations).map_err(refused)? {
            Verified::Member(connection) if connection.purpose == purpose => Ok(connection),
            Verified::NoVersion(quic) => match compare(&quic, protocols, true, after).await {
                Some(theirs) => {
                    let (name, ours) = (name.clone(), protocols);
                    Err(DialError::Protocol { name, address, theirs, ours })
                }
                None => Err(refused("it speaks another protocol, and does not say which".into())),
            },
            Verified::Member(_) | Verified::Stranger(_) => {
                Err(refused("the peer speaks another protocol".into()))
            }
        }
    }

    /// The next handshake to come in; `None` once the endpoint is closed.
    pub async fn accept(&self) -> Option<Handshake> {
        let incoming = self.quic.accept().await?;
        Some(Handshake {
            incoming,
            options: Arc::clone(&self.options),
            revocations: self.revocations.clone(),
        })
    }

    /// Closes every connection and waits (at most a second) until the peers were told.
    pub async fn close(&self, reason: &str) {
        let other = self.other.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let idle = async {
            for quic in other.iter().chain([&self.quic]) {
                quic.close(VarInt::from_u32(0), reason.as_bytes());
            }
            for quic in other.iter().chain([&self.quic]) {
                quic.wait_idle().await;
            }
        };
        let _ = tokio::time::timeout(Duration::from_secs(1), idle).await;
    }
}

/// A connection that is coming in and was not verified yet.
#[derive(Debug)]
pub struct Handshake {
    incoming: quinn::Incoming,
    options: Arc<Options>,
    revocations: Revocations,
}

impl Handshake {
    /// Where it comes from, as its packets say.
    #[must_use]
    pub fn remote_address(&self) -> SocketAddr {
        self.incoming.remote_address()
    }

    /// Whether whoever dials has shown that it receives what is sent to its address.
    #[must_use]
    pub fn is_proven(&self) -> bool {
        self.incoming.remote_address_validated()
    }

    /// Asks whoever dials to show that its address is its own: it comes again, a round trip later.
    /// Nothing is kept of it here.
    pub fn ask_proof(self) {
        // One that has shown it cannot be asked, and is refused.
        let _ = self.incoming.retry();
    }

    /// Turns it away; whoever dials is told at once.
    pub fn refuse(self) {
        self.incoming.refuse();
    }

    /// Finishes the handshake of a member.
    ///
    /// # Errors
    /// The peer has no certificate, a foreign one, speaks another protocol, or takes too long.
    pub async fn finish(self) -> Result<Connection, DialError> {
        let address = self.incoming.remote_address();
        match self.arrive().await? {
            Arrival::Member(connection) => Ok(connection),
            Arrival::Stranger(stranger) => {
                stranger.close("no certificate");
                let message = "the peer showed no certificate".into();
                Err(DialError::Handshake { address, message })
            }
        }
    }

    /// Finishes the handshake of a member or, where they are let in, of a stranger.
    ///
    /// # Errors
    /// As [`Handshake::finish`].
    pub async fn arrive(self) -> Result<Arrival, DialError> {
        let address = self.incoming.remote_address();
        let failed = |message: String| DialError::Handshake { address, message };
        let deadline = self.options.handshake_timeout;
        let quic = tokio::time::timeout(deadline, self.incoming)
            .await
            .map_err(|_| failed("it took too long".into()))?
            .map_err(|error| failed(why(&error)))?;
        match verified(quic, &self.options, &self.revocations).map_err(failed)? {
            Verified::Member(connection) => Ok(Arrival::Member(connection)),
            Verified::Stranger(stranger) => Ok(Arrival::Stranger(stranger)),
            Verified::NoVersion(quic) => {
                let ours = self.options.protocols;
                let name = peer_of(&quic).map_err(failed)?.0.name;
                match compare(&quic, ours, false, deadline).await {
                    Some(theirs) => Err(DialError::Protocol { name, address, theirs, ours }),
                    None => Err(failed(format!("{name} speaks another protocol"))),
                }
            }
        }
    }
}

/// A connection whose handshake is over, by what its certificate and protocol allow.
enum Verified {
    Member(Connection),
    Stranger(Stranger),
    /// A member with which no version is shared.
    NoVersion(quinn::Connection),
}

/// Who a peer is, by the certificate TLS has verified, and the certificate's fingerprint.
fn peer_of(quic: &quinn::Connection) -> Result<(Identity, Digest), String> {
    let chain = quic
        .peer_identity()
        .and_then(|any| any.downcast::<Vec<rustls::pki_types::CertificateDer<'static>>>().ok())
        .ok_or("the peer showed no certificate")?;
    let leaf = chain.first().ok_or("the peer showed an empty chain")?;
    let peer = Identity::from_der(leaf).map_err(|error| error.to_string())?;
    Ok((peer, Digest::of(leaf)))
}

/// Judges a connection. Whoever has no certificate gets no further than to ask for one.
fn verified(
    quic: quinn::Connection,
    options: &Options,
    revocations: &Revocations,
) -> Result<Verified, String> {
    let refuse = |quic: &quinn::Connection, reason: String| {
        quic.close(VarInt::from_u32(0), reason.as_bytes());
        Err(reason)
    };
    let name = quic
        .handshake_data()
        .and_then(|any| any.downcast::<HandshakeData>().ok())
        .and_then(|data| data.protocol);
    let Some(spoken) = name.and_then(|name| spoken(&name, options.protocols)) else {
        return refuse(&quic, "the peer speaks another protocol".into());
    };
    if spoken == Spoken::Stranger {
        return match options.strangers {
            true => Ok(Verified::Stranger(Stranger::new(quic))),
            false => refuse(&quic, "nobody is let in here without a certificate".into()),
        };
    }
    let (peer, fingerprint) = match peer_of(&quic) {
        Ok(peer) => peer,
        Err(reason) => return refuse(&quic, reason),
    };
    if revocations.contains(fingerprint) {
        return refuse(&quic, format!("the certificate of {} was revoked", peer.name));
    }
    Ok(match spoken {
        Spoken::Member(purpose, protocol) => {
            Verified::Member(Connection { quic, peer, fingerprint, purpose, protocol })
        }
        Spoken::NoVersion | Spoken::Stranger => Verified::NoVersion(quic),
    })
}

/// What [`why`] says before the cause that a peer gave as it closed the connection.
pub const CLOSED_BY_PEER: &str = "it closed the connection: ";

/// Why a connection did not come about or ended, in a few words. TLS says it in numbers (RFC 8446,
/// section 6).
#[must_use]
pub fn why(error: &quinn::ConnectionError) -> String {
    use quinn::ConnectionError::{
        ApplicationClosed, ConnectionClosed, LocallyClosed, Reset, TimedOut, TransportError,
    };
    let (code, here) = match error {
        TransportError(error) => (u64::from(error.code), true),
        ConnectionClosed(close) => (u64::from(close.error_code), false),
        TimedOut => return "nothing was heard from it (idle timeout)".into(),
        Reset => return "it was restarted (connection reset)".into(),
        LocallyClosed => return "closed by this node".into(),
        ApplicationClosed(close) => {
            let reason = String::from_utf8_lossy(&close.reason);
            return format!("{CLOSED_BY_PEER}{reason}");
        }
        other => return other.to_string(),
    };
    let whose = if here { "its certificate" } else { "the certificate of this node" };
    match code.checked_sub(0x100) {
        Some(45) => format!("{whose} has expired (or a clock is wrong)"),
        Some(42 | 46 | 48) => format!("{whose} is of another cluster, or another's"),
        Some(116) => "a certificate is needed, and none was shown".into(),
        Some(120) => "it speaks no protocol of this build: copy the same build to both".into(),
        _ => error.to_string(),
    }
}

fn transport(options: &Options, loopback: bool, window_bytes: u32) -> TransportConfig {
    let mut config = TransportConfig::default();
    config
        .keep_alive_interval(Some(options.keep_alive))
        .max_idle_timeout(options.idle_timeout.try_into().ok())
        .max_concurrent_bidi_streams(VarInt::from_u32(options.blobs_at_once.max(1)))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .receive_window(VarInt::from_u32(window_bytes))
        .stream_receive_window(VarInt::from_u32(window_bytes / 2))
        .send_window(u64::from(window_bytes))
        .datagram_receive_buffer_size(None);
    if loopback {
        let mut discovery = MtuDiscoveryConfig::default();
        discovery.upper_bound(LOOPBACK_MTU);
        config.initial_mtu(LOOPBACK_MTU).mtu_discovery_config(Some(discovery));
    }
    config
}

/// The reset key and the connection-id key come from the node's seed, so that a restarted node can
/// tell a peer at once that its old connection is gone.
fn endpoint_config(credentials: &Credentials, loopback: bool) -> quinn::EndpointConfig {
    let derive = |what: &str| blake3::derive_key(what, &credentials.seed);
    let mut config = quinn::EndpointConfig::new(Arc::new(ResetKey(derive("crrl reset key v1"))));
    let [a, b, c, d, e, f, g, h, ..] = derive("crrl connection id key v1");
    let key = u64::from_le_bytes([a, b, c, d, e, f, g, h]);
    config.cid_generator(move || Box::new(HashedConnectionIdGenerator::from_key(key)));
    if loopback {
        config.max_udp_payload_size(LOOPBACK_MTU).expect("within the bounds of a UDP payload");
    }
    config
}

struct ResetKey([u8; 32]);

impl HmacKey for ResetKey {
    fn sign(&self, data: &[u8], signature_out: &mut [u8]) {
        let hash = blake3::keyed_hash(&self.0, data);
        signature_out.copy_from_slice(&hash.as_bytes()[..signature_out.len()]);
    }

    fn signature_len(&self) -> usize {
        blake3::OUT_LEN
    }

    fn verify(&self, data: &[u8], signature: &[u8]) -> Result<(), CryptoError> {
        let hash = blake3::keyed_hash(&self.0, data);
        let given: [u8; 32] = signature.try_into().map_err(|_| CryptoError)?;
        if hash == blake3::Hash::from(given) { Ok(()) } else { Err(CryptoError) }
    }
}
