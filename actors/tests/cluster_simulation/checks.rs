//! What must hold, whatever goes wrong: while the run is under way, and when it is over.

use std::time::Duration;

use crrl_actors::adapter_shelf::AdapterShelf;
use crrl_actors::evidence;
use crrl_actors::ledger_rows;
use crrl_control::audit::AdapterFact;
use crrl_control::ledger::State;
use crrl_control::parameter_server::Found;
use crrl_sim::Record;
use crrl_store::{Reader, StoreError};
use tracing::Level;

use crate::setting::{SAMPLES, TASKS};
use crate::trainer;
use crate::truth::Truth;
use crate::world::World;

/// Why a run may end early where a task kills nodes.
pub(crate) const NONE_LEFT: &str = "every task of the phase is quarantined";
/// What a panic says that was injected.
pub(crate) const INJECTED: &str = "this panic was injected";
/// Restarts of one actor within [`RESTART_WINDOW`], by `actors/node.rs`.
const RESTARTS_MAX: usize = 3;
const RESTART_WINDOW: Duration = Duration::from_secs(30);

/// The audit of a run under way.
///
/// # Errors
/// What does not hold.
pub(crate) fn under_way(world: &World) -> Result<(), String> {
    let run = world.coordinator();
    if !run.store().exists() {
        return Ok(());
    }
    match Reader::open(&run.store()) {
        Ok(_) => {}
        Err(error @ StoreError::Corrupt { .. }) => return Err(error.to_string()),
        // It is being made, or the coordinator died while it was.
        Err(_) => return Ok(()),
    }
    let adapters = AdapterShelf::new(world.server().path());
    let kept = || {
        // Every machine has its own disk here.
        let checkpoints = trainer::facts(&world.learner().checkpoints());
        let fact = |(version, found): (_, Found)| AdapterFact {
            version,
            digest: found.digest,
            finite: found.finite,
        };
        Ok((checkpoints, adapters.examine()?.into_iter().map(fact).collect()))
    };
    let verdict = evidence::judge_with(&run, kept).map_err(|error| error.to_string())?;
    if verdict.ok {
        return Ok(());
    }
    let told = verdict.findings.iter().filter(|finding| !finding.held);
    let lines: Vec<String> = told
        .flat_map(|finding| {
            finding.told.iter().map(move |violation| {
                format!("{:?}: {} ({})", finding.invariant, violation.what, violation.evidence)
            })
        })
        .collect();
    Err(lines.join("\n"))
}

/// Everything is accounted for, and what is in the ledger really happened.
///
/// # Errors
/// What does not hold.
pub(crate) fn at_the_end(world: &World) -> Result<(), String> {
    if !world.coordinator().store().exists() {
        return Err("a run without a store".to_owned());
    }
    under_way(world)?;
    let results = world.results();
    if world.may_end_early(&results) {
        return Ok(());
    }
    if !results.complete || results.error.is_some() {
        return Err(format!("liveness: {results:?}"));
    }
    let steps = world.truth.learner_steps();
    let reader = Reader::open(&world.coordinator().store()).map_err(|error| error.to_string())?;
    for row in reader.episodes().map_err(|error| error.to_string())? {
        let entry = &ledger_rows::entry(row).map_err(|error| error.to_string())?;
        if let State::Trained(step, _) = entry.state
            && steps.get(&step.0).is_none_or(|ids| !ids.contains(&entry.episode))
        {
            return Err(format!("I2: {entry:?} is not what the learner's weights are made of"));
        }
        if entry.state.outcome().is_none() {
            continue;
        }
        let made = reader.trajectory(entry.episode).map_err(|error| error.to_string())?;
        let made = made.ok_or_else(|| format!("I1: {entry:?} has no trajectory"))?;
        // Of two leases at once either counts, and the first may have seen several second ones go.
        let leases = if world.setting.duplicates() { entry.attempt } else { 1 };
        let by_holder = entry.node.as_ref().is_some_and(|node| {
            (1..=entry.attempt)
                .rev()
                .take(leases as usize)
                .any(|attempt| world.truth.was_produced(node, entry.episode, attempt, &made.tokens))
        });
        if !by_holder || entry.node.as_ref() != Some(&made.node) {
            return Err(format!("I3: the result of {entry:?} is not its holder's: {made:?}"));
        }
    }
    for evaluation in &results.evaluations {
        if evaluation.tasks.len() != TASKS {
            return Err(format!("{}: {} tasks", evaluation.label, evaluation.tasks.len()));
        }
        let poison = world.setting.manners.poison.as_deref();
        for task in &evaluation.tasks {
            let attempts = task.attempts.iter().flatten().count();
            let whole = attempts == SAMPLES as usize;
            // Where a task kills nodes, others of its node may be blamed with it.
            if !whole && poison.is_none() {
                return Err(format!("{}: {task:?}", evaluation.label));
            }
        }
    }
    Ok(())
}

/// Hears what the nodes log: some things must never be said.
pub(crate) struct Ear {
    record: Record,
    truth: Truth,
}

impl Ear {
    pub(crate) fn new(record: Record, truth: Truth) -> Self {
        Self { record, truth }
    }

    /// Hears one event.
    pub(crate) fn hear(&self, level: Level, said: &str) {
        let never = ["invariant broken", "stopping before harm is done", "the run ended early"];
        // Whether it had reason to is judged by the world when the coordinator has left.
        let never = never.iter().any(|words| said.contains(words)) && !said.contains(NONE_LEFT);
        if level == Level::ERROR && never {
            self.truth.violation(said.to_owned());
        }
        if said.contains("failed; will be restarted") {
            let child = said.split_whitespace().find(|word| word.starts_with("child="));
            let restarts = self.truth.restarted(
                &self.record.machine(),
                child.unwrap_or_default(),
                RESTART_WINDOW,
            );
            if restarts > RESTARTS_MAX {
                self.truth.violation(format!("I12: {restarts} restarts: {said}"));
            }
        }
    }
}
