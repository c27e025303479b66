//! What has happened in the episodes that are under way, as far as it is on disk: the coordinator's
//! actor hands it to the node that goes on with one. Decides nothing.

use std::collections::BTreeMap;

use crrl_control::coordinator::JournalFound;
use crrl_store::{JournalRow, Op};
use crrl_types::{EpisodeId, JournalEntry};

/// The journals of a run.
#[derive(Debug, Default)]
pub struct Journals(BTreeMap<EpisodeId, JournalRow>);

impl Journals {
    /// As the store has them.
    #[must_use]
    pub fn recovered(rows: BTreeMap<EpisodeId, JournalRow>) -> Self {
        Self(rows)
    }

    /// What the coordinator needs to know of each.
    #[must_use]
    pub fn found(&self) -> BTreeMap<EpisodeId, JournalFound> {
        let found = |row: &JournalRow| JournalFound {
            attempt: row.attempt,
            entries: u32::try_from(row.entries.len()).unwrap_or(u32::MAX),
            oldest: row.entries.iter().filter_map(JournalEntry::oldest).min(),
        };
        self.0.iter().map(|(episode, row)| (*episode, found(row))).collect()
    }

    /// Appends entries; gives the change of the store.
    pub fn keep(
        &mut self,
        episode: EpisodeId,
        attempt: u32,
        first: u32,
        entries: Vec<JournalEntry>,
    ) -> Op {
        let row = self.0.entry(episode).or_default();
        row.attempt = attempt;
        row.entries.truncate(first as usize);
        row.entries.extend(entries.iter().cloned());
        Op::Turns { episode, attempt, first, entries }
    }

    /// Nobody goes on with it any more; gives the change of the store.
    pub fn forget(&mut self, episode: EpisodeId) -> Op {
        self.0.remove(&episode);
        Op::ForgetTurns(episode)
    }

    /// The first entries of an episode's journal.
    #[must_use]
    pub fn past(&self, episode: EpisodeId, entries: u32) -> Vec<JournalEntry> {
        let row = self.0.get(&episode).map_or(&[][..], |row| &row.entries);
        row[..row.len().min(entries as usize)].to_vec()
    }
}
