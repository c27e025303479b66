//! What an endpoint proves itself with. It can be replaced while connections go on: those that are
//! there keep what they were opened with, new ones take the new.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crrl_machine::clock;
use rustls::client::Resumption;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::UnixTime;
use rustls::server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::time_provider::TimeProvider;

use crate::identity::Credentials;
use crate::protocol::{Protocols, STRANGER, accepted};

#[derive(Debug)]
struct Held {
    /// For peers, who know the authority.
    own: Arc<CertifiedKey>,
    /// For strangers, who know its fingerprint only.
    with_authority: Arc<CertifiedKey>,
    client: Arc<rustls::ClientConfig>,
}

/// The present credentials of an endpoint, as TLS takes them.
#[derive(Debug)]
pub(crate) struct Keys(Mutex<Held>);

/// What certificates are judged by.
#[derive(Debug)]
struct NodeClock;

impl TimeProvider for NodeClock {
    fn current_time(&self) -> Option<UnixTime> {
        let since = clock::now().duration_since(std::time::UNIX_EPOCH).ok()?;
        Some(UnixTime::since_unix_epoch(since))
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

impl Held {
    fn of(credentials: &Credentials) -> Result<Self, String> {
        let Credentials { chain, key, authority, .. } = credentials;
        let own = CertifiedKey::from_der(chain.clone(), key.clone_key(), &provider())
            .map_err(|error| error.to_string())?;
        let mut with_authority = own.clone();
        with_authority.cert.push(authority.clone());
        let client = Arc::new(client_tls(credentials)?);
        Ok(Self { own: Arc::new(own), with_authority: Arc::new(with_authority), client })
    }
}

impl Keys {
    pub(crate) fn of(credentials: &Credentials) -> Result<Arc<Self>, String> {
        Ok(Arc::new(Self(Mutex::new(Held::of(credentials)?))))
    }

    pub(crate) fn replace(&self, credentials: &Credentials) -> Result<(), String> {
        let new = Held::of(credentials)?;
        *self.held() = new;
        Ok(())
    }

    /// What is dialled with from now on.
    pub(crate) fn client(&self) -> rustls::ClientConfig {
        (*self.held().client).clone()
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        // Plain data, valid between any two statements.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ResolvesServerCert for Keys {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let stranger = hello.alpn().is_some_and(|mut names| names.any(|name| name == STRANGER));
        let held = self.held();
        Some(Arc::clone(if stranger { &held.with_authority } else { &held.own }))
    }
}

/// How connections are accepted. With `strangers`, TLS lets in who shows no certificate; what such a
/// connection may be used for is decided where it is verified.
pub(crate) fn server_tls(
    credentials: &Credentials,
    keys: Arc<Keys>,
    protocols: Protocols,
    strangers: bool,
) -> Result<rustls::ServerConfig, String> {
    let mut verifier =
        WebPkiClientVerifier::builder_with_provider(Arc::clone(&credentials.roots), provider());
    if strangers {
        verifier = verifier.allow_unauthenticated();
    }
    let verifier = verifier.build().map_err(|error| error.to_string())?;
    let mut config = rustls::ServerConfig::builder_with_details(provider(), Arc::new(NodeClock))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| error.to_string())?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(keys);
    config.alpn_protocols = accepted(protocols, strangers);
    // No early data and no tickets: every connection proves its certificate anew.
    config.max_early_data_size = 0;
    config.send_tls13_tickets = 0;
    Ok(config)
}

fn client_tls(credentials: &Credentials) -> Result<rustls::ClientConfig, String> {
    let mut config = rustls::ClientConfig::builder_with_details(provider(), Arc::new(NodeClock))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| error.to_string())?
        .with_root_certificates(Arc::clone(&credentials.roots))
        .with_client_auth_cert(credentials.chain.clone(), credentials.key.clone_key())
        .map_err(|error| error.to_string())?;
    config.enable_early_data = false;
    config.resumption = Resumption::disabled();
    Ok(config)
}
