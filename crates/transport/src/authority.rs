//! The cluster's certificate authority, and what it issues.
//!
//! A folder holds `ca.pem`, `ca.key`, and for each member `NAME.pem`, `NAME.key`, `NAME.seed`. Keys
//! and seeds are readable by their owner alone.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crrl_machine::clock;
use crrl_types::NodeName;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};
use time::{Duration, OffsetDateTime};

use crate::entropy::random_bytes;
use crate::identity::{Facts, Identity, ROLE_PREFIX};

/// Bytes of a member's seed, from which the keys of its endpoint are derived.
pub(crate) const SEED_BYTES: usize = 32;
/// A certificate that is valid for less than this is issued anew before a node starts with it.
const RENEW_BEFORE: Duration = Duration::days(1);
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

    /// Makes sure that `name` has a certificate for exactly these roles; a new one is issued where
    /// it has none, another, or one that was revoked, has expired or soon will.
    ///
    /// # Errors
    /// [`AuthorityError`], naming the file.
    pub fn issue(&self, name: &NodeName, roles: &[String]) -> Result<(), AuthorityError> {
        let path = |suffix: &str| self.dir.join(format!("{name}.{suffix}"));
        let wanted = Identity { name: name.clone(), roles: roles.to_vec() };
        let held = fs::read(path("pem")).ok().and_then(|pem| Facts::from_pem(&pem).ok());
        let whole = path("key").exists() && path("seed").exists();
        let revoked = crate::revocation::revoked(&self.dir)?;
        let counts = |facts: &Facts| !revoked.contains_key(&facts.fingerprint.to_string());
        let soon = (OffsetDateTime::from(clock::now()) + RENEW_BEFORE).unix_timestamp();
        let good =
            |held: &Facts| held.identity == wanted && held.valid_until_s > soon && counts(held);
        if held.as_ref().is_some_and(good) && whole {
            return Ok(());
        }
        self.issue_anew(name, roles, Validity::RUN)
    }

    /// Issues a new key and certificate, whatever `name` had before.
    ///
    /// # Errors
    /// [`AuthorityError`], naming the file.
    pub fn issue_anew(
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

/// Writes a file only its owner may read: whole, or not at all.
pub(crate) fn write_secret(path: &Path, content: &[u8]) -> std::io::Result<()> {
    let temporary = path.with_extension("tmp");
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
