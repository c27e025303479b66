//! What a run's folder holds, gathered for [`crrl_control::audit`]. Changes nothing, and works on a
//! run under way.

use std::path::PathBuf;

use crrl_cluster::RunDir;
use crrl_control::audit::{AdapterFact, CheckpointFact, Facts, Held, Line, Transcript};
use crrl_control::plan::{PLAN_FILE, Plan, PlanError};
use crrl_control::results::{RESULTS_FILE, Results};
use crrl_control::wire::Serving;
use crrl_learner::LearnerError;
use crrl_learner::checkpoint::{Checkpoints, Examined};
use crrl_store::{Reader, StoreError};
use crrl_types::{Event, Step};

use crate::adapter_shelf::{AdapterShelf, ShelfError};
use crate::ledger_rows::{self, RecoverRowsError};

/// Looks again at most so often because a step was committed while looking.
const LOOKS_MAX: u32 = 5;

/// A run whose facts cannot be gathered.
#[derive(Debug, thiserror::Error)]
pub enum EvidenceError {
    /// A file that every run has.
    #[error("{path} cannot be read: {source}; is this the folder of a run that was started?", path = .path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The plan.
    #[error("{path}: {source}", path = .path.display())]
    Plan {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: PlanError,
    },
    /// The results.
    #[error("{path}: {source}", path = .path.display())]
    Results {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: serde_json::Error,
    },
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A row of it.
    #[error(transparent)]
    Row(#[from] RecoverRowsError),
    /// The checkpoints' folder.
    #[error(transparent)]
    Checkpoints(#[from] LearnerError),
    /// The adapters' folder.
    #[error(transparent)]
    Shelf(#[from] ShelfError),
}

/// Gathers the facts of a run.
///
/// # Errors
/// [`EvidenceError`].
pub fn gather(run: &RunDir) -> Result<Facts, EvidenceError> {
    let path = run.path().join(PLAN_FILE);
    let text = std::fs::read_to_string(&path)
        .map_err(|source| EvidenceError::File { path: path.clone(), source })?;
    let plan = Plan::parse(&text).map_err(|source| EvidenceError::Plan { path, source })?;
    let mut look = 1;
    loop {
        let reader = Reader::open(&run.store())?;
        let before = committed(&reader)?;
        // What is written later is read first: the ledger is ahead of everything else.
        let results = results(run)?;
        let history = history(run)?;
        let checkpoints = checkpoints(run)?;
        let adapters = adapters(run)?;
        reader.hold()?;
        if committed(&reader)? != before && look < LOOKS_MAX {
            look += 1;
            continue;
        }
        let entries: Result<_, _> =
            reader.episodes()?.into_iter().map(ledger_rows::entry).collect();
        return Ok(Facts {
            plan,
            complete: results.complete,
            entries: entries?,
            batches: batches(&reader)?,
            steps: reader.steps()?.into_iter().map(|row| (row.step, row.version)).collect(),
            published: reader
                .published()?
                .into_iter()
                .map(|(version, digest)| Serving { version, digest })
                .collect(),
            transcripts: transcripts(&reader)?,
            history,
            checkpoints,
            adapters,
        });
    }
}

fn batches(reader: &Reader) -> Result<Vec<crrl_control::coordinator::BatchRow>, StoreError> {
    Ok(reader.last_batches(u64::MAX)?.into_iter().map(ledger_rows::batch).collect())
}

fn committed(reader: &Reader) -> Result<Option<Step>, StoreError> {
    let batches = reader.last_batches(u64::MAX)?;
    Ok(batches.into_iter().filter(|batch| batch.committed).map(|batch| batch.step).max())
}

fn results(run: &RunDir) -> Result<Results, EvidenceError> {
    let path = run.path().join(RESULTS_FILE);
    match std::fs::read(&path) {
        Ok(bytes) => {
            serde_json::from_slice(&bytes).map_err(|source| EvidenceError::Results { path, source })
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Results::default()),
        Err(source) => Err(EvidenceError::File { path, source }),
    }
}

fn history(run: &RunDir) -> Result<Vec<Line>, EvidenceError> {
    let path = run.events();
    let text = match std::fs::read(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => return Err(EvidenceError::File { path, source }),
    };
    // A line without an end is still being written, or was torn by a crash.
    let whole = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    let lines = text[..whole].split(|byte| *byte == b'\n').zip(1_u64..);
    Ok(lines
        .filter(|(line, _)| !line.is_empty())
        .map(|(line, number)| Line {
            number,
            event: serde_json::from_slice::<Event>(line).map_err(|error| error.to_string()),
        })
        .collect())
}

fn checkpoints(run: &RunDir) -> Result<Vec<CheckpointFact>, EvidenceError> {
    let found = Checkpoints::new(run.checkpoints(), usize::MAX).examine()?;
    Ok(found
        .into_iter()
        .map(|(path, examined)| CheckpointFact {
            name: path.file_name().unwrap_or_default().to_string_lossy().into_owned(),
            holds: examined.map(|Examined { progress, finite }| Held {
                step: Step(progress.step),
                consumed: progress.consumed,
                finite,
            }),
        })
        .collect())
}

fn adapters(run: &RunDir) -> Result<Vec<AdapterFact>, EvidenceError> {
    let found = AdapterShelf::new(run.path()).examine()?;
    Ok(found
        .into_iter()
        .map(|(version, found)| AdapterFact { version, digest: found.digest, finite: found.finite })
        .collect())
}

fn transcripts(reader: &Reader) -> Result<Vec<Transcript>, StoreError> {
    Ok(reader
        .token_rows()?
        .into_iter()
        .map(|row| Transcript {
            episode: row.episode,
            generated: row.generated,
            spans: row.spans,
            finite: row.finite,
        })
        .collect())
}
