//! What the learner gets, what it made durable, and what it fell back to.
//!
//! A request for step `k` says that every step before `k` is durable: it stands in for a lost
//! `Committed`. A request for a step already committed says that the learner fell back to an
//! older checkpoint: it gets the very same batches again, so an episode never counts twice.

use std::collections::BTreeSet;
use std::time::Duration;

use crrl_types::{AdapterVersion, EpisodeId, EventKind, GroupId, NodeName, Step};

use super::{Coordinator, Effect, Loss, ROLLBACK_STEPS_MAX, Record, Stage};
use crate::ledger::{Broken, State, Transition};
use crate::restore::UNSURE;
use crate::wire::{BatchRequest, StepMetrics};

/// Why an episode of a batch was dropped after all: it carried nothing to learn from.
pub const LEFT_OUT: &str = "the learner left it out";

/// Learners that may be lost in a row with the batch of one step before the run ends: the next would
/// fare no better.
const LEARNERS_LOST_MAX: u32 = 10;

/// Episodes of a batch that are named in an error.
const NAMED_MAX: usize = 16;

/// A batch, as it is made durable.
#[derive(Debug, Clone, PartialEq)]
pub struct BatchRow {
    /// The optimizer step it is for.
    pub step: Step,
    /// 0-based phase of the plan.
    pub phase: u32,
    /// The learner's adapter when it was made up: staleness counted from it.
    pub version: AdapterVersion,
    /// Whether the step is durable at the learner.
    pub committed: bool,
    /// Whose trajectories, in this order; group by group. None where nobody knows any more: the record
    /// of it was lost with a damaged ledger.
    pub episodes: Vec<EpisodeId>,
}

/// A batch that may be sent (again).
#[derive(Debug, Clone)]
pub(super) struct Batch {
    pub(super) episodes: Vec<EpisodeId>,
    pub(super) version: AdapterVersion,
    pub(super) phase: u32,
    pub(super) committed: bool,
    sent: Option<Duration>,
    /// Learners that were lost after it was sent to them.
    lost: u32,
}

impl Batch {
    pub(super) fn recovered(row: BatchRow) -> Self {
        let BatchRow { version, phase, committed, episodes, .. } = row;
        Self { episodes, version, phase, committed, sent: None, lost: 0 }
    }

    /// Its episodes, as far as there is room to name them.
    fn names(&self) -> String {
        let named = self.episodes.iter().take(NAMED_MAX).map(EpisodeId::to_string);
        let mut names = named.collect::<Vec<_>>().join(", ");
        if let Some(more) = self.episodes.len().checked_sub(NAMED_MAX).filter(|more| *more > 0) {
            names += &format!(" and {more} more");
        }
        names
    }

    fn row(&self, step: u64) -> BatchRow {
        BatchRow {
            step: Step(step),
            phase: self.phase,
            version: self.version,
            committed: self.committed,
            episodes: self.episodes.clone(),
        }
    }
}

/// What is known of the learner.
#[derive(Debug, Clone, Default)]
pub(super) struct Learner {
    pub(super) name: Option<NodeName>,
    /// Its adapter; `None` until it has said.
    pub(super) version: Option<AdapterVersion>,
    /// Last step that is durable.
    pub(super) committed: u64,
    /// The request not yet answered, and since when.
    pub(super) wants: Option<(Step, Duration)>,
}

impl Coordinator {
    /// A node was lost: if it was the learner, whatever it had is sent again when it asks for it.
    pub(super) fn learner_down(&mut self, name: &NodeName, loss: Loss, out: &mut Vec<Effect>) {
        if self.learner.name.as_ref() != Some(name) {
            return;
        }
        self.learner.wants = None;
        let mut hopeless = None;
        for (step, batch) in &mut self.batches {
            let was_sent = batch.sent.take().is_some();
            if was_sent && !batch.committed && loss == Loss::Unplanned {
                batch.lost += 1;
                if batch.lost >= LEARNERS_LOST_MAX {
                    hopeless = Some((*step, batch.lost, batch.names()));
                }
            }
        }
        if let Some((step, lost, names)) = hopeless {
            let error = format!(
                "the learner was lost {lost} times with the batch of step {step} and never made the \
                 step: see its log. The batch is episodes {names}"
            );
            self.end_run(error, out);
        }
    }

