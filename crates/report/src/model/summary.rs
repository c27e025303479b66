//! How far the run got, and what was measured.

use crrl_control::plan::{Evaluate, Phase};
use crrl_control::results::Evaluation;
use crrl_eval::{Interval, TaskOutcomes, compare, mean_bootstrap};
use crrl_types::Reward;
use serde::Serialize;
use std::collections::BTreeMap;

use crate::facts::Facts;

/// Resamples of every bootstrap: as many as the table at the end of a run takes.
pub const RESAMPLES: u32 = 10_000;

/// How far a run got.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Every phase of its plan has ended.
    Complete,
    /// It gave up, and said why.
    EndedEarly(String),
    /// It goes on, or was interrupted: its folder cannot tell which.
    NotOver,
}

/// What one evaluation came to. Intervals are bootstraps over tasks, 95 %.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Measured {
    /// The evaluation's name.
    pub label: String,
    /// Adapter that was measured.
    pub version: u64,
    /// Tasks.
    pub tasks: usize,
    /// Attempts that were rolled out.
    pub attempts: usize,
    /// Sampling temperature, where the plan has the evaluation.
    pub temperature: Option<f32>,
    /// Mean reward.
    pub reward: Interval,
    /// Share of attempts that repaired their task.
    pub success: Interval,
    /// Share of tasks that at least one attempt repaired.
    pub success_any: f64,
}

/// Two evaluations of the same tasks.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Compared {
    /// Name of the first.
    pub before: String,
    /// Name of the second.
    pub after: String,
    /// The table.
    pub comparison: crrl_eval::Comparison,
}

/// How far the run got, and what was measured.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Summary {
    /// How far.
    pub state: State,
    /// Optimizer steps committed.
    pub steps: u64,
    /// Optimizer steps of the plan.
    pub steps_planned: u64,
    /// Newest adapter a step made.
    pub adapter_version: Option<u64>,
    /// First line of the history, milliseconds since the Unix epoch.
    pub began_ms: Option<u64>,
    /// From the first line of the history to the last, interruptions included.
    pub wall_ms: Option<u64>,
    /// Episodes of training and of evaluations, by state in the ledger.
    pub episodes: BTreeMap<String, u64>,
    /// Every evaluation that has ended.
    pub evaluations: Vec<Measured>,
    /// Pairs of them that measured the same tasks in the same way.
    pub compared: Vec<Compared>,
}

impl Summary {
    pub(crate) fn of(facts: &Facts) -> Self {
        let results = &facts.results;
        let state = match &results.error {
            Some(error) => State::EndedEarly(error.clone()),
            None if results.complete => State::Complete,
            None => State::NotOver,
        };
        let mut episodes: BTreeMap<String, u64> = BTreeMap::new();
        for episode in &facts.episodes {
            *episodes.entry(episode.state.clone()).or_default() += 1;
        }
        let history = &facts.history;
        Self {
            state,
            steps: facts.steps.last().map_or(0, |row| row.step.0),
            steps_planned: facts.plan.steps(),
            adapter_version: facts.steps.last().map(|row| row.version.0),
            began_ms: history.began_ms,
            wall_ms: history
                .ended_ms
                .zip(history.began_ms)
                .map(|(end, begin)| end - begin.min(end)),
            episodes,
            evaluations: results.evaluations.iter().filter_map(|e| measured(facts, e)).collect(),
            compared: pairs(facts)
                .into_iter()
                .filter_map(|(before, after)| compared(facts, before, after))
                .collect(),
        }
    }

    /// The share of this state's episodes in the ledger.
    #[must_use]
    pub fn episodes_in(&self, state: &str) -> u64 {
        self.episodes.get(state).copied().unwrap_or(0)
    }

    /// Episodes in all.
    #[must_use]
    pub fn episodes_all(&self) -> u64 {
        self.episodes.values().sum()
    }
}

/// An evaluation's attempts, task by task.
pub(crate) fn outcomes(evaluation: &Evaluation) -> TaskOutcomes {
    let mut outcomes = TaskOutcomes::default();
    for task in &evaluation.tasks {
        for attempt in task.attempts.iter().copied().flatten() {
            let (total, success) = (attempt.reward, attempt.success);
            outcomes.add(&task.task, &Reward { total, success, components: Vec::new() });
        }
    }
    outcomes
}

/// The plan's phase of an evaluation.
pub(crate) fn phase<'a>(facts: &'a Facts, label: &str) -> Option<&'a Evaluate> {
    facts.plan.phases.iter().find_map(|phase| match phase {
        Phase::Evaluate(evaluate) if evaluate.label == label => Some(evaluate),
        _ => None,
    })
}

fn measured(facts: &Facts, evaluation: &Evaluation) -> Option<Measured> {
    let outcomes = outcomes(evaluation);
    let all = outcomes.measured()?;
    let interval = |pairs: Vec<(f64, f64)>| {
        let values: Vec<f64> = pairs.into_iter().map(|pair| pair.0).collect();
        mean_bootstrap(&values, RESAMPLES, facts.plan.seed)
    };
    Some(Measured {
        label: evaluation.label.clone(),
        version: evaluation.version.0,
        tasks: all.n,
        attempts: all.attempts,
        temperature: phase(facts, &evaluation.label).map(|phase| phase.sampling.temperature),
        reward: interval(outcomes.paired_rewards(&outcomes))?,
        success: interval(outcomes.paired_successes(&outcomes))?,
        success_any: all.success_any,
    })
}

/// First and last of the evaluations that the plan measures alike: the same tasks, as often, drawn
/// in the same way.
pub(crate) fn pairs(facts: &Facts) -> Vec<(&Evaluation, &Evaluation)> {
    let alike = |a: &Evaluate, b: &Evaluate| {
        (&a.tasks, a.tasks_max, a.samples, &a.sampling)
            == (&b.tasks, b.tasks_max, b.samples, &b.sampling)
    };
    let mut pairs: Vec<(&Evaluate, &Evaluation, &Evaluation)> = Vec::new();
    for evaluation in &facts.results.evaluations {
        let Some(planned) = phase(facts, &evaluation.label) else { continue };
        match pairs.iter_mut().find(|(first, ..)| alike(first, planned)) {
            Some((.., last)) => *last = evaluation,
            None => pairs.push((planned, evaluation, evaluation)),
        }
    }
    pairs.retain(|(_, first, last)| first.label != last.label);
    pairs.into_iter().map(|(_, first, last)| (first, last)).collect()
}

fn compared(facts: &Facts, before: &Evaluation, after: &Evaluation) -> Option<Compared> {
    let comparison = compare(&outcomes(before), &outcomes(after), RESAMPLES, facts.plan.seed)?;
    Some(Compared { before: before.label.clone(), after: after.label.clone(), comparison })
}
