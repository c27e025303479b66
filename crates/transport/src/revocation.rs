//! Certificates that count no more: `revoked.json` in the folder of certificates.
//!
//! Whoever may write there revokes; every endpoint of the folder looks at the file again and again
//! and lets nobody in, or stay, whose certificate is named.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crrl_types::{Digest, NodeName};
use serde::{Deserialize, Serialize};

use crate::authority::{AuthorityError, write_secret};

const FILE: &str = "revoked.json";
/// Time between two looks at the file.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// A revoked certificate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revoked {
    /// Whose it was.
    pub name: NodeName,
    /// When, in milliseconds since the Unix epoch.
    pub at_ms: u64,
}

/// BLAKE3 of the certificate, to what is known of its revocation.
pub type RevokedList = BTreeMap<String, Revoked>;

/// Reads the list of a folder; empty where nothing was ever revoked.
///
/// # Errors
/// A file that is there and cannot be read.
pub fn revoked(dir: &Path) -> Result<RevokedList, AuthorityError> {
    let path = dir.join(FILE);
    match fs::read(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(RevokedList::new()),
        Err(source) => Err(AuthorityError::File { path, source }),
        Ok(bytes) => serde_json::from_slice(&bytes)
            .map_err(|error| AuthorityError::File { path, source: std::io::Error::other(error) }),
    }
}

/// Revokes a certificate.
///
/// # Errors
/// The list cannot be read or written.
pub fn revoke(dir: &Path, fingerprint: Digest, name: &NodeName) -> Result<(), AuthorityError> {
    let mut list = revoked(dir)?;
    let at_ms = crrl_machine::clock::unix_ms();
    list.entry(fingerprint.to_string()).or_insert(Revoked { name: name.clone(), at_ms });
    let path = dir.join(FILE);
    let json = serde_json::to_vec_pretty(&list).map_err(|error| AuthorityError::File {
        path: path.clone(),
        source: std::io::Error::other(error),
    })?;
    write_secret(&path, &json).map_err(|source| AuthorityError::File { path, source })
}

/// The list of a folder as it is now, read again when it changes. Cloning gives another handle.
#[derive(Debug, Clone)]
pub struct Revocations(Arc<Mutex<Held>>);

#[derive(Debug)]
struct Held {
    dir: PathBuf,
    list: RevokedList,
    looked: Option<Instant>,
}

impl Revocations {
    /// Of a folder of certificates.
    #[must_use]
    pub fn of(dir: &Path) -> Self {
        let held = Held { dir: dir.to_owned(), list: RevokedList::new(), looked: None };
        Self(Arc::new(Mutex::new(held)))
    }

    /// Whether a certificate counts no more. A list that cannot be read is as it was.
    #[must_use]
    pub fn contains(&self, fingerprint: Digest) -> bool {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if held.looked.is_none_or(|at| at.elapsed() >= LOOK_EVERY) {
            held.looked = Some(Instant::now());
            match revoked(&held.dir) {
                Ok(list) => held.list = list,
                Err(error) => say_once(&error),
            }
        }
        held.list.contains_key(&fingerprint.to_string())
    }
}

/// A list that cannot be read is told of once: nobody can be let go of by it.
fn say_once(error: &AuthorityError) {
    static SAID: std::sync::Once = std::sync::Once::new();
    SAID.call_once(|| tracing::warn!(%error, "revoked certificates cannot be looked up"));
}
