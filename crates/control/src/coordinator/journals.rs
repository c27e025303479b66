//! Episodes that survive the node they were begun on: what is on disk of each, and whether the
//! next node goes on from there.
//!
//! The turns themselves are an actor's to keep; here is only how many there are, whose they are and
//! how old their oldest token is.

use crrl_types::{AdapterVersion, EpisodeId, EventKind, NodeName, OnLoss};

use super::recovery::JournalFound;
use super::{Coordinator, Effect};
use crate::wire::Held;

/// Entries kept of one episode; more than any limit on calls leads to.
const ENTRIES_MAX: u32 = 4096;

/// What is on disk of an episode under way.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Journal {
    /// The lease that writes it.
    attempt: u32,
    entries: u32,
    /// Entries there were when that lease was given.
    handed: u32,
    oldest: Option<AdapterVersion>,
}

impl Journal {
    /// As the store has it, of an episode whose newest lease has this number. One that is newer than
    /// the journal was handed all of it, and has written nothing yet.
    pub(super) fn recovered(found: JournalFound, newest: u32) -> Self {
        let JournalFound { attempt, entries, oldest } = found;
        let handed = if newest > attempt { entries } else { 0 };
        Self { attempt: newest.max(attempt), entries, handed, oldest }
    }
}

/// What a node says has happened in an episode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Turns {
    /// Entries of the journal before the first of these.
    pub first: u32,
    /// Entries that came.
    pub entries: u32,
    /// The oldest adapter any token of them was drawn under.
    pub oldest: Option<AdapterVersion>,
}

impl Coordinator {
    /// A node says what has happened. Only the newest lease writes, and nothing is left out: what
    /// does not continue the journal waits until the node says everything anew.
    pub(super) fn turns(
        &mut self,
        from: &NodeName,
        held: Held,
        said: Turns,
        out: &mut Vec<Effect>,
    ) {
        let Held { episode, attempt } = held;
        let newest = self.ledger.get(episode).is_some_and(|entry| entry.attempt == attempt);
        if self.plan.limits.on_loss == OnLoss::Restart
            || !newest
            || !self.is_current(from, held)
            || said.first.saturating_add(said.entries) > ENTRIES_MAX
        {
            return;
        }
        let journal = self.journals.entry(episode).or_default();
        if journal.entries == 0 {
            journal.attempt = attempt;
        } else if journal.attempt != attempt {
            return;
        }
        let known = journal.entries;
        if said.first > known || said.first + said.entries <= known {
            return;
        }
        journal.entries = said.first + said.entries;
        journal.oldest = journal.oldest.into_iter().chain(said.oldest).min();
        let skip = known - said.first;
        out.push(Effect::KeepTurns { episode, attempt, first: known, skip });
    }

    /// How many entries the next node of an episode goes on from. An episode that was gone on with
    /// and did not get further, or whose tokens have become too old, begins anew.
    pub(super) fn go_on_from(&mut self, episode: EpisodeId, out: &mut Vec<Effect>) -> u32 {
        let next = self.ledger.get(episode).map_or(1, |entry| entry.attempt + 1);
        if next == 1 {
            return 0;
        }
        let newest = self.current();
        let bound = self.train().and_then(|train| train.staleness_bound());
        if let Some(journal) = self.journals.get_mut(&episode) {
            let behind = journal.oldest.map_or(0, |oldest| newest.0.saturating_sub(oldest.0));
            if journal.entries > journal.handed && bound.is_none_or(|bound| behind <= bound) {
                journal.handed = journal.entries;
                journal.attempt = next;
                self.since_step.resumed += 1;
                let entries = journal.entries;
                out.push(Effect::Event(EventKind::Resumed { episode, entries }));
                return entries;
            }
        }
        self.forget_turns(episode, out);
        self.since_step.restarted += 1;
        out.push(Effect::Event(EventKind::Restarted { episode }));
        0
    }

    /// A second node begins where the first one is, as far as that is on disk.
    pub(super) fn go_along_from(&mut self, episode: EpisodeId, attempt: u32) -> u32 {
        let Some(journal) = self.journals.get_mut(&episode) else { return 0 };
        journal.handed = journal.entries;
        journal.attempt = attempt;
        journal.entries
    }

    /// Nothing goes on from here any more.
    pub(super) fn forget_turns(&mut self, episode: EpisodeId, out: &mut Vec<Effect>) {
        if self.journals.remove(&episode).is_some() {
            out.push(Effect::ForgetTurns(episode));
        }
    }
}
