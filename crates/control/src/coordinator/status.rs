//! Who waits for whom, and the numbers of a step that only the coordinator knows.

use std::time::Duration;

use crrl_types::{AdapterVersion, EpisodeId, EventKind, NodeName, Step};
use serde::{Deserialize, Serialize};

use super::{Coordinator, Stage};
use crate::ledger::{Entry, Outcome, State, Totals};
use crate::wire::StepMetrics;

/// Counted from one step to the next.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct SinceStep {
    pub(super) equal_groups: u64,
    pub(super) stale_episodes: u64,
    pub(super) learner_waited: Duration,
    /// Attempts of every group that came back, those of equal groups too.
    pub(super) attempts: u64,
    /// What they earned together.
    pub(super) earned: f64,
    /// How many of them repaired their task.
    pub(super) solved: u64,
    /// Episodes another node went on with.
    pub(super) resumed: u64,
    /// Episodes another node began anew.
    pub(super) restarted: u64,
    /// Episodes a second node got too.
    pub(super) duplicated: u64,
    /// Groups that were trained on without their slowest attempts.
    pub(super) cut_groups: u64,
}

/// What holds the run up, if anything.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "for")]
pub enum Waiting {
    /// The learner has not asked for anything yet.
    Learner,
    /// No rollout node is there.
    Nodes,
    /// Nodes are there, but none (or, with `sync`, not every one) serves this adapter.
    Adapter {
        /// The version.
        version: AdapterVersion,
    },
    /// The learner waits for groups.
    Rollouts,
    /// Rollouts are as far ahead as staleness allows: they wait for the learner.
    Training,
    /// Everybody has work.
    Nobody,
    /// The run is over.
    Over,
}

/// One rollout node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NodeStatus {
    /// Its name.
    pub name: NodeName,
    /// Whether it is there.
    pub up: bool,
    /// Episodes it works on.
    pub leases: u32,
    /// Episodes it can work on.
    pub capacity: u32,
    /// Adapter it serves.
    pub version: Option<AdapterVersion>,
    /// Whether that is what was published under the version.
    pub proven: bool,
}

/// The run at a glance.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// 1-based phase; one more than `phases` when all are over.
    pub phase: u32,
    /// Phases of the plan.
    pub phases: u32,
    /// The phase's label.
    pub label: String,
    /// Optimizer steps committed.
    pub step: Step,
    /// Optimizer steps of the plan.
    pub steps: u64,
    /// The learner's adapter.
    pub version: AdapterVersion,
    /// What holds the run up.
    pub waiting: Waiting,
    /// Groups being rolled out.
    pub groups_open: u32,
    /// Groups waiting for a batch.
    pub groups_ready: u32,
    /// Batches the learner has and has not committed.
    pub batches_out: u32,
    /// Episodes without a node.
    pub queued: u32,
    /// Episodes nodes work on.
    pub leased: u32,
    /// Attempts of an evaluate phase that have ended, and all of them.
    pub evaluated: Option<(u64, u64)>,
    /// Numbers over the life of the run.
    pub totals: Totals,
    /// Tasks in quarantine.
    pub quarantined: u32,
    /// The rollout nodes.
    pub nodes: Vec<NodeStatus>,
    /// Why the run ended early.
    pub error: Option<String>,
}

/// The event that tells of a terminal state.
pub(super) fn terminal_event(entry: &Entry) -> Option<EventKind> {
    let episode: EpisodeId = entry.episode;
    match &entry.state {
        State::Trained(step, _) => Some(EventKind::Trained { episode, step: *step }),
        State::Dropped(reason) => Some(EventKind::Dropped { episode, reason: reason.clone() }),
        State::Failed(reason) => Some(EventKind::Failed { episode, reason: reason.clone() }),
        State::Quarantined(reason) => {
            Some(EventKind::Failed { episode, reason: format!("quarantined: {reason}") })
        }
        State::Measured(_) => {
            Some(EventKind::Dropped { episode, reason: "measured, never trained on".into() })
        }
        _ => None,
    }
}

impl Coordinator {
    /// Whether a rollout node has joined and was not lost since.
    #[must_use]
    pub fn is_up(&self, node: &NodeName) -> bool {
        self.is_over() || self.nodes.get(node).is_some_and(|node| node.up)
    }

    /// Whether an episode that is not forgotten yet was leased this often.
    #[must_use]
    pub fn has_leased(&self, episode: EpisodeId, attempt: u32) -> bool {
        let leased = self.ledger.get(episode).map_or(0, |entry| entry.attempt);
        (1..=leased).contains(&attempt)
    }

