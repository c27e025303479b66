//! Going on from the last good copy of a ledger that is damaged: gathers what is known of the time since,
//! has [`crrl_control::restore`] decide, and puts the restored ledger in the damaged one's place, which
//! stays beside it, as it was found. For a run that is not under way.
//!
//! History and results are written before the ledger: a crash in between leaves the ledger damaged or
//! none, and doing it again comes to the same.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crrl_cluster::RunDir;
use crrl_cluster::run_dir::{RunDirError, write_atomic};
use crrl_control::coordinator::{Record, Recovered};
use crrl_control::plan::{PLAN_FILE, Plan, PlanError};
use crrl_control::restore::{self, Checkpoints, Restoration, Restored, StepHeld, Told};
use crrl_control::results::{RESULTS_FILE, Results};
use crrl_learner::LearnerError;
use crrl_machine::clock;
use crrl_store::copies::{self, Manifest};
use crrl_store::{Copies, EventLog, GoodCopy, Op, Reader, StoreError};
use crrl_types::{EpisodeId, Event, NodeName, Step};

use crate::journals::Journals;
use crate::ledger_rows::{self, RecoverRowsError};
use crate::task_file::{TaskFile, TaskFileError};

/// Why a ledger was not restored. Nothing of it has changed.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// There is nothing to mend.
    #[error(
        "{path} shows no damage: `--resume` alone goes on from it. To go back to its last good copy all \
         the same, move the file away first",
        path = .path.display()
    )]
    Whole {
        /// The ledger.
        path: PathBuf,
    },
    /// There is nothing to mend it with.
    #[error(
        "{path} is damaged ({damage}), and there is no good copy of it in {folder}{}: bring it back from a \
         backup of your own, or start a new run from the learner's last checkpoint (model.adapter)",
        .passed_over.iter().map(|why| format!("; {why}")).collect::<String>(),
        path = .path.display(),
        folder = .folder.display()
    )]
    NoCopy {
        /// The ledger.
        path: PathBuf,
        /// What is wrong with it.
        damage: String,
        /// Where copies would be.
        folder: PathBuf,
        /// Copies that are damaged as well.
        passed_over: Vec<String>,
    },
    /// A file that every run has.
    #[error("cannot read {path}: {source}", path = .path.display())]
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
    /// The tasks of the plan.
    #[error(transparent)]
    Tasks(#[from] TaskFileError),
    /// The ledger, its copy, or the history.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A row of the copy.
    #[error(transparent)]
    Row(#[from] RecoverRowsError),
    /// The checkpoints' folder.
    #[error(transparent)]
    Checkpoints(#[from] LearnerError),
    /// The results.
    #[error(transparent)]
    Results(#[from] RunDirError),
}

/// What was done.
#[derive(Debug, Clone)]
pub struct Report {
    /// What was wrong with the ledger.
    pub damage: String,
    /// Where the damaged one is now; none where there was no file.
    pub aside: Option<PathBuf>,
    /// The copy that was used.
    pub copy: Manifest,
    /// Newer copies that were damaged as well.
    pub passed_over: Vec<String>,
    /// What came of it.
    pub restored: Restored,
    /// Steps the history knows of whose checkpoints are gone, and their batches with the ledger: others
    /// are made in their place. One whose batch is in the copy is not among them: it is made again as it
    /// was.
    pub undone: Vec<Step>,
    /// Lines of the history that could not be read.
    pub unread: u64,
}

/// Who and where.
#[derive(Debug, Clone)]
pub struct Place {
    /// Name of the coordinator's node, which the history is told in the name of.
    pub coordinator: NodeName,
    /// Whether the learner's checkpoints are in this run's folder.
    pub has_checkpoints: bool,
}

/// Restores a damaged ledger. Whoever calls sees to it that no node of the run is up.
///
/// # Errors
/// [`RestoreError`].
pub fn restore(run: &RunDir, place: &Place) -> Result<Report, RestoreError> {
    let (path, folder) = (run.store(), run.ledger_copies());
    // Of a restoration that was interrupted between the two.
    let put_aside = copies::put_aside(&path);
    let copies::Found { copy, damaged: passed_over } = Copies::new(&folder, usize::MAX).newest()?;
    let damage = match &put_aside {
        Some(_) => Some("going back to a copy of it was interrupted".to_owned()),
        None => damage(&path, copy.as_ref().map(|copy| &copy.manifest))?,
    };
    let damage = damage.ok_or_else(|| RestoreError::Whole { path: path.clone() })?;
    let Some(copy) = copy else {
        return Err(RestoreError::NoCopy { path, damage, folder, passed_over });
    };
    let (recovered, before) = read(&copy)?;
    let told = history(run, &recovered)?;
    let decided = decide(run, place, &recovered, &told)?;
    let was_there = path.exists() || put_aside.is_some();
    let aside = put_aside.map_or_else(|| copies::aside(&path), Ok)?;
    let name = aside.file_name().filter(|_| was_there).unwrap_or_default();
    let restored = Restored {
        at_ms: clock::unix_ms(),
        aside: name.to_string_lossy().into_owned(),
        ..decided.restored.clone()
    };
    let draft = copies::draft(&copy, &path, &ops(&decided, before, &restored))?;
    let installed = tell(run, place, &decided)
        .and_then(|()| copies::install(&draft, &path, &aside).map_err(RestoreError::from));
    if let Err(error) = installed {
        // Where no file was moved, a draft would tell the next try that one was.
        if (path.exists() || !was_there)
            && let Err(error) = copies::discard(&draft)
        {
            tracing::warn!(%error, "remove it before the ledger is restored once more");
        }
        return Err(error);
    }
    let aside = was_there.then_some(aside);
    let (copy, undone, unread) = (copy.manifest, decided.undone, told.unread);
    Ok(Report { damage, aside, copy, passed_over, restored, undone, unread })
}

/// What is wrong with a ledger, of which this is the newest copy; none where nothing is. Changes nothing
/// of it.
fn damage(path: &Path, newest: Option<&Manifest>) -> Result<Option<String>, RestoreError> {
    match std::fs::metadata(path) {
        Ok(file) if file.len() == 0 => return Ok(Some("it is empty".to_owned())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Ok(Some("it is missing".to_owned()));
        }
        _ => {}
    }
    let look = || -> Result<Option<String>, RecoverRowsError> {
        let reader = Reader::look(path)?;
        reader.whole()?;
        let journals = Journals::recovered(reader.journals()?);
        let recovered = ledger_rows::recover(&reader, Results::default(), &journals)?;
        // What a coordinator begins with that finds none.
        if recovered.next_episode == EpisodeId(0) {
            return Ok(Some("it holds no episode".to_owned()));
        }
        let (step, Some(copy)) = (reader.last_committed()?.unwrap_or_default(), newest) else {
            return Ok(None);
        };
        // The batch of a step that the learner fell back to before stays.
        let is_older = step < copy.step && reader.batch_version(copy.step)?.is_none();
        let older = || format!("it ends at step {step}, and its copy at step {}", copy.step);
        Ok(is_older.then(older))
    };
    match look() {
        Ok(found) => Ok(found),
        Err(RecoverRowsError::Store(StoreError::Corrupt { detail, .. })) => Ok(Some(detail)),
        Err(
            error @ RecoverRowsError::Store(
                StoreError::Foreign { .. } | StoreError::Row { .. } | StoreError::Other { .. },
            ),
        )
        | Err(error @ RecoverRowsError::Row { .. }) => Ok(Some(error.to_string())),
        Err(error) => Err(error.into()),
    }
}

/// What a copy says, and how often its run was restored before.
fn read(copy: &GoodCopy) -> Result<(Recovered, Vec<Restored>), RestoreError> {
    let reader = Reader::open(&copy.path)?;
    let journals = Journals::recovered(reader.journals()?);
    let recovered = ledger_rows::recover(&reader, Results::default(), &journals)?;
    Ok((recovered, ledger_rows::restored(&reader)?))
}

fn history(run: &RunDir, copy: &Recovered) -> Result<Told, RestoreError> {
    let mut told = Told::after(copy);
    let path = run.events();
    let fail = |source| RestoreError::File { path: path.clone(), source };
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            told.unread = 1;
            return Ok(told);
        }
        Err(source) => return Err(fail(source)),
    };
    let mut lines = BufReader::new(file);
    let mut line = Vec::new();
    loop {
        line.clear();
        let bytes = lines.read_until(b'\n', &mut line).map_err(fail)?;
        // A line without an end was torn by a crash.
        if bytes == 0 || line.pop() != Some(b'\n') {
            return Ok(told);
        }
        match serde_json::from_slice::<Event>(&line) {
            Ok(event) => told.take(&event),
            Err(_) if line.is_empty() => {}
            Err(_) => told.unread += 1,
        }
    }
}

fn decide(
    run: &RunDir,
    place: &Place,
    copy: &Recovered,
    told: &Told,
) -> Result<Restoration, RestoreError> {
    let path = run.path().join(PLAN_FILE);
    let text = std::fs::read_to_string(&path)
        .map_err(|source| RestoreError::File { path: path.clone(), source })?;
    let plan = Plan::parse(&text).map_err(|source| RestoreError::Plan { path, source })?;
    let files = TaskFile::of_plan(&plan, run.path())?;
    let tasks: Vec<_> =
        plan.phases.iter().zip(&files).map(|(phase, file)| file.ids_of(phase)).collect();
    // Results that cannot be read are made again; those of the copy are in it.
    let results = std::fs::read(run.path().join(RESULTS_FILE)).ok();
    let results: Option<Results> = results.and_then(|text| serde_json::from_slice(&text).ok());
    let checkpoints =
        if place.has_checkpoints { checkpoints(run)? } else { Checkpoints::Elsewhere };
    Ok(restore::restore(&plan, &tasks, copy, told, results.as_ref(), &checkpoints))
}

/// What every checkpoint that loads says of its step.
fn checkpoints(run: &RunDir) -> Result<Checkpoints, RestoreError> {
    let all = crrl_learner::Checkpoints::new(run.checkpoints(), usize::MAX).examine()?;
    let held: BTreeMap<Step, StepHeld> = all
        .into_iter()
        .filter_map(|(_, examined)| {
            let progress = examined.ok()?.progress;
            let held = StepHeld { version: progress.version, consumed: progress.consumed };
            Some((Step(progress.step), held))
        })
        .collect();
    Ok(Checkpoints::Here(held))
}

fn ops(decided: &Restoration, mut before: Vec<Restored>, restored: &Restored) -> Vec<Op> {
    let mut ops = Vec::new();
    for record in &decided.records {
        if let Record::Episode(entry) = record
            && !entry.state.is_open()
        {
            ops.push(Op::ForgetTurns(entry.episode));
        }
        ops.push(ledger_rows::op(record.clone()));
    }
    ops.push(ledger_rows::results(&decided.results));
    before.push(restored.clone());
    ops.push(ledger_rows::restored_op(&before));
    ops
}

/// Writes down what the history and the results do not say yet.
fn tell(run: &RunDir, place: &Place, decided: &Restoration) -> Result<(), RestoreError> {
    let at_ms = clock::unix_ms();
    let event = |kind| Event { at_ms, node: place.coordinator.clone(), kind };
    let events: Vec<Event> = decided.events.iter().cloned().map(event).collect();
    EventLog::open(&run.events(), Duration::ZERO)?.append(&events)?;
    let path = run.path().join(RESULTS_FILE);
    let text = serde_json::to_vec_pretty(&decided.results).map_err(|error| RunDirError {
        what: "write",
        path: path.clone(),
        source: error.into(),
    })?;
    write_atomic(&path, &text)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use crrl_control::coordinator::BatchRow;
    use crrl_control::ledger::{Entry, State};
    use crrl_control::plan::{Phase, StalePolicy, Train};
    use crrl_store::{Options, Stop, Writer};
    use crrl_types::{AdapterVersion, GroupId, Sampling};

    use super::*;

    fn batch(step: u64, committed: bool) -> Op {
        ledger_rows::op(Record::Batch(BatchRow {
            step: Step(step),
            phase: 0,
            version: AdapterVersion(step - 1),
            committed,
            episodes: vec![EpisodeId(0)],
        }))
    }

    fn write(store: &Path, mut ops: Vec<Op>) {
        ops.push(ledger_rows::op(Record::Episode(Box::new(Entry {
            episode: EpisodeId(0),
            group: GroupId(0),
            task: "t".into(),
            phase: 0,
            ordinal: 0,
            sample: 0,
            evaluation: false,
            attempt: 0,
            node: None,
            state: State::Queued,
        }))));
        let said = |_: Result<(), StoreError>| ();
        let writer = Writer::start(store, Options::default(), said).expect("a store");
        writer.submit(ops, ()).expect("it writes");
    }

    #[test]
    fn a_ledger_that_is_older_than_its_own_copy_is_damaged_and_one_that_was_rolled_back_is_not() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let run = RunDir::new(folder.path());
        let store = run.store();
        write(&store, vec![batch(1, true)]);
        let old = std::fs::read(&store).expect("a store");
        write(&store, vec![batch(2, true), batch(3, true)]);
        let copies = Copies::new(run.ledger_copies(), 2);
        let copy = copies.make(&store, &Stop::default()).expect("a copy");
        assert_eq!(damage(&store, Some(&copy)).expect("readable"), None);
        write(&store, vec![batch(2, false), batch(3, false)]);
        assert_eq!(damage(&store, Some(&copy)).expect("readable"), None, "it was rolled back");
        std::fs::write(&store, old).expect("writable");
        let found = damage(&store, Some(&copy)).expect("readable").expect("it is older");
        assert!(found.contains("ends at step 1, and its copy at step 3"), "{found}");
        assert_eq!(damage(&store, None).expect("readable"), None);
        std::fs::write(&store, b"").expect("writable");
        assert_eq!(damage(&store, None).expect("readable").as_deref(), Some("it is empty"));
        std::fs::remove_file(&store).expect("is there");
        assert_eq!(damage(&store, None).expect("readable").as_deref(), Some("it is missing"));
    }

    fn plan() -> Plan {
        let train = Phase::Train(Train {
            tasks: "tasks.jsonl".into(),
            steps: 3,
            group_size: 2,
            groups_per_step: 1,
            sampling: Sampling::default(),
            staleness_max: 2,
            stale: StalePolicy::TrainRest,
            sync: false,
            skip_equal_groups: false,
            staleness: Default::default(),
            stragglers: Default::default(),
        });
        Plan::new(1, vec![train])
    }

    #[test]
    fn a_try_that_fails_before_a_file_is_moved_leaves_no_draft_that_looks_like_one_cut_off() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (run, at) = (RunDir::new(folder.path()), |name: &str| folder.path().join(name));
        let store = run.store();
        write(&store, vec![batch(1, true)]);
        let copies = Copies::new(run.ledger_copies(), 2);
        copies.make(&store, &Stop::default()).expect("a copy");
        std::fs::remove_file(&store).expect("is there");
        // Of an earlier time; none of this one.
        std::fs::write(at("run.sqlite.damaged-1"), b"noise").expect("writable");
        let task = r#"{"instance_id": "t", "problem_statement": "p", "patch": "x"}"#;
        std::fs::write(at("tasks.jsonl"), task).expect("writable");
        std::fs::write(at(PLAN_FILE), plan().to_json()).expect("writable");
        // A folder is in the results' way.
        std::fs::create_dir(at(RESULTS_FILE)).expect("writable");
        let place = Place { coordinator: "coordinator".into(), has_checkpoints: false };
        let error = restore(&run, &place).expect_err("the results cannot be written");
        assert!(matches!(error, RestoreError::Results(_)), "{error}");
        assert!(!at("run.sqlite.restored").exists() && !store.exists());
        std::fs::remove_dir(at(RESULTS_FILE)).expect("is there");
        let report = restore(&run, &place).expect("nothing is in the way");
        assert_eq!((report.damage.as_str(), report.aside), ("it is missing", None));
        assert_eq!(std::fs::read(at("run.sqlite.damaged-1")).expect("is there"), b"noise");
        let reader = Reader::open(&store).expect("a store");
        assert_eq!(reader.last_committed().expect("readable"), Some(Step(1)));
    }
}
