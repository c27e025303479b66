//! Listens, dials, and refuses whoever has no certificate of ours.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crrl_types::{Digest, NodeName};
use quinn::crypto::rustls::{HandshakeData, QuicClientConfig, QuicServerConfig};
use quinn::crypto::{CryptoError, HmacKey};
use quinn::{MtuDiscoveryConfig, TransportConfig, VarInt};
use quinn_proto::HashedConnectionIdGenerator;
use rustls::client::Resumption;
use rustls::server::WebPkiClientVerifier;

use crate::faults::Faults;
use crate::identity::{Credentials, Identity};
use crate::net_thread::NetThread;
use crate::options::Options;
use crate::revocation::Revocations;

/// Datagram payload on loopback, where it measured best; elsewhere quinn's own discovery rules.
const LOOPBACK_MTU: u16 = 6400;
/// Handshakes waiting to be accepted: some kilobytes each. Past it a dialler is refused and tries again.
const HANDSHAKES_MAX: usize = 1024;
/// Bytes sent on a bulk connection and not yet acknowledged by the peer's QUIC.
const BULK_WINDOW_BYTES: u32 = 16 << 20;
/// The same on a control connection.
const CONTROL_WINDOW_BYTES: u32 = 4 << 20;

/// What a connection is for. The protocol's version is part of the name that is negotiated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Purpose {
    /// Actors' messages.
    Control,
    /// Blobs.
    Bulk,
    /// A person's tool.
    Operator,
}

impl Purpose {
    const ALL: [Self; 3] = [Self::Control, Self::Bulk, Self::Operator];

    fn alpn(self) -> &'static [u8] {
        match self {
            Self::Control => b"crrl/1 control",
            Self::Bulk => b"crrl/1 bulk",
            Self::Operator => b"crrl-operator/1",
        }
    }
}

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
    client: Arc<rustls::ClientConfig>,
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
        let socket = std::net::UdpSocket::bind(address).map_err(|source| match source.kind() {
            std::io::ErrorKind::AddrInUse => BindError::InUse(address),
            _ => BindError::Socket { address, source },
        })?;
        let tls =
            |message: String| BindError::Tls { name: credentials.identity.name.clone(), message };
        let server = match listen {
            None => None,
            Some(_) => {
                let crypto = server_tls(credentials).map_err(tls)?;
                let crypto =
                    QuicServerConfig::try_from(crypto).map_err(|error| tls(error.to_string()))?;
                let mut server = quinn::ServerConfig::with_crypto(Arc::new(crypto));
                server.max_incoming(HANDSHAKES_MAX);
                server.transport_config(Arc::new(transport(&options, loopback, BULK_WINDOW_BYTES)));
                Some(server)
            }
        };
        let config = endpoint_config(credentials, loopback);
        let faults = Faults::default();
        let quic = quinn::Endpoint::new(config, server, socket, net.quic(&faults))
            .map_err(|source| BindError::Socket { address, source })?;
        let client = Arc::new(client_tls(credentials).map_err(tls)?);
        Ok(Self {
            quic,
            client,
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
        let mut tls = (*self.client).clone();
        tls.alpn_protocols = vec![purpose.alpn().to_vec()];
        let crypto = QuicClientConfig::try_from(tls).map_err(|error| refused(error.to_string()))?;
        let mut config = quinn::ClientConfig::new(Arc::new(crypto));
        let loopback = self.loopback && address.ip().is_loopback();
        let window =
            if purpose == Purpose::Bulk { BULK_WINDOW_BYTES } else { CONTROL_WINDOW_BYTES };
        config.transport_config(Arc::new(transport(&self.options, loopback, window)));
        let connecting = self
            .quic
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
                other => refused(other.to_string()),
            })?;
        verified(quic, Some(purpose), &self.revocations).map_err(refused)
    }

    /// The next handshake to come in; `None` once the endpoint is closed.
    pub async fn accept(&self) -> Option<Handshake> {
        let incoming = self.quic.accept().await?;
        Some(Handshake {
            incoming,
            deadline: self.options.handshake_timeout,
            revocations: self.revocations.clone(),
        })
    }

    /// Closes every connection and waits (at most a second) until the peers were told.
    pub async fn close(&self, reason: &str) {
        self.quic.close(VarInt::from_u32(0), reason.as_bytes());
        let _ = tokio::time::timeout(Duration::from_secs(1), self.quic.wait_idle()).await;
    }
}

/// A connection that is coming in and was not verified yet.
#[derive(Debug)]
pub struct Handshake {
    incoming: quinn::Incoming,
    deadline: Duration,
    revocations: Revocations,
}

impl Handshake {
    /// Finishes the handshake.
    ///
    /// # Errors
    /// The peer has no certificate, a foreign one, speaks another protocol, or takes too long.
    pub async fn finish(self) -> Result<Connection, DialError> {
        let address = self.incoming.remote_address();
        let failed = |message: String| DialError::Handshake { address, message };
        let quic = tokio::time::timeout(self.deadline, self.incoming)
            .await
            .map_err(|_| failed("it took too long".into()))?
            .map_err(|error| failed(error.to_string()))?;
        verified(quic, None, &self.revocations).map_err(failed)
    }
}

/// Reads who is at the other end of a connection whose certificate TLS has verified.
fn verified(
    quic: quinn::Connection,
    wanted: Option<Purpose>,
    revocations: &Revocations,
) -> Result<Connection, String> {
    let chain = quic
        .peer_identity()
        .and_then(|any| any.downcast::<Vec<rustls::pki_types::CertificateDer<'static>>>().ok())
        .ok_or("the peer showed no certificate")?;
    let leaf = chain.first().ok_or("the peer showed an empty chain")?;
    let peer = Identity::from_der(leaf).map_err(|error| error.to_string())?;
    let fingerprint = Digest::of(leaf);
    if revocations.contains(fingerprint) {
        let reason = format!("the certificate of {} was revoked", peer.name);
        quic.close(VarInt::from_u32(0), reason.as_bytes());
        return Err(reason);
    }
    let spoken = quic
        .handshake_data()
        .and_then(|any| any.downcast::<HandshakeData>().ok())
        .and_then(|data| data.protocol);
    let purpose = Purpose::ALL
        .into_iter()
        .find(|purpose| spoken.as_deref() == Some(purpose.alpn()))
        .filter(|purpose| wanted.is_none_or(|wanted| wanted == *purpose))
        .ok_or("the peer speaks another protocol")?;
    Ok(Connection { quic, peer, fingerprint, purpose })
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

fn server_tls(credentials: &Credentials) -> Result<rustls::ServerConfig, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(
        Arc::clone(&credentials.roots),
        Arc::clone(&provider),
    )
    .build()
    .map_err(|error| error.to_string())?;
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| error.to_string())?
        .with_client_cert_verifier(verifier)
        .with_single_cert(credentials.chain.clone(), credentials.key.clone_key())
        .map_err(|error| error.to_string())?;
    config.alpn_protocols = Purpose::ALL.iter().map(|purpose| purpose.alpn().to_vec()).collect();
    // No early data and no tickets: every connection proves its certificate anew.
    config.max_early_data_size = 0;
    config.send_tls13_tickets = 0;
    Ok(config)
}

fn client_tls(credentials: &Credentials) -> Result<rustls::ClientConfig, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| error.to_string())?
        .with_root_certificates(Arc::clone(&credentials.roots))
        .with_client_auth_cert(credentials.chain.clone(), credentials.key.clone_key())
        .map_err(|error| error.to_string())?;
    config.enable_early_data = false;
    config.resumption = Resumption::disabled();
    Ok(config)
}
