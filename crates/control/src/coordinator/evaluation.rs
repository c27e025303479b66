//! Measuring the policy as it stands: every task of the phase, so many attempts each, all under
//! one adapter.

use std::collections::BTreeMap;

use crrl_types::{AdapterVersion, Digest, EpisodeId};

use super::{Coordinator, Effect, Record, Stage};
use crate::ledger::{Broken, Entry, Outcome, State, Transition};
use crate::plan::Phase;
use crate::results::{Attempt, TaskResult};
use crate::wire::Serving;

/// Queued episodes kept ready beyond the nodes' room.
const QUEUE_SPARE: usize = 32;

/// An evaluate phase under way.
#[derive(Debug, Clone, Default)]
pub(super) struct Evaluating {
    /// What is measured; `None` until it is known.
    pub(super) pinned: Option<Serving>,
    /// Next task of the file to be entered in the ledger.
    pub(super) next_task: usize,
    pub(super) samples: u32,
    /// What came of (task, attempt); `None` where it could not be rolled out.
    pub(super) attempts: BTreeMap<(u64, u32), Option<Attempt>>,
}

impl Coordinator {
    /// Enters attempts in the ledger ahead of the nodes' room.
    pub(super) fn plan_evaluation(&mut self, out: &mut Vec<Effect>) -> Result<(), Broken> {
        self.pin(out)?;
        let phase = self.phase as u32;
        let spare = self.nodes.capacity() + QUEUE_SPARE;
        let tasks = self.tasks[self.phase].len();
        loop {
            let queued = self.queued();
            let Stage::Evaluating(evaluating) = &mut self.stage else { return Ok(()) };
            let index = evaluating.next_task;
            if index >= tasks || queued >= spare || evaluating.pinned.is_none() {
                return Ok(());
            }
            evaluating.next_task += 1;
            let samples = evaluating.samples;
            let task = self.tasks[self.phase][index].clone();
            let group = self.next_group;
            self.next_group = group.next();
            self.ordinals[self.phase] = index as u64 + 1;
            for sample in 0..samples {
                let episode = self.enter(phase, index as u64, group, &task, sample, out);
                if let Some(reason) = self.quarantined.get(&task).cloned() {
                    self.transit(episode, Transition::Quarantine(reason), out)?;
                }
            }
        }
    }

    /// Decides which adapter is measured: the learner's. If it changes under way, what was
    /// measured so far does not count.
    fn pin(&mut self, out: &mut Vec<Effect>) -> Result<(), Broken> {
        if self.plan.steps() > 0 && self.learner.version.is_none() {
            return Ok(());
        }
        let version = self.current();
        let Some(digest) = self.digest_of(version) else { return Ok(()) };
        let Stage::Evaluating(evaluating) = &mut self.stage else { return Ok(()) };
        let serving = Serving { version, digest };
        match evaluating.pinned {
            // The same weights under a newer version are the same policy.
            Some(pinned) if pinned.digest == digest => return Ok(()),
            Some(_) => {
                **evaluating = Evaluating { samples: evaluating.samples, ..Evaluating::default() };
            }
            None => {}
        }
        evaluating.pinned = Some(serving);
        out.push(Effect::Record(Record::Pinned(Some(serving), self.ledger.next())));
        self.drop_evaluation("the adapter changed while it was measured", out)
    }

    /// Leaves out every attempt that is not over.
    pub(super) fn drop_evaluation(
        &mut self,
        reason: &str,
        out: &mut Vec<Effect>,
    ) -> Result<(), Broken> {
        let open: Vec<EpisodeId> = self
            .ledger
            .entries()
            .filter(|entry| entry.evaluation && !entry.state.is_terminal())
            .map(|entry| entry.episode)
            .collect();
        for episode in open {
            self.withdraw(episode, reason, out);
            self.transit(episode, Transition::Drop(reason.to_owned()), out)?;
        }
        Ok(())
    }

    /// Whether every attempt has ended.
    pub(super) fn evaluation_is_done(&self) -> bool {
        let Stage::Evaluating(evaluating) = &self.stage else { return false };
        evaluating.pinned.is_some()
            && evaluating.next_task >= self.tasks[self.phase].len()
            && self.ledger.evaluations() == 0
    }

    pub(super) fn evaluation_result(&self, wall_ms: u64) -> Option<crate::results::Evaluation> {
        let (Stage::Evaluating(evaluating), Some(Phase::Evaluate(phase))) =
            (&self.stage, self.plan.phases.get(self.phase))
        else {
            return None;
        };
        let task = |(task, index): (&crrl_types::TaskId, u64)| TaskResult {
            task: task.clone(),
            attempts: (0..evaluating.samples)
                .map(|sample| evaluating.attempts.get(&(index, sample)).copied().flatten())
                .collect(),
        };
        let (version, digest) =
            evaluating.pinned.map_or((AdapterVersion(0), Digest::default()), |pinned| {
                (pinned.version, pinned.digest)
            });
        Some(crate::results::Evaluation {
            label: phase.label.clone(),
            version,
            digest,
            wall_ms,
            tasks: self.tasks[self.phase].iter().zip(0..).map(task).collect(),
        })
    }

    /// Notes what came of an attempt, if it is over.
    pub(super) fn note_attempt(evaluating: &mut Evaluating, entry: &Entry) {
        let key = (entry.ordinal, entry.sample);
        match &entry.state {
            State::Measured(Outcome { reward, success, .. }) => {
                let attempt = Attempt { reward: *reward, success: *success };
                evaluating.attempts.insert(key, Some(attempt));
            }
            State::Failed(_) | State::Quarantined(_) => {
                evaluating.attempts.insert(key, None);
            }
            _ => {}
        }
    }
}
