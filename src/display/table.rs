//! The table at the end of a run: before, after, and how sure that is.

use crrl_control::results::{Evaluation, Results};
use crrl_types::TaskId;
use serde::Serialize;
use std::collections::BTreeMap;

/// Label of the evaluation before training.
pub(crate) const BEFORE: &str = "before";
/// Label of the evaluation after training.
pub(crate) const AFTER: &str = "after";
/// Labels of the same with the most likely token taken each time.
pub(crate) const GREEDY: [&str; 2] = ["before, greedy", "after, greedy"];

/// Resamples of the bootstrap.
const RESAMPLES: u32 = 10_000;

/// What one evaluation came to.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Measured {
    /// Mean reward.
    pub(crate) reward: f64,
    /// Share of attempts that repaired the task.
    pub(crate) success: f64,
    /// Tasks measured.
    pub(crate) n: usize,
    /// Attempts at each.
    pub(crate) samples: usize,
}

/// The difference between two evaluations of the same tasks.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Summary {
    pub(crate) before: Measured,
    pub(crate) after: Measured,
    /// Paired bootstrap over tasks: 95 % interval of the rise of the mean reward.
    pub(crate) ci95: [f64; 2],
    /// The same of the success rate.
    pub(crate) success_ci95: [f64; 2],
    /// Two-sided paired permutation test of the mean reward.
    pub(crate) p: f64,
    /// The same policies, greedy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) greedy: Option<[Measured; 2]>,
    pub(crate) steps: u64,
    pub(crate) episodes: u64,
    pub(crate) adapter_version: u64,
    pub(crate) wall_s: f64,
}

impl Summary {
    /// `None` where either evaluation is missing or measured nothing.
    pub(crate) fn of(results: &Results, seed: u64, wall_s: f64) -> Option<Self> {
        let find = |label: &str| results.evaluations.iter().find(|e| e.label == label);
        let (before, after) = (find(BEFORE)?, find(AFTER)?);
        let pairs = paired(before, after);
        let rewards: Vec<(f64, f64)> = pairs.iter().map(|p| p.reward).collect();
        let successes: Vec<(f64, f64)> = pairs.iter().map(|p| p.success).collect();
        let interval = crrl_eval::paired_bootstrap(&rewards, RESAMPLES, seed)?;
        let success = crrl_eval::paired_bootstrap(&successes, RESAMPLES, seed)?;
        let greedy = match (find(GREEDY[0]), find(GREEDY[1])) {
            (Some(a), Some(b)) => Some([measured(a)?, measured(b)?]),
            _ => None,
        };
        Some(Self {
            before: measured(before)?,
            after: measured(after)?,
            ci95: [interval.low, interval.high],
            success_ci95: [success.low, success.high],
            p: crrl_eval::paired_permutation(&rewards, RESAMPLES, seed)?,
            greedy,
            steps: results.trainings.iter().map(|t| t.steps).sum(),
            episodes: results.trainings.iter().map(|t| t.trained + t.dropped + t.failed).sum(),
            adapter_version: after.version.0,
            wall_s,
        })
    }

    /// The table, for people.
    pub(crate) fn text(&self) -> String {
        let row = |name: &str, before: f64, after: f64, ci: [f64; 2]| {
            format!(
                "  {name:<22} {before:>8.3} {after:>8.3}   {:>+7.3}  [{:+.3}, {:+.3}]\n",
                after - before,
                ci[0],
                ci[1]
            )
        };
        let mut text = format!(
            "  {:<22} {:>8} {:>8}   {:>7}  {}\n",
            "held-out tasks", "before", "after", "change", "95 % interval"
        );
        text += &row("mean reward", self.before.reward, self.after.reward, self.ci95);
        text +=
            &row("repaired exactly", self.before.success, self.after.success, self.success_ci95);
        if let Some([before, after]) = &self.greedy {
            text += &format!(
                "  {:<22} {:>8.3} {:>8.3}   {:>+7.3}\n",
                "  greedy, reward",
                before.reward,
                after.reward,
                after.reward - before.reward
            );
            text += &format!(
                "  {:<22} {:>8.3} {:>8.3}   {:>+7.3}\n",
                "  greedy, repaired",
                before.success,
                after.success,
                after.success - before.success
            );
        }
        text += &format!(
            "\n  {} tasks x {} attempts, paired bootstrap over tasks; permutation p = {:.4}\n",
            self.before.n, self.before.samples, self.p
        );
        text += &format!(
            "  {} optimizer steps on {} episodes, adapter v{}, {:.0} s\n",
            self.steps, self.episodes, self.adapter_version, self.wall_s
        );
        text
    }
}

struct Pair {
    reward: (f64, f64),
    success: (f64, f64),
}

/// Means of the tasks that both evaluations measured.
fn paired(before: &Evaluation, after: &Evaluation) -> Vec<Pair> {
    let (before, after) = (by_task(before), by_task(after));
    before
        .iter()
        .filter_map(|(task, b)| {
            let a = after.get(task)?;
            Some(Pair { reward: (b.0, a.0), success: (b.1, a.1) })
        })
        .collect()
}

fn by_task(evaluation: &Evaluation) -> BTreeMap<TaskId, (f64, f64)> {
    let tasks = evaluation.tasks.iter().filter_map(|task| {
        let done: Vec<_> = task.attempts.iter().copied().flatten().collect();
        #[expect(clippy::cast_precision_loss, reason = "a handful of attempts")]
        let n = done.len() as f64;
        let reward = done.iter().map(|a| a.reward).sum::<f64>() / n;
        let success = done.iter().map(|a| f64::from(u8::from(a.success))).sum::<f64>() / n;
        (!done.is_empty()).then(|| (task.task.clone(), (reward, success)))
    });
    tasks.collect()
}

fn measured(evaluation: &Evaluation) -> Option<Measured> {
    let (reward, success) = evaluation.means()?;
    Some(Measured {
        reward,
        success,
        n: evaluation.tasks.len(),
        samples: evaluation.tasks.first().map_or(0, |task| task.attempts.len()),
    })
}
