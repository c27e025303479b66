//! From one phase of the plan to the next.

use std::time::Duration;

use super::evaluation::Evaluating;
use super::{Coordinator, Effect, Record, Stage, Training};
use crate::cursor::Cursor;
use crate::ledger::{Broken, Totals};
use crate::plan::Phase;
use crate::results;

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

impl Coordinator {
    /// The stage a phase begins with.
    pub(super) fn stage_of(&self, index: usize) -> Stage {
        match self.plan.phases.get(index) {
            None => Stage::Over { error: None },
            Some(Phase::Evaluate(phase)) => {
                let samples = phase.samples;
                Stage::Evaluating(Box::new(Evaluating { samples, ..Evaluating::default() }))
            }
            Some(Phase::Train(phase)) => {
                let first_step = self.plan.steps_before(index);
                Stage::Training(Training {
                    cursor: Cursor::new(
                        self.plan.seed ^ (index as u64).rotate_left(48),
                        self.tasks[index].len(),
                    ),
                    first_step,
                    last_step: first_step + phase.steps,
                    equal_in_a_row: 0,
                    failed_in_a_row: 0,
                    equal_groups: 0,
                    at_start: self.ledger.totals(),
                    before: Totals::default(),
                })
            }
        }
    }

    pub(super) fn plan_work(&mut self, out: &mut Vec<Effect>) -> Result<(), Broken> {
        match self.stage {
            Stage::Training(_) => self.plan_training(out),
            Stage::Evaluating(_) => self.plan_evaluation(out),
            Stage::Over { .. } => Ok(()),
        }
    }

    /// Ends the phase if it is done, and says whether it was.
    pub(super) fn end_phase_if_done(
        &mut self,
        now: Duration,
        out: &mut Vec<Effect>,
    ) -> Result<bool, Broken> {
        let wall_ms = millis(now.saturating_sub(self.phase_since));
        match &self.stage {
            Stage::Training(training) if self.learner.committed >= training.last_step => {
                let open: Vec<_> = self.groups.keys().copied().collect();
                for group in open {
                    self.drop_group(group, "the phase had all its steps", out)?;
                }
                if let Some(result) = self.training_result(wall_ms) {
                    self.results.trainings.push(result);
                }
            }
            Stage::Evaluating(_) if self.evaluation_is_done() => {
                if let Some(result) = self.evaluation_result(wall_ms) {
                    self.results.evaluations.push(result);
                }
            }
            _ => return Ok(false),
        }
        self.enter_phase(self.phase + 1, now, out);
        Ok(true)
    }

    fn training_result(&self, wall_ms: u64) -> Option<results::Training> {
        let Stage::Training(training) = &self.stage else { return None };
        let (now, start, before) = (self.ledger.totals(), &training.at_start, &training.before);
        let since = |before: u64, now: u64, start: u64| (before + now).saturating_sub(start);
        Some(results::Training {
            steps: training.last_step - training.first_step,
            version: self.current(),
            trained: since(before.trained, now.trained, start.trained),
            dropped: since(before.dropped, now.dropped, start.dropped),
            failed: since(before.failed, now.failed, start.failed)
                + since(before.quarantined, now.quarantined, start.quarantined),
            equal_groups: training.equal_groups,
            wall_ms,
        })
    }

    fn enter_phase(&mut self, index: usize, now: Duration, out: &mut Vec<Effect>) {
        self.phase = index;
        self.phase_since = now;
        self.stage = self.stage_of(index);
        out.push(Effect::Record(Record::Phase(index as u32)));
        out.push(Effect::Record(Record::Pinned(None, self.ledger.next())));
        self.results.complete = self.is_over();
        out.push(Effect::Results(Box::new(self.results.clone())));
        if self.is_over() {
            self.say_stop(out);
            out.push(Effect::Over { error: None });
        }
    }

    /// The learner fell back to before a step: if its phase has ended, that phase goes on.
    pub(super) fn back_to_step(
        &mut self,
        step: u64,
        now: Duration,
        out: &mut Vec<Effect>,
    ) -> Result<(), Broken> {
        if step > self.plan.steps_before(self.phase) {
            return Ok(());
        }
        let phases = 0..self.plan.phases.len();
        let Some(index) = phases.rev().find(|index| self.plan.steps_before(*index) < step) else {
            return Ok(());
        };
        let reason = "the learner fell back to an earlier phase";
        self.drop_evaluation(reason, out)?;
        for group in self.groups.keys().copied().collect::<Vec<_>>() {
            self.drop_group(group, reason, out)?;
        }
        let evaluations =
            self.plan.phases[..index].iter().filter(|p| matches!(p, Phase::Evaluate(_))).count();
        self.results.evaluations.truncate(evaluations);
        self.results.trainings.truncate(index - evaluations);
        self.enter_phase(index, now, out);
        Ok(())
    }

    /// Ends the run before its plan is done. The ledger stays as it is, so that the run can be
    /// resumed.
    pub(super) fn end_run(&mut self, error: String, out: &mut Vec<Effect>) {
        if self.is_over() {
            return;
        }
        self.stage = Stage::Over { error: Some(error.clone()) };
        self.results.error = Some(error.clone());
        out.push(Effect::Results(Box::new(self.results.clone())));
        self.say_stop(out);
        out.push(Effect::Over { error: Some(error) });
    }

    fn say_stop(&self, out: &mut Vec<Effect>) {
        let names = self.nodes.iter().map(|(name, _)| name).chain(&self.learner.name);
        out.extend(names.map(|name| Effect::Send(name.clone(), self.farewell())));
    }
}
