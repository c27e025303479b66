//! The messages nodes exchange, and which role may send which.
//!
//! Everything here survives `bincode` (no maps of mixed type, no flattening); a task travels as
//! its JSON line. A message that does not fit a control frame ([`FRAME_BYTES_MAX`]) travels as a
//! blob on the bulk connection.

use crrl_types::actor::{ActorReport, ActorState, EpisodeReport, SnapshotAnswer};
use crrl_types::fault::{Fault, FaultSeen, Injection};
use crrl_types::{
    AdapterManifest, AdapterVersion, Digest, EpisodeId, GroupId, JournalEntry, NodeName, Order,
    OrderAnswer, Sampling, Step, TaskId, Timing, TraceRequest, Traced, Trajectory, Vitals,
};
use crrl_weights::{Offer, Report, Source};
use serde::{Deserialize, Serialize};

use crate::rights::is_tool;

/// Senders keep control messages under this; ractor's stream carries frames of 4 MiB at most.
pub const FRAME_BYTES_MAX: usize = 256 * 1024;

/// Episodes one report tells of.
pub const LIVE_MAX: usize = 64;

/// What a node is for. A node may have several roles.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    schemars::JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum NodeRole {
    /// Hands tasks out and keeps the ledger.
    Coordinator,
    /// Keeps the newest adapter and streams it to whoever needs it.
    ParameterServer,
    /// Trains.
    Learner,
    /// Rolls episodes out.
    Rollout,
    /// A person's tool: asks for status, asks for shutdown.
    Operator,
    /// A person's tool that injects faults.
    Chaos,
    /// A person's tool that only watches.
    Viewer,
}

/// One episode to roll out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Assignment {
    /// This attempt.
    pub episode: EpisodeId,
    /// Which lease on the episode this is, from 1. Sent back with the result: a result of an
    /// earlier lease is refused.
    pub attempt: u32,
    /// The attempts it is compared with.
    pub group: GroupId,
    /// The task, as its JSON line.
    pub task_json: String,
    /// How to sample; the seed is the episode's own.
    pub sampling: Sampling,
    /// The result is of no use after this long; the lease ends then.
    pub lease_ms: u64,
    /// Whether the reward is only measured (evaluation) and never trained on.
    pub evaluation: bool,
    /// What another node got done of it, to go on from; empty begins anew.
    pub past: Vec<JournalEntry>,
}

/// An episode a node works on, or whose result it still holds unacknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Held {
    /// The episode.
    pub episode: EpisodeId,
    /// The lease on it, as in [`Assignment::attempt`].
    pub attempt: u32,
}

/// An adapter as an engine serves it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct Serving {
    /// Its version.
    pub version: AdapterVersion,
    /// Its digest; for version 0 (no adapter) the same on every node.
    pub digest: Digest,
}

/// What a node says of itself once a second.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct NodeReport {
    /// Who.
    pub node: NodeName,
    /// What it is for.
    pub roles: Vec<NodeRole>,
    /// Operating-system process.
    pub pid: u32,
    /// Which life of the node this is; grows with every start.
    pub incarnation: u64,
    /// `starting`, `ready`, `draining` or `stopped`.
    pub state: NodeState,
    /// Adapter it serves (rollout), published last (parameter server) or trains (learner).
    pub adapter_version: AdapterVersion,
    /// Digest of that adapter.
    pub adapter_digest: Digest,
    /// Tokens sampled or trained on per second, over the last few seconds.
    pub tokens_per_s: f32,
    /// Episodes in flight (rollout) or queued (coordinator).
    pub episodes: u32,
    /// Resident memory of the process.
    pub rss_bytes: u64,
    /// What it is doing, in a few words.
    pub activity: String,
    /// Faults injected into it, the last few that are over included.
    pub faults: Vec<FaultSeen>,
    /// Its actors, in the order they were started.
    pub actors: Vec<ActorReport>,
    /// Episodes under way in it, at most [`LIVE_MAX`], those that hang longest first.
    pub live: Vec<EpisodeReport>,
}

impl NodeReport {
    /// Whether the node, or an actor of it, waits for a word before it goes on.
    #[must_use]
    pub fn is_suspended(&self) -> bool {
        let waits = |actor: &ActorReport| actor.state == ActorState::Suspended;
        self.state == NodeState::Suspended || self.actors.iter().any(waits)
    }
}

/// State of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum NodeState {
    /// Loading its model, or joining.
    Starting,
    /// Does its work.
    Ready,
    /// Takes no new work.
    Draining,
    /// Was lost, or has left.
    Stopped,
    /// Has given its work back and waits for a word.
    Suspended,
}

/// Why a batch is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct BatchRequest {
    /// The optimizer step the batch is for.
    pub step: Step,
    /// The learner's current adapter version; staleness counts from it.
    pub version: AdapterVersion,
}

/// Numbers of one optimizer step, for curves: name and value.
pub type StepMetrics = Vec<(String, f64)>;

