//! What is stored, as plain rows.

use crrl_types::{
    AdapterVersion, Digest, EpisodeId, GroupId, JournalEntry, NodeName, Step, TaskId, Timing,
    TokenSpan, Trajectory,
};
use serde::{Deserialize, Serialize};

/// An episode, as the ledger has it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EpisodeRow {
    /// Unique in the run.
    pub episode: EpisodeId,
    /// The attempts it is compared with.
    pub group: GroupId,
    /// What is to be repaired.
    pub task: TaskId,
    /// 0-based phase of the plan.
    pub phase: u32,
    /// Number of its group in the phase.
    pub ordinal: u64,
    /// Which attempt at the task it is.
    pub sample: u32,
    /// Whether it is measured and never trained on.
    pub evaluation: bool,
    /// Leases given out on it.
    pub attempt: u32,
    /// Node of the current or last lease.
    pub node: Option<NodeName>,
    /// Name of its state in the ledger.
    pub state: String,
    /// Why it ended, where a reason was given.
    pub reason: Option<String>,
    /// Total reward, once there is one.
    pub reward: Option<f64>,
    /// Whether its task counts as solved.
    pub success: Option<bool>,
    /// Oldest adapter any of its tokens was drawn under.
    pub oldest: Option<AdapterVersion>,
    /// Tokens generated.
    pub generated: Option<u32>,
    /// The optimizer step it belongs to.
    pub step: Option<Step>,
}

/// The batch of an optimizer step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BatchRow {
    /// The step.
    pub step: Step,
    /// 0-based phase of the plan.
    pub phase: u32,
    /// The learner's adapter when it was made up.
    pub version: AdapterVersion,
    /// Whether the step is durable at the learner.
    pub committed: bool,
    /// Whose trajectories, in order.
    pub episodes: Vec<EpisodeId>,
}

/// Numbers of one optimizer step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StepRow {
    /// The step.
    pub step: Step,
    /// The adapter it made.
    pub version: AdapterVersion,
    /// Name and value. Names written before and not named here stay.
    pub metrics: Vec<(String, f64)>,
}

/// What a transcript says of its tokens, without them.
#[derive(Debug, Clone, PartialEq)]
pub struct TokenRow {
    /// Whose.
    pub episode: EpisodeId,
    /// Whether the policy generated the token, token by token.
    pub generated: Vec<bool>,
    /// Which adapter drew which.
    pub spans: Vec<TokenSpan>,
    /// Whether every log-probability is finite.
    pub finite: bool,
}

/// One change.
#[derive(Debug, Clone, PartialEq)]
pub enum Op {
    /// An episode as it is now.
    Episode(Box<EpisodeRow>),
    /// What an episode left behind.
    Trajectory(Box<Trajectory>),
    /// A batch as it is now.
    Batch(BatchRow),
    /// Numbers of a step.
    Step(StepRow),
    /// An adapter was published.
    Published(AdapterVersion, Digest),
    /// A task is handed out no more.
    Quarantined(TaskId, String),
    /// A task is handed out again.
    Released(TaskId),
    /// Something has happened in an episode under way.
    Turns {
        /// The episode.
        episode: EpisodeId,
        /// The lease that writes it.
        attempt: u32,
        /// 0-based number of the first entry.
        first: u32,
        /// The entries.
        entries: Vec<JournalEntry>,
    },
    /// When an attempt did what.
    Timed {
        /// The episode.
        episode: EpisodeId,
        /// The lease.
        attempt: u32,
        /// Who says so.
        node: NodeName,
        /// What.
        timing: Timing,
    },
    /// Nobody goes on with an episode's journal any more.
    ForgetTurns(EpisodeId),
    /// Something about the run itself: a name and its value, as JSON text by custom.
    Meta(String, String),
}
