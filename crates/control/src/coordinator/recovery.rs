//! A coordinator that was restarted goes on from the store: nothing is trained on twice, nothing
//! is lost.
//!
//! Leases are taken as still held for [`REJOIN_GRACE`]: nodes come back and say what they hold.
//! What had a result keeps it. A batch not known to be committed is sent again when the learner
//! asks for its step, and counts as committed when the learner asks for the next.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crrl_types::{AdapterVersion, EpisodeId, GroupId, Step, TaskId};

use super::batches::{Batch, BatchRow, Learner};
use super::groups::Group;
use super::journals::Journal;
use super::{Coordinator, REJOIN_GRACE, Stage};
use crate::ledger::{Entry, Ledger, State, Totals};
use crate::plan::{Phase, Plan, PlanError};
use crate::results::Results;
use crate::wire::Serving;

/// What the store knows of a run.
#[derive(Debug, Clone, Default)]
pub struct Recovered {
    /// The phase the run is in.
    pub phase: u32,
    /// What its evaluate phase measures, and the first episode that counts.
    pub pinned: Option<(Serving, EpisodeId)>,
    /// Every entry that is not over, the trained ones of `batches`, and, in an evaluate phase,
    /// all of that phase.
    pub entries: Vec<Entry>,
    /// The last batches, [`super::ROLLBACK_STEPS_MAX`] at most; with every one not committed.
    pub batches: Vec<BatchRow>,
    /// Every adapter published.
    pub published: Vec<Serving>,
    /// Tasks in quarantine, and why.
    pub quarantined: BTreeMap<TaskId, String>,
    /// Numbers of the whole run.
    pub totals: Totals,
    /// Numbers of the phase the run is in.
    pub phase_totals: Totals,
    /// First episode id never used.
    pub next_episode: EpisodeId,
    /// First group id never used.
    pub next_group: GroupId,
    /// For each phase, the first group number never used (position of the task cursor).
    pub ordinals: BTreeMap<u32, u64>,
    /// Results of the phases that have ended.
    pub results: Results,
    /// What is on disk of episodes under way.
    pub journals: BTreeMap<EpisodeId, JournalFound>,
    /// The last step that cannot be made again: the tokens that went into it, or into one before, were
    /// lost with a damaged ledger. 0 where there is none.
    pub sealed: Step,
    /// The last step with a batch when the ledger was restored from a copy, if the learner may have made
    /// more by then.
    pub open: Option<Step>,
}

/// What is on disk of an episode under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JournalFound {
    /// The lease that wrote it.
    pub attempt: u32,
    /// Its entries.
    pub entries: u32,
    /// The oldest adapter any token of it was drawn under.
    pub oldest: Option<AdapterVersion>,
}

/// Why a run cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum RecoverError {
    /// The plan makes no sense.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// A phase has nothing to work on.
    #[error("phase {0} has no tasks: its task file is empty")]
    NoTasks(usize),
    /// The plan is another than the store's.
    #[error(
        "the run is in phase {found} of its plan, which now has {phases}: give back the plan it \
         was started with, or start a new run"
    )]
    OtherPlan {
        /// 1-based phase of the store.
        found: usize,
        /// Phases of the plan.
        phases: usize,
    },
}

