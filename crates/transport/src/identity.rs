//! Who a certificate says its holder is, and credentials read from a folder.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crrl_types::{Digest, NodeName};
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use crate::authority::SEED_BYTES;
use crate::request;
use crate::revocation::Revocations;

/// A role is written as a URI among the subject's alternative names.
pub(crate) const ROLE_PREFIX: &str = "crrl:role:";

/// Name and roles, out of a certificate that was verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The one DNS name among the subject's alternative names.
    pub name: NodeName,
    /// Its roles, in the certificate's order.
    pub roles: Vec<String>,
}

/// Credentials that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    /// A file.
    #[error("cannot read {path}: {source}", path = .path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Content of a file, or of a peer's certificate.
    #[error("{what}: {message}")]
    Content {
        /// Which.
        what: String,
        /// What is wrong with it.
        message: String,
    },
}

impl Identity {
    /// Reads a certificate.
    ///
    /// # Errors
    /// Not a certificate of ours: none or several names.
    pub fn from_der(der: &[u8]) -> Result<Self, CredentialsError> {
        let refuse = |message: &str| CredentialsError::Content {
            what: "certificate".into(),
            message: message.into(),
        };
        let (_, certificate) =
            X509Certificate::from_der(der).map_err(|_| refuse("cannot be parsed"))?;
        let names = certificate
            .subject_alternative_name()
            .ok()
            .flatten()
            .ok_or_else(|| refuse("has no subject alternative name"))?;
        let mut name = None;
        let mut roles = Vec::new();
        for general in &names.value.general_names {
            match general {
                GeneralName::DNSName(dns) if name.replace(NodeName::from(*dns)).is_some() => {
                    return Err(refuse("has more than one name"));
                }
                GeneralName::URI(uri) => {
                    roles.extend(uri.strip_prefix(ROLE_PREFIX).map(str::to_owned));
                }
                _ => {}
            }
        }
        Ok(Self { name: name.ok_or_else(|| refuse("has no name"))?, roles })
    }

    /// As [`Identity::from_der`], of the first certificate of a PEM file.
    ///
    /// # Errors
    /// Not a certificate of ours.
    pub fn from_pem(pem: &[u8]) -> Result<Self, CredentialsError> {
        let der = CertificateDer::from_pem_slice(pem).map_err(|error| {
            CredentialsError::Content { what: "certificate".into(), message: error.to_string() }
        })?;
        Self::from_der(&der)
    }
}

/// What a certificate says of itself, its holder's identity included.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// Whose.
    pub identity: Identity,
    /// BLAKE3 of the certificate.
    pub fingerprint: Digest,
    /// Last second it is valid, since the Unix epoch.
    pub valid_until_s: i64,
}

impl Facts {
    /// Reads the first certificate of a PEM file.
    ///
    /// # Errors
    /// Not a certificate of ours.
    pub fn from_pem(pem: &[u8]) -> Result<Self, CredentialsError> {
        let refuse =
            |message: String| CredentialsError::Content { what: "certificate".into(), message };
        let der = CertificateDer::from_pem_slice(pem).map_err(|error| refuse(error.to_string()))?;
        Self::from_der(&der)
    }

    /// Reads a certificate.
    ///
    /// # Errors
    /// Not a certificate of ours.
    pub fn from_der(der: &[u8]) -> Result<Self, CredentialsError> {
        let refuse =
            |message: String| CredentialsError::Content { what: "certificate".into(), message };
        let (_, certificate) =
            X509Certificate::from_der(der).map_err(|_| refuse("cannot be parsed".into()))?;
        Ok(Self {
            identity: Identity::from_der(der)?,
            fingerprint: Digest::of(der),
            valid_until_s: certificate.validity().not_after.timestamp(),
        })
    }
}

/// What a member proves itself with, and what it trusts.
#[derive(Debug)]
pub struct Credentials {
    /// Who the certificate says we are.
    pub identity: Identity,
    /// Last second the certificate is valid, since the Unix epoch.
    pub valid_until_s: i64,
    pub(crate) authority: CertificateDer<'static>,
    pub(crate) chain: Vec<CertificateDer<'static>>,
    pub(crate) key: PrivateKeyDer<'static>,
    pub(crate) roots: Arc<RootCertStore>,
    pub(crate) seed: [u8; SEED_BYTES],
    pub(crate) revocations: Revocations,
}

impl Credentials {
    /// Reads `ca.pem`, `NAME.pem`, `NAME.key` and `NAME.seed` from a folder.
    ///
    /// # Errors
    /// [`CredentialsError`], naming the file.
    pub fn load(dir: &Path, name: &NodeName) -> Result<Self, CredentialsError> {
        let read = |file: String| {
            let path = dir.join(file);
            fs::read(&path).map_err(|source| CredentialsError::File { path, source })
        };
        let content =
            |what: String| move |message: String| CredentialsError::Content { what, message };
        let mut roots = RootCertStore::empty();
        let authority = CertificateDer::from_pem_slice(&read("ca.pem".into())?)
            .map_err(|error| content("ca.pem".into())(error.to_string()))?;
        roots
            .add(authority.clone())
            .map_err(|error| content("ca.pem".into())(error.to_string()))?;
        let chain = CertificateDer::from_pem_slice(&read(format!("{name}.pem"))?)
            .map_err(|error| content(format!("{name}.pem"))(error.to_string()))?;
        // Whoever was interrupted while it took a new certificate up has the key beside it.
        request::finish(dir, name, &chain);
        let key = PrivateKeyDer::from_pem_slice(&read(format!("{name}.key"))?)
            .map_err(|error| content(format!("{name}.key"))(error.to_string()))?;
        let seed = read(format!("{name}.seed"))?.try_into().map_err(|found: Vec<u8>| {
            content(format!("{name}.seed"))(format!(
                "{} bytes instead of {SEED_BYTES}",
                found.len()
            ))
        })?;
        let facts = Facts::from_der(&chain)?;
        Ok(Self {
            identity: facts.identity,
            valid_until_s: facts.valid_until_s,
            authority,
            chain: vec![chain],
            key,
            roots: Arc::new(roots),
            seed,
            revocations: Revocations::of(dir),
        })
    }
}
