//! What a run's folder holds, shown to [`crrl_control::audit`]. Changes nothing, and works on a run
//! under way.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::PathBuf;

use crrl_cluster::RunDir;
use crrl_config::Role;
use crrl_control::audit::{
    AdapterFact, Audit, CheckpointFact, CheckpointFacts, Held, Line, Setting, Transcript, Verdict,
};
use crrl_control::plan::{PLAN_FILE, Plan, PlanError};
use crrl_control::results::{RESULTS_FILE, Results};
use crrl_control::wire::Serving;
use crrl_learner::LearnerError;
use crrl_learner::checkpoint::{Checkpoints, Examined};
use crrl_store::row::TokenRow;
use crrl_store::{Reader, StoreError};
use crrl_types::{Event, NodeName, Step};

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

/// Judges a run. What is kept in memory of an episode is a few words, whatever it generated.
///
/// # Errors
/// [`EvidenceError`].
pub fn judge(run: &RunDir) -> Result<Verdict, EvidenceError> {
    judge_watched(run, &|_, _| ())
}

/// The same; `told` hears how many rows were looked at, and of how many.
///
/// # Errors
/// [`EvidenceError`].
pub fn judge_watched(run: &RunDir, told: &dyn Fn(u64, u64)) -> Result<Verdict, EvidenceError> {
    judge_of(run, || Ok((checkpoint_facts(run)?, adapters(run)?)), told)
}

/// Judges a run whose learner and parameter server have their files elsewhere.
///
/// # Errors
/// [`EvidenceError`].
pub fn judge_with(
    run: &RunDir,
    kept: impl Fn() -> Result<(Vec<CheckpointFact>, Vec<AdapterFact>), EvidenceError>,
) -> Result<Verdict, EvidenceError> {
    let here = |(checkpoints, adapters)| (CheckpointFacts::Here(checkpoints), adapters);
    judge_of(run, || kept().map(here), &|_, _| ())
}

fn judge_of(
    run: &RunDir,
    kept: impl Fn() -> Result<(CheckpointFacts, Vec<AdapterFact>), EvidenceError>,
    told: &dyn Fn(u64, u64),
) -> Result<Verdict, EvidenceError> {
    let path = run.path().join(PLAN_FILE);
    let text = std::fs::read_to_string(&path)
        .map_err(|source| EvidenceError::File { path: path.clone(), source })?;
    let plan = Plan::parse(&text).map_err(|source| EvidenceError::Plan { path, source })?;
    let mut look = 1;
    let (reader, complete, history, checkpoints, adapters) = loop {
        let reader = Reader::open(&run.store())?;
        let before = reader.last_committed()?;
        // What is written later is read first: the ledger is ahead of everything else.
        let complete = results(run)?.complete;
        let history = History::until_now(run)?;
        let (checkpoints, adapters) = kept()?;
        reader.hold()?;
        if reader.last_committed()? == before || look >= LOOKS_MAX {
            break (reader, complete, history, checkpoints, adapters);
        }
        look += 1;
    };
    let published = reader.published()?.into_iter();
    let mut audit = Audit::new(Setting {
        plan,
        complete,
        batches: reader.last_batches(u64::MAX)?.into_iter().map(ledger_rows::batch).collect(),
        steps: reader.steps()?.into_iter().map(|row| (row.step, row.version)).collect(),
        published: published.map(|(version, digest)| Serving { version, digest }).collect(),
        checkpoints,
        adapters,
        restored: ledger_rows::restored(&reader)?,
    });
    // Every episode, and then its transcript.
    let total = 2 * reader.counts()?.iter().map(|count| count.episodes).sum::<u64>();
    let mut done = 0;
    let mut one = || {
        done += 1;
        told(done, total);
    };
    reader.each_episode(|row| -> Result<(), EvidenceError> {
        one();
        audit.entry(&ledger_rows::entry(row)?);
        Ok(())
    })?;
    history.read(|line| audit.line(line))?;
    reader.each_token_row(|row| -> Result<(), EvidenceError> {
        one();
        let TokenRow { episode, generated, spans, finite } = row;
        audit.transcript(&Transcript { episode, generated, spans, finite });
        Ok(())
    })?;
    Ok(audit.verdict())
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

/// The history as far as it was written at one moment.
struct History {
    path: PathBuf,
    file: Option<File>,
    bytes: u64,
}

impl History {
    fn until_now(run: &RunDir) -> Result<Self, EvidenceError> {
        let path = run.events();
        match File::open(&path).and_then(|file| Ok((file.metadata()?.len(), file))) {
            Ok((bytes, file)) => Ok(Self { path, file: Some(file), bytes }),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                Ok(Self { path, file: None, bytes: 0 })
            }
            Err(source) => Err(EvidenceError::File { path, source }),
        }
    }

    /// Shows it line by line.
    fn read(self, mut show: impl FnMut(&Line)) -> Result<(), EvidenceError> {
        let Some(file) = self.file else { return Ok(()) };
        let mut lines = BufReader::new(file.take(self.bytes));
        let mut line = Vec::new();
        for number in 1.. {
            line.clear();
            let bytes = lines
                .read_until(b'\n', &mut line)
                .map_err(|source| EvidenceError::File { path: self.path.clone(), source })?;
            // A line without an end is still being written, or was torn by a crash.
            if bytes == 0 || line.pop() != Some(b'\n') {
                break;
            }
            if !line.is_empty() {
                let event = serde_json::from_slice::<Event>(&line).map_err(|e| e.to_string());
                show(&Line { number, event });
            }
        }
        Ok(())
    }
}

