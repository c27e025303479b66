//! Every episode's life, as a state machine that refuses illegal transitions.
//!
//! ```text
//! queued -> leased -> finished -> batched -> trained
//!    ^________|           |          ^__________| (the learner fell back to an older checkpoint)
//!                         +-> measured            (evaluation)
//! anything not terminal -> dropped | failed | quarantined
//! ```
//!
//! Terminal entries leave memory; their numbers stay. Trained ones stay until
//! [`Ledger::forget_trained`], because a checkpoint that does not load brings them back.
//!
//! What is asked on every message is kept beside the entries, so that no answer takes a look at all.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use crrl_types::{AdapterVersion, EpisodeId, GroupId, NodeName, Step, TaskId};
use serde::{Deserialize, Serialize};

/// What the coordinator needs to know of a finished trajectory.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// Total reward; finite.
    pub reward: f64,
    /// Whether the task counts as solved.
    pub success: bool,
    /// Oldest adapter any token was drawn under; `None` if nothing was generated.
    pub oldest: Option<AdapterVersion>,
    /// Tokens generated.
    pub generated: u32,
}

/// Who works on an episode.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// Which node.
    pub node: NodeName,
    /// Number of the lease on this episode, from 1.
    pub attempt: u32,
    /// When it ends, on the coordinator's monotonic clock.
    pub deadline: Duration,
}

/// The leases on one episode: one, or two where a straggler was handed to a second node. The
/// first result of either counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leases {
    /// The newest.
    pub newest: Lease,
    /// The one before, if it still counts.
    pub elder: Option<Lease>,
}

impl Leases {
    /// A single lease.
    #[must_use]
    pub fn one(lease: Lease) -> Self {
        Self { newest: lease, elder: None }
    }

    /// Each lease.
    pub fn iter(&self) -> impl Iterator<Item = &Lease> {
        std::iter::once(&self.newest).chain(&self.elder)
    }

    /// The lease a node has.
    #[must_use]
    pub fn of(&self, node: &NodeName) -> Option<&Lease> {
        self.iter().find(|lease| lease.node == *node)
    }
}

/// Where an episode is in its life.
#[derive(Debug, Clone, PartialEq)]
pub enum State {
    /// Waits for a node with room.
    Queued,
    /// A node works on it.
    Leased(Leases),
    /// It has a result and waits for its batch.
    Finished(Outcome),
    /// The learner has it, or is about to.
    Batched(Step, Outcome),
    /// The optimizer step that consumed it is durable. Terminal.
    Trained(Step, Outcome),
    /// It was an evaluation's. Terminal.
    Measured(Outcome),
    /// It was left out. Terminal.
    Dropped(String),
    /// It could not be rolled out. Terminal.
    Failed(String),
    /// Its task kills nodes. Terminal.
    Quarantined(String),
}

impl State {
    /// Its name, as in the store.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Leased(_) => "leased",
            Self::Finished(_) => "finished",
            Self::Batched(..) => "batched",
            Self::Trained(..) => "trained",
            Self::Measured(_) => "measured",
            Self::Dropped(_) => "dropped",
            Self::Failed(_) => "failed",
            Self::Quarantined(_) => "quarantined",
        }
    }

    /// Whether nothing comes after it.
    #[must_use]
    pub fn is_terminal(&self) -> bool {
        !matches!(self, Self::Queued | Self::Leased(_) | Self::Finished(_) | Self::Batched(..))
    }

    /// Whether a result may still come.
    #[must_use]
    pub fn is_open(&self) -> bool {
        matches!(self, Self::Queued | Self::Leased(_))
    }

    /// The result, once there is one.
    #[must_use]
    pub fn outcome(&self) -> Option<&Outcome> {
        match self {
            Self::Finished(outcome)
            | Self::Batched(_, outcome)
            | Self::Trained(_, outcome)
            | Self::Measured(outcome) => Some(outcome),
            _ => None,
        }
    }
}

/// One episode.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// Unique in the run.
    pub episode: EpisodeId,
    /// The attempts it is compared with.
    pub group: GroupId,
    /// What is to be repaired.
    pub task: TaskId,
    /// 0-based phase of the plan it belongs to.
    pub phase: u32,
    /// Number of its group in the phase: position of the task cursor.
    pub ordinal: u64,
    /// Which attempt at the task it is.
    pub sample: u32,
    /// Whether it is measured and never trained on.
    pub evaluation: bool,
    /// Leases given out on it so far; the newest lease has this number.
    pub attempt: u32,
    /// Node of the newest lease there was; once there is a result, the one it came from.
    pub node: Option<NodeName>,
    /// Where it is in its life.
    pub state: State,
}

