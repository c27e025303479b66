//! The files of a run's folder.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, ErrorKind, Read as _};
use std::path::{Path, PathBuf};

use crrl_control::plan::{PLAN_FILE, Plan, PlanError};
use crrl_control::results::{RESULTS_FILE, Results};
use crrl_store::{Reader, StoreError};
use crrl_types::{Deed, Event, OrderRecord, Task, TaskId, deed};

use super::{Conduct, EpisodeFact, Facts, History, HostFact, Spent, TaskFact};
use crate::model::picks;

/// Episodes whose transcripts are looked at. Of more, every second, third... is: shares of
/// thousands do not change by it, and reading takes a tenth of a millisecond each.
const TRANSCRIPTS_MAX: usize = 40_000;
/// Bytes of a line of the history, and of a task file: a task carries its files.
const LINE_BYTES_MAX: u64 = 64 << 20;
/// Bytes of the small files that are read whole.
const FILE_BYTES_MAX: u64 = 64 << 20;
/// The log of orders, the older part first: it is begun anew where it is long.
const ORDER_FILES: [&str; 2] = ["orders.1.jsonl", "orders.jsonl"];
/// Bytes of each that are read: twice the length at which the coordinator begins it anew.
const ORDER_BYTES_MAX: usize = 2 << 20;
/// Tasks whose statement and patch are kept.
const TASKS_MAX: usize = 100_000;

/// A run that cannot be reported on.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// Not a folder.
    #[error("{path} is not a folder: give the folder of a run, `runs/quickstart-0-...` say", path = .path.display())]
    NoFolder {
        /// What was given.
        path: PathBuf,
    },
    /// A file every run has is not there.
    #[error(
        "{path} is missing, so {folder} is not the folder of a run that was started; `crrl train` and `crrl quickstart` name theirs as they begin",
        path = .path.display(), folder = .folder.display()
    )]
    Missing {
        /// Which file.
        path: PathBuf,
        /// What was given.
        folder: PathBuf,
    },
    /// A file that is there and cannot be read.
    #[error("{path} cannot be read: {source}", path = .path.display())]
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
    /// A JSON file of the run.
    #[error("{path} is damaged: {source}; move it away, and the report is made without it", path = .path.display())]
    Json {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: serde_json::Error,
    },
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Reads a run.
///
/// # Errors
/// [`ReadError`]: no folder of a run, or a file of it is damaged.
pub fn read(folder: &Path) -> Result<Facts, ReadError> {
    read_watched(folder, &|_, _| ())
}

/// The same; `told` hears how many transcripts were looked at, and of how many.
///
/// # Errors
/// As [`read`].
pub fn read_watched(folder: &Path, told: &dyn Fn(usize, usize)) -> Result<Facts, ReadError> {
    read_with(folder, &|reader, episodes, notes| look_into(reader, episodes, notes, told))
}

/// As [`read`], without a look at the transcripts: what takes the time, and what curves and tables of
/// episodes do not need. No episode has a conduct, and none is shown.
///
/// # Errors
/// As [`read`].
pub fn read_ledger(folder: &Path) -> Result<Facts, ReadError> {
    read_with(folder, &|_, _, _| Ok(()))
}

/// What fills in the conduct of episodes.
type Look<'a> = &'a dyn Fn(&Reader, &mut [EpisodeFact], &mut Vec<String>) -> Result<(), StoreError>;

fn read_with(folder: &Path, look: Look<'_>) -> Result<Facts, ReadError> {
    if !folder.is_dir() {
        return Err(ReadError::NoFolder { path: folder.to_owned() });
    }
    let missing = |path: PathBuf| ReadError::Missing { path, folder: folder.to_owned() };
    let plan_path = folder.join(PLAN_FILE);
    let text = small_file(&plan_path)?.ok_or_else(|| missing(plan_path.clone()))?;
    let plan = Plan::parse(&text).map_err(|source| ReadError::Plan { path: plan_path, source })?;
    let store = folder.join("run.sqlite");
    if !store.is_file() {
        return Err(missing(store));
    }
    let mut notes = Vec::new();
    // The store is written before the history: read last, it knows of everything the rest tells.
    let results: Results = json(&folder.join(RESULTS_FILE))?.unwrap_or_default();
    let history = history(&folder.join("events.jsonl"), &mut notes)?;
    let deeds = deeds(folder, &mut notes)?;
    let reader = Reader::open(&store)?;
    reader.hold()?;
    let mut episodes: Vec<EpisodeFact> =
        reader.episodes()?.into_iter().map(EpisodeFact::of).collect();
    look(&reader, &mut episodes, &mut notes)?;
    let shown = picks::choose(&episodes)
        .into_iter()
        .filter_map(|choice| {
            let found = reader.trajectory(choice.episode).transpose()?;
            Some(found.map(|trajectory| (choice, trajectory)))
        })
        .collect::<Result<Vec<_>, _>>()?;
    let tasks = tasks(folder, &plan, &mut notes)?;
    let name = std::path::absolute(folder).unwrap_or_else(|_| folder.to_owned());
    let host = json(&folder.join("host.json")).unwrap_or_else(|_| {
        notes.push("host.json cannot be read".to_owned());
        None
    });
    Ok(Facts {
        name: name.file_name().map_or_else(|| "run".into(), |name| name.to_string_lossy()).into(),
        steps: reader.steps()?,
        quarantined: reader.quarantined()?,
        environment: crrl_store::environment::read(folder),
        configuration: small_file(&folder.join("cluster.toml"))?,
        host: host.filter(|host: &HostFact| !host.nodes.is_empty()),
        plan,
        results,
        history,
        deeds,
        episodes,
        tasks,
        shown,
        notes,
    })
}