impl Coordinator {
    /// A coordinator that goes on where the store says the run was. `now` is the time on the
    /// clock that [`Coordinator::handle`] will be given.
    ///
    /// # Errors
    /// [`RecoverError`] if plan and store do not belong together.
    pub fn recover(
        plan: Plan,
        tasks: Vec<Vec<TaskId>>,
        from: Recovered,
        now: Duration,
    ) -> Result<Self, RecoverError> {
        plan.validate()?;
        let phases = plan.phases.len();
        if let Some(empty) = (0..phases).find(|i| tasks.get(*i).is_none_or(Vec::is_empty)) {
            return Err(RecoverError::NoTasks(empty + 1));
        }
        let phase = from.phase as usize;
        if phase > phases {
            return Err(RecoverError::OtherPlan { found: phase + 1, phases });
        }
        let (measured, mut entries): (Vec<Entry>, Vec<Entry>) =
            from.entries.into_iter().partition(|entry| {
                entry.state.is_terminal() && !matches!(entry.state, State::Trained(..))
            });
        let grace = now + REJOIN_GRACE.min(Duration::from_millis(plan.limits.lease_ms));
        for entry in &mut entries {
            if let State::Leased(leases) = &mut entry.state {
                leases.newest.deadline = grace;
            }
        }
        let mut ordinals: Vec<u64> = vec![0; phases];
        for (index, next) in from.ordinals {
            if let Some(slot) = ordinals.get_mut(index as usize) {
                *slot = next;
            }
        }
        let committed = from.batches.iter().filter(|b| b.committed).map(|b| b.step.0).max();
        let before = from.phase_totals;
        // Nobody knows what to send for a step without episodes.
        let unknown = from.batches.iter().filter(|batch| batch.episodes.is_empty());
        let sealed = unknown.map(|batch| batch.step).fold(from.sealed, Step::max);
        let ledger = Ledger::recover(entries, from.totals, from.next_episode);
        let journal = |(episode, found): (EpisodeId, JournalFound)| {
            let newest = ledger.get(episode).map_or(0, |entry| entry.attempt);
            (episode, Journal::recovered(found, newest))
        };
        let journals = from.journals.into_iter().map(journal).collect();
        let mut new = Self {
            tasks,
            phase,
            phase_since: now,
            stage: Stage::Over { error: None },
            ledger,
            next_group: from.next_group,
            groups: BTreeMap::new(),
            queue: Default::default(),
            unsettled: BTreeSet::new(),
            ready: BTreeSet::new(),
            nodes: super::roster::Roster::default(),
            asked: BTreeMap::new(),
            learner: Learner { committed: committed.unwrap_or(0), ..Learner::default() },
            batches: BTreeMap::new(),
            sealed,
            open: from.open,
            published: from.published.into_iter().map(|s| (s.version, s.digest)).collect(),
            awaited: None,
            kills: BTreeMap::new(),
            held_back: None,
            lost: Default::default(),
            quarantined: from.quarantined,
            journals,
            pace: super::stragglers::Pace::default(),
            since_step: super::status::SinceStep::default(),
            last_failure: String::new(),
            results: Results { format: 1, error: None, ..from.results },
            ordinals,
            plan,
        };
        for row in from.batches {
            new.batches.insert(row.step.0, Batch::recovered(row));
        }
        new.stage = new.stage_of(phase);
        match &mut new.stage {
            Stage::Training(training) => training.before = before,
            Stage::Evaluating(evaluating) => {
                if let Some((serving, first)) = from.pinned {
                    evaluating.pinned = Some(serving);
                    // What was entered before was under another adapter, of however many tasks.
                    for entry in measured
                        .iter()
                        .chain(new.ledger.entries())
                        .filter(|e| e.evaluation && e.phase as usize == phase && e.episode >= first)
                    {
                        evaluating.next_task = evaluating.next_task.max(entry.ordinal as usize + 1);
                        Self::note_attempt(evaluating, entry);
                    }
                }
            }
            Stage::Over { .. } => {}
        }
        new.recover_work();
        Ok(new)
    }

    /// Queue, leases and groups, as the entries tell.
    fn recover_work(&mut self) {
        let group_size = match self.plan.phases.get(self.phase) {
            Some(Phase::Train(train)) => train.group_size as usize,
            _ => 0,
        };
        for entry in self.ledger.entries().cloned().collect::<Vec<_>>() {
            match &entry.state {
                State::Queued => {
                    self.queue.insert(entry.episode);
                }
                State::Leased(leases) => {
                    for lease in leases.iter() {
                        self.nodes.lease(&lease.node, entry.episode);
                    }
                }
                State::Finished(_) => {}
                _ => continue,
            }
            if !entry.evaluation {
                let fresh = || Group::new(entry.task.clone(), entry.ordinal);
                let group = self.groups.entry(entry.group).or_insert_with(fresh);
                // A group is refilled once: attempts beyond its size tell that it was.
                group.refilled |= entry.sample as usize >= group_size;
                group.members.push(entry.episode);
                self.unsettled.insert(entry.group);
            }
        }
    }
}
