//! For reports, and for a run that goes on.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crrl_machine::Stop;
use crrl_types::{AdapterVersion, Digest, EpisodeId, GroupId, Step, TaskId, Trajectory, Turn};
use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, OptionalExtension, Row, params};

use crate::error::StoreError;
use crate::row::{BatchRow, EpisodeRow, StepRow, TokenRow};
use crate::schema;
use crate::stop::heard_by;
use crate::write::int;

/// Episodes of one phase in one state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateCount {
    /// 0-based phase of the plan.
    pub phase: u32,
    /// Name of the state in the ledger.
    pub state: String,
    /// How many.
    pub episodes: u64,
}

/// A view of a store; whoever writes to it goes on.
#[derive(Debug)]
pub struct Reader {
    path: PathBuf,
    connection: Connection,
}

type Rows<T> = Result<Vec<T>, StoreError>;

pub(crate) fn uint(row: &Row<'_>, column: usize) -> rusqlite::Result<u64> {
    row.get::<_, i64>(column).map(|value| value.max(0) as u64)
}

pub(crate) fn episode(row: &Row<'_>) -> rusqlite::Result<EpisodeRow> {
    Ok(EpisodeRow {
        episode: EpisodeId(uint(row, 0)?),
        group: GroupId(uint(row, 1)?),
        task: TaskId(row.get(2)?),
        phase: row.get(3)?,
        ordinal: uint(row, 4)?,
        sample: row.get(5)?,
        evaluation: row.get(6)?,
        attempt: row.get(7)?,
        node: row.get::<_, Option<String>>(8)?.map(Into::into),
        state: row.get(9)?,
        reason: row.get(10)?,
        reward: row.get(11)?,
        success: row.get(12)?,
        oldest: row.get::<_, Option<i64>>(13)?.map(|v| AdapterVersion(v.max(0) as u64)),
        generated: row.get(14)?,
        step: row.get::<_, Option<i64>>(15)?.map(|v| Step(v.max(0) as u64)),
    })
}

