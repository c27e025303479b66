//! Somebody without a certificate, who may do one thing: ask for one.
//!
//! Whoever knocks knows the authority's fingerprint and nothing else; whoever opens knows nothing of
//! the other side. What is said on such a connection is for its user to bound and to judge.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crrl_types::HostPort;
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{TransportConfig, VarInt};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, DigitallySignedStruct, RootCertStore, SignatureScheme};

use crate::endpoint::{LOOPBACK_MTU, why};
use crate::identity::Identity;
use crate::lookup::{self, Unresolved};
use crate::net_thread::NetThread;
use crate::protocol::STRANGER;

/// Streams a stranger may have open, and what it may send: one question.
const STREAMS: u32 = 1;
/// See above.
const WINDOW_BYTES: u32 = 64 << 10;
/// The name that is asked for; whoever answers is judged by its certificate alone.
const NOBODY: &str = "crrl";

/// The first half of the BLAKE3 of an authority's certificate: 128 bits, which nobody can match with
/// a certificate of their own.
pub type Pin = [u8; 16];

/// The pin of an authority's certificate.
#[must_use]
pub fn pin(authority: &[u8]) -> Pin {
    let hash = blake3::hash(authority);
    let mut pin = Pin::default();
    pin.copy_from_slice(&hash.as_bytes()[..size_of::<Pin>()]);
    pin
}

/// A connection from somebody who has shown no certificate.
#[derive(Debug)]
pub struct Stranger {
    /// The QUIC connection.
    pub quic: quinn::Connection,
}

impl Stranger {
    pub(crate) fn new(quic: quinn::Connection) -> Self {
        quic.set_max_concurrent_bi_streams(VarInt::from_u32(STREAMS));
        quic.set_receive_window(VarInt::from_u32(WINDOW_BYTES));
        Self { quic }
    }

    /// Closes it; the other side is told why.
    pub fn close(&self, reason: &str) {
        self.quic.close(VarInt::from_u32(0), reason.as_bytes());
    }
}

/// A door that was knocked at and is the right one.
#[derive(Debug)]
pub struct Door {
    /// The QUIC connection.
    pub quic: quinn::Connection,
    /// Who has answered, by a certificate of the pinned authority.
    pub host: Identity,
    endpoint: quinn::Endpoint,
}

/// A door that was not opened.
#[derive(Debug, thiserror::Error)]
pub enum KnockError {
    /// No socket or thread.
    #[error("cannot open a UDP socket: {0}")]
    Socket(std::io::Error),
    /// The name of its host cannot be looked up right now.
    #[error(transparent)]
    Unresolved(#[from] Unresolved),
    /// Nobody answered.
    #[error(
        "nobody answered at {address} (UDP) within {} s: is the cluster up, is the address right, \
         does a firewall let UDP through?",
        .after.as_secs()
    )]
    Timeout {
        /// Where.
        address: SocketAddr,
        /// How long it was waited.
        after: Duration,
    },
    /// Whoever answered is of another authority.
    #[error("{0} is of another cluster than the token: its authority has another fingerprint")]
    Foreign(SocketAddr),
    /// Anything else.
    #[error("{address} did not let this node in: {message}")]
    Refused {
        /// Where.
        address: SocketAddr,
        /// Why.
        message: String,
    },
}

impl Door {
    /// As [`Door::knock`], at a host that may have a name: it is looked up now, and the first of its
    /// addresses that is good is taken.
    ///
    /// # Errors
    /// [`KnockError`].
    pub async fn knock_host(
        net: &NetThread,
        at: &HostPort,
        wanted: Pin,
        patience: Duration,
    ) -> Result<Self, KnockError> {
        let addresses = lookup::addresses(net, at).await?;
        let knock = |address: SocketAddr| {
            let net = net.clone();
            async move { Self::knock(&net, address, wanted, patience).await }
        };
        lookup::first_of(addresses, knock).await.map_err(|mut errors| {
            // Who has answered and did not open says most, a family of addresses that is not to be had
            // here least.
            errors.sort_by_key(|error| match error {
                KnockError::Foreign(_) | KnockError::Refused { .. } => 0,
                KnockError::Timeout { .. } => 1,
                KnockError::Socket(_) | KnockError::Unresolved(_) => 2,
            });
            errors.swap_remove(0)
        })
    }

