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
//! RUN/nodes/NAME.N.lift  that its fault of the number N is over
//! RUN/logs/NAME.log      what a node wrote
//! RUN/run.sqlite         the run store
//! RUN/run.sqlite.lock    held by whoever writes to it
//! RUN/ledger-copies/     last good copies of it
//! RUN/checkpoints/       the learner's
//! RUN/events.jsonl       history
//! RUN/orders.jsonl       what people have asked for, and what came of it
//! ```

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};

use crrl_config::{ClusterConfig, ConfigError, Overrides};
use crrl_machine::disk;
use crrl_types::{Host, HostPort, NodeName};

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

    /// Is there while a node is to end the fault of this number and has not: the way to a node that hears
    /// nobody.
    #[must_use]
    pub fn lift_wanted(&self, node: &str, fault: u64) -> PathBuf {
        self.0.join("nodes").join(format!("{node}.{fault}.lift"))
    }

    /// The numbers of all faults a node is to end, each with its file.
    #[must_use]
    pub fn lifts_wanted(&self, node: &str) -> Vec<(u64, PathBuf)> {
        let files = fs::read_dir(self.0.join("nodes")).into_iter().flatten().flatten();
        let wanted = files.filter_map(|file| {
            let name = file.file_name();
            let fault = name.to_str()?.strip_prefix(node)?.strip_prefix('.')?;
            Some((fault.strip_suffix(".lift")?.parse().ok()?, file.path()))
        });
        wanted.collect()
    }

    /// The run store.
    #[must_use]
    pub fn store(&self) -> PathBuf {
        self.0.join("run.sqlite")
    }

    /// Last good copies of the run store.
    #[must_use]
    pub fn ledger_copies(&self) -> PathBuf {
        self.0.join("ledger-copies")
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

    /// Reads the resolved configuration, in the words of this build where an earlier one began the run.
    ///
    /// # Errors
    /// As [`crrl_config::load()`].
    pub fn config(&self) -> Result<ClusterConfig, ConfigError> {
        let mut config = crrl_config::load(&self.config_path(), &Overrides::default())?;
        crrl_config::renew(&mut config);
        Ok(config)
    }

    /// Where nodes listen, by name; empty before the first `up`. In the folder of a node elsewhere, where
    /// they are reached from there.
    ///
    /// # Errors
    /// A file that is there but cannot be read.
    pub fn addresses(&self) -> Result<BTreeMap<NodeName, HostPort>, RunDirError> {
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
    pub fn dialled(&self) -> Result<BTreeMap<NodeName, HostPort>, RunDirError> {
        let mut addresses = self.addresses()?;
        for at in addresses.values_mut().filter(|at| at.is_unspecified()) {
            let here: IpAddr = match at.socket_addr() {
                Some(address) if address.is_ipv6() => Ipv6Addr::LOCALHOST.into(),
                _ => Ipv4Addr::LOCALHOST.into(),
            };
            *at = Host::Ip(here).with_port(at.port());
        }
        Ok(addresses)
    }

    fn lives(&self, node: &NodeName) -> PathBuf {
        self.0.join("nodes").join(format!("{node}.life"))
    }

    /// Lets a node that has not lived in this folder count its lives from this one on.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub(crate) fn lived_until(&self, node: &NodeName, life: u64) -> Result<(), RunDirError> {
        let path = self.lives(node);
        if path.exists() { Ok(()) } else { write_atomic(&path, life.to_string().as_bytes()) }
    }

    /// Starts the next life of a node: one more than the last, on disk before it is returned.
    ///
    /// # Errors
    /// A file that cannot be read or written.
    pub fn next_life(&self, node: &NodeName) -> Result<u64, RunDirError> {
        let path = self.lives(node);
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
        let guest = "guest-1".into();
        for until in [1_000, 2_000] {
            run.lived_until(&guest, until).expect("writable");
        }
        assert_eq!(run.next_life(&guest).expect("writable"), 1_001, "it has lived here before");
    }

    #[test]
    fn every_fault_that_is_to_end_is_found_and_none_of_another_node() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let run = RunDir::new(folder.path());
        assert_eq!(run.lifts_wanted("rollout-1"), [], "no node has lived yet");
        let wanted = [
            (7, run.lift_wanted("rollout-1", 7)),
            (u64::MAX, run.lift_wanted("rollout-1", u64::MAX)),
        ];
        let others = [run.lift_wanted("rollout-10", 8), run.restart_wanted("rollout-1")];
        for path in wanted.iter().map(|(_, path)| path).chain(&others) {
            write_atomic(path, b"").expect("writable");
        }
        run.next_life(&"rollout-1".into()).expect("writable");
        let mut found = run.lifts_wanted("rollout-1");
        found.sort();
        assert_eq!(found, wanted);
    }
}
