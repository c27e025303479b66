//! What the coordinator is told.

use crrl_types::{
    AdapterVersion, Digest, EpisodeId, Finish, GroupId, JournalEntry, NodeName, Step, TaskId,
    TokenSpan, Trajectory,
};

use super::journals::Turns;
use crate::ledger::Outcome;
use crate::wire::{BatchRequest, Held, Serving, StepMetrics, Wire};

/// What came with a finished trajectory, without its tokens.
#[derive(Debug, Clone, PartialEq)]
pub struct Result {
    /// The lease it is the result of.
    pub held: Held,
    /// The task it says it is an attempt at.
    pub task: TaskId,
    /// The group it says it belongs to.
    pub group: GroupId,
    /// The temperature it says its tokens were drawn at.
    pub temperature: f32,
    /// What it earned and what it was drawn under.
    pub outcome: Outcome,
    /// Every adapter a token of it was drawn under.
    pub adapters: Vec<Serving>,
    /// Why it is no result after all.
    pub refused: Option<String>,
}

impl Result {
    /// Reads it off a trajectory.
    #[must_use]
    pub fn of(attempt: u32, trajectory: &Trajectory) -> Self {
        let mut adapters: Vec<Serving> = Vec::new();
        for TokenSpan { version, digest, .. } in &trajectory.adapters {
            let serving = Serving { version: *version, digest: *digest };
            if !adapters.contains(&serving) {
                adapters.push(serving);
            }
        }
        let generated = trajectory.generated_len();
        let spanned: usize =
            trajectory.adapters.iter().map(|s| s.end.saturating_sub(s.start) as usize).sum();
        let len = trajectory.tokens.len();
        let refused = if trajectory.finish == Finish::Failed {
            Some("the harness failed".to_owned())
        } else if !trajectory.reward.total.is_finite() {
            Some("its reward is not finite".to_owned())
        } else if trajectory.generated.len() != len || trajectory.logprobs.len() != len {
            Some(format!(
                "{len} tokens with {} marks and {} log-probabilities",
                trajectory.generated.len(),
                trajectory.logprobs.len()
            ))
        } else if spanned != generated {
            Some(format!("{generated} tokens were generated and {spanned} have an adapter"))
        } else if trajectory.logprobs.iter().any(|p| !p.is_finite()) {
            Some("a log-probability is not finite".to_owned())
        } else {
            None
        };
        Self {
            held: Held { episode: trajectory.episode, attempt },
            task: trajectory.task.clone(),
            group: trajectory.group,
            temperature: trajectory.temperature,
            outcome: Outcome {
                reward: trajectory.reward.total,
                success: trajectory.reward.success,
                oldest: trajectory.oldest_version(),
                generated: u32::try_from(generated).unwrap_or(u32::MAX),
            },
            adapters,
            refused,
        }
    }
}

/// How a node was lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loss {
    /// It said itself that it leaves: nothing it was working on is to blame.
    Planned,
    /// Anything else: it may have died of what it was working on.
    Unplanned,
}

/// One input.
#[derive(Debug, Clone, PartialEq)]
#[expect(missing_docs, reason = "the messages are documented in wire.rs")]
pub enum Input {
    /// A rollout node is there.
    Join {
        from: NodeName,
        incarnation: u64,
        capacity: u32,
        holding: Vec<Held>,
        serving: Option<Serving>,
    },
    /// A rollout node's room has changed.
    Credit { from: NodeName, capacity: u32 },
    /// A node was lost: its connection, or its application's heartbeat.
    NodeDown { node: NodeName, reason: String, loss: Loss },
    /// A node serves another adapter.
    Activated { from: NodeName, serving: Serving },
    /// The parameter server has published an adapter.
    Published { serving: Serving },
    /// An episode has a result.
    Finished { from: NodeName, result: Result },
    /// Something has happened in an episode that is under way.
    Turns { from: NodeName, held: Held, turns: Turns },
    /// An episode could not be rolled out.
    Failed { from: NodeName, held: Held, reason: String },
    /// The learner wants its next batch.
    BatchWanted { from: NodeName, request: BatchRequest },
    /// The learner has made a step durable.
    Committed {
        step: Step,
        version: AdapterVersion,
        consumed: Vec<EpisodeId>,
        metrics: StepMetrics,
    },
    /// The deadline has passed.
    Timer,
    /// A task may be handed out again.
    Release { task: TaskId },
    /// The run must end now.
    Abort { reason: String },
}

impl Input {
    /// Reads an input off a message; `None` if the message is not for the coordinator.
    #[must_use]
    pub fn from_wire(from: &NodeName, wire: &Wire) -> Option<Self> {
        let from = from.clone();
        let serving = |version: &AdapterVersion, digest: &Digest| Serving {
            version: *version,
            digest: *digest,
        };
        Some(match wire {
            Wire::Join { incarnation, capacity, holding, serving } => Self::Join {
                from,
                incarnation: *incarnation,
                capacity: *capacity,
                holding: holding.clone(),
                serving: *serving,
            },
            Wire::Credit { episodes } => Self::Credit { from, capacity: *episodes },
            Wire::Finished { attempt, trajectory } => {
                Self::Finished { from, result: Result::of(*attempt, trajectory) }
            }
            Wire::Failed { episode, attempt, reason } => Self::Failed {
                from,
                held: Held { episode: *episode, attempt: *attempt },
                reason: reason.clone(),
            },
            Wire::Turns { episode, attempt, first, entries } => Self::Turns {
                from,
                held: Held { episode: *episode, attempt: *attempt },
                turns: Turns {
                    first: *first,
                    entries: u32::try_from(entries.len()).unwrap_or(u32::MAX),
                    oldest: entries.iter().filter_map(JournalEntry::oldest).min(),
                },
            },
            Wire::BatchWanted(request) => Self::BatchWanted { from, request: *request },
            Wire::Committed { step, version, consumed, metrics } => Self::Committed {
                step: *step,
                version: *version,
                consumed: consumed.clone(),
                metrics: metrics.clone(),
            },
            Wire::Activated { version, digest } => {
                Self::Activated { from, serving: serving(version, digest) }
            }
            Wire::Release { task } => Self::Release { task: task.clone() },
            Wire::Published { version, digest } => {
                Self::Published { serving: serving(version, digest) }
            }
            _ => return None,
        })
    }

    /// The node it came from, where it came from one.
    #[must_use]
    pub fn sender(&self) -> Option<&NodeName> {
        match self {
            Self::Join { from, .. }
            | Self::Credit { from, .. }
            | Self::Activated { from, .. }
            | Self::Finished { from, .. }
            | Self::Failed { from, .. }
            | Self::Turns { from, .. }
            | Self::BatchWanted { from, .. } => Some(from),
            _ => None,
        }
    }
}
