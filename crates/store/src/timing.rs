//! When attempts did what, and what came of an episode without its transcript: for traces.

use crrl_types::{EpisodeId, Finish, NodeName, Reward, Timing};

use crate::error::StoreError;
use crate::read::{Reader, uint};
use crate::write::int;

/// What one attempt measured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttemptTiming {
    /// The lease.
    pub attempt: u32,
    /// Who rolled it out.
    pub node: NodeName,
    /// When it did what.
    pub timing: Timing,
}

/// What an episode came to, without its tokens.
#[derive(Debug, Clone, PartialEq)]
pub struct OutcomeRow {
    /// Who rolled it out.
    pub node: NodeName,
    /// How it ended.
    pub finish: Finish,
    /// What it earned.
    pub reward: Reward,
    /// Sampling temperature.
    pub temperature: f64,
    /// Wall time from start to end.
    pub wall_ms: u64,
}

impl Reader {
    /// What the attempts at an episode measured, in order. None in a store of an earlier build.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn timings(&self, id: EpisodeId) -> Result<Vec<AttemptTiming>, StoreError> {
        let has = "SELECT count(*) FROM sqlite_schema WHERE name = 'timings'";
        if self.rows(has, [], |row| uint(row, 0))? == [0] {
            return Ok(Vec::new());
        }
        let sql = "SELECT attempt, node, body FROM timings WHERE episode = ? ORDER BY attempt";
        let rows: Vec<(u32, String, String)> =
            self.rows(sql, [int(id.0)], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
        let read = |(attempt, node, body): (u32, String, String)| {
            let timing = serde_json::from_str(&body).map_err(|error| {
                self.unreadable(format!("the timing of attempt {attempt} at {id}"), &error)
            })?;
            Ok(AttemptTiming { attempt, node: node.into(), timing })
        };
        rows.into_iter().map(read).collect()
    }

    /// What an episode came to; `None` if it left nothing.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn outcome(&self, id: EpisodeId) -> Result<Option<OutcomeRow>, StoreError> {
        let sql = "SELECT node, finish, reward, temperature, wall_ms FROM trajectories \
                   WHERE episode = ?";
        let rows: Vec<(String, String, String, f64, u64)> = self.rows(sql, [int(id.0)], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, uint(row, 4)?))
        })?;
        let read =
            |(node, finish, reward, temperature, wall_ms): (String, String, String, _, _)| {
                let bad = |error: serde_json::Error| {
                    self.unreadable(format!("the outcome of episode {id}"), &error)
                };
                let finish = serde_json::from_str(&finish).map_err(bad)?;
                let reward = serde_json::from_str(&reward).map_err(bad)?;
                Ok(OutcomeRow { node: node.into(), finish, reward, temperature, wall_ms })
            };
        rows.into_iter().next().map(read).transpose()
    }
}
