//! The cluster's certificate authority, and what it issues.
//!
//! A folder holds `ca.pem`, `ca.key`, and for each member `NAME.pem`, `NAME.key`, `NAME.seed`. Keys
//! and seeds are readable by their owner alone. Whoever makes some holds `lock`.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crrl_machine::{Lock, clock};
use crrl_types::NodeName;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PublicKeyData as _, SanType,
};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use time::{Duration, OffsetDateTime};

use crate::entropy::random_bytes;
use crate::identity::{Facts, Identity, ROLE_PREFIX};
use crate::revocation::{is_revoked, note_issued, readmit_alone};
use crate::stranger::{Pin, pin};

/// Bytes of a member's seed, from which the keys of its endpoint are derived.
pub(crate) const SEED_BYTES: usize = 32;
/// A certificate of which less than this part of its time is left is issued anew before a node starts
/// with it, and asked for anew by a node that runs.
const RENEW_AT: i32 = 3;
/// A certificate that was issued for longer than is wanted now by more than this is issued anew.
const SAME_VALIDITY: Duration = Duration::hours(1);
/// Another process makes a certificate in some milliseconds; one that stands still keeps others from it
/// for no longer than this.
const ALONE_WAIT: std::time::Duration = std::time::Duration::from_secs(10);
/// Clocks of two machines may differ by this much.
const CLOCK_SLACK: Duration = Duration::days(1);

/// How long a certificate is valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity(Duration);

impl Validity {
    /// For the life of a run folder.
    pub const RUN: Self = Self(Duration::days(3650));

    /// For so many hours; at least one.
    #[must_use]
    pub fn hours(hours: u32) -> Self {
        Self(Duration::hours(i64::from(hours.max(1))))
    }

    /// For so long; at least a second.
    #[must_use]
    pub fn of(time: std::time::Duration) -> Self {
        Self(Duration::try_from(time).unwrap_or(Duration::MAX).clamp(Duration::SECOND, Self::RUN.0))
    }

    /// How much may be left of a certificate before it is asked for anew.
    #[must_use]
    pub fn renewed_at(self) -> std::time::Duration {
        (self.0 / RENEW_AT).unsigned_abs()
    }
}

/// A failure to make or read certificates.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// A file or folder.
    #[error("cannot write or read {path}: {source}", path = .path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A certificate or key.
    #[error("cannot make a certificate for {what}: {source}")]
    Certificate {
        /// For whom.
        what: String,
        /// Why.
        source: rcgen::Error,
    },
    /// Nobody signs for it any more.
    #[error(
        "{0} was revoked, and nothing is signed for it: `crrl cluster invite {0}` lets it in again, \
         `crrl tls issue {0} --role ROLE` a node that the cluster starts on another machine or in a \
         container"
    )]
    Revoked(NodeName),
}

/// The authority, ready to issue.
#[derive(Debug)]
pub struct Authority {
    dir: PathBuf,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    /// Reads the authority in `dir`, or makes one.
    ///
    /// # Errors
    /// [`AuthorityError`], naming the file.
    pub fn open_or_create(dir: &Path) -> Result<Self, AuthorityError> {
        let file = |path: &Path| {
            let path = path.to_owned();
            move |source| AuthorityError::File { path, source }
        };
        fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(file(dir))?;
        let _alone = alone(dir)?;
        let (cert_path, key_path) = (dir.join("ca.pem"), dir.join("ca.key"));
        let wrap = |source| AuthorityError::Certificate { what: "the authority".into(), source };
        if !cert_path.exists() {
            let key = KeyPair::generate().map_err(wrap)?;
            let params = authority_params();
            let cert = params.self_signed(&key).map_err(wrap)?;
            write_secret(&key_path, key.serialize_pem().as_bytes()).map_err(file(&key_path))?;
            write_secret(&cert_path, cert.pem().as_bytes()).map_err(file(&cert_path))?;
        }
        let cert = fs::read_to_string(&cert_path).map_err(file(&cert_path))?;
        let key = fs::read_to_string(&key_path).map_err(file(&key_path))?;
        let key = KeyPair::from_pem(&key).map_err(wrap)?;
        let issuer = Issuer::from_ca_cert_pem(&cert, key).map_err(wrap)?;
        Ok(Self { dir: dir.to_owned(), issuer })
    }

