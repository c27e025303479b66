//! A key that was made here, and the certificate that is asked for it. The key never travels.
//!
//! `NAME.key.new` waits beside `NAME.key` until its certificate is there. The certificate is written
//! first and the key moved then; whoever is interrupted between the two finishes it at its next
//! start ([`crate::Credentials::load`]).

use std::fs;
use std::path::{Path, PathBuf};

use crrl_types::NodeName;
use rcgen::{CertificateParams, DnType, KeyPair};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::authority::{AuthorityError, SEED_BYTES, write_secret};
use crate::entropy::random_bytes;

/// A key that waits for its certificate.
#[derive(Debug)]
pub struct Pending {
    dir: PathBuf,
    name: NodeName,
    request: String,
}

fn waiting(dir: &Path, name: &NodeName) -> PathBuf {
    dir.join(format!("{name}.key.new"))
}

fn file(path: &Path) -> impl FnOnce(std::io::Error) -> AuthorityError {
    let path = path.to_owned();
    move |source| AuthorityError::File { path, source }
}

impl Pending {
    /// The key that waits in a folder; a new one where none does, on disk before it is used.
    ///
    /// # Errors
    /// [`AuthorityError`], naming the file.
    pub fn open(dir: &Path, name: &NodeName) -> Result<Self, AuthorityError> {
        let wrap = |source| AuthorityError::Certificate { what: name.to_string(), source };
        let path = waiting(dir, name);
        let held = fs::read_to_string(&path).ok().and_then(|pem| KeyPair::from_pem(&pem).ok());
        let key = match held {
            Some(key) => key,
            None => {
                let key = KeyPair::generate().map_err(wrap)?;
                write_secret(&path, key.serialize_pem().as_bytes()).map_err(file(&path))?;
                key
            }
        };
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name.as_str());
        let request =
            params.serialize_request(&key).and_then(|request| request.pem()).map_err(wrap)?;
        Ok(Self { dir: dir.to_owned(), name: name.clone(), request })
    }

    /// What is sent to the authority: the public key, signed with the private one.
    #[must_use]
    pub fn request(&self) -> &str {
        &self.request
    }

    /// Takes the certificate up. A node that has none yet gets a seed as well.
    ///
    /// # Errors
    /// The certificate is for another key, or a file cannot be written.
    pub fn adopt(self, certificate: &str) -> Result<(), AuthorityError> {
        let Self { dir, name, .. } = &self;
        let path = dir.join(format!("{name}.pem"));
        let foreign = || std::io::Error::other("the certificate is for another key");
        let held = fs::read_to_string(waiting(dir, name)).map_err(file(&waiting(dir, name)))?;
        let key = KeyPair::from_pem(&held)
            .map_err(|source| AuthorityError::Certificate { what: name.to_string(), source })?;
        let der = <rustls::pki_types::CertificateDer<'_> as rustls::pki_types::pem::PemObject>
            ::from_pem_slice(certificate.as_bytes())
            .map_err(|error| file(&path)(std::io::Error::other(error)))?;
        if !goes_with(&key, &der) {
            return Err(file(&path)(foreign()));
        }
        let seed_path = dir.join(format!("{name}.seed"));
        if !seed_path.exists() {
            let seed = random_bytes::<SEED_BYTES>()
                .map_err(|error| file(&seed_path)(std::io::Error::other(error)))?;
            write_secret(&seed_path, &seed).map_err(file(&seed_path))?;
        }
        write_secret(&path, certificate.as_bytes()).map_err(file(&path))?;
        let key_path = dir.join(format!("{name}.key"));
        fs::rename(waiting(dir, name), &key_path).map_err(file(&key_path))
    }
}

/// Moves a key whose certificate is there already to its place.
pub(crate) fn finish(dir: &Path, name: &NodeName, certificate: &[u8]) {
    let path = waiting(dir, name);
    let key = fs::read_to_string(&path).ok().and_then(|pem| KeyPair::from_pem(&pem).ok());
    if key.is_some_and(|key| goes_with(&key, certificate)) {
        // Where it cannot be moved, the old key is read and refused with its name.
        let _ = fs::rename(&path, dir.join(format!("{name}.key")));
    }
}

