//! The journals of episodes that are under way, for a coordinator that goes on with a run.

use std::collections::BTreeMap;

use crrl_types::{EpisodeId, JournalEntry};

use crate::error::StoreError;
use crate::read::Reader;

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
}
