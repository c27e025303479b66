//! A ledger that is lost, made again from its last good copy and from what others know of the time
//! since.
//!
//! Pure: facts in, records out. The weights of the newest checkpoint are kept, whatever the copy's age:
//! what went into the steps since is in the checkpoints and in the history, and those episodes count as
//! trained on, though their tokens are gone. What came back since and was not trained on is left out;
//! what was under way is handed out again. So nothing is trained on twice, no step is lost, and no id
//! is given out again: those that may have been and that nothing names are left out. An evaluation that
//! was under way begins anew.
//!
//! - `told`: the history, folded
//! - `entered`: episodes since the copy, and numbers that are left out
//! - `restored`: what the ledger keeps of it

mod entered;
mod restored;
mod told;

use std::collections::{BTreeMap, BTreeSet};

use crrl_types::{AdapterVersion, EpisodeId, EventKind, Step, TaskId};

pub use restored::Restored;
pub use told::Told;

use crate::coordinator::{BatchRow, LEFT_OUT, Record, Recovered};
use crate::ledger::{Entry, Outcome, State};
use crate::plan::{Phase, Plan};
use crate::results::Results;
use crate::wire::{Serving, StepMetrics};
use told::{End, Life};

/// Why an episode was dropped: its result was in the damaged ledger and nowhere else.
pub const LOST: &str = "its record was lost with a damaged ledger";
/// Why an episode was dropped: it may have gone into a step nobody knows the episodes of any more.
pub const UNSURE: &str = "whether it was trained on is not known any more: the record of that was lost with a damaged ledger";
/// Why an attempt was dropped: its evaluation begins anew.
pub const MEASURED_ANEW: &str = "its evaluation begins anew after the ledger was restored";
/// Why an episode was dropped: its phase had ended by then.
const PHASE_OVER: &str = "its phase had ended when the ledger was restored";

/// What a checkpoint says of the step it was written after.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StepHeld {
    /// The adapter after it.
    pub version: AdapterVersion,
    /// What was trained on in it.
    pub consumed: Vec<EpisodeId>,
}

/// What is known of the learner's checkpoints.
#[derive(Debug, Clone)]
pub enum Checkpoints {
    /// Those that load, by step. Without any the learner begins at step 0.
    Here(BTreeMap<Step, StepHeld>),
    /// They are on another machine: the learner is where the history says, or further. How far, it says
    /// when it asks for its next batch.
    Elsewhere,
}

/// What is to be done to a copy so that the run goes on from it.
#[derive(Debug, Clone)]
pub struct Restoration {
    /// Changes of the copy.
    pub records: Vec<Record>,
    /// Results of the phases that have ended.
    pub results: Results,
    /// What the history does not say yet.
    pub events: Vec<EventKind>,
    /// Steps the history knew of, and neither a checkpoint nor, as a batch, the copy holds, in order: they
    /// are made anew.
    pub undone: Vec<Step>,
    /// What came of it; when and the damaged file's name are still to be filled in.
    pub restored: Restored,
}

/// The last step that is committed in a ledger.
pub(crate) fn committed(ledger: &Recovered) -> Step {
    let committed = ledger.batches.iter().filter(|batch| batch.committed);
    committed.map(|batch| batch.step).max().unwrap_or_default()
}

/// Decides how a ledger goes on from its copy. `tasks` are the task ids of each phase; `results` those
/// in the run's file, if it can be read.
#[must_use]
pub fn restore(
    plan: &Plan,
    tasks: &[Vec<TaskId>],
    copy: &Recovered,
    told: &Told,
    results: Option<&Results>,
    checkpoints: &Checkpoints,
) -> Restoration {
    let from = committed(copy);
    let newest = match checkpoints {
        Checkpoints::Here(held) => held.keys().next_back().copied().unwrap_or_default(),
        Checkpoints::Elsewhere => told.last().unwrap_or_default(),
    };
    // A learner that is behind the copy is given the copy's batches again, by the coordinator.
    let to = newest.max(from);
    let results = match results {
        Some(file) if ended(file) >= ended(&copy.results) => file,
        _ => &copy.results,
    };
    let phase = phase_at(plan, copy.phase as usize, ended(results), to);
    let last_batch = copy.batches.iter().map(|batch| batch.step).max().unwrap_or_default();
    let open = matches!(checkpoints, Checkpoints::Elsewhere).then_some(to.max(last_batch));
    let mut work = Work {
        plan,
        tasks,
        copy,
        told,
        from,
        to,
        phase,
        open,
        next: copy.next_episode,
        steps: BTreeMap::new(),
        trained: BTreeMap::new(),
        unknown: Vec::new(),
        lost: BTreeSet::new(),
        skipped: Vec::new(),
        undone: Vec::new(),
        records: Vec::new(),
        events: Vec::new(),
    };
    work.find_steps(checkpoints);
    work.undo_later_steps();
    work.old_episodes();
    work.new_episodes();
    work.write_steps();
    work.write_rest();
    work.finish(results)
}

