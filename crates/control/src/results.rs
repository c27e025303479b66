//! What a run found out: `RUN/results.json`, rewritten whenever a phase ends.
//!
//! Plain data; never opens a file.

use crrl_types::{AdapterVersion, Digest, TaskId};
use serde::{Deserialize, Serialize};

/// Name of the results' file in a run's folder.
pub const RESULTS_FILE: &str = "results.json";

/// Results of all phases that have ended.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Results {
    /// 1.
    pub format: u32,
    /// Whether every phase of the plan has ended.
    pub complete: bool,
    /// Why the run ended early; absent where it did not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// One for each evaluate phase that has ended, in order.
    pub evaluations: Vec<Evaluation>,
    /// One for each train phase that has ended, in order.
    pub trainings: Vec<Training>,
}

/// Result of one evaluate phase.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    /// The phase's label.
    pub label: String,
    /// Adapter that was measured.
    pub version: AdapterVersion,
    /// Its digest: every token of the evaluation was drawn under it.
    pub digest: Digest,
    /// Wall time of the phase in milliseconds (since the last restart, where there was one).
    pub wall_ms: u64,
    /// In the order of the task file.
    pub tasks: Vec<TaskResult>,
}

/// What was earned at one task.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TaskResult {
    /// The task.
    pub task: TaskId,
    /// The attempts, by number; an attempt that could not be rolled out is `null` and counts as
    /// unknown, not as a failure of the policy.
    pub attempts: Vec<Option<Attempt>>,
}

/// One attempt at one task.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Attempt {
    /// Total reward.
    pub reward: f64,
    /// Whether the task counts as solved.
    pub success: bool,
}

/// Result of one train phase.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Training {
    /// Optimizer steps committed in the phase.
    pub steps: u64,
    /// Adapter version after the last.
    pub version: AdapterVersion,
    /// Episodes trained on.
    pub trained: u64,
    /// Episodes dropped: stale, of a group without signal, or left over at the end.
    pub dropped: u64,
    /// Episodes that could not be rolled out, those of quarantined tasks included.
    pub failed: u64,
    /// Groups left out because all attempts earned the same.
    pub equal_groups: u64,
    /// Wall time of the phase in milliseconds (since the last restart, where there was one).
    pub wall_ms: u64,
}

impl Evaluation {
    /// Attempts that were rolled out.
    pub fn attempts(&self) -> impl Iterator<Item = Attempt> + '_ {
        self.tasks.iter().flat_map(|task| task.attempts.iter().copied().flatten())
    }

    /// Mean reward and success rate of the attempts that were rolled out; `None` without any.
    #[must_use]
    pub fn means(&self) -> Option<(f64, f64)> {
        let mut n = 0.0;
        let (mut reward, mut success) = (0.0, 0.0);
        for attempt in self.attempts() {
            n += 1.0;
            reward += attempt.reward;
            success += f64::from(u8::from(attempt.success));
        }
        (n > 0.0).then(|| (reward / n, success / n))
    }
}
