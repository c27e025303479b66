//! What is seen of actors and of episodes under way, for people to watch.

use serde::{Deserialize, Serialize};

use crate::id::{AdapterVersion, EpisodeId, GroupId, NodeName, TaskId};
use crate::order::{OrderAnswer, Outcome};

/// Most bytes of an actor's snapshot; what does not fit is cut, and that is said.
pub const SNAPSHOT_BYTES_MAX: usize = 8 << 10;

/// How the reason of an actor begins that a person had stopped, [`ActorReport::last_failure`].
pub const STOPPED_BY_ORDER: &str = "stopped by an order";

/// An actor, as its node sees it. Read off counters, never asked of the actor itself: one that hangs
/// is seen hanging.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, schemars::JsonSchema)]
pub struct ActorReport {
    /// Unique in its node.
    pub name: String,
    /// What kind of actor it is: the name of its type.
    pub kind: String,
    /// Its supervisor's name; none at the root.
    pub parent: Option<String>,
    /// What it is doing.
    pub state: ActorState,
    /// Messages from elsewhere that wait for it.
    pub waiting: u32,
    /// Most that ever waited.
    pub waiting_max: u32,
    /// How long the oldest of them has waited.
    pub oldest_ms: u64,
    /// Messages handled, its own ticks included.
    pub handled: u64,
    /// Time spent handling them.
    pub busy_ms: u64,
    /// The message it is at, by kind, and for how long; none between two.
    pub handling: Option<(String, u64)>,
    /// How often it was started again.
    pub restarts: u32,
    /// Why it failed last, or was ended by an order.
    pub last_failure: Option<String>,
    /// Since it was started (again).
    pub up_ms: u64,
}

/// What an actor is doing.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum ActorState {
    /// It is being started.
    #[default]
    Starting,
    /// It waits for messages.
    Idle,
    /// It is at a message.
    Busy,
    /// It ended by itself, or was stopped by an order.
    Stopped,
    /// It failed, and is started again, or its supervisor gave up.
    Failed,
    /// It takes no message until it is told to.
    Suspended,
}

/// Something that became of an actor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct ActorEvent {
    /// When its node told of it, milliseconds since the Unix epoch, on the clock of whoever looks.
    pub at_ms: u64,
    /// Its node.
    pub node: NodeName,
    /// Its name there.
    pub actor: String,
    /// What became of it.
    pub fate: Fate,
    /// Why, as far as that is known.
    pub why: Option<String>,
}

/// What became of an actor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Fate {
    /// It failed.
    Failed,
    /// It was started again, after a failure or by an order.
    Restarted,
    /// It ended, and is not started again by itself.
    Stopped,
}

/// State an actor has published of itself: counts, names and ages; no tokens, prompts or keys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ActorSnapshot {
    /// As JSON, at most [`SNAPSHOT_BYTES_MAX`] bytes of it.
    pub json: String,
    /// How long ago it was published: an actor that hangs publishes nothing more.
    pub age_ms: u64,
}

/// The answer to whoever wants to see an actor's snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotAnswer {
    /// Whether there is one: `truncated` where it was cut, `absent` where there is no such actor,
    /// `unsupported` where the actor publishes none, `busy` where it has not yet.
    pub answer: OrderAnswer,
    /// The snapshot, where that is `done` or `truncated`.
    pub snapshot: Option<ActorSnapshot>,
}

impl SnapshotAnswer {
    /// There is none, and why.
    #[must_use]
    pub fn none(outcome: Outcome, says: impl Into<String>) -> Self {
        Self { answer: OrderAnswer::new(outcome, says), snapshot: None }
    }
}

/// An episode under way, as the node that rolls it out sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct EpisodeReport {
    /// Its number.
    pub episode: EpisodeId,
    /// The attempts it is compared with.
    pub group: GroupId,
    /// What is to be repaired.
    pub task: TaskId,
    /// Turns the policy has taken.
    pub turns: u32,
    /// Calls of tools so far.
    pub calls: u32,
    /// What is being done: `thinking`, `shell grep -n …`.
    pub doing: String,
    /// Since it began.
    pub age_ms: u64,
    /// Since it last did something else: an episode that hangs is seen hanging.
    pub idle_ms: u64,
    /// Adapter its node serves.
    pub version: AdapterVersion,
}