/// Phases that have ended, by their results.
fn ended(results: &Results) -> usize {
    results.evaluations.len() + results.trainings.len()
}

/// The phase a run is in after `to` steps: not before the copy's, nor before those that have ended, but
/// the steps say which train phases can be over.
fn phase_at(plan: &Plan, copy: usize, ended: usize, to: Step) -> usize {
    let phases = plan.phases.len();
    let is_train = |index: &usize| matches!(plan.phases[*index], Phase::Train(_));
    let mut train = (0..phases).filter(is_train);
    let unfinished = train.find(|index| plan.steps_before(index + 1) > to.0).unwrap_or(phases);
    // Steps of a phase are made after everything before it.
    let begun = phase_of_step(plan, to).unwrap_or(0);
    copy.max(ended).max(begun).min(unfinished)
}

/// The phase a step belongs to.
fn phase_of_step(plan: &Plan, step: Step) -> Option<usize> {
    let holds = |index: &usize| {
        plan.steps_before(*index) < step.0 && step.0 <= plan.steps_before(index + 1)
    };
    (0..plan.phases.len()).find(holds)
}

/// A step that is rebuilt.
struct Rebuilt {
    /// The adapter after it, where that is known.
    version: Option<AdapterVersion>,
    consumed: Vec<EpisodeId>,
}

struct Work<'a> {
    plan: &'a Plan,
    tasks: &'a [Vec<TaskId>],
    copy: &'a Recovered,
    told: &'a Told,
    from: Step,
    to: Step,
    phase: usize,
    /// The last step with a batch, where the learner may have made more.
    open: Option<Step>,
    /// First episode id that is given out.
    next: EpisodeId,
    /// Steps after the copy's last, up to `to`.
    steps: BTreeMap<Step, Rebuilt>,
    trained: BTreeMap<EpisodeId, Step>,
    unknown: Vec<Step>,
    lost: BTreeSet<EpisodeId>,
    skipped: Vec<(EpisodeId, EpisodeId)>,
    undone: Vec<Step>,
    records: Vec<Record>,
    events: Vec<EventKind>,
}

