//! Where everything of a run lies on disk.
//!
//! ```text
//! RUN/cluster.toml       the resolved configuration
//! RUN/addresses.json     where nodes listen
//! RUN/tls/               the cluster's authority, a certificate for each node and the operator
//! RUN/host.json          processes: pids, restarts, last exit
//! RUN/host.lock          pid of the host process
//! RUN/nodes/NAME.life    which life a node is in
//! RUN/nodes/NAME.phase   how far a node on another machine has come
//! RUN/nodes/NAME.restart that it is to be restarted
//! RUN/logs/NAME.log      what a node wrote
//! RUN/run.sqlite         the run store
//! RUN/checkpoints/       the learner's
//! RUN/events.jsonl       history
//! RUN/orders.jsonl       what people have asked for, and what came of it
//! ```

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

use crrl_config::{ClusterConfig, ConfigError, Overrides};
use crrl_machine::disk;
use crrl_types::NodeName;

/// Name of the operator's certificate.
pub const OPERATOR: &str = "operator";
/// Name of the certificate of somebody who may only watch.
pub const VIEWER: &str = "viewer";

/// A file of the run folder that cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[error("cannot {what} {path}: {source}", path = .path.display())]
pub struct RunDirError {
    /// `read` or `write`.
    pub what: &'static str,
    /// Which.
    pub path: PathBuf,
    /// What the system said.
    pub source: std::io::Error,
}

/// The folder of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunDir(PathBuf);

impl RunDir {
    /// A run folder at `path`; nothing is read or made.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// The folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The resolved configuration.
    #[must_use]
    pub fn config_path(&self) -> PathBuf {
        self.0.join("cluster.toml")
    }

    /// Certificates.
    #[must_use]
    pub fn tls(&self) -> PathBuf {
        self.0.join("tls")
    }

    /// Logs.
    #[must_use]
    pub fn logs(&self) -> PathBuf {
        self.0.join("logs")
    }

    /// What a node wrote.
    #[must_use]
    pub fn log(&self, node: &str) -> PathBuf {
        self.logs().join(format!("{node}.log"))
    }

    /// The host's state.
    #[must_use]
    pub fn host_state(&self) -> PathBuf {
        self.0.join("host.json")
    }

    /// Held by the host process as long as it lives.
    #[must_use]
    pub fn host_lock(&self) -> PathBuf {
        self.0.join("host.lock")
    }

    /// Where nodes listen.
    #[must_use]
    pub fn addresses_path(&self) -> PathBuf {
        self.0.join("addresses.json")
    }

    /// How far a node on another machine has come.
    #[must_use]
    pub fn phase(&self, node: &str) -> PathBuf {
        self.0.join("nodes").join(format!("{node}.phase"))
    }

    /// Is there while somebody wants a node restarted and the host has not taken it up.
    #[must_use]
    pub fn restart_wanted(&self, node: &str) -> PathBuf {
        self.0.join("nodes").join(format!("{node}.restart"))
    }

    /// The run store.
    #[must_use]
    pub fn store(&self) -> PathBuf {
        self.0.join("run.sqlite")
    }

    /// The learner's checkpoints.
    #[must_use]
    pub fn checkpoints(&self) -> PathBuf {
        self.0.join("checkpoints")
    }

    /// The run's history.
    #[must_use]
    pub fn events(&self) -> PathBuf {
        self.0.join("events.jsonl")
    }

    /// What people have asked for, and what came of it.
    #[must_use]
    pub fn orders(&self) -> PathBuf {
        self.0.join("orders.jsonl")
    }

    /// The same, before [`RunDir::orders`] was begun anew.
    #[must_use]
    pub fn orders_before(&self) -> PathBuf {
        self.0.join("orders.1.jsonl")
    }

    /// Reads the resolved configuration.
    ///
    /// # Errors
    /// As [`crrl_config::load()`].
    pub fn config(&self) -> Result<ClusterConfig, ConfigError> {
        crrl_config::load(&self.config_path(), &Overrides::default())
    }

    /// Where nodes listen, by name; empty before the first `up`.
    ///
    /// # Errors
    /// A file that is there but cannot be read.
    pub fn addresses(&self) -> Result<BTreeMap<NodeName, SocketAddr>, RunDirError> {
        let path = self.addresses_path();
        let wrap = |source| RunDirError { what: "read", path: path.clone(), source };
        match fs::read(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(BTreeMap::new()),
            Err(error) => Err(wrap(error)),
            Ok(bytes) => {
                serde_json::from_slice(&bytes).map_err(|error| wrap(std::io::Error::other(error)))
            }
        }
    }

    /// As [`RunDir::addresses`], as a process of this machine dials them: who listens on every address
    /// is reached on loopback. QUIC does not take answers from another address than it dialled.
    ///
    /// # Errors
    /// A file that is there but cannot be read.
    pub fn dialled(&self) -> Result<BTreeMap<NodeName, SocketAddr>, RunDirError> {
        let mut addresses = self.addresses()?;
        for address in addresses.values_mut().filter(|address| address.ip().is_unspecified()) {
            address.set_ip(match address {
                SocketAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
                SocketAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
            });
        }
        Ok(addresses)
    }

    /// Starts the next life of a node: one more than the last, on disk before it is returned.
    ///
    /// # Errors
    /// A file that cannot be read or written.
    pub fn next_life(&self, node: &NodeName) -> Result<u64, RunDirError> {
        let path = self.0.join("nodes").join(format!("{node}.life"));
        let last = match fs::read_to_string(&path) {
            Ok(text) => text.trim().parse::<u64>().map_err(std::io::Error::other),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(0),
            Err(error) => Err(error),
        };
        let last =
            last.map_err(|source| RunDirError { what: "read", path: path.clone(), source })?;
        let life = last.saturating_add(1);
        write_atomic(&path, life.to_string().as_bytes())?;
        Ok(life)
    }
}

/// Replaces a file: whole, on disk, or not at all.
///
/// # Errors
/// Names the file.
pub fn write_atomic(path: &Path, content: &[u8]) -> Result<(), RunDirError> {
    let wrap = |source| RunDirError { what: "write", path: path.to_owned(), source };
    let folder = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder).map_err(wrap)?;
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.tmp", std::process::id()));
    let temporary = folder.join(name);
    let written = disk::before_write()
        .and_then(|()| fs::File::create(&temporary))
        .and_then(|mut file| file.write_all(content).and_then(|()| file.sync_all()))
        .and_then(|()| fs::rename(&temporary, path))
        .and_then(|()| fs::File::open(folder)?.sync_all());
    if written.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    written.map_err(wrap)
}

/// Overwrites a file that is at least as long, which needs no room on the disk. A crash in the
/// middle leaves it torn.
///
/// # Errors
/// Names the file; it is not made if it is not there.
pub fn write_in_place(path: &Path, content: &[u8]) -> Result<(), RunDirError> {
    let written = fs::OpenOptions::new().write(true).open(path).and_then(|mut file| {
        file.write_all(content)?;
        file.set_len(content.len() as u64)?;
        file.sync_all()
    });
    written.map_err(|source| RunDirError { what: "write", path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_life_is_later_than_the_last() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let run = RunDir::new(folder.path());
        let lives: Vec<u64> =
            (0..3).map(|_| run.next_life(&"rollout-0".into()).expect("writable")).collect();
        assert_eq!(lives, [1, 2, 3]);
    }
}
