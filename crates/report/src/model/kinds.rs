//! What was repaired, by kind of bug.

use std::collections::BTreeMap;

use crrl_control::results::Evaluation;
use crrl_eval::{Interval, TaskOutcomes, paired_bootstrap};
use crrl_types::{Reward, TaskId};
use serde::Serialize;

use super::summary::{RESAMPLES, pairs};
use crate::facts::{Facts, task::UNKNOWN_KIND, task::kind_of_id};

/// By kind of bug: of the evaluations where there are two to compare, and of the training.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct Kinds {
    /// Names of the two evaluations.
    pub labels: Option<(String, String)>,
    /// Most tasks first.
    pub compared: Vec<Compared>,
    /// Most attempts first.
    pub trained: Vec<Trained>,
}

/// One kind, before and after.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Compared {
    /// The kind.
    pub kind: String,
    /// Held-out tasks of it.
    pub tasks: usize,
    /// Share of attempts that repaired their task, before.
    pub before: f64,
    /// And after.
    pub after: f64,
    /// After less before, paired by task, 95 %.
    pub change: Interval,
}

/// One kind in the training.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Trained {
    /// The kind.
    pub kind: String,
    /// Tasks of it that came up.
    pub tasks: usize,
    /// Attempts at them.
    pub attempts: u64,
    /// Mean reward of an attempt.
    pub reward: f64,
    /// Share of attempts that repaired their task.
    pub success: f64,
}

impl Kinds {
    pub(crate) fn of(facts: &Facts) -> Self {
        let pair = pairs(facts).into_iter().next();
        let compared = pair.map(|(before, after)| compared(facts, before, after));
        Self {
            labels: pair.map(|(before, after)| (before.label.clone(), after.label.clone())),
            compared: compared.unwrap_or_default(),
            trained: trained(facts),
        }
    }

    /// Whether the tasks say anything of kinds.
    #[must_use]
    pub fn known(&self) -> bool {
        let compared = self.compared.iter().map(|row| &row.kind);
        compared.chain(self.trained.iter().map(|row| &row.kind)).any(|kind| kind != UNKNOWN_KIND)
    }
}

fn kind(facts: &Facts, task: &TaskId) -> String {
    facts.tasks.get(task).map_or_else(|| kind_of_id(task), |task| task.kind.clone())
}

fn compared(facts: &Facts, before: &Evaluation, after: &Evaluation) -> Vec<Compared> {
    let split = |evaluation: &Evaluation| {
        let mut kinds: BTreeMap<String, TaskOutcomes> = BTreeMap::new();
        for task in &evaluation.tasks {
            let outcomes = kinds.entry(kind(facts, &task.task)).or_default();
            for attempt in task.attempts.iter().copied().flatten() {
                let (total, success) = (attempt.reward, attempt.success);
                outcomes.add(&task.task, &Reward { total, success, components: Vec::new() });
            }
        }
        kinds
    };
    let after = split(after);
    let mut rows: Vec<Compared> = split(before)
        .into_iter()
        .filter_map(|(kind, before)| {
            let pairs = before.paired_successes(after.get(&kind)?);
            let mean = |side: fn(&(f64, f64)) -> f64| {
                pairs.iter().map(side).sum::<f64>() / pairs.len() as f64
            };
            Some(Compared {
                kind,
                tasks: pairs.len(),
                before: mean(|pair| pair.0),
                after: mean(|pair| pair.1),
                change: paired_bootstrap(&pairs, RESAMPLES, facts.plan.seed)?,
            })
        })
        .collect();
    rows.sort_by(|a, b| b.tasks.cmp(&a.tasks).then_with(|| a.kind.cmp(&b.kind)));
    rows
}

fn trained(facts: &Facts) -> Vec<Trained> {
    #[derive(Default)]
    struct Sum<'a> {
        tasks: std::collections::BTreeSet<&'a TaskId>,
        attempts: u64,
        reward: f64,
        solved: u64,
    }
    let mut kinds: BTreeMap<String, Sum<'_>> = BTreeMap::new();
    for episode in facts.episodes.iter().filter(|episode| !episode.evaluation) {
        let (Some(reward), Some(success)) = (episode.reward, episode.success) else { continue };
        let sum = kinds.entry(kind(facts, &episode.task)).or_default();
        sum.tasks.insert(&episode.task);
        sum.attempts += 1;
        sum.reward += reward;
        sum.solved += u64::from(success);
    }
    let mut rows: Vec<Trained> = kinds
        .into_iter()
        .map(|(kind, sum)| Trained {
            kind,
            tasks: sum.tasks.len(),
            attempts: sum.attempts,
            reward: sum.reward / sum.attempts as f64,
            success: sum.solved as f64 / sum.attempts as f64,
        })
        .collect();
    rows.sort_by(|a, b| b.attempts.cmp(&a.attempts).then_with(|| a.kind.cmp(&b.kind)));
    rows
}