    pub(super) fn batch_wanted(
        &mut self,
        from: NodeName,
        request: BatchRequest,
        now: Duration,
        out: &mut Vec<Effect>,
    ) -> Result<(), Broken> {
        let BatchRequest { step: Step(step), version } = request;
        if self.learner.name.as_ref() != Some(&from) {
            self.learner.name = Some(from);
            self.learner.wants = None;
        }
        // A request may overtake the news of the steps before it.
        while self.learner.committed + 1 < step {
            let missed = self.learner.committed + 1;
            if !self.batches.contains_key(&missed) && !self.went_on(missed, step, out)? {
                let error = format!(
                    "the learner asks for step {step}, but this run's ledger ends before step \
                     {missed}: its checkpoints and its store do not belong together"
                );
                self.end_run(error, out);
                return Ok(());
            }
            self.committed(Step(missed), version, None, Vec::new(), out)?;
        }
        if step <= self.learner.committed {
            self.roll_back(step, now, out)?;
        }
        if self.is_over() {
            return Ok(());
        }
        self.learner.version = Some(version);
        if self.learner.wants.is_none_or(|(wanted, _)| wanted.0 != step) {
            self.learner.wants = Some((Step(step), now));
        }
        Ok(())
    }

    /// A learner whose checkpoints were elsewhere when the ledger was restored has made steps since, from
    /// `missed` up to `step`, of batches that are lost. It is believed, and nothing that may have been in
    /// those is trained on. False where the ledger has no such gap.
    fn went_on(&mut self, missed: u64, step: u64, out: &mut Vec<Effect>) -> Result<bool, Broken> {
        let (Some(open), Stage::Training(training)) = (self.open, &self.stage) else {
            return Ok(false);
        };
        // A batch that was made since closes the gap: every later one is known.
        let is_closed = self.batches.keys().next_back().is_some_and(|last| *last > open.0);
        let is_ours = training.first_step < missed && step - 1 <= training.last_step;
        if is_closed || !is_ours || step - missed > ROLLBACK_STEPS_MAX {
            return Ok(false);
        }
        for group in self.groups.keys().copied().collect::<Vec<_>>() {
            self.drop_group(group, UNSURE, out)?;
        }
        let (phase, version) = (self.phase as u32, self.current());
        for missed in missed..step {
            let episodes = Vec::new();
            let batch = Batch { episodes, version, phase, committed: false, sent: None, lost: 0 };
            self.batches.insert(missed, batch);
        }
        self.sealed = Step(step - 1);
        Ok(true)
    }

    /// The learner is back at an older checkpoint, where `step` is yet to be made.
    fn roll_back(&mut self, step: u64, now: Duration, out: &mut Vec<Effect>) -> Result<(), Broken> {
        let sealed = self.sealed;
        if step.max(1) <= sealed.0 {
            let error = format!(
                "the learner fell back to before step {step}, but steps up to {sealed} cannot be made \
                 again: tokens that went into them were lost with a damaged ledger. Start a new run \
                 from the newest checkpoint that loads: model.adapter names its adapter folder"
            );
            self.end_run(error, out);
            return Ok(());
        }
        for undone in (step.max(1)..=self.learner.committed).rev() {
            let Some(batch) = self.batches.get_mut(&undone) else {
                let error = format!(
                    "the learner fell back to before step {undone}, which is more than \
                     {ROLLBACK_STEPS_MAX} steps ago: its batch is no longer at hand"
                );
                self.end_run(error, out);
                return Ok(());
            };
            batch.committed = false;
            batch.sent = None;
            out.push(Effect::Record(Record::Batch(batch.row(undone))));
            out.push(Effect::Event(EventKind::RolledBack { step: Step(undone) }));
            for episode in batch.episodes.clone() {
                let trained = self.ledger.get(episode).map(|entry| &entry.state);
                if matches!(trained, Some(State::Trained(..))) {
                    self.transit(episode, Transition::RollBack, out)?;
                }
            }
        }
        self.learner.committed = step.max(1) - 1;
        self.learner.wants = None;
        self.back_to_step(step, now, out)
    }

    /// A step is durable. Without `consumed`, all of its batch was trained on.
    pub(super) fn committed(
        &mut self,
        step: Step,
        version: AdapterVersion,
        consumed: Option<&[EpisodeId]>,
        metrics: StepMetrics,
        out: &mut Vec<Effect>,
    ) -> Result<(), Broken> {
        let Some(batch) = self.batches.get_mut(&step.0) else { return Ok(()) };
        if batch.committed || step.0 != self.learner.committed + 1 {
            if batch.committed && !metrics.is_empty() {
                // The news was overtaken by the next request: only the numbers are new.
                out.push(Effect::Record(Record::Step { step, version, metrics }));
            }
            return Ok(());
        }
        batch.committed = true;
        batch.lost = 0;
        out.push(Effect::Record(Record::Batch(batch.row(step.0))));
        let (episodes, made_at) = (batch.episodes.clone(), batch.version);
        let consumed: Option<BTreeSet<_>> = consumed.map(|ids| ids.iter().copied().collect());
        let mut own = self.step_metrics(&episodes, made_at);
        for episode in episodes {
            let left_out = consumed.as_ref().is_some_and(|ids| !ids.contains(&episode));
            let state = self.ledger.get(episode).map(|entry| &entry.state);
            if !matches!(state, Some(State::Batched(..))) {
                continue; // Left out the first time this step was made.
            }
            let next =
                if left_out { Transition::Drop(LEFT_OUT.to_owned()) } else { Transition::Commit };
            self.transit(episode, next, out)?;
        }
        self.learner.committed = step.0;
        self.learner.version = Some(version);
        if self.learner.wants.is_some_and(|(wanted, _)| wanted <= step) {
            self.learner.wants = None;
        }
        out.push(Effect::Event(EventKind::Stepped { step, version }));
        own.extend(metrics);
        out.push(Effect::Record(Record::Step { step, version, metrics: own }));
        self.forget_old_batches(out);
        Ok(())
    }

