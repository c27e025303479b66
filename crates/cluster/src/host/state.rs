//! What the host writes down: `host.json` in the run folder, replaced whole at every change.

use crrl_config::Node;
use serde::{Deserialize, Serialize};

use crate::host::prepare::role_texts;
use crate::run_dir::{RunDir, RunDirError, write_atomic, write_in_place};

/// The file is padded to this size, so that its blocks are there when the disk is full.
const PADDED_BYTES: usize = 16 << 10;

/// Processes of a run.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct HostState {
    /// The host itself.
    pub host_pid: u32,
    /// Whether every node was started once.
    pub started: bool,
    /// Whether the host is ending its nodes.
    pub stopping: bool,
    /// Every node, in the configuration's order.
    pub nodes: Vec<NodeProcess>,
}

/// One node's process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct NodeProcess {
    /// Name of the node.
    pub name: String,
    /// Its roles, as the configuration writes them.
    pub roles: Vec<String>,
    /// The machine it is started on over ssh; none is this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// Its process on this machine, which for a node elsewhere holds the connection; none while it is
    /// not running.
    pub pid: Option<u32>,
    /// When that was started last, milliseconds since the Unix epoch; none before it was, and from a host of
    /// a build that does not tell.
    #[serde(default)]
    pub started_ms: Option<u64>,
    /// How often it was started again.
    pub restarts: u32,
    /// Whether it failed too often to be started again.
    pub given_up: bool,
    /// Whether the configuration no longer names it: it is not started again.
    #[serde(default)]
    pub retired: bool,
    /// How it ended last, with the last line it wrote.
    pub last_exit: Option<String>,
}

/// Reads the state of a run's host, running or not.
///
/// # Errors
/// No host has ever run, or the file cannot be read.
pub fn state(run: &RunDir) -> Result<HostState, RunDirError> {
    let path = run.host_state();
    std::fs::read(&path)
        .and_then(|bytes| serde_json::from_slice(&bytes).map_err(std::io::Error::other))
        .map_err(|source| RunDirError { what: "read", path, source })
}

impl HostState {
    pub(crate) fn write(&self, run: &RunDir) -> Result<(), RunDirError> {
        let path = run.host_state();
        let mut json = serde_json::to_vec_pretty(self).map_err(|error| RunDirError {
            what: "write",
            path: path.clone(),
            source: std::io::Error::other(error),
        })?;
        json.resize(json.len().max(PADDED_BYTES), b' ');
        // On a full disk what it says matters more than that it appears whole.
        write_atomic(&path, &json).or_else(|error| match error.source.kind() {
            std::io::ErrorKind::StorageFull => write_in_place(&path, &json),
            _ => Err(error),
        })
    }
}

impl NodeProcess {
    /// A node that was not started yet.
    pub(crate) fn of(node: &Node) -> Self {
        Self {
            name: node.name.clone(),
            roles: role_texts(node),
            host: node.host.clone(),
            pid: None,
            started_ms: None,
            restarts: 0,
            given_up: false,
            retired: false,
            last_exit: None,
        }
    }
}
