//! Tables, and the version of their layout.

use std::path::Path;

use rusqlite::Connection;

use crate::error::StoreError;

/// Marks the file as ours (SQLite's `application_id`): "crrl" in ASCII.
const APPLICATION_ID: i64 = 0x6372_726c;

/// Layout of this build. A store of an earlier one is brought up to it, one step at a time; a
/// later one is refused.
pub const SCHEMA_VERSION: i64 = 3;

/// A larger store is not checked page by page when it is opened: that reads all of it.
const CHECK_BYTES_MAX: u64 = 256 << 20;

/// Characters that are told of what SQLite found.
const DETAIL_CHARS_MAX: usize = 100;

/// `STEPS[v]` brings layout `v` to `v + 1`.
const STEPS: [&str; SCHEMA_VERSION as usize] = [
    "
    CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
    CREATE TABLE episodes (
        id INTEGER PRIMARY KEY,
        grp INTEGER NOT NULL,
        task TEXT NOT NULL,
        phase INTEGER NOT NULL,
        ordinal INTEGER NOT NULL,
        sample INTEGER NOT NULL,
        evaluation INTEGER NOT NULL,
        attempt INTEGER NOT NULL,
        node TEXT,
        state TEXT NOT NULL,
        reason TEXT,
        reward REAL,
        success INTEGER,
        oldest INTEGER,
        generated INTEGER,
        step INTEGER
    );
    CREATE INDEX episodes_by_phase ON episodes (phase, state);
    CREATE INDEX episodes_by_step ON episodes (step) WHERE step IS NOT NULL;
    CREATE TABLE trajectories (
        episode INTEGER PRIMARY KEY,
        grp INTEGER NOT NULL,
        task TEXT NOT NULL,
        node TEXT NOT NULL,
        tokens BLOB NOT NULL,      -- u32, little-endian
        generated BLOB NOT NULL,   -- one byte a token
        logprobs BLOB NOT NULL,    -- f32, little-endian
        adapters TEXT NOT NULL,    -- JSON
        finish TEXT NOT NULL,      -- JSON
        diff TEXT NOT NULL,
        reward TEXT NOT NULL,      -- JSON
        temperature REAL NOT NULL,
        wall_ms INTEGER NOT NULL
    );
    CREATE TABLE turns (
        episode INTEGER NOT NULL,
        turn INTEGER NOT NULL,
        text TEXT NOT NULL,
        tokens INTEGER NOT NULL,
        tools TEXT NOT NULL,       -- JSON
        PRIMARY KEY (episode, turn)
    ) WITHOUT ROWID;
    CREATE TABLE batches (
        step INTEGER PRIMARY KEY,
        phase INTEGER NOT NULL,
        version INTEGER NOT NULL,
        committed INTEGER NOT NULL,
        episodes BLOB NOT NULL     -- u64, little-endian
    );
    CREATE TABLE steps (step INTEGER PRIMARY KEY, version INTEGER NOT NULL);
    CREATE TABLE metrics (
        step INTEGER NOT NULL,
        name TEXT NOT NULL,
        value REAL NOT NULL,
        PRIMARY KEY (step, name)
    ) WITHOUT ROWID;
    CREATE TABLE published (version INTEGER PRIMARY KEY, digest TEXT NOT NULL);
    CREATE TABLE quarantined (task TEXT PRIMARY KEY, reason TEXT NOT NULL) WITHOUT ROWID;
",
    "
    CREATE TABLE journals (         -- of episodes that are under way
        episode INTEGER NOT NULL,
        entry INTEGER NOT NULL,     -- 0-based
        attempt INTEGER NOT NULL,   -- the lease that wrote it
        body TEXT NOT NULL,         -- JSON
        PRIMARY KEY (episode, entry)
    ) WITHOUT ROWID;
",
    "
    CREATE TABLE timings (          -- when an attempt did what
        episode INTEGER NOT NULL,
        attempt INTEGER NOT NULL,
        node TEXT NOT NULL,
        body TEXT NOT NULL,         -- JSON
        PRIMARY KEY (episode, attempt)
    ) WITHOUT ROWID;
",
];

fn number(connection: &Connection, pragma: &str) -> rusqlite::Result<i64> {
    connection.pragma_query_value(None, pragma, |row| row.get(0))
}

/// Makes sure that the file is a run store, whole, and of this layout; an empty file becomes one.
pub(crate) fn prepare(connection: &Connection, path: &Path) -> Result<(), StoreError> {
    let wrap = |error: rusqlite::Error| StoreError::of(path, &error);
    let tables: i64 = connection
        .query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))
        .map_err(wrap)?;
    let (id, found) = (
        number(connection, "application_id").map_err(wrap)?,
        number(connection, "user_version").map_err(wrap)?,
    );
    if tables > 0 && id != APPLICATION_ID {
        return Err(StoreError::Foreign { path: path.to_owned() });
    }
    if !(0..=SCHEMA_VERSION).contains(&found) {
        return Err(StoreError::Newer { path: path.to_owned(), found, known: SCHEMA_VERSION });
    }
    if std::fs::metadata(path).is_ok_and(|file| file.len() <= CHECK_BYTES_MAX) {
        whole(connection, path, "quick_check")?;
    }
    for (step, version) in STEPS.iter().zip(1_i64..).skip(found as usize) {
        let script = format!(
            "BEGIN IMMEDIATE; {step} PRAGMA application_id = {APPLICATION_ID}; \
             PRAGMA user_version = {version}; COMMIT;"
        );
        connection.execute_batch(&script).map_err(wrap)?;
    }
    Ok(())
}

/// Checks page after page that the file is whole, by one of SQLite's checks.
pub(crate) fn whole(connection: &Connection, path: &Path, check: &str) -> Result<(), StoreError> {
    let verdict: String = connection
        .query_row(&format!("PRAGMA {check}(1)"), [], |row| row.get(0))
        .map_err(|error| StoreError::of(path, &error))?;
    if verdict == "ok" {
        return Ok(());
    }
    // One short line: whoever is told may be shown the end of a log only, and is to read what to do.
    let detail = verdict.lines().collect::<Vec<_>>().join("; ");
    let detail = detail.chars().take(DETAIL_CHARS_MAX).collect();
    Err(StoreError::Corrupt { path: path.to_owned(), detail })
}

/// As [`prepare`], for a reader: nothing is changed.
pub(crate) fn check(connection: &Connection, path: &Path) -> Result<(), StoreError> {
    let wrap = |error: rusqlite::Error| StoreError::of(path, &error);
    if number(connection, "application_id").map_err(wrap)? != APPLICATION_ID {
        return Err(StoreError::Foreign { path: path.to_owned() });
    }
    let found = number(connection, "user_version").map_err(wrap)?;
    // What a reader reads is in every layout since the first; it asks for anything later.
    if !(1..=SCHEMA_VERSION).contains(&found) {
        return Err(StoreError::Newer { path: path.to_owned(), found, known: SCHEMA_VERSION });
    }
    Ok(())
}