    fn forget_old_batches(&mut self, out: &mut Vec<Effect>) {
        let first = self.learner.committed.saturating_sub(ROLLBACK_STEPS_MAX) + 1;
        let kept = self.batches.split_off(&first);
        for batch in std::mem::replace(&mut self.batches, kept).into_values() {
            self.ledger.forget_trained(&batch.episodes);
            out.extend(batch.episodes.into_iter().map(Effect::Forget));
        }
        // Their tokens leave memory earlier; after a fall-back they are read from the store.
        let last = self.batches.get(&self.learner.committed);
        out.extend(last.iter().flat_map(|b| b.episodes.iter().copied().map(Effect::Forget)));
    }

    /// Answers the learner's request, if the groups for it are there.
    pub(super) fn make_batch(
        &mut self,
        now: Duration,
        out: &mut Vec<Effect>,
    ) -> Result<(), Broken> {
        let (Some((step, since)), Some(to)) = (self.learner.wants, self.learner.name.clone())
        else {
            return Ok(());
        };
        let resend = Duration::from_millis(self.plan.limits.batch_resend_ms);
        if let Some(batch) = self.batches.get_mut(&step.0) {
            // One that was made before the learner fell back to an earlier phase waits for its own. The
            // request is repeated until the batch is there: not every time is it sent.
            let is_due = batch.sent.is_none_or(|at| now >= at + resend);
            if is_due && batch.phase as usize == self.phase {
                batch.sent = Some(now);
                let episodes = batch.episodes.clone();
                out.push(Effect::SendBatch { to, step, episodes });
            }
            return Ok(());
        }
        let (Stage::Training(training), Some(train)) = (&self.stage, self.train()) else {
            return Ok(());
        };
        let wanted = train.groups_per_step as usize;
        if step.0 > training.last_step {
            return Ok(());
        }
        let version = self.current();
        self.drop_stale(version, out)?;
        if self.ready.len() < wanted {
            self.cut_groups(wanted - self.ready.len(), out)?;
            self.drop_stale(version, out)?;
        }
        if self.ready.len() < wanted || self.is_over() {
            return Ok(());
        }
        let groups: Vec<GroupId> = self.ready.iter().take(wanted).map(|(_, id)| *id).collect();
        let mut episodes = Vec::new();
        for id in groups {
            episodes.extend(self.usable(id).map(|(entry, _)| entry.episode));
            self.take_group(id);
        }
        for episode in &episodes {
            self.transit(*episode, Transition::Batch(step), out)?;
        }
        let phase = self.phase as u32;
        let sent = Some(now);
        let batch =
            Batch { episodes: episodes.clone(), version, phase, committed: false, sent, lost: 0 };
        out.push(Effect::Record(Record::Batch(batch.row(step.0))));
        self.batches.insert(step.0, batch);
        self.since_step.learner_waited += now.saturating_sub(since);
        out.push(Effect::SendBatch { to, step, episodes });
        Ok(())
    }

    pub(super) fn check_batches(&self) -> Result<(), Broken> {
        let broken = |what: String| Err(Broken(what));
        let mut seen = BTreeSet::new();
        for (step, batch) in &self.batches {
            if batch.committed != (*step <= self.learner.committed) {
                return broken(format!("batch {step} and committed {}", self.learner.committed));
            }
            for id in &batch.episodes {
                if !seen.insert(*id) {
                    return broken(format!("episode {id} is in two batches (I2)"));
                }
                match self.ledger.get(*id).map(|entry| &entry.state) {
                    Some(State::Batched(at, _)) if at.0 == *step && !batch.committed => {}
                    Some(State::Trained(at, _)) if at.0 == *step && batch.committed => {}
                    None => {} // The learner left it out.
                    state => return broken(format!("{id} of batch {step} is {state:?}")),
                }
            }
        }
        for entry in self.ledger.entries() {
            if matches!(entry.state, State::Batched(..)) && !seen.contains(&entry.episode) {
                return broken(format!("{entry:?} is in no batch"));
            }
        }
        Ok(())
    }
}