impl Entry {
    /// The next lease on it.
    fn lease(&mut self, node: NodeName, deadline: Duration) -> Lease {
        self.attempt += 1;
        self.node = Some(node.clone());
        Lease { node, attempt: self.attempt, deadline }
    }

    /// Whether this is a lease that counts. One that was taken back counts until the episode is
    /// handed out again: nobody else can commit to it.
    #[must_use]
    pub fn is_held_by(&self, node: &NodeName, attempt: u32) -> bool {
        match &self.state {
            State::Queued => self.attempt == attempt && self.node.as_ref() == Some(node),
            State::Leased(leases) => {
                leases.iter().any(|lease| lease.node == *node && lease.attempt == attempt)
            }
            _ => false,
        }
    }
}

/// What happens to an episode.
#[derive(Debug, Clone, PartialEq)]
pub enum Transition {
    /// A node gets it; a second node, where one has it already.
    Lease {
        /// Which.
        node: NodeName,
        /// When the lease ends.
        deadline: Duration,
    },
    /// The node that had this lease turned out to be working on it still.
    Resume {
        /// Number of the lease.
        attempt: u32,
        /// When the lease ends now.
        deadline: Duration,
    },
    /// This lease ended without a result. The episode waits for a node unless another has it.
    Release {
        /// Number of the lease.
        attempt: u32,
    },
    /// A result came.
    Finish(Outcome),
    /// The result was an evaluation's.
    Measure,
    /// It goes into the batch of a step.
    Batch(Step),
    /// The step is durable.
    Commit,
    /// The step is not durable after all.
    RollBack,
    /// It is left out.
    Drop(String),
    /// It is given up.
    Fail(String),
    /// Its task is quarantined.
    Quarantine(String),
}

/// A transition the state machine does not have.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum LedgerError {
    /// Not from this state.
    #[error("episode {episode} is {from} and cannot {transition:?}")]
    Illegal {
        /// The episode.
        episode: EpisodeId,
        /// Its state.
        from: &'static str,
        /// What was tried.
        transition: Transition,
    },
    /// Never dispatched, or over and forgotten.
    #[error("episode {0} is not in the ledger")]
    Unknown(EpisodeId),
}

/// How many episodes ended how, over the life of the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Totals {
    /// Entered in the ledger.
    pub created: u64,
    /// Trained on.
    pub trained: u64,
    /// Measured.
    pub measured: u64,
    /// Left out.
    pub dropped: u64,
    /// Given up.
    pub failed: u64,
    /// Of a quarantined task.
    pub quarantined: u64,
}

impl Totals {
    /// Episodes in a terminal state.
    #[must_use]
    pub fn terminal(&self) -> u64 {
        self.trained + self.measured + self.dropped + self.failed + self.quarantined
    }

    fn slot(&mut self, state: &State) -> Option<&mut u64> {
        match state {
            State::Trained(..) => Some(&mut self.trained),
            State::Measured(_) => Some(&mut self.measured),
            State::Dropped(_) => Some(&mut self.dropped),
            State::Failed(_) => Some(&mut self.failed),
            State::Quarantined(_) => Some(&mut self.quarantined),
            _ => None,
        }
    }
}

/// A broken invariant: a bug of this program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broken(pub String);

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "invariant broken: {}", self.0)
    }
}

/// All episodes that are not over, and how many are.
#[derive(Debug, Clone, Default)]
pub struct Ledger {
    entries: BTreeMap<EpisodeId, Entry>,
    /// When each lease ends, soonest first.
    deadlines: BTreeSet<(Duration, EpisodeId)>,
    /// Evaluations that are not over.
    evaluations: usize,
    totals: Totals,
    next: EpisodeId,
}

impl Ledger {
    /// The ledger of a run that goes on: its unfinished entries (and the trained ones that may
    /// still be rolled back), the numbers of *all* its episodes, and the first id never used.
    #[must_use]
    pub fn recover(entries: Vec<Entry>, totals: Totals, next: EpisodeId) -> Self {
        let entries: BTreeMap<_, _> = entries.into_iter().map(|e| (e.episode, e)).collect();
        let next = entries.keys().next_back().map_or(next, |last| next.max(last.next()));
        let deadlines = entries.values().filter_map(deadline_of).collect();
        let evaluations = entries.values().filter(|entry| is_open_evaluation(entry)).count();
        Self { entries, deadlines, evaluations, totals, next }
    }