/// Every message between nodes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the fields are named by the newtypes they hold")]
pub enum Wire {
    // To the coordinator.
    /// The sender is there, serves this adapter (none: not yet any) and has room for this many
    /// episodes at once. Sent on every (re)join; whatever the coordinator believes the sender
    /// still holds beyond `holding` is lost.
    Join { incarnation: u64, capacity: u32, holding: Vec<Held>, serving: Option<Serving> },
    /// Room for this many episodes at once from now on, in place of `Join`'s capacity. A result
    /// or failure frees its room by itself.
    Credit { episodes: u32 },
    /// An episode ended with a result. Answered by [`Wire::Ack`] once durable, or by
    /// [`Wire::Cancel`] where it is not wanted; sent again until then.
    Finished { attempt: u32, trajectory: Box<Trajectory> },
    /// An episode could not be rolled out. Answered by [`Wire::Ack`].
    Failed { episode: EpisodeId, attempt: u32, reason: String },
    /// The learner is ready for its next batch. Sent again until the batch comes.
    BatchWanted(BatchRequest),
    /// The learner committed a step: weights and consumed ids are durable.
    Committed {
        step: Step,
        version: AdapterVersion,
        consumed: Vec<EpisodeId>,
        metrics: StepMetrics,
    },
    /// What a node says of itself.
    Report(NodeReport),
    /// An engine serves this adapter from now on. To the parameter server as well.
    Activated { version: AdapterVersion, digest: Digest },

    // From the coordinator.
    /// The coordinator does not know (any more) what the receiver holds and has room for: it is
    /// to send [`Wire::Join`].
    JoinWanted,
    /// Roll this out.
    Assign(Box<Assignment>),
    /// Stop working on an episode; its result is not wanted. Says nothing about later leases on it
    /// than this one.
    Cancel { episode: EpisodeId, attempt: u32, reason: String },
    /// The result or failure of this lease is durable. Says nothing about later ones.
    Ack { episode: EpisodeId, attempt: u32 },
    /// The batch that was asked for (travels as a blob).
    Batch { step: Step, trajectories: Vec<Trajectory> },
    /// Finish what you have and take no more.
    Drain,
    /// The run is over; stop.
    Stop { reason: String },
    /// Something is to go wrong in the receiver.
    Inject(Injection),
    /// A task may be handed out again.
    Release { task: TaskId },

    // Adapters.
    /// Learner to parameter server: travels as a blob whose payload is the safetensors bytes and
    /// whose header is this manifest.
    Adapter { manifest: AdapterManifest, payload: Vec<u8> },
    /// An engine asks for the newest adapter (after a start or a rejected one).
    AdapterWanted { have: AdapterVersion },
    /// Parameter server to learner and coordinator: this adapter is durable and being handed out.
    /// Sent again on every (re)join. To engines: what they were offered may be served.
    Published { version: AdapterVersion, digest: Digest },
    /// Parameter server to learner: this adapter was not taken. `newest` is the newest version
    /// published; a version must be greater. Where it is less than `version`, that is to be sent again: its
    /// bytes were damaged, on the way or on the disk.
    AdapterRefused { version: AdapterVersion, newest: AdapterVersion, reason: String },

    /// Rollout node to coordinator: what has happened in an episode, from entry `first` (0-based)
    /// of its journal on. Kept, so that another node can go on from there; never answered.
    Turns { episode: EpisodeId, attempt: u32, first: u32, entries: Vec<JournalEntry> },
    /// Learner to parameter server: as [`Wire::Adapter`], while its checkpoint is still being
    /// written. Engines may fetch and verify it; nobody serves it before it is published.
    AdapterDraft { manifest: AdapterManifest, payload: Vec<u8> },
    /// Learner to parameter server: the checkpoint of that draft is on disk.
    AdapterKept { version: AdapterVersion, digest: Digest },
    /// Parameter server to engines: fetch this, from `source` first where one is named, else from
    /// the sender. It may be served at once if `published`, else once [`Wire::Published`] says so.
    AdapterOffer { offer: Box<Offer>, source: Option<Source>, published: bool },
    /// Engine to parameter server: a fetch has ended, and how; the error where it failed, or where
    /// the engine refused what came.
    AdapterArrived {
        version: AdapterVersion,
        digest: Digest,
        report: Report,
        error: Option<String>,
    },
    /// Rollout node to parameter server: others may fetch from it, at this UDP port.
    RelayAt { port: u16 },
    // Certificates (since protocol version 2).
    /// A certificate for a new key is asked for, in PEM; name and roles stay those of the
    /// certificate the sender has shown.
    Renew { request: String },
    /// The certificate, in PEM.
    Renewed { certificate: String },
    /// There is none.
    RenewRefused { reason: String },
    // Orders and traces (since protocol version 3).
    /// Coordinator to a node: somebody who may wants this done. Answered by [`Wire::Ordered`].
    Order { id: u64, by: NodeName, order: Order },
    /// Coordinator to a node: somebody who may wants to see messages. Answered by [`Wire::Ordered`];
    /// where that says so, [`Wire::Traced`] follow.
    Trace { id: u64, request: TraceRequest },
    /// Coordinator to a node: nobody looks at that trace any more.
    TraceOff { id: u64 },
    /// Node to coordinator: what became of an order or a trace.
    Ordered { id: u64, answer: OrderAnswer },
    /// Node to coordinator: what a trace has seen.
    Traced { id: u64, traced: Traced },