    /// The run at a glance.
    #[must_use]
    pub fn status(&self) -> Status {
        let (ready, leased) = (self.ready.len(), self.nodes.leases());
        let evaluated = match &self.stage {
            Stage::Evaluating(evaluating) => Some((
                evaluating.attempts.len() as u64,
                self.tasks[self.phase].len() as u64 * u64::from(evaluating.samples),
            )),
            _ => None,
        };
        let nodes = self.nodes.iter().map(|(name, node)| NodeStatus {
            name: name.clone(),
            up: node.up,
            leases: node.leases.len() as u32,
            capacity: node.capacity,
            version: node.serving.map(|s| s.version),
            proven: node.serving.is_some_and(|s| self.is_proven(s)),
        });
        let label = self.plan.phases.get(self.phase).map_or("over", |phase| phase.label());
        Status {
            phase: self.phase as u32 + 1,
            phases: self.plan.phases.len() as u32,
            label: label.to_owned(),
            step: Step(self.learner.committed),
            steps: self.plan.steps(),
            version: self.current(),
            waiting: self.waiting(ready, leased),
            groups_open: (self.groups.len() - ready) as u32,
            groups_ready: ready as u32,
            batches_out: self.batches.values().filter(|b| !b.committed).count() as u32,
            queued: self.queued() as u32,
            leased: leased as u32,
            evaluated,
            totals: self.ledger.totals(),
            quarantined: self.quarantined.len() as u32,
            nodes: nodes.collect(),
            error: match &self.stage {
                Stage::Over { error } => error.clone(),
                _ => None,
            },
        }
    }

    fn waiting(&self, ready: usize, leased: usize) -> Waiting {
        let version = self.current();
        let wanted = self.train().map_or(0, |train| train.groups_per_step as usize);
        match &self.stage {
            Stage::Over { .. } => Waiting::Over,
            _ if self.plan.steps() > 0 && self.learner.version.is_none() => Waiting::Learner,
            _ if self.nodes.up() == 0 => Waiting::Nodes,
            _ if leased == 0 && self.queued() > 0 => Waiting::Adapter { version },
            Stage::Evaluating(evaluating) if evaluating.pinned.is_none() => {
                Waiting::Adapter { version }
            }
            Stage::Training(_) if self.learner.wants.is_some() && ready < wanted => {
                Waiting::Rollouts
            }
            Stage::Training(_) if leased == 0 => Waiting::Training,
            _ => Waiting::Nobody,
        }
    }

    /// Numbers of the step whose batch this was; resets what is counted from step to step.
    pub(super) fn step_metrics(
        &mut self,
        episodes: &[EpisodeId],
        version: AdapterVersion,
    ) -> StepMetrics {
        let since = std::mem::take(&mut self.since_step);
        let outcomes: Vec<Outcome> = episodes
            .iter()
            .filter_map(|id| self.ledger.get(*id)?.state.outcome().copied())
            .collect();
        let n = outcomes.len().max(1) as f64;
        let mean = |value: &dyn Fn(&Outcome) -> f64| outcomes.iter().map(value).sum::<f64>() / n;
        let behind = |o: &Outcome| o.oldest.map_or(0.0, |at| version.0.saturating_sub(at.0) as f64);
        [
            ("reward_mean", mean(&|o| o.reward)),
            ("success_rate", mean(&|o| f64::from(u8::from(o.success)))),
            // What the policy does: the batch leaves out groups that have nothing to teach.
            ("attempt_reward_mean", since.earned / since.attempts.max(1) as f64),
            ("attempt_success_rate", since.solved as f64 / since.attempts.max(1) as f64),
            ("attempts", since.attempts as f64),
            ("generated_tokens_mean", mean(&|o| f64::from(o.generated))),
            ("staleness_mean", mean(&behind)),
            ("staleness_max", outcomes.iter().map(behind).fold(0.0, f64::max)),
            ("episodes", outcomes.len() as f64),
            ("equal_groups", since.equal_groups as f64),
            ("stale_episodes", since.stale_episodes as f64),
            ("episodes_resumed", since.resumed as f64),
            ("episodes_restarted", since.restarted as f64),
            ("episodes_duplicated", since.duplicated as f64),
            ("groups_cut", since.cut_groups as f64),
            ("learner_waited_s", since.learner_waited.as_secs_f64()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .to_vec()
    }
}
