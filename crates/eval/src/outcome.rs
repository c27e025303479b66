//! What episodes on a task set came to, task by task.

use std::collections::BTreeMap;

use crrl_types::{Reward, TaskId};
use serde::{Deserialize, Serialize};

/// Rewards of every attempt at every task.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct TaskOutcomes {
    tasks: BTreeMap<TaskId, Vec<Attempt>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
struct Attempt {
    reward: f64,
    success: bool,
}

/// A task set in numbers. Means are over tasks of the mean over a task's attempts, so that a task
/// with more attempts does not count more.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    /// Mean reward.
    pub reward: f64,
    /// Share of attempts that repaired their task.
    pub success: f64,
    /// Share of tasks that at least one attempt repaired.
    pub success_any: f64,
    /// Tasks.
    pub n: usize,
    /// Attempts.
    pub attempts: usize,
}

impl TaskOutcomes {
    /// Takes an attempt in.
    pub fn add(&mut self, task: &TaskId, reward: &Reward) {
        let attempt = Attempt { reward: reward.total, success: reward.success };
        self.tasks.entry(task.clone()).or_default().push(attempt);
    }

    /// Number of tasks with an attempt.
    #[must_use]
    pub fn len(&self) -> usize {
        self.tasks.len()
    }

    /// Whether nothing was attempted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.tasks.is_empty()
    }

    /// The numbers; `None` where nothing was attempted.
    #[must_use]
    pub fn measured(&self) -> Option<Measured> {
        if self.is_empty() {
            return None;
        }
        let mean = |value: fn(&[Attempt]) -> f64| {
            self.tasks.values().map(|attempts| value(attempts)).sum::<f64>() / self.len() as f64
        };
        Some(Measured {
            reward: mean(reward),
            success: mean(success),
            success_any: mean(|attempts| f64::from(u8::from(attempts.iter().any(|a| a.success)))),
            n: self.len(),
            attempts: self.tasks.values().map(Vec::len).sum(),
        })
    }

    /// Mean rewards of the tasks both have: (this, other), in the order of the task's names.
    #[must_use]
    pub fn paired_rewards(&self, other: &Self) -> Vec<(f64, f64)> {
        self.paired(other, reward)
    }

    /// Success rates of the tasks both have.
    #[must_use]
    pub fn paired_successes(&self, other: &Self) -> Vec<(f64, f64)> {
        self.paired(other, success)
    }

    /// Whether most attempts at a task repaired it, of the tasks both have.
    #[must_use]
    pub fn paired_solved(&self, other: &Self) -> Vec<(bool, bool)> {
        let rates = self.paired_successes(other);
        rates.into_iter().map(|(a, b)| (a > 0.5, b > 0.5)).collect()
    }

    fn paired(&self, other: &Self, value: fn(&[Attempt]) -> f64) -> Vec<(f64, f64)> {
        let pair = |(task, here): (&TaskId, &Vec<Attempt>)| {
            other.tasks.get(task).map(|there| (value(here), value(there)))
        };
        self.tasks.iter().filter_map(pair).collect()
    }
}

fn reward(attempts: &[Attempt]) -> f64 {
    attempts.iter().map(|a| a.reward).sum::<f64>() / attempts.len() as f64
}

fn success(attempts: &[Attempt]) -> f64 {
    attempts.iter().filter(|a| a.success).count() as f64 / attempts.len() as f64
}