    /// As [`Authority::issue_for`], for the life of a run folder.
    ///
    /// # Errors
    /// [`AuthorityError`], naming the file.
    pub fn issue(&self, name: &NodeName, roles: &[String]) -> Result<(), AuthorityError> {
        self.issue_for(name, roles, Validity::RUN)
    }

    /// Makes sure that `name` has a certificate for exactly these roles and no longer than that; a
    /// new one is issued where it has none, another, or one that was revoked, has expired or soon
    /// will.
    ///
    /// # Errors
    /// [`AuthorityError`], naming the file.
    pub fn issue_for(
        &self,
        name: &NodeName,
        roles: &[String],
        validity: Validity,
    ) -> Result<(), AuthorityError> {
        let _alone = alone(&self.dir)?;
        let path = |suffix: &str| self.dir.join(format!("{name}.{suffix}"));
        let wanted = Identity { name: name.clone(), roles: roles.to_vec() };
        let held = fs::read(path("pem")).ok().and_then(|pem| Facts::from_pem(&pem).ok());
        let whole = path("key").exists() && path("seed").exists();
        let revoked = crate::revocation::revoked(&self.dir)?;
        let counts = |facts: &Facts| !revoked.contains_key(&facts.fingerprint.to_string());
        let now = OffsetDateTime::from(clock::now());
        let soon = (now + validity.renewed_at()).unix_timestamp();
        let late = (now + validity.0 + SAME_VALIDITY).unix_timestamp();
        let good = |held: &Facts| {
            let in_time = (soon + 1..=late).contains(&held.valid_until_s);
            held.identity == wanted && in_time && counts(held)
        };
        if held.as_ref().is_some_and(good) && whole {
            return Ok(());
        }
        self.make(name, roles, validity)
    }

    /// Issues a new key and certificate, whatever `name` had before. One that was revoked is let in again.
    ///
    /// # Errors
    /// [`AuthorityError`], naming the file.
    pub fn issue_anew(
        &self,
        name: &NodeName,
        roles: &[String],
        validity: Validity,
    ) -> Result<(), AuthorityError> {
        let _alone = alone(&self.dir)?;
        self.make(name, roles, validity)
    }

    fn make(
        &self,
        name: &NodeName,
        roles: &[String],
        validity: Validity,
    ) -> Result<(), AuthorityError> {
        let path = |suffix: &str| self.dir.join(format!("{name}.{suffix}"));
        let wrap = |source| AuthorityError::Certificate { what: name.to_string(), source };
        let key = KeyPair::generate().map_err(wrap)?;
        let cert = member_params(name, roles, validity)
            .and_then(|params| params.signed_by(&key, &self.issuer))
            .map_err(wrap)?;
        note_issued(&self.dir, name, &Facts::from_der(cert.der()).map_err(odd(name))?)?;
        // What is made here was asked for by whoever owns the authority.
        readmit_alone(&self.dir, name)?;
        let seed = random_bytes::<SEED_BYTES>().map_err(|error| AuthorityError::File {
            path: path("seed"),
            source: std::io::Error::other(error),
        })?;
        let files = [
            ("key", key.serialize_pem().into_bytes()),
            ("pem", cert.pem().into_bytes()),
            ("seed", seed.to_vec()),
        ];
        for (suffix, content) in files {
            write_secret(&path(suffix), &content)
                .map_err(|source| AuthorityError::File { path: path(suffix), source })?;
        }
        Ok(())
    }

    /// What the authority of a folder is known by to those that hold a token.
    ///
    /// # Errors
    /// Its certificate cannot be read.
    pub fn pin_of(dir: &Path) -> Result<Pin, AuthorityError> {
        let path = dir.join("ca.pem");
        let pem = fs::read(&path)
            .and_then(|pem| CertificateDer::from_pem_slice(&pem).map_err(std::io::Error::other));
        let der = pem.map_err(|source| AuthorityError::File { path, source })?;
        Ok(pin(&der))
    }