fn checkpoint_facts(run: &RunDir) -> Result<CheckpointFacts, EvidenceError> {
    match learner_elsewhere(run) {
        Some(node) => Ok(CheckpointFacts::Elsewhere(node)),
        None => checkpoints(run).map(CheckpointFacts::Here),
    }
}

/// The learner's node where it is on another machine or in a container, and keeps its checkpoints there.
/// Without a configuration that can be read it is taken to be here.
fn learner_elsewhere(run: &RunDir) -> Option<NodeName> {
    let nodes = run.config().ok()?.nodes();
    let learner = nodes.iter().find(|node| node.roles.contains(&Role::Learner))?;
    (!learner.is_local()).then(|| learner.name.as_str().into())
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

#[cfg(test)]
mod tests {
    use crrl_config::{ClusterConfig, Node};

    use super::*;

    /// The facts of a run whose learner's node is changed like this.
    fn facts(change: impl Fn(&mut Node)) -> CheckpointFacts {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let run = RunDir::new(folder.path());
        let mut nodes = ClusterConfig::default_nodes();
        nodes.iter_mut().filter(|node| node.roles.contains(&Role::Learner)).for_each(change);
        let config = ClusterConfig { node: nodes, ..ClusterConfig::default() };
        let text = toml::to_string(&config).expect("plain data");
        std::fs::write(run.config_path(), text).expect("writable");
        checkpoint_facts(&run).expect("readable")
    }

    #[test]
    fn a_learner_keeps_its_checkpoints_here_only_where_its_node_is_a_process_of_this_machine() {
        assert!(matches!(facts(|_| ()), CheckpointFacts::Here(found) if found.is_empty()));
        let places: [fn(&mut Node); 3] = [
            |node| node.host = Some("box".to_owned()),
            |node| node.host = Some("docker://image".to_owned()),
            |node| node.external = true,
        ];
        for place in places {
            let found = facts(place);
            let CheckpointFacts::Elsewhere(node) = found else { panic!("{found:?}") };
            assert_eq!(node.as_str(), "learner");
        }
        // A folder without a configuration is judged by what is in it.
        let folder = tempfile::tempdir().expect("a temporary folder");
        let found = checkpoint_facts(&RunDir::new(folder.path())).expect("readable");
        assert!(matches!(found, CheckpointFacts::Here(_)), "{found:?}");
    }
}