impl Work<'_> {
    fn batch_of_copy(&self, step: Step) -> Option<&BatchRow> {
        self.copy.batches.iter().find(|batch| batch.step == step)
    }

    /// What went into every step since the copy: by its checkpoint, else by the history, else by the
    /// batch the copy has of it.
    fn find_steps(&mut self, checkpoints: &Checkpoints) {
        let held = |step: Step| match checkpoints {
            Checkpoints::Here(held) => held.get(&step),
            Checkpoints::Elsewhere => None,
        };
        for step in (self.from.0 + 1..=self.to.0).map(Step) {
            let known = held(step).map(|held| held.consumed.clone());
            let known = known
                .or_else(|| self.told.consumed(step).cloned())
                .or_else(|| self.batch_of_copy(step).map(|batch| batch.episodes.clone()));
            let consumed = known.unwrap_or_else(|| {
                self.unknown.push(step);
                self.told.trained.get(&step).cloned().unwrap_or_default()
            });
            // Whatever is named twice belongs to the earlier step.
            let fresh = |id: &EpisodeId| !self.trained.contains_key(id);
            let consumed: Vec<EpisodeId> = consumed.into_iter().filter(fresh).collect();
            self.trained.extend(consumed.iter().map(|id| (*id, step)));
            let version = held(step).map(|held| held.version);
            let version = version.or_else(|| self.told.versions.get(&step).copied());
            self.steps.insert(step, Rebuilt { version, consumed });
        }
    }

    /// The history knows of steps whose checkpoints are gone. One whose batch is in the copy is made again
    /// as it was, the others are made anew.
    fn undo_later_steps(&mut self) {
        let later = self.told.versions.keys().filter(|step| **step > self.to);
        let mut later: Vec<Step> = later.chain(self.told.trained.keys()).copied().collect();
        later.retain(|step| *step > self.to);
        later.sort_unstable();
        later.dedup();
        self.events.extend(later.iter().rev().map(|step| EventKind::RolledBack { step: *step }));
        // Of a restoration that did not come to its end the history says so already.
        later.extend(self.told.undone.iter().filter(|step| **step > self.to));
        later.sort_unstable();
        later.dedup();
        later.retain(|step| self.batch_of_copy(*step).is_none());
        self.undone = later;
    }

    /// Episodes that were not over when the copy was made.
    fn old_episodes(&mut self) {
        let (copy, told) = (self.copy, self.told);
        for entry in copy.entries.iter().filter(|entry| !entry.state.is_terminal()) {
            let life = told.lives.get(&entry.episode);
            let mut next = entry.clone();
            if let Some(life) = life {
                next.attempt = next.attempt.max(life.attempt);
                next.node = life.node.clone().or(next.node);
            }
            let returned = life.is_some_and(|life| life.result.is_some() || life.end.is_some());
            next.state = self.old_state(entry, life, returned);
            let came_back = life.is_some_and(|life| life.result.is_some());
            let trained = self.trained.contains_key(&entry.episode);
            if entry.state.is_open() && (came_back || trained) {
                self.lost.insert(entry.episode);
            }
            if next != *entry {
                self.write(next, life);
            }
        }
    }

    fn old_state(&self, entry: &Entry, life: Option<&Life>, returned: bool) -> State {
        let dropped = |reason: &str| State::Dropped(reason.to_owned());
        if let Some(step) = self.trained.get(&entry.episode) {
            let outcome = entry.state.outcome().copied();
            return State::Trained(*step, outcome.unwrap_or_else(|| outcome_of(life)));
        }
        if let Some(end) = end_of(life) {
            return end;
        }
        match &entry.state {
            State::Batched(step, _) if *step <= self.to => dropped(LEFT_OUT),
            // What is in a batch goes into its step and no other.
            state @ State::Batched(..) => state.clone(),
            _ if entry.evaluation => dropped(MEASURED_ANEW),
            _ if entry.phase as usize != self.phase => dropped(PHASE_OVER),
            _ if !self.unknown.is_empty() => dropped(UNSURE),
            state if !state.is_open() => state.clone(),
            _ if returned => dropped(LOST),
            _ => State::Queued,
        }
    }

    /// An episode as it is now, and what the history does not say of it.
    fn write(&mut self, entry: Entry, life: Option<&Life>) {
        let episode = entry.episode;
        let told = life.and_then(|life| life.end.as_ref());
        let event = match &entry.state {
            State::Trained(step, _) if told != Some(&End::Trained(*step)) => {
                Some(EventKind::Trained { episode, step: *step })
            }
            State::Dropped(reason) if !matches!(told, Some(End::Dropped(_))) => {
                Some(EventKind::Dropped { episode, reason: reason.clone() })
            }
            _ => None,
        };
        self.events.extend(event);
        self.records.push(Record::Episode(Box::new(entry)));
    }

    /// Batches and steps.
    fn write_steps(&mut self) {
        let mut version = self.told.versions.get(&self.from).copied();
        let outcomes: BTreeMap<EpisodeId, Outcome> = self
            .records
            .iter()
            .filter_map(|record| match record {
                Record::Episode(entry) => Some((entry.episode, *entry.state.outcome()?)),
                _ => None,
            })
            .collect();
        for (step, Rebuilt { version: made, consumed }) in &self.steps {
            let known = consumed.iter().filter_map(|id| outcomes.get(id)?.oldest).max();
            let batch = self.copy.batches.iter().find(|batch| batch.step == *step);
            let before = batch.map(|batch| batch.version).or(version).max(known);
            let before = before
                .unwrap_or_else(|| AdapterVersion(made.map_or(0, |made| made.0.saturating_sub(1))));
            let mut episodes = consumed.clone();
            // What the learner left out is of the batch as well.
            let left_out = batch.iter().flat_map(|batch| &batch.episodes);
            episodes.extend(left_out.filter(|id| !self.trained.contains_key(*id)));
            let phase = phase_of_step(self.plan, *step).unwrap_or(self.phase);
            self.records.push(Record::Batch(BatchRow {
                step: *step,
                phase: phase as u32,
                version: before,
                committed: true,
                episodes,
            }));
            if let Some(made) = *made {
                if !self.told.versions.contains_key(step) {
                    self.events.push(EventKind::Stepped { step: *step, version: made });
                }
                let metrics = metrics_of(consumed, self.told);
                self.records.push(Record::Step { step: *step, version: made, metrics });
                version = Some(made);
            }
        }
    }

    /// Adapters, quarantine and the phase.
    fn write_rest(&mut self) {
        let published: BTreeSet<AdapterVersion> =
            self.copy.published.iter().map(|serving| serving.version).collect();
        for (version, digest) in &self.told.published {
            if !published.contains(version) {
                let serving = Serving { version: *version, digest: *digest };
                self.records.push(Record::Published(serving));
            }
        }
        for (task, reason) in &self.told.quarantined {
            match (reason, self.copy.quarantined.contains_key(task)) {
                (Some(reason), false) => {
                    self.records.push(Record::Quarantined(task.clone(), reason.clone()));
                }
                (None, true) => self.records.push(Record::Released(task.clone())),
                _ => {}
            }
        }
        let measures = matches!(self.plan.phases.get(self.phase), Some(Phase::Evaluate(_)));
        let phase = self.phase as u32;
        if phase != self.copy.phase {
            self.records.push(Record::Phase(phase));
        }
        if measures || phase != self.copy.phase {
            self.records.push(Record::Pinned(None, self.next));
        }
    }

    fn finish(self, results: &Results) -> Restoration {
        let before = &self.plan.phases[..self.phase.min(self.plan.phases.len())];
        let evaluations = before.iter().filter(|p| matches!(p, Phase::Evaluate(_))).count();
        let mut results = results.clone();
        results.evaluations.truncate(evaluations);
        results.trainings.truncate(before.len() - evaluations);
        (results.format, results.error) = (1, None);
        results.complete = self.phase >= self.plan.phases.len();
        let lost_trained = self.lost.iter().filter(|id| self.trained.contains_key(*id)).count();
        let lost = ranges(&self.lost);
        let restored = Restored {
            copy: self.from,
            step: self.to,
            lost,
            lost_trained: lost_trained as u64,
            unknown: self.unknown,
            skipped: self.skipped,
            open: self.open,
            ..Restored::default()
        };
        let (copy, step, lost) = (restored.copy, restored.step, restored.lost_count());
        let is_told = self.told.under_way == Some((copy, step, lost));
        let first = (!is_told).then_some(EventKind::Restored { copy, step, lost });
        let events = first.into_iter().chain(self.events).collect();
        Restoration { records: self.records, results, events, undone: self.undone, restored }
    }
}

