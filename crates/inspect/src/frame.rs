//! What is seen of a cluster at one moment.

use crrl_cluster::Snapshot;
use crrl_cluster::host::NodeProcess;
use serde::{Deserialize, Serialize};

/// One look at a cluster.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Frame {
    /// Milliseconds since the Unix epoch, on the watcher's clock.
    pub at_ms: u64,
    /// The coordinator's board.
    pub snapshot: Snapshot,
    /// Processes on this machine, as their host wrote them down; empty where it did not.
    #[serde(default)]
    pub processes: Vec<NodeProcess>,
}

/// Whether what is shown is what is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Link {
    /// Nothing came yet.
    Connecting {
        /// Why the last try failed.
        reason: Option<String>,
    },
    /// Frames come.
    Live,
    /// They came, and come no more; it is tried again.
    Lost {
        /// Why.
        reason: String,
        /// Since when, milliseconds since the Unix epoch.
        since_ms: u64,
    },
    /// The run is not up; its folder is looked at.
    Past,
    /// Frames come out of a file.
    Replay {
        /// Which one is shown, from 1.
        at: usize,
        /// How many there are.
        of: usize,
        /// Whether time stands still.
        halted: bool,
    },
}