    /// Enters a new episode, queued.
    pub fn create(
        &mut self,
        (phase, ordinal, group): (u32, u64, GroupId),
        task: &TaskId,
        sample: u32,
        evaluation: bool,
    ) -> &Entry {
        let episode = self.next;
        self.next = episode.next();
        self.totals.created += 1;
        let (attempt, node, state) = (0, None, State::Queued);
        let task = task.clone();
        self.evaluations += usize::from(evaluation);
        self.entries.entry(episode).or_insert(Entry {
            episode,
            group,
            task,
            phase,
            ordinal,
            sample,
            evaluation,
            attempt,
            node,
            state,
        })
    }

    /// An episode that is not over.
    #[must_use]
    pub fn get(&self, episode: EpisodeId) -> Option<&Entry> {
        self.entries.get(&episode)
    }

    /// Whether an episode of this id was ever created (it may be over).
    #[must_use]
    pub fn was_created(&self, episode: EpisodeId) -> bool {
        episode < self.next
    }

    /// First id never used.
    #[must_use]
    pub fn next(&self) -> EpisodeId {
        self.next
    }

    /// Every entry in memory, by id.
    pub fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.entries.values()
    }

    /// Leases that have ended by `now`, by episode.
    #[must_use]
    pub fn late(&self, now: Duration) -> Vec<(EpisodeId, Lease)> {
        let ended = self.deadlines.range(..=(now, EpisodeId(u64::MAX)));
        let entries = ended.filter_map(|(_, episode)| self.get(*episode));
        let leases = entries.flat_map(|entry| leases(entry).map(|lease| (entry.episode, lease)));
        let mut late: Vec<(EpisodeId, Lease)> = leases
            .filter(|(_, lease)| lease.deadline <= now)
            .map(|(episode, lease)| (episode, lease.clone()))
            .collect();
        late.sort_by_key(|(episode, lease)| (*episode, lease.attempt));
        late
    }

    /// Episodes nodes work on; that whose lease ends first comes first.
    pub fn leased(&self) -> impl Iterator<Item = &Entry> {
        self.deadlines.iter().filter_map(|(_, episode)| self.get(*episode))
    }

    /// When the next lease ends.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Duration> {
        self.deadlines.first().map(|(at, _)| *at)
    }

    /// Evaluations that are not over.
    #[must_use]
    pub fn evaluations(&self) -> usize {
        self.evaluations
    }

    /// The numbers.
    #[must_use]
    pub fn totals(&self) -> Totals {
        self.totals
    }

    /// Moves an episode on, and returns it as it is afterwards.
    ///
    /// # Errors
    /// [`LedgerError`] if the episode is unknown or the transition illegal; nothing has changed.
    pub fn apply(
        &mut self,
        episode: EpisodeId,
        transition: Transition,
    ) -> Result<Entry, LedgerError> {
        let entry = self.entries.get_mut(&episode).ok_or(LedgerError::Unknown(episode))?;
        let illegal = |from: &State, transition| LedgerError::Illegal {
            episode,
            from: from.name(),
            transition,
        };
        let next = match (&entry.state, transition.clone()) {
            (State::Queued, Transition::Lease { node, deadline }) => {
                State::Leased(Leases::one(entry.lease(node, deadline)))
            }
            (
                State::Leased(Leases { newest: elder, elder: None }),
                Transition::Lease { node, deadline },
            ) if elder.node != node => {
                let elder = Some(elder.clone());
                State::Leased(Leases { newest: entry.lease(node, deadline), elder })
            }
            (State::Queued, Transition::Resume { attempt, deadline })
                if attempt == entry.attempt =>
            {
                match entry.node.clone() {
                    Some(node) => State::Leased(Leases::one(Lease { node, attempt, deadline })),
                    None => return Err(illegal(&entry.state, transition)),
                }
            }
            (State::Leased(leases), Transition::Resume { attempt, deadline })
                if leases.iter().any(|lease| lease.attempt == attempt) =>
            {
                let mut leases = leases.clone();
                for lease in std::iter::once(&mut leases.newest).chain(&mut leases.elder) {
                    if lease.attempt == attempt {
                        lease.deadline = deadline;
                    }
                }
                State::Leased(leases)
            }
            (State::Leased(leases), Transition::Release { attempt }) => {
                let mut left = leases.iter().filter(|lease| lease.attempt != attempt).cloned();
                match (left.next(), left.next()) {
                    (None, _) => State::Queued,
                    (Some(lease), None) if leases.elder.is_some() => {
                        State::Leased(Leases::one(lease))
                    }
                    _ => return Err(illegal(&entry.state, transition)),
                }
            }
            (State::Leased(leases), Transition::Finish(outcome)) => {
                entry.node = Some(leases.newest.node.clone());
                State::Finished(outcome)
            }
            (State::Finished(outcome), Transition::Measure) if entry.evaluation => {
                State::Measured(*outcome)
            }
            (State::Finished(outcome), Transition::Batch(step)) if !entry.evaluation => {
                State::Batched(step, *outcome)
            }
            (State::Batched(step, outcome), Transition::Commit) => State::Trained(*step, *outcome),
            (State::Trained(step, outcome), Transition::RollBack) => {
                self.totals.trained -= 1;
                State::Batched(*step, *outcome)
            }
            (from, Transition::Drop(reason)) if !from.is_terminal() => State::Dropped(reason),
            (from, Transition::Fail(reason)) if from.is_open() => State::Failed(reason),
            (from, Transition::Quarantine(reason)) if from.is_open() => State::Quarantined(reason),
            (from, transition) => return Err(illegal(from, transition)),
        };
        if let Some(slot) = self.totals.slot(&next) {
            *slot += 1;
        }
        let kept = !next.is_terminal() || matches!(next, State::Trained(..));
        if let Some(ended) = deadline_of(entry) {
            self.deadlines.remove(&ended);
        }
        let was_open = is_open_evaluation(entry);
        entry.state = next;
        self.evaluations -= usize::from(was_open && !is_open_evaluation(entry));
        self.deadlines.extend(deadline_of(entry));
        let entry = entry.clone();
        if !kept {
            self.entries.remove(&episode);
        }
        Ok(entry)
    }

    /// Takes those of these episodes that were trained on out of memory; they cannot be rolled back
    /// any more.
    pub fn forget_trained(&mut self, episodes: &[EpisodeId]) {
        for episode in episodes {
            if self.get(*episode).is_some_and(|entry| matches!(entry.state, State::Trained(..))) {
                self.entries.remove(episode);
            }
        }
    }

    /// Checks that every episode is accounted for, and no lease is without a holder.
    ///
    /// # Errors
    /// What is broken (I1, I3 of the fault model).
    pub fn check(&self) -> Result<(), Broken> {
        let live = self.entries.values().filter(|e| !e.state.is_terminal()).count() as u64;
        let totals = self.totals;
        if totals.created != totals.terminal() + live {
            return Err(Broken(format!("{totals:?} do not add up with {live} in flight")));
        }
        let deadlines: BTreeSet<_> = self.entries.values().filter_map(deadline_of).collect();
        let evaluations = self.entries.values().filter(|entry| is_open_evaluation(entry)).count();
        if deadlines != self.deadlines || evaluations != self.evaluations {
            let (known, are) = (self.deadlines.len(), deadlines.len());
            return Err(Broken(format!(
                "{known} leases known, {are} there; {} evaluations known, {evaluations} there",
                self.evaluations
            )));
        }
        for entry in self.entries.values() {
            let holder = match &entry.state {
                State::Leased(Leases { newest, elder }) => {
                    let numbered = (1..=entry.attempt).contains(&newest.attempt);
                    let apart = |elder: &Lease| {
                        elder.node != newest.node && (1..newest.attempt).contains(&elder.attempt)
                    };
                    numbered && elder.as_ref().is_none_or(apart)
                }
                State::Queued => true,
                State::Trained(..) => !entry.evaluation,
                state if state.is_terminal() => false,
                _ => entry.attempt > 0 && entry.node.is_some(),
            };
            if !holder || entry.episode >= self.next {
                return Err(Broken(format!("{entry:?}")));
            }
        }
        Ok(())
    }
}

/// When the first lease on an episode ends.
fn deadline_of(entry: &Entry) -> Option<(Duration, EpisodeId)> {
    leases(entry).map(|lease| (lease.deadline, entry.episode)).min()
}

/// The leases on an episode.
pub(crate) fn leases(entry: &Entry) -> impl Iterator<Item = &Lease> {
    let leases = if let State::Leased(leases) = &entry.state { Some(leases) } else { None };
    leases.into_iter().flat_map(Leases::iter)
}

fn is_open_evaluation(entry: &Entry) -> bool {
    entry.evaluation && !entry.state.is_terminal()
}

#[cfg(test)]
#[path = "ledger_tests.rs"]
mod tests;