/// What the history says came of an episode. Without its tokens nobody knows which adapters drew them.
fn outcome_of(life: Option<&Life>) -> Outcome {
    let (reward, success) = life.and_then(|life| life.result).unwrap_or_default();
    Outcome { reward, success, oldest: None, generated: 0 }
}

/// How an episode ended by the history, but for steps that are undone or rebuilt otherwise.
fn end_of(life: Option<&Life>) -> Option<State> {
    match life?.end.as_ref()? {
        End::Trained(_) => None,
        End::Dropped(reason) => Some(State::Dropped(reason.clone())),
        End::Failed(reason) => Some(match reason.strip_prefix("quarantined: ") {
            Some(reason) => State::Quarantined(reason.to_owned()),
            None => State::Failed(reason.clone()),
        }),
    }
}

/// The numbers of a step that the history still tells.
fn metrics_of(consumed: &[EpisodeId], told: &Told) -> StepMetrics {
    let result = |id: &EpisodeId| told.lives.get(id)?.result;
    let results: Vec<(f64, bool)> = consumed.iter().filter_map(result).collect();
    let mut metrics = vec![("episodes".to_owned(), consumed.len() as f64)];
    if !results.is_empty() {
        let n = results.len() as f64;
        let solved = results.iter().filter(|(_, success)| *success).count();
        let reward = results.iter().map(|(reward, _)| reward).sum::<f64>() / n;
        metrics.push(("reward_mean".to_owned(), reward));
        metrics.push(("success_rate".to_owned(), solved as f64 / n));
    }
    metrics
}

/// Ids as ranges, first and last.
fn ranges(ids: &BTreeSet<EpisodeId>) -> Vec<(EpisodeId, EpisodeId)> {
    let mut ranges: Vec<(EpisodeId, EpisodeId)> = Vec::new();
    for id in ids {
        match ranges.last_mut() {
            Some((_, last)) if last.next() == *id => *last = *id,
            _ => ranges.push((*id, *id)),
        }
    }
    ranges
}

#[cfg(test)]
mod tests;