    /// Dials without a certificate. Whoever answers must show one of the authority with this pin.
    ///
    /// # Errors
    /// [`KnockError`], after `patience` at the latest.
    pub async fn knock(
        net: &NetThread,
        address: SocketAddr,
        wanted: Pin,
        patience: Duration,
    ) -> Result<Self, KnockError> {
        let refused = |message: String| KnockError::Refused { address, message };
        let any: SocketAddr = match address {
            SocketAddr::V4(_) => ([0, 0, 0, 0], 0).into(),
            SocketAddr::V6(_) => ([0_u16; 8], 0).into(),
        };
        let socket = std::net::UdpSocket::bind(any).map_err(KnockError::Socket)?;
        let mut config = quinn::EndpointConfig::default();
        config.max_udp_payload_size(LOOPBACK_MTU).expect("within the bounds of a UDP payload");
        let endpoint =
            quinn::Endpoint::new(config, None, socket, net.quic()).map_err(KnockError::Socket)?;
        let verifier =
            Arc::new(Pinned { pin: wanted, provider: provider(), met: Mutex::default() });
        let mut tls = rustls::ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|error| refused(error.to_string()))?
            .dangerous()
            .with_custom_certificate_verifier(Arc::clone(&verifier) as Arc<dyn ServerCertVerifier>)
            .with_no_client_auth();
        tls.alpn_protocols = vec![STRANGER.to_vec()];
        let crypto = QuicClientConfig::try_from(tls).map_err(|error| refused(error.to_string()))?;
        let mut client = quinn::ClientConfig::new(Arc::new(crypto));
        let mut transport = TransportConfig::default();
        transport.max_idle_timeout(patience.try_into().ok());
        transport.keep_alive_interval(Some(patience / 4));
        client.transport_config(Arc::new(transport));
        let connecting = endpoint
            .connect_with(client, address, NOBODY)
            .map_err(|error| refused(error.to_string()))?;
        let quic = match tokio::time::timeout(patience, connecting).await {
            Err(_) | Ok(Err(quinn::ConnectionError::TimedOut)) => {
                return Err(KnockError::Timeout { address, after: patience });
            }
            Ok(Err(error)) if verifier.met().is_none() && is_own_refusal(&error) => {
                return Err(KnockError::Foreign(address));
            }
            Ok(Err(error)) => return Err(refused(why(&error))),
            Ok(Ok(quic)) => quic,
        };
        let host = verifier.met().ok_or_else(|| refused("it showed no certificate".into()))?;
        Ok(Self { quic, host, endpoint })
    }

    /// Leaves.
    pub async fn close(self) {
        self.quic.close(VarInt::from_u32(0), b"done");
        let _ = tokio::time::timeout(Duration::from_secs(1), self.endpoint.wait_idle()).await;
    }
}

/// Whether this side ended the handshake.
fn is_own_refusal(error: &quinn::ConnectionError) -> bool {
    matches!(error, quinn::ConnectionError::TransportError(_))
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// Takes a certificate of the authority with a pin, whoever's it is, and keeps whose it was.
#[derive(Debug)]
struct Pinned {
    pin: Pin,
    provider: Arc<CryptoProvider>,
    met: Mutex<Option<Identity>>,
}

impl Pinned {
    fn met(&self) -> Option<Identity> {
        self.met.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let foreign = || rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer);
        let authority = others.iter().find(|der| pin(der) == self.pin).ok_or_else(foreign)?;
        let identity = Identity::from_der(leaf).map_err(|_| foreign())?;
        let name = ServerName::try_from(identity.name.to_string()).map_err(|_| foreign())?;
        let mut roots = RootCertStore::empty();
        roots.add(authority.clone().into_owned())?;
        let provider = Arc::clone(&self.provider);
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider)
            .build()
            .map_err(|error| rustls::Error::General(error.to_string()))?;
        let verified = verifier.verify_server_cert(leaf, &[], &name, ocsp, now)?;
        *self.met.lock().unwrap_or_else(PoisonError::into_inner) = Some(identity);
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("only TLS 1.3 is spoken".into()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, leaf, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
