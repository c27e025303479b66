//! Certificates that count no more: `revoked.json` in the folder of certificates.
//!
//! Whoever may write there revokes; every endpoint of the folder looks at the file again and again
//! and lets nobody in, or stay, whose certificate is named.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crrl_types::{Digest, NodeName};
use serde::{Deserialize, Serialize};

use crate::authority::{AuthorityError, write_secret};
use crate::identity::Facts;

const FILE: &str = "revoked.json";
/// Every certificate that was issued, a line each: what a name has to lose when it is revoked.
const ISSUED: &str = "issued.jsonl";
/// Looks for certificates that were issued while others of their name were revoked.
const REVOKED_AGAIN_MAX: usize = 8;
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

#[derive(Debug, Serialize, Deserialize)]
struct Issued {
    name: NodeName,
    fingerprint: String,
    valid_until_s: i64,
}

/// Notes that a certificate was issued; on disk before anybody gets it.
pub(crate) fn note_issued(
    dir: &Path,
    name: &NodeName,
    facts: &Facts,
) -> Result<(), AuthorityError> {
    let path = dir.join(ISSUED);
    let line = Issued {
        name: name.clone(),
        fingerprint: facts.fingerprint.to_string(),
        valid_until_s: facts.valid_until_s,
    };
    let written = serde_json::to_string(&line).map_err(std::io::Error::other).and_then(|line| {
        let mut file = fs::OpenOptions::new().append(true).create(true).mode(0o600).open(&path)?;
        // One write, so that two processes do not mix their lines.
        file.write_all(format!("{line}\n").as_bytes())?;
        file.sync_all()
    });
    written.map_err(|source| AuthorityError::File { path, source })
}

/// Fingerprints of every certificate a name was issued that has not expired at `now_s`.
///
/// # Errors
/// The list is there and cannot be read.
pub fn issued(dir: &Path, name: &NodeName, now_s: i64) -> Result<Vec<Digest>, AuthorityError> {
    let path = dir.join(ISSUED);
    let text = match fs::read_to_string(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.map_err(|source| AuthorityError::File { path, source })?,
    };
    // A line that was cut by a crash names a certificate nobody was given.
    let lines = text.lines().filter_map(|line| serde_json::from_str::<Issued>(line).ok());
    let valid = lines.filter(|line| line.name == *name && line.valid_until_s >= now_s);
    Ok(valid.filter_map(|line| line.fingerprint.parse().ok()).collect())
}

/// Revokes every certificate of a name that has not expired: the one in the folder, and those it had
/// before or was given meanwhile. How many.
///
/// # Errors
/// A list cannot be read or written.
pub fn revoke_all(dir: &Path, name: &NodeName, now_s: i64) -> Result<usize, AuthorityError> {
    let mut count = 0;
    // Again until nothing new is there: one may be renewed at this moment. Whoever renews looks at
    // the revoked after it has noted what it issued, so one of the two sees the other.
    for _ in 0..REVOKED_AGAIN_MAX {
        let list = revoked(dir)?;
        let mut all = issued(dir, name, now_s)?;
        let held = fs::read(dir.join(format!("{name}.pem"))).ok();
        let held = held.and_then(|pem| Facts::from_pem(&pem).ok()).map(|facts| facts.fingerprint);
        all.extend(held.filter(|held| !all.contains(held)));
        all.retain(|fingerprint| !list.contains_key(&fingerprint.to_string()));
        if all.is_empty() {
            break;
        }
        for fingerprint in all {
            revoke(dir, fingerprint, name)?;
            count += 1;
        }
    }
    Ok(count)
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
        self.look(fingerprint, LOOK_EVERY)
    }

    /// As [`Revocations::contains`], by the list as it is at this moment.
    #[must_use]
    pub fn now_contains(&self, fingerprint: Digest) -> bool {
        self.look(fingerprint, Duration::ZERO)
    }

    fn look(&self, fingerprint: Digest, every: Duration) -> bool {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if held.looked.is_none_or(|at| at.elapsed() >= every) {
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