impl Reader {
    /// Opens a store to read from.
    ///
    /// # Errors
    /// [`StoreError`]: missing, not a store, of another build.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        Self::connect(path, false)
    }

    /// As [`Reader::open`], for a store that is to stay as it is found: what lies in the log beside it is
    /// not written into it afterwards.
    ///
    /// # Errors
    /// As [`Reader::open`].
    pub fn look(path: &Path) -> Result<Self, StoreError> {
        Self::connect(path, true)
    }

    fn connect(path: &Path, leaves_log: bool) -> Result<Self, StoreError> {
        // Not read-only to SQLite: it may have to recover a journal a crash left behind.
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let wrap = |error: rusqlite::Error| StoreError::of(path, &error);
        let connection = Connection::open_with_flags(path, flags).map_err(wrap)?;
        connection
            .set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, leaves_log)
            .map_err(wrap)?;
        connection.busy_timeout(Duration::from_secs(5)).map_err(wrap)?;
        schema::check(&connection, path)?;
        Ok(Self { path: path.to_owned(), connection })
    }

    /// Whatever is read from now on ends with an error once `stop` is wanted.
    pub(crate) fn stop_at(&self, stop: &Stop) {
        heard_by(&self.connection, stop);
    }

    /// Looks at every page and every index. Reads all of the file.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`].
    pub fn whole(&self) -> Result<(), StoreError> {
        schema::whole(&self.connection, &self.path, "integrity_check")
    }

    pub(crate) fn rows<T>(
        &self,
        sql: &str,
        parameters: impl rusqlite::Params,
        read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Rows<T> {
        let query = || -> rusqlite::Result<Vec<T>> {
            let mut statement = self.connection.prepare_cached(sql)?;
            statement.query_map(parameters, read)?.collect()
        };
        query().map_err(|error| StoreError::of(&self.path, &error))
    }

    pub(crate) fn unreadable(&self, what: String, detail: &dyn std::fmt::Display) -> StoreError {
        StoreError::Row { path: self.path.clone(), what, detail: detail.to_string() }
    }

    /// Something about the run itself.
    ///
    /// # Errors
    /// [`StoreError`], as every function here.
    pub fn meta(&self, key: &str) -> Result<Option<String>, StoreError> {
        self.connection
            .query_row("SELECT value FROM meta WHERE key = ?", [key], |row| row.get(0))
            .optional()
            .map_err(|error| StoreError::of(&self.path, &error))
    }

    /// Episodes by phase and state.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn counts(&self) -> Rows<StateCount> {
        let sql = "SELECT phase, state, count(*) FROM episodes GROUP BY phase, state";
        self.rows(sql, [], |row| {
            Ok(StateCount { phase: row.get(0)?, state: row.get(1)?, episodes: uint(row, 2)? })
        })
    }

    /// Episodes that are in one of these states, by id.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn episodes_in(&self, states: &[&str]) -> Rows<EpisodeRow> {
        let marks = vec!["?"; states.len()].join(", ");
        let sql = format!("SELECT * FROM episodes WHERE state IN ({marks}) ORDER BY id");
        self.rows(&sql, rusqlite::params_from_iter(states), episode)
    }

    /// The last episodes that were handed out and came back, at most so many, newest first.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn last_back(&self, most: u64) -> Rows<EpisodeRow> {
        let sql = "SELECT * FROM episodes WHERE state NOT IN ('queued', 'leased') \
                   ORDER BY id DESC LIMIT ?";
        self.rows(sql, [int(most)], episode)
    }

    /// Every read from now on sees the store as it is now, whatever is written meanwhile, until
    /// this is called again or the reader is dropped.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn hold(&self) -> Result<(), StoreError> {
        let wrap = |error: rusqlite::Error| StoreError::of(&self.path, &error);
        if !self.connection.is_autocommit() {
            self.connection.execute_batch("COMMIT").map_err(wrap)?;
        }
        // The view is fixed by the first read.
        let script = "BEGIN; SELECT count(*) FROM sqlite_schema;";
        self.connection.execute_batch(script).map_err(wrap)
    }

    /// Every episode, by id.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn episodes(&self) -> Rows<EpisodeRow> {
        self.rows("SELECT * FROM episodes ORDER BY id", [], episode)
    }

    /// Shows every episode, by id, one after the other, until one is refused.
    ///
    /// # Errors
    /// [`StoreError`], or what `show` said.
    pub fn each_episode<E: From<StoreError>>(
        &self,
        mut show: impl FnMut(EpisodeRow) -> Result<(), E>,
    ) -> Result<(), E> {
        self.each("SELECT * FROM episodes ORDER BY id", |row| Ok(show(self.read(episode(row))?)))
    }

    /// Shows what every transcript says of its tokens, without the tokens, by episode, one after the
    /// other, until one is refused.
    ///
    /// # Errors
    /// [`StoreError`], or what `show` said.
    pub fn each_token_row<E: From<StoreError>>(
        &self,
        mut show: impl FnMut(TokenRow) -> Result<(), E>,
    ) -> Result<(), E> {
        let sql =
            "SELECT episode, generated, logprobs, adapters FROM trajectories ORDER BY episode";
        self.each(sql, |row| Ok(show(self.token_row(row)?)))
    }

    fn token_row(&self, row: &Row<'_>) -> Result<TokenRow, StoreError> {
        let id = self.read(uint(row, 0))?;
        let (generated, logprobs): (Vec<u8>, Vec<u8>) =
            (self.read(row.get(1))?, self.read(row.get(2))?);
        let spans: String = self.read(row.get(3))?;
        let spans = serde_json::from_str(&spans)
            .map_err(|error| self.unreadable(format!("the spans of episode {id}"), &error))?;
        Ok(TokenRow {
            episode: EpisodeId(id),
            generated: generated.iter().map(|byte| *byte != 0).collect(),
            spans,
            finite: logprobs.as_chunks().0.iter().all(|b| f32::from_le_bytes(*b).is_finite()),
        })
    }

    /// Every row of a query, never two at once.
    fn each<E: From<StoreError>>(
        &self,
        sql: &str,
        mut show: impl FnMut(&Row<'_>) -> Result<Result<(), E>, StoreError>,
    ) -> Result<(), E> {
        let mut statement = self.read(self.connection.prepare(sql))?;
        let mut rows = self.read(statement.query([]))?;
        while let Some(row) = self.read(rows.next())? {
            show(row)??;
        }
        Ok(())
    }

    fn read<T>(&self, read: rusqlite::Result<T>) -> Result<T, StoreError> {
        read.map_err(|error| StoreError::of(&self.path, &error))
    }

    /// Episodes of a phase, by id.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn episodes_of_phase(&self, phase: u32) -> Rows<EpisodeRow> {
        self.rows("SELECT * FROM episodes WHERE phase = ? ORDER BY id", [phase], episode)
    }

    /// Episodes of optimizer steps from this one on, by id.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn episodes_since(&self, step: Step) -> Rows<EpisodeRow> {
        let sql = "SELECT * FROM episodes WHERE step >= ? ORDER BY id";
        self.rows(sql, [int(step.0)], episode)
    }

    /// First episode and group ids never used.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn next_ids(&self) -> Result<(EpisodeId, GroupId), StoreError> {
        let sql = "SELECT coalesce(max(id), -1) + 1, coalesce(max(grp), -1) + 1 FROM episodes";
        self.connection
            .query_row(sql, [], |row| Ok((EpisodeId(uint(row, 0)?), GroupId(uint(row, 1)?))))
            .map_err(|error| StoreError::of(&self.path, &error))
    }

    /// For each phase, the first group number never used.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn ordinals(&self) -> Rows<(u32, u64)> {
        let sql = "SELECT phase, max(ordinal) + 1 FROM episodes GROUP BY phase";
        self.rows(sql, [], |row| Ok((row.get(0)?, uint(row, 1)?)))
    }

    /// The last batches, at most so many, in order.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn last_batches(&self, most: u64) -> Rows<BatchRow> {
        let sql = "SELECT * FROM (SELECT * FROM batches ORDER BY step DESC LIMIT ?) ORDER BY step";
        self.rows(sql, [int(most)], |row| {
            let episodes: Vec<u8> = row.get(4)?;
            Ok(BatchRow {
                step: Step(uint(row, 0)?),
                phase: row.get(1)?,
                version: AdapterVersion(uint(row, 2)?),
                committed: row.get(3)?,
                episodes: episodes
                    .as_chunks()
                    .0
                    .iter()
                    .map(|bytes| EpisodeId(u64::from_le_bytes(*bytes)))
                    .collect(),
            })
        })
    }

    /// The learner's adapter when the batch of a step was made up; none where there is no such batch.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn batch_version(&self, step: Step) -> Result<Option<AdapterVersion>, StoreError> {
        let sql = "SELECT version FROM batches WHERE step = ?";
        let found = self.rows(sql, [int(step.0)], |row| uint(row, 0))?;
        Ok(found.first().copied().map(AdapterVersion))
    }

    /// The last step that is durable at the learner.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn last_committed(&self) -> Result<Option<Step>, StoreError> {
        let sql = "SELECT max(step) FROM batches WHERE committed";
        let found = self.connection.query_row(sql, [], |row| row.get::<_, Option<i64>>(0));
        Ok(self.read(found)?.map(|step| Step(step.max(0) as u64)))
    }

    /// Numbers of every step, in order.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn steps(&self) -> Rows<StepRow> {
        let mut steps = self.rows("SELECT step, version FROM steps ORDER BY step", [], |row| {
            let (step, version) = (Step(uint(row, 0)?), AdapterVersion(uint(row, 1)?));
            Ok(StepRow { step, version, metrics: Vec::new() })
        })?;
        let sql = "SELECT step, name, value FROM metrics ORDER BY step, name";
        let metrics =
            self.rows(sql, [], |row| Ok((Step(uint(row, 0)?), row.get(1)?, row.get(2)?)))?;
        for (step, name, value) in metrics {
            if let Ok(at) = steps.binary_search_by_key(&step, |row| row.step) {
                steps[at].metrics.push((name, value));
            }
        }
        Ok(steps)
    }

    /// Numbers of one step, by name.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn metrics_of(&self, step: Step) -> Rows<(String, f64)> {
        let sql = "SELECT name, value FROM metrics WHERE step = ? ORDER BY name";
        self.rows(sql, [int(step.0)], |row| Ok((row.get(0)?, row.get(1)?)))
    }

    /// Every adapter published, in order.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn published(&self) -> Rows<(AdapterVersion, Digest)> {
        let rows: Vec<(AdapterVersion, String)> =
            self.rows("SELECT version, digest FROM published ORDER BY version", [], |row| {
                Ok((AdapterVersion(uint(row, 0)?), row.get(1)?))
            })?;
        rows.into_iter()
            .map(|(version, digest)| {
                let digest = digest
                    .parse()
                    .map_err(|error| self.unreadable(format!("adapter {version}"), &error))?;
                Ok((version, digest))
            })
            .collect()
    }

    /// Tasks in quarantine, and why.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn quarantined(&self) -> Rows<(TaskId, String)> {
        self.rows("SELECT task, reason FROM quarantined ORDER BY task", [], |row| {
            Ok((TaskId(row.get(0)?), row.get(1)?))
        })
    }

    /// What an episode left behind; `None` if it left nothing.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn trajectory(&self, id: EpisodeId) -> Result<Option<Trajectory>, StoreError> {
        let wrap = |error| StoreError::of(&self.path, &error);
        let bad = |error: serde_json::Error| {
            self.unreadable(format!("the trajectory of episode {id}"), &error)
        };
        let turns = self.turns(id)?;
        let read = |row: &Row<'_>| {
            let tokens: Vec<u8> = row.get(4)?;
            let generated: Vec<u8> = row.get(5)?;
            let logprobs: Vec<u8> = row.get(6)?;
            let read = || -> Result<Trajectory, serde_json::Error> {
                let text = |column| row.get::<_, String>(column).unwrap_or_default();
                Ok(Trajectory {
                    episode: id,
                    group: GroupId(row.get::<_, i64>(1).unwrap_or(0).max(0) as u64),
                    task: TaskId(text(2)),
                    node: text(3).into(),
                    tokens: tokens.as_chunks().0.iter().map(|b| u32::from_le_bytes(*b)).collect(),
                    generated: generated.iter().map(|byte| *byte != 0).collect(),
                    logprobs: logprobs
                        .as_chunks()
                        .0
                        .iter()
                        .map(|b| f32::from_le_bytes(*b))
                        .collect(),
                    adapters: serde_json::from_str(&text(7))?,
                    turns: turns.clone(),
                    finish: serde_json::from_str(&text(8))?,
                    diff: text(9),
                    reward: serde_json::from_str(&text(10))?,
                    temperature: row.get::<_, f64>(11).unwrap_or(1.0) as f32,
                    wall_ms: row.get::<_, i64>(12).unwrap_or(0).max(0) as u64,
                })
            };
            Ok(read())
        };
        let mut statement = self
            .connection
            .prepare_cached("SELECT * FROM trajectories WHERE episode = ?")
            .map_err(wrap)?;
        let found = statement.query_row(params![int(id.0)], read).optional().map_err(wrap)?;
        found.transpose().map_err(bad)
    }

    /// The turns of an episode, in order.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn turns(&self, id: EpisodeId) -> Rows<Turn> {
        let sql = "SELECT text, tokens, tools FROM turns WHERE episode = ? ORDER BY turn";
        let rows: Vec<(String, u32, String)> =
            self.rows(sql, [int(id.0)], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
        rows.into_iter()
            .map(|(text, tokens, tools)| {
                let tools = serde_json::from_str(&tools)
                    .map_err(|error| self.unreadable(format!("a turn of episode {id}"), &error))?;
                Ok(Turn { text, tokens, tools })
            })
            .collect()
    }
}
