//! What a run's folder holds, read and put in plain structs. Changes nothing, and works on a run
//! that goes on or was interrupted.
//!
//! - [`folder`]: the files, and what is wrong with them
//! - [`history`]: `events.jsonl`, folded line by line
//! - [`episode`]: what an episode did, without its text
//! - [`command`]: which programs a command line calls
//! - [`task`]: what was to be repaired

pub mod command;
pub mod episode;
pub mod folder;
pub mod history;
pub mod task;

use std::collections::BTreeMap;

use crrl_control::plan::Plan;
use crrl_control::results::Results;
use crrl_store::{Environment, StepRow};
use crrl_types::{Deed, TaskId, Trajectory};
use serde::{Deserialize, Serialize};

pub use episode::{Conduct, EpisodeFact, Spent};
pub use folder::{ReadError, read, read_ledger, read_watched};
pub use history::{History, Mark, MarkKind};
pub use task::TaskFact;

/// Everything a report needs of one run.
#[derive(Debug, Clone)]
pub struct Facts {
    /// What the run is called: the name of its folder.
    pub name: String,
    /// What it was to do.
    pub plan: Plan,
    /// What it found out so far.
    pub results: Results,
    /// Its history.
    pub history: History,
    /// Faults that were injected and orders that were given, oldest first.
    pub deeds: Vec<Deed>,
    /// Numbers of its optimizer steps, in order.
    pub steps: Vec<StepRow>,
    /// Its episodes, by id.
    pub episodes: Vec<EpisodeFact>,
    /// Tasks in quarantine, and why.
    pub quarantined: Vec<(TaskId, String)>,
    /// Its tasks, as far as their files are in the folder.
    pub tasks: BTreeMap<TaskId, TaskFact>,
    /// The episodes that are shown, in full.
    pub shown: Vec<(crate::model::picks::Choice, Trajectory)>,
    /// On what it was started, each time.
    pub environment: Vec<Environment>,
    /// `cluster.toml`, as it is.
    pub configuration: Option<String>,
    /// The processes, as the host last wrote them down.
    pub host: Option<HostFact>,
    /// What could not be read or was left out.
    pub notes: Vec<String>,
}

/// What a report reads of `host.json`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct HostFact {
    /// Every node.
    pub nodes: Vec<NodeFact>,
}

/// One node's process.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct NodeFact {
    /// Name of the node.
    pub name: String,
    /// Its roles.
    pub roles: Vec<String>,
    /// How often it was started again.
    #[serde(default)]
    pub restarts: u32,
    /// Whether it failed too often to be started again.
    #[serde(default)]
    pub given_up: bool,
    /// How it ended last.
    #[serde(default)]
    pub last_exit: Option<String>,
}
