//! Certificates that count no more: `revoked.json` in the folder of certificates.
//!
//! Whoever may write there revokes; every endpoint of the folder looks at the file again and again
//! and lets nobody in, or stay, whose certificate is named. Beside it, `revoked_names.json` names those
//! for whom nothing is signed either, until somebody lets them in again ([`readmit`], or a new key made in
//! the folder). Whoever changes one of the two files, or signs, holds the folder's lock: nobody slips
//! through in between.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crrl_types::{Digest, NodeName};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::authority::{AuthorityError, alone, write_secret};
use crate::identity::Facts;

const FILE: &str = "revoked.json";
/// Names nothing is signed for. No earlier build knows it.
const NAMES: &str = "revoked_names.json";
/// Every certificate that was issued, a line each: what a name has to lose when it is revoked.
const ISSUED: &str = "issued.jsonl";
/// Time between two looks at the file.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Time between two looks at whether the certificate of an open connection was revoked.
const CUT_EVERY: Duration = Duration::from_secs(1);

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

/// Names that were revoked, to when, in milliseconds since the Unix epoch.
type Names = BTreeMap<NodeName, u64>;

/// Reads the list of a folder; empty where nothing was ever revoked.
///
/// # Errors
/// A file that is there and cannot be read.
pub fn revoked(dir: &Path) -> Result<RevokedList, AuthorityError> {
    read(dir.join(FILE))
}

/// Whether nothing is signed for a name.
///
/// # Errors
/// A file that is there and cannot be read.
pub fn is_revoked(dir: &Path, name: &NodeName) -> Result<bool, AuthorityError> {
    Ok(names(dir)?.contains_key(name))
}

fn names(dir: &Path) -> Result<Names, AuthorityError> {
    read(dir.join(NAMES))
}

fn read<T: Default + DeserializeOwned>(path: PathBuf) -> Result<T, AuthorityError> {
    match fs::read(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(T::default()),
        Err(source) => Err(AuthorityError::File { path, source }),
        Ok(bytes) => serde_json::from_slice(&bytes)
            .map_err(|error| AuthorityError::File { path, source: std::io::Error::other(error) }),
    }
}

fn write<T: Serialize>(path: PathBuf, content: &T) -> Result<(), AuthorityError> {
    let written = serde_json::to_vec_pretty(content).map_err(std::io::Error::other);
    let written = written.and_then(|json| write_secret(&path, &json));
    written.map_err(|source| AuthorityError::File { path, source })
}

/// Revokes a certificate. Its owner may be given another.
///
/// # Errors
/// The list cannot be read or written.
pub fn revoke(dir: &Path, fingerprint: Digest, name: &NodeName) -> Result<(), AuthorityError> {
    let _alone = alone(dir)?;
    add(dir, &[fingerprint], name).map(drop)
}

/// Adds certificates of a name to the list, by whoever holds the lock; how many were not there yet.
fn add(dir: &Path, fingerprints: &[Digest], name: &NodeName) -> Result<usize, AuthorityError> {
    let mut list = revoked(dir)?;
    let (before, at_ms) = (list.len(), crrl_machine::clock::unix_ms());
    for fingerprint in fingerprints {
        list.entry(fingerprint.to_string()).or_insert(Revoked { name: name.clone(), at_ms });
    }
    let count = list.len() - before;
    if count > 0 {
        write(dir.join(FILE), &list)?;
    }
    Ok(count)
}

/// Lets a name that was revoked be signed for again. Certificates it had count no more all the same.
///
/// # Errors
/// The list cannot be read or written.
pub fn readmit(dir: &Path, name: &NodeName) -> Result<(), AuthorityError> {
    let _alone = alone(dir)?;
    readmit_alone(dir, name)
}

/// As [`readmit`], by whoever holds the lock.
pub(crate) fn readmit_alone(dir: &Path, name: &NodeName) -> Result<(), AuthorityError> {
    let mut names = names(dir)?;
    match names.remove(name) {
        Some(_) => write(dir.join(NAMES), &names),
        None => Ok(()),
    }
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

/// Revokes a name: every certificate of it that has not expired, the one in the folder and those it had
/// before, and whatever it may ask for until it is let in again. How many certificates.
///
/// # Errors
/// A list cannot be read or written.
pub fn revoke_all(dir: &Path, name: &NodeName, now_s: i64) -> Result<usize, AuthorityError> {
    let _alone = alone(dir)?;
    let mut names = names(dir)?;
    names.entry(name.clone()).or_insert_with(crrl_machine::clock::unix_ms);
    write(dir.join(NAMES), &names)?;
    let mut all = issued(dir, name, now_s)?;
    let held = fs::read(dir.join(format!("{name}.pem"))).ok();
    let held = held.and_then(|pem| Facts::from_pem(&pem).ok()).map(|facts| facts.fingerprint);
    all.extend(held);
    add(dir, &all, name)
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

    /// Resolves once a certificate counts no more, within two seconds. For connections that are open.
    pub async fn until_revoked(&self, fingerprint: Digest) {
        while !self.contains(fingerprint) {
            tokio::time::sleep(CUT_EVERY).await;
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Threads that revoke at once, and how many names each.
    const AT_ONCE: usize = 8;
    const NAMES_EACH: usize = 5;

    #[test]
    fn of_many_that_are_revoked_at_once_none_is_forgotten() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        std::thread::scope(|scope| {
            for thread in 0..AT_ONCE {
                let dir = folder.path();
                scope.spawn(move || {
                    for n in 0..NAMES_EACH {
                        let name = NodeName::from(format!("node-{thread}-{n}"));
                        let fingerprint = Digest::of(name.as_str().as_bytes());
                        revoke(dir, fingerprint, &name).expect("writable");
                        revoke_all(dir, &name, 0).expect("writable");
                    }
                });
            }
        });
        assert_eq!(revoked(folder.path()).expect("readable").len(), AT_ONCE * NAMES_EACH);
        assert_eq!(names(folder.path()).expect("readable").len(), AT_ONCE * NAMES_EACH);
    }
}