fn goes_with(key: &KeyPair, certificate: &[u8]) -> bool {
    let parsed = X509Certificate::from_der(certificate);
    parsed.is_ok_and(|(_, certificate)| {
        certificate.public_key().subject_public_key.data.as_ref() == key.public_key_raw()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Authority, Credentials, Validity};

    fn world() -> (tempfile::TempDir, tempfile::TempDir, Authority, NodeName) {
        let (there, here) = (tempfile::tempdir(), tempfile::tempdir());
        let (there, here) = (there.expect("a folder"), here.expect("a folder"));
        let authority = Authority::open_or_create(there.path()).expect("can be made");
        fs::copy(there.path().join("ca.pem"), here.path().join("ca.pem")).expect("can be copied");
        (there, here, authority, "guest".into())
    }

    #[test]
    fn a_key_made_here_gets_a_certificate_made_there() {
        let (there, here, authority, name) = world();
        let pending = Pending::open(here.path(), &name).expect("can be made");
        let asked = pending.request().to_owned();
        assert!(!asked.contains("PRIVATE"), "the key travels");
        let roles = ["rollout".to_owned()];
        let signed = authority.sign(&asked, &name, &roles, Validity::hours(1)).expect("is one");
        pending.adopt(&signed).expect("is for this key");
        let credentials = Credentials::load(here.path(), &name).expect("is whole");
        assert_eq!(credentials.identity.roles, roles);
        assert!(!there.path().join("guest.key").exists());
        let error = authority.sign("hello", &name, &roles, Validity::RUN).expect_err("is none");
        assert!(error.to_string().contains("guest"), "{error}");
    }

    #[test]
    fn what_a_request_says_of_its_owner_counts_for_nothing() {
        let (_there, _here, authority, name) = world();
        let mut params = CertificateParams::new(vec!["coordinator".to_owned()]).expect("a name");
        let role = format!("{}coordinator", crate::identity::ROLE_PREFIX);
        params.subject_alt_names.push(rcgen::SanType::URI(role.try_into().expect("ASCII")));
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("can be made");
        let request = params.serialize_request(&key).and_then(|request| request.pem());
        let request = request.expect("can be asked");
        let roles = ["rollout".to_owned()];
        let signed = authority.sign(&request, &name, &roles, Validity::hours(1)).expect("is one");
        let facts = crate::Facts::from_pem(signed.as_bytes()).expect("a certificate");
        assert_eq!((facts.identity.name, &facts.identity.roles[..]), (name, &roles[..]));
        let der = pem_der(&signed);
        let (_, parsed) = X509Certificate::from_der(&der).expect("a certificate");
        assert!(!parsed.is_ca(), "whoever asked may sign");
    }

    fn pem_der(pem: &str) -> Vec<u8> {
        <rustls::pki_types::CertificateDer<'_> as rustls::pki_types::pem::PemObject>
            ::from_pem_slice(pem.as_bytes())
            .expect("is PEM")
            .to_vec()
    }

    #[test]
    fn whoever_was_interrupted_between_certificate_and_key_finishes_it() {
        let (_there, here, authority, name) = world();
        let renew = || {
            let pending = Pending::open(here.path(), &name).expect("can be made");
            let signed = authority.sign(pending.request(), &name, &[], Validity::hours(1));
            (pending, signed.expect("is one"))
        };
        let (pending, first) = renew();
        pending.adopt(&first).expect("is for this key");
        let (_pending, second) = renew();
        // The certificate was written; then the power went.
        fs::write(here.path().join("guest.pem"), &second).expect("writable");
        Credentials::load(here.path(), &name).expect("is whole");
        assert!(!here.path().join("guest.key.new").exists());
    }
}
