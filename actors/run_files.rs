//! The coordinator's files of a run beside its store: history and results.

use std::path::Path;

use crrl_cluster::run_dir::write_atomic;
use crrl_control::results::Results;
use crrl_machine::disk;
use crrl_store::{EventLog, StoreError};
use ractor::ActorProcessingErr;

use crate::coordinator::Words;

/// Writes history and results, before anything is said.
pub(crate) fn keep(
    mut words: Words,
    history: &mut EventLog,
    results: &Path,
) -> Result<Words, StoreError> {
    let events = std::mem::take(&mut words.events);
    disk::until_room(results, || history.append(&events))?;
    if let Some(new) = words.results.take() {
        let text = serde_json::to_vec_pretty(&*new).map_err(|error| StoreError::Other {
            path: results.to_owned(),
            detail: error.to_string(),
        })?;
        disk::until_room(results, || write_atomic(results, &text)).map_err(|error| match error
            .source
            .kind()
        {
            std::io::ErrorKind::StorageFull => StoreError::Full { path: results.to_owned() },
            _ => StoreError::Other { path: results.to_owned(), detail: error.to_string() },
        })?;
    }
    Ok(words)
}

/// Results of an earlier life, if there are any.
pub(crate) fn read_results(path: &Path) -> Result<Results, ActorProcessingErr> {
    match std::fs::read(path) {
        Ok(bytes) => serde_json::from_slice(&bytes)
            .map_err(|error| format!("{}: {error}", path.display()).into()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Results::default()),
        Err(error) => Err(format!("cannot read {}: {error}", path.display()).into()),
    }
}
