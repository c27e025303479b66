//! The coordinator's files of a run beside its store: history, results and copies of the store.

use std::path::Path;

use crrl_cluster::RunDir;
use crrl_cluster::run_dir::write_atomic;
use crrl_control::results::Results;
use crrl_machine::disk;
use crrl_store::copies::Manifest;
use crrl_store::{Copier, Copies, EventLog, Options, StoreError};
use ractor::ActorProcessingErr;
use tokio::runtime::Handle;

use crate::coordinator::Words;
use crate::leave::{Farewell, Leave};

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

/// Refuses to begin a ledger anew where there are copies of one: it would belong to no checkpoint.
pub(crate) fn guard(run: &RunDir) -> Result<(), StoreError> {
    let path = run.store();
    if !Copies::new(run.ledger_copies(), 1).outlive(&path) {
        return Ok(());
    }
    Err(StoreError::Corrupt { path, detail: "it is missing or empty".to_owned() })
}

/// Makes copies of the ledger as long as it is held. Letting go of it holds nobody up.
#[derive(Debug)]
pub(crate) struct Copying(Option<Copier>);

impl Copying {
    /// As [`Copier::wish`].
    pub(crate) fn wish(&self) {
        if let Some(copier) = &self.0 {
            copier.wish();
        }
    }
}

impl Drop for Copying {
    fn drop(&mut self) {
        let Some(copier) = self.0.take() else { return };
        // At once: the next life of the coordinator's actor may begin to copy before the thread ends.
        copier.stop();
        // Its thread may be bringing a copy to the disk, and actors run on this one.
        match Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn_blocking(move || drop(copier))),
            Err(_) => drop(copier),
        }
    }
}

/// What a copy that did not come about says of the ledger; none where it may be whole.
fn damage(store: &Path, error: &StoreError) -> Option<String> {
    match error {
        StoreError::Corrupt { path, detail } if path == store => Some(detail.clone()),
        StoreError::Open { path, .. } if path == store && !store.exists() => {
            Some("it was removed while the run was up".to_owned())
        }
        StoreError::Foreign { path } if path == store => {
            Some("it was replaced while the run was up".to_owned())
        }
        _ => None,
    }
}

/// Makes copies of the ledger while the run goes on. A store that cannot be copied is damaged: what is
/// written to it from then on may be lost. A system that gives no thread for it costs the copies, not
/// the run.
pub(crate) fn copier(run: &RunDir, options: &Options, leave: &Leave) -> Option<Copying> {
    let (store, leave) = (run.store(), leave.clone());
    let told = store.clone();
    let said = move |made: Result<Manifest, StoreError>| match made {
        Ok(Manifest { step, bytes, took_ms, .. }) => {
            tracing::info!(%step, bytes, took_ms, "a copy of the ledger is on disk");
        }
        Err(error) => match damage(&told, &error) {
            Some(detail) => {
                let error = StoreError::Corrupt { path: told.clone(), detail };
                tracing::error!(%error);
                leave.say(Farewell::Hopeless(error.to_string()));
            }
            None => tracing::warn!(%error, "no copy of the ledger was made this time"),
        },
    };
    match Copier::start(store, run.ledger_copies(), options, said) {
        Ok(copier) => copier.map(|copier| Copying(Some(copier))),
        Err(error) => {
            tracing::warn!(
                %error,
                "the system gives no thread to copy the ledger: the run goes on without copies of it \
                 until the coordinator is started again"
            );
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use crrl_store::{Stop, Writer};

    use super::*;

    fn begin(store: &Path) {
        let said = |_: Result<(), StoreError>| ();
        drop(Writer::start(store, Options::default(), said).expect("a new store"));
    }

    #[test]
    fn a_ledger_that_is_removed_or_replaced_under_a_run_is_as_good_as_damaged() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let run = RunDir::new(folder.path());
        let (store, copies) = (run.store(), Copies::new(run.ledger_copies(), 2));
        begin(&store);
        copies.make(&store, &Stop::default()).expect("a copy");
        assert!(guard(&run).is_ok());
        let found = || {
            let error = copies.make(&store, &Stop::default()).expect_err("there is no ledger");
            damage(&store, &error)
        };
        std::fs::remove_file(&store).expect("is there");
        assert_eq!(found().as_deref(), Some("it was removed while the run was up"));
        assert!(guard(&run).is_err(), "it is begun anew");
        std::fs::write(&store, b"").expect("writable");
        assert_eq!(found().as_deref(), Some("it was replaced while the run was up"));
        assert!(guard(&run).is_err(), "it is begun anew");
        // What stands in the way of a copy says nothing of the ledger.
        std::fs::remove_file(&store).expect("is there");
        begin(&store);
        let other = StoreError::Full { path: run.ledger_copies() };
        assert_eq!(damage(&store, &other), None);
        let busy = StoreError::Open { path: store.clone(), detail: "too many files".into() };
        assert_eq!(damage(&store, &busy), None);
    }

    #[test]
    fn a_run_without_copies_begins_its_ledger() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        guard(&RunDir::new(folder.path())).expect("a new run");
    }
}
