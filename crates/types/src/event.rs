//! One line of a run's append-only history (`events.jsonl` in the run folder).
//!
//! The history is what a run can be audited from: every episode that was handed out reaches
//! exactly one terminal event.

use serde::{Deserialize, Serialize};

use crate::id::{AdapterVersion, Digest, EpisodeId, GroupId, NodeName, Step, TaskId};

/// One fact, when and where it was seen.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// Milliseconds since the Unix epoch, on the writer's clock.
    pub at_ms: u64,
    /// Node that wrote it.
    pub node: NodeName,
    /// The fact.
    #[serde(flatten)]
    pub kind: EventKind,
}

/// The facts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
#[expect(missing_docs, reason = "the fields are named by the newtypes they hold")]
pub enum EventKind {
    /// The coordinator started. What it had decided before and not written here yet is missing
    /// before this line; the ledger has it.
    Started,
    /// The ledger was damaged and was restored: from a copy whose last committed step was `copy`, and up
    /// to `step` from what is left of the time since. The records of so many episodes are lost.
    Restored { copy: Step, step: Step, lost: u64 },
    /// A node joined; `incarnation` tells a restart from a reconnect.
    NodeUp { peer: NodeName, incarnation: u64 },
    /// A node was lost.
    NodeDown { peer: NodeName, reason: String },
    /// An episode was handed to a node.
    Dispatched { episode: EpisodeId, group: GroupId, task: TaskId, to: NodeName, attempt: u32 },
    /// An episode came back with a reward.
    Finished { episode: EpisodeId, reward: f64, success: bool },
    /// An episode was trained on. Terminal.
    Trained { episode: EpisodeId, step: Step },
    /// An episode was left out. Terminal.
    Dropped { episode: EpisodeId, reason: String },
    /// An episode could not be rolled out. Terminal.
    Failed { episode: EpisodeId, reason: String },
    /// A node's lease on an episode ended without a result; it will be handed out again.
    LeaseLost { episode: EpisodeId, from: NodeName },
    /// Another node goes on with an episode, from this many entries of its journal.
    Resumed { episode: EpisodeId, entries: u32 },
    /// Another node begins an episode anew.
    Restarted { episode: EpisodeId },
    /// A slow episode is handed to a second node as well; the first result counts.
    Duplicated { episode: EpisodeId, to: NodeName },
    /// A task is handed out no more: it was the end of too many nodes.
    Quarantined { task: TaskId, reason: String },
    /// A person let a task out of quarantine.
    Released { task: TaskId },
    /// The learner fell back to before this step: it is made again, from the same batch.
    RolledBack { step: Step },
    /// An optimizer step was committed.
    Stepped { step: Step, version: AdapterVersion },
    /// An adapter was published.
    Published { version: AdapterVersion, digest: Digest },
    /// An engine serves an adapter.
    Activated { peer: NodeName, version: AdapterVersion, digest: Digest },
}

impl EventKind {
    /// What happened, in one word, as the history spells it.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Started => "started",
            Self::Restored { .. } => "restored",
            Self::NodeUp { .. } => "node_up",
            Self::NodeDown { .. } => "node_down",
            Self::Dispatched { .. } => "dispatched",
            Self::Finished { .. } => "finished",
            Self::Trained { .. } => "trained",
            Self::Dropped { .. } => "dropped",
            Self::Failed { .. } => "failed",
            Self::LeaseLost { .. } => "lease_lost",
            Self::Resumed { .. } => "resumed",
            Self::Restarted { .. } => "restarted",
            Self::Duplicated { .. } => "duplicated",
            Self::Quarantined { .. } => "quarantined",
            Self::Released { .. } => "released",
            Self::RolledBack { .. } => "rolled_back",
            Self::Stepped { .. } => "stepped",
            Self::Published { .. } => "published",
            Self::Activated { .. } => "activated",
        }
    }
}