    // When attempts did what (since protocol version 3).
    /// Rollout node to coordinator, ahead of an attempt's result or failure: when it did what. Never
    /// answered; lost, it is missing in the run's traces and nowhere else.
    Timed { episode: EpisodeId, attempt: u32, timing: Timing },

    // Faults (since protocol version 4).
    /// The fault of this number is to end before its time. Whoever has none of it does nothing.
    Lift { id: u64 },

    // State of actors (since protocol version 4).
    /// Coordinator to a node: somebody who may wants to see what this actor has published of its
    /// state. Answered by [`Wire::Snapshot`].
    SnapshotWanted { id: u64, actor: String },
    /// Node to coordinator: that state, or why there is none.
    Snapshot { id: u64, answer: Box<SnapshotAnswer> },

    // What nodes measure (since protocol version 4).
    /// Node to coordinator, after each [`Wire::Report`]: what it measures of itself, its clock as it
    /// sent this (microseconds since the Unix epoch), and for how long it has been saying what it is
    /// doing. Never answered; lost, the next one says it.
    Vitals { sent_us: u64, activity_ms: u64, vitals: Vitals },
}

fn is_slow_tools(fault: Fault) -> bool {
    matches!(fault, Fault::SlowTools { .. })
}

impl Wire {
    /// Whether a peer of this role may send this message. Checked against the certificate, never
    /// against anything the message says of itself.
    #[must_use]
    pub fn allowed_from(&self, role: NodeRole) -> bool {
        use NodeRole::{Chaos, Coordinator, Learner, Operator, ParameterServer, Rollout};
        match self {
            Self::Join { .. } | Self::Credit { .. } => role == Rollout,
            Self::Finished { .. } | Self::Failed { .. } | Self::Turns { .. } => role == Rollout,
            Self::Timed { .. } => role == Rollout,
            Self::Activated { .. } => role == Rollout,
            Self::AdapterWanted { .. } => matches!(role, Rollout | Learner),
            Self::BatchWanted(_) | Self::Committed { .. } => role == Learner,
            Self::Report(_) | Self::Vitals { .. } => !is_tool(role),
            Self::Release { .. } => role == Operator,
            Self::Inject(_) | Self::Lift { .. } => matches!(role, Coordinator | Chaos),
            Self::JoinWanted
            | Self::Assign(_)
            | Self::Cancel { .. }
            | Self::Ack { .. }
            | Self::Batch { .. } => role == Coordinator,
            Self::Drain | Self::Stop { .. } => matches!(role, Coordinator | Operator),
            Self::Adapter { .. } | Self::AdapterDraft { .. } | Self::AdapterKept { .. } => {
                role == Learner
            }
            Self::Published { .. } | Self::AdapterRefused { .. } => role == ParameterServer,
            Self::AdapterOffer { .. } => role == ParameterServer,
            Self::AdapterArrived { .. } | Self::RelayAt { .. } => role == Rollout,
            Self::Renew { .. } => !is_tool(role),
            Self::Order { .. }
            | Self::Trace { .. }
            | Self::TraceOff { .. }
            | Self::SnapshotWanted { .. } => role == Coordinator,
            Self::Ordered { .. } | Self::Traced { .. } | Self::Snapshot { .. } => !is_tool(role),
            Self::Renewed { .. } | Self::RenewRefused { .. } => role == Coordinator,
        }
    }

    /// The version of the protocol that has brought this message. A peer that speaks an older one
    /// does not know it and is not sent it.
    #[must_use]
    pub fn since(&self) -> u8 {
        match self {
            Self::Renew { .. } | Self::Renewed { .. } | Self::RenewRefused { .. } => 2,
            Self::Order { .. }
            | Self::Trace { .. }
            | Self::TraceOff { .. }
            | Self::Ordered { .. }
            | Self::Traced { .. }
            | Self::Timed { .. } => 3,
            Self::Lift { .. } | Self::SnapshotWanted { .. } | Self::Snapshot { .. } => 4,
            Self::Vitals { .. } => 4,
            // The words are newer than the messages.
            Self::Inject(injection) if is_slow_tools(injection.fault) => 4,
            Self::Report(report) if report.faults.iter().any(|f| is_slow_tools(f.fault)) => 4,
            Self::Report(report) if report.is_suspended() => 3,
            _ => 1,
        }
    }
}
