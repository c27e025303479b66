//! What can go wrong with a store, and what to do about it.

use std::path::{Path, PathBuf};

/// How a run is told to go on from the last good copy of its ledger.
pub const LAST_GOOD: &str = "--ledger last-good";

/// An operation on the store that did not come about.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "`path` is the store's file in each")]
pub enum StoreError {
    /// No space is left.
    #[error(
        "no space left for {path}: free some, or move the run to another disk, and resume; nothing that was acknowledged is lost",
        path = .path.display()
    )]
    Full { path: PathBuf },
    /// The file is damaged.
    #[error(
        "{path} is damaged ({detail}): `crrl train --resume {last_good}` puts it aside and goes on from its last good copy",
        path = .path.display(),
        last_good = LAST_GOOD
    )]
    Corrupt { path: PathBuf, detail: String },
    /// The file is of a later build.
    #[error(
        "{path} has schema version {found}, this build knows {known}: use the build that wrote it, or a later one",
        path = .path.display()
    )]
    Newer { path: PathBuf, found: i64, known: i64 },
    /// The file is no run store.
    #[error("{path} is an SQLite database, but not a run store of this program", path = .path.display())]
    Foreign { path: PathBuf },
    /// Somebody else writes to it.
    #[error("{path} is written by somebody else: is a coordinator of this run still alive?", path = .path.display())]
    Busy { path: PathBuf },
    /// It cannot be opened.
    #[error("cannot open {path}: {detail}", path = .path.display())]
    Open { path: PathBuf, detail: String },
    /// A row that this build cannot read.
    #[error("{path}: {what} cannot be read: {detail}", path = .path.display())]
    Row { path: PathBuf, what: String, detail: String },
    /// Anything else SQLite or the system said.
    #[error("{path}: {detail}", path = .path.display())]
    Other { path: PathBuf, detail: String },
}

impl StoreError {
    /// What SQLite said, put in the store's words.
    pub(crate) fn of(path: &Path, error: &rusqlite::Error) -> Self {
        use rusqlite::ErrorCode;
        let (path, detail) = (path.to_owned(), error.to_string());
        match error.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => Self::Full { path },
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
                Self::Corrupt { path, detail }
            }
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Self::Busy { path },
            Some(ErrorCode::CannotOpen | ErrorCode::PermissionDenied | ErrorCode::ReadOnly) => {
                Self::Open { path, detail }
            }
            _ => Self::Other { path, detail },
        }
    }

    /// What the system said of a plain file.
    pub(crate) fn of_file(path: &Path, error: &std::io::Error) -> Self {
        let path = path.to_owned();
        match error.kind() {
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => {
                Self::Full { path }
            }
            _ => Self::Other { path, detail: error.to_string() },
        }
    }
}
