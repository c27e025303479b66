//! The journals of episodes that are under way, for a coordinator that goes on with a run and for
//! whoever looks on.

use std::collections::BTreeMap;

use crrl_types::{EpisodeId, JournalEntry};

use crate::error::StoreError;
use crate::read::Reader;
use crate::write::int;

/// What is on disk of an episode under way.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct JournalRow {
    /// The lease that wrote it.
    pub attempt: u32,
    /// What has happened, in order.
    pub entries: Vec<JournalEntry>,
}

impl Reader {
    /// Every journal. One with a gap ends before it.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn journals(&self) -> Result<BTreeMap<EpisodeId, JournalRow>, StoreError> {
        let sql = "SELECT episode, entry, attempt, body FROM journals ORDER BY episode, entry";
        let rows: Vec<(i64, i64, u32, String)> =
            self.rows(sql, [], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)))?;
        let mut journals: BTreeMap<EpisodeId, JournalRow> = BTreeMap::new();
        for (episode, number, attempt, body) in rows {
            let episode = EpisodeId(episode.max(0) as u64);
            let journal = journals.entry(episode).or_default();
            if usize::try_from(number) != Ok(journal.entries.len()) {
                continue;
            }
            let entry = serde_json::from_str(&body).map_err(|error| {
                self.unreadable(format!("entry {number} of the journal of {episode}"), &error)
            })?;
            journal.attempt = journal.attempt.max(attempt);
            journal.entries.push(entry);
        }
        Ok(journals)
    }

    /// The lease that wrote last into the journal of an episode; none where none is on disk (yet, or
    /// any more).
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn journal_attempt(&self, episode: EpisodeId) -> Result<Option<u32>, StoreError> {
        let sql = "SELECT max(attempt) FROM journals WHERE episode = ?";
        Ok(self.rows(sql, [int(episode.0)], |row| row.get(0))?.pop().flatten())
    }

    /// The journal of one episode from an entry on, at most so many.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn journal_from(
        &self,
        episode: EpisodeId,
        first: u32,
        most: u32,
    ) -> Result<Vec<JournalEntry>, StoreError> {
        let sql = "SELECT entry, body FROM journals \
                   WHERE episode = ? AND entry >= ? ORDER BY entry LIMIT ?";
        let rows: Vec<(i64, String)> =
            self.rows(sql, rusqlite::params![int(episode.0), first, most], |row| {
                Ok((row.get(0)?, row.get(1)?))
            })?;
        let whole = rows.into_iter().zip(i64::from(first)..).take_while(|((n, _), at)| n == at);
        whole
            .map(|((number, body), _)| {
                serde_json::from_str(&body).map_err(|error| {
                    self.unreadable(format!("entry {number} of the journal of {episode}"), &error)
                })
            })
            .collect()
    }
}
