//! Two evaluations of the same tasks, as the data of a table.

use serde::{Deserialize, Serialize};

use crate::interval::{Interval, mean_bootstrap, paired_bootstrap};
use crate::outcome::TaskOutcomes;
use crate::paired::{cohens_d, mcnemar_exact, paired_permutation};

/// One measure, before and after.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// What is measured, for people.
    pub name: String,
    /// Before, with its interval.
    pub before: Interval,
    /// After, with its interval.
    pub after: Interval,
    /// After less before, paired by task.
    pub change: Interval,
    /// Two-sided paired permutation test of the change.
    pub p: f64,
    /// Size of the change in standard deviations; `None` where all tasks changed alike.
    pub cohens_d: Option<f64>,
}

/// The table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// Mean reward, then success rate.
    pub rows: Vec<Row>,
    /// Tasks both evaluations have.
    pub n: usize,
    /// McNemar's exact test of tasks solved by most attempts.
    pub mcnemar_p: f64,
}

/// Compares two evaluations over the tasks both have; `None` where there is none.
#[must_use]
pub fn compare(
    before: &TaskOutcomes,
    after: &TaskOutcomes,
    resamples: u32,
    seed: u64,
) -> Option<Comparison> {
    let rewards = before.paired_rewards(after);
    let successes = before.paired_successes(after);
    let row = |name: &str, pairs: &[(f64, f64)]| {
        let side = |values: Vec<f64>| mean_bootstrap(&values, resamples, seed);
        Some(Row {
            name: name.to_owned(),
            before: side(pairs.iter().map(|pair| pair.0).collect())?,
            after: side(pairs.iter().map(|pair| pair.1).collect())?,
            change: paired_bootstrap(pairs, resamples, seed)?,
            p: paired_permutation(pairs, resamples, seed)?,
            cohens_d: cohens_d(pairs),
        })
    };
    Some(Comparison {
        rows: vec![row("mean reward", &rewards)?, row("repaired exactly", &successes)?],
        n: rewards.len(),
        mcnemar_p: mcnemar_exact(&before.paired_solved(after)),
    })
}

#[cfg(test)]
mod tests {
    use crrl_types::{Reward, TaskId};

    use super::*;

    fn outcomes(tasks: &[(&str, &[f64])]) -> TaskOutcomes {
        let mut outcomes = TaskOutcomes::default();
        for (task, rewards) in tasks {
            for total in *rewards {
                let reward = Reward { total: *total, success: *total == 1.0, components: vec![] };
                outcomes.add(&TaskId::from(*task), &reward);
            }
        }
        outcomes
    }

    #[test]
    fn tasks_count_alike_however_often_they_were_tried() {
        let outcomes = outcomes(&[("a", &[1.0, 1.0, 1.0, 1.0]), ("b", &[0.0, 0.5])]);
        let measured = outcomes.measured().expect("tasks");
        assert_eq!((measured.reward, measured.success, measured.success_any), (0.625, 0.5, 0.5));
        assert_eq!((measured.n, measured.attempts), (2, 6));
        assert_eq!(TaskOutcomes::default().measured(), None);
    }

    #[test]
    fn only_tasks_both_have_are_compared() {
        let before = outcomes(&[("a", &[0.0, 0.5]), ("b", &[1.0]), ("x", &[1.0])]);
        let after = outcomes(&[("a", &[1.0, 1.0]), ("b", &[1.0]), ("y", &[0.0])]);
        let got = compare(&before, &after, 2_000, 1).expect("two tasks");
        assert_eq!(got.n, 2);
        let reward = &got.rows[0];
        assert_eq!((reward.before.value, reward.after.value), (0.625, 1.0));
        assert!((reward.change.value - 0.375).abs() < 1e-12);
        assert_eq!((reward.change.low, reward.change.high), (0.0, 0.75));
        assert_eq!(reward.p, 1.0, "one task that changed proves nothing");
        assert_eq!(got.mcnemar_p, 1.0);
        assert!(compare(&before, &TaskOutcomes::default(), 10, 1).is_none());
    }
}