/// A file, whole; `None` where there is none.
fn small_file(path: &Path) -> Result<Option<String>, ReadError> {
    let refuse = |source| ReadError::File { path: path.to_owned(), source };
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(refuse(error)),
    };
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(refuse)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(refuse(std::io::Error::other(format!("longer than {FILE_BYTES_MAX} bytes"))));
    }
    Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
}

fn json<T: serde::de::DeserializeOwned>(path: &Path) -> Result<Option<T>, ReadError> {
    let Some(text) = small_file(path)? else { return Ok(None) };
    let parsed = serde_json::from_str(&text);
    parsed.map(Some).map_err(|source| ReadError::Json { path: path.to_owned(), source })
}

/// Hands on every whole line of a file that may still be written to; nothing where there is none.
fn lines(path: &Path, mut take: impl FnMut(&[u8]) -> bool) -> Result<(), ReadError> {
    let refuse = |source| ReadError::File { path: path.to_owned(), source };
    let mut reader = match File::open(path) {
        Ok(file) => BufReader::new(file),
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(refuse(error)),
    };
    let mut line = Vec::new();
    loop {
        line.clear();
        (&mut reader).take(LINE_BYTES_MAX).read_until(b'\n', &mut line).map_err(refuse)?;
        if line.is_empty() || !take(&line) {
            return Ok(());
        }
    }
}

fn history(path: &Path, notes: &mut Vec<String>) -> Result<History, ReadError> {
    let mut history = History::default();
    let mut there = false;
    lines(path, |line| {
        there = true;
        match serde_json::from_slice::<Event>(line) {
            Ok(event) => history.take(&event),
            // A line without an end is still being written, or was torn by a crash.
            Err(_) if !line.ends_with(b"\n") => {}
            Err(_) => history.unread += 1,
        }
        true
    })?;
    if !there {
        notes.push("events.jsonl is missing or empty: nothing is known of times and faults".into());
    }
    if history.unread > 0 {
        let unread = history.unread;
        notes.push(format!("lines of events.jsonl that cannot be read: {unread}"));
    }
    Ok(history)
}

/// What people had done; nothing where nobody asked for anything.
fn deeds(folder: &Path, notes: &mut Vec<String>) -> Result<Vec<Deed>, ReadError> {
    let (mut records, mut unread) = (Vec::new(), 0_u64);
    for file in ORDER_FILES {
        let mut bytes = 0;
        lines(&folder.join(file), |line| {
            match serde_json::from_slice::<OrderRecord>(line) {
                Ok(record) => records.push(record),
                Err(_) if !line.ends_with(b"\n") || line.trim_ascii().is_empty() => {}
                Err(_) => unread += 1,
            }
            bytes += line.len();
            bytes < ORDER_BYTES_MAX
        })?;
    }
    if unread > 0 {
        notes.push(format!("lines of orders.jsonl that cannot be read: {unread}"));
    }
    Ok(deed::deeds(records))
}

fn look_into(
    reader: &Reader,
    episodes: &mut [EpisodeFact],
    notes: &mut Vec<String>,
    told: &dyn Fn(usize, usize),
) -> Result<(), StoreError> {
    let done = episodes.iter().filter(|episode| episode.reward.is_some()).count();
    let every = done.div_ceil(TRANSCRIPTS_MAX).max(1);
    let looked = episodes.iter_mut().filter(|e| e.reward.is_some()).step_by(every);
    for (nth, episode) in looked.enumerate() {
        told(nth, done / every);
        episode.conduct = reader.trajectory(episode.id)?.as_ref().map(Conduct::of);
        episode.spent = Spent::of(&reader.timings(episode.id)?);
    }
    if every > 1 {
        notes.push(format!("one of {every} transcripts was read for what episodes did"));
    }
    Ok(())
}

/// Reads the plan's task files that are in the run's folder; it may have been moved since.
fn tasks(
    folder: &Path,
    plan: &Plan,
    notes: &mut Vec<String>,
) -> Result<BTreeMap<TaskId, TaskFact>, ReadError> {
    let mut tasks = BTreeMap::new();
    let mut files: Vec<&std::ffi::OsStr> =
        plan.phases.iter().filter_map(|phase| phase.tasks().file_name()).collect();
    files.sort_unstable();
    files.dedup();
    for file in files {
        let path = folder.join(file);
        let shown = file.to_string_lossy();
        if !path.is_file() {
            notes.push(format!(
                "the tasks ({shown}) are not in the run's folder: their statements and gold patches \
                 are not shown, kinds of bug are read off the tasks' ids"
            ));
            continue;
        }
        let mut unread = 0_u64;
        lines(&path, |line| {
            match serde_json::from_slice::<Task>(line) {
                Ok(task) => {
                    tasks.insert(task.instance_id.clone(), TaskFact::of(task));
                }
                Err(_) if line.trim_ascii().is_empty() => {}
                Err(_) => unread += 1,
            }
            tasks.len() < TASKS_MAX
        })?;
        if unread > 0 {
            notes.push(format!("lines of {shown} that are no tasks: {unread}"));
        }
    }
    Ok(tasks)
}