    /// The public key somebody asks a certificate for.
    ///
    /// # Errors
    /// It is no request, or its owner has not got the key.
    pub fn key_of(request: &str) -> Result<Vec<u8>, AuthorityError> {
        let wrap = |source| AuthorityError::Certificate { what: "a request".into(), source };
        let asked = CertificateSigningRequestParams::from_pem(request).map_err(wrap)?;
        Ok(asked.public_key.der_bytes().to_vec())
    }

    /// Signs what somebody asks for with a key of their own. Of the request only the key counts: who
    /// its owner is, is for the caller to know. Gives the certificate, in PEM.
    ///
    /// # Errors
    /// [`AuthorityError`]: it is no request, its owner has not got the key, or `name` was revoked.
    pub fn sign(
        &self,
        request: &str,
        name: &NodeName,
        roles: &[String],
        validity: Validity,
    ) -> Result<String, AuthorityError> {
        let wrap = |source| AuthorityError::Certificate { what: name.to_string(), source };
        let asked = CertificateSigningRequestParams::from_pem(request).map_err(wrap)?;
        // Whoever revokes holds it too: either it sees what is noted below, or its list is seen here.
        let _alone = alone(&self.dir)?;
        if is_revoked(&self.dir, name)? {
            return Err(AuthorityError::Revoked(name.clone()));
        }
        let cert = member_params(name, roles, validity)
            .and_then(|params| params.signed_by(&asked.public_key, &self.issuer))
            .map_err(wrap)?;
        note_issued(&self.dir, name, &Facts::from_der(cert.der()).map_err(odd(name))?)?;
        // Where the key is in this folder, its owner keeps the certificate beside it.
        if !self.dir.join(format!("{name}.key")).exists() {
            let path = self.dir.join(format!("{name}.pem"));
            write_secret(&path, cert.pem().as_bytes())
                .map_err(|source| AuthorityError::File { path, source })?;
        }
        Ok(cert.pem())
    }
}

/// A certificate that was just made and cannot be read.
fn odd(name: &NodeName) -> impl FnOnce(crate::identity::CredentialsError) -> AuthorityError {
    let path = PathBuf::from(format!("{name}.pem"));
    move |error| AuthorityError::File { path, source: std::io::Error::other(error) }
}

fn authority_params() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "crrl cluster authority");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    set_validity(&mut params, Validity::RUN);
    params
}

fn member_params(
    name: &NodeName,
    roles: &[String],
    validity: Validity,
) -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name.as_str());
    params.subject_alt_names.push(SanType::DnsName(name.as_str().try_into()?));
    for role in roles {
        params.subject_alt_names.push(SanType::URI(format!("{ROLE_PREFIX}{role}").try_into()?));
    }
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params.use_authority_key_identifier_extension = true;
    set_validity(&mut params, validity);
    Ok(params)
}

fn set_validity(params: &mut CertificateParams, validity: Validity) {
    let now = OffsetDateTime::from(clock::now());
    params.not_before = now - CLOCK_SLACK;
    params.not_after = now + validity.0;
}

/// Waits until nobody else makes or revokes certificates in this folder, and keeps others from it until what
/// is given is dropped: key, certificate and seed of a name belong together. `None` where this process
/// may write nothing here.
pub(crate) fn alone(dir: &Path) -> Result<Option<Lock>, AuthorityError> {
    use std::io::ErrorKind::{PermissionDenied, ReadOnlyFilesystem, TimedOut};
    let path = dir.join("lock");
    match Lock::wait(&path, ALONE_WAIT) {
        Ok(Ok(lock)) => Ok(Some(lock)),
        Ok(Err(pid)) => {
            let says = format!("process {pid} has been making certificates there for too long");
            let source = std::io::Error::new(TimedOut, says);
            Err(AuthorityError::File { path, source })
        }
        Err(error) if matches!(error.kind(), PermissionDenied | ReadOnlyFilesystem) => Ok(None),
        Err(source) => Err(AuthorityError::File { path, source }),
    }
}

/// Writes a file only its owner may read: whole, or not at all.
pub(crate) fn write_secret(path: &Path, content: &[u8]) -> std::io::Result<()> {
    // Of this process alone, and of this file.
    let suffix = path.extension().unwrap_or_default().to_string_lossy();
    let temporary = path.with_extension(format!("{suffix}.{}.tmp", std::process::id()));
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file =
        fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(&temporary, path)
}
