//! `orders.jsonl` of a run: what people have asked for, and what came of it.
//!
//! An order is written down, and brought to the disk, before it is carried out; its outcome afterwards.
//! What cannot be written down is not carried out. The file is begun anew at [`FILE_BYTES_MAX`]; one
//! older is kept.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::{Arc, Mutex};

use crrl_machine::{clock, disk};
use crrl_types::{NodeName, OrderAnswer, OrderRecord};

use crate::aside;
use crate::peer::lock;
use crate::run_dir::RunDir;

/// A file is begun anew at this size: about 4,000 orders.
pub const FILE_BYTES_MAX: u64 = 1 << 20;
/// Characters of anything that was said.
const CHARS_MAX: usize = 400;
/// Longest line that is read back.
const LINE_BYTES_MAX: u64 = 16 << 10;

/// Somebody asked for something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// By the certificate.
    pub who: NodeName,
    /// By the certificate.
    pub roles: Vec<String>,
    /// What, in a word.
    pub operation: &'static str,
    /// Of whom.
    pub target: String,
    /// What else.
    pub detail: String,
}

/// The log of one run. Cloning gives another handle to the same.
#[derive(Debug, Clone)]
pub struct OrderLog(Arc<Log>);

#[derive(Debug)]
struct Log {
    run: RunDir,
    open: Mutex<Option<Open>>,
}

#[derive(Debug)]
struct Open {
    file: File,
    next_id: u64,
}

impl OrderLog {
    /// Of a run. Nothing is opened before something is written.
    #[must_use]
    pub fn new(run: RunDir) -> Self {
        Self(Arc::new(Log { run, open: Mutex::default() }))
    }

    /// Writes down that something was asked for; gives its number.
    ///
    /// # Errors
    /// The file cannot be written.
    pub async fn asked(&self, asked: &Asked) -> io::Result<u64> {
        self.write(None, asked.clone(), None).await
    }

    /// Writes down what came of it: of number `id`, or of what was never begun.
    ///
    /// # Errors
    /// The file cannot be written.
    pub async fn answered(
        &self,
        id: Option<u64>,
        asked: &Asked,
        answer: &OrderAnswer,
    ) -> io::Result<u64> {
        self.write(id, asked.clone(), Some(answer.clone())).await
    }

    async fn write(
        &self,
        id: Option<u64>,
        asked: Asked,
        answer: Option<OrderAnswer>,
    ) -> io::Result<u64> {
        let log = Arc::clone(&self.0);
        let written = aside(move || log.write(id, asked, answer)).await;
        written.unwrap_or_else(|| Err(io::Error::other("the log of orders panicked")))
    }
}

impl Log {
    fn write(&self, id: Option<u64>, asked: Asked, answer: Option<OrderAnswer>) -> io::Result<u64> {
        let mut held = lock(&self.open);
        // What failed half way is opened anew, and its torn line ended.
        let open = match held.take() {
            Some(open) => open,
            None => Open::at(&self.run)?,
        };
        let mut open = open.within_bounds(&self.run)?;
        let id = id.unwrap_or(open.next_id);
        let short = |text: String| text.chars().take(CHARS_MAX).collect();
        let (outcome, says) = match answer {
            Some(OrderAnswer { outcome, says }) => (Some(outcome), says),
            None => (None, String::new()),
        };
        let record = OrderRecord {
            id,
            at_ms: clock::unix_ms(),
            who: asked.who.to_string(),
            roles: asked.roles,
            operation: asked.operation.to_owned(),
            target: short(asked.target),
            detail: short(asked.detail),
            outcome,
            says: short(says),
        };
        let mut line = serde_json::to_vec(&record)?;
        line.push(b'\n');
        disk::before_write()?;
        open.file.write_all(&line)?;
        open.file.sync_data()?;
        open.next_id = open.next_id.max(id + 1);
        *held = Some(open);
        Ok(id)
    }
}

impl Open {
    fn at(run: &RunDir) -> io::Result<Self> {
        let last = read(run)?.into_iter().map(|record| record.id).max();
        let mut file = append(&run.orders())?;
        // A line torn by a crash must not spoil the next.
        if file.seek(SeekFrom::End(-1)).is_ok() {
            let mut end = [0];
            file.read_exact(&mut end)?;
            if end != *b"\n" {
                file.write_all(b"\n")?;
            }
        }
        Ok(Self { file, next_id: last.map_or(1, |last| last + 1) })
    }

    fn within_bounds(self, run: &RunDir) -> io::Result<Self> {
        if self.file.metadata()?.len() < FILE_BYTES_MAX {
            return Ok(self);
        }
        std::fs::rename(run.orders(), run.orders_before())?;
        Ok(Self { file: append(&run.orders())?, next_id: self.next_id })
    }
}

fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).append(true).create(true).open(path)
}

/// What was written down, oldest first. A line that is none is left out.
///
/// # Errors
/// A file that is there cannot be read.
pub fn read(run: &RunDir) -> io::Result<Vec<OrderRecord>> {
    let mut records = Vec::new();
    for path in [run.orders_before(), run.orders()] {
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        let mut file = BufReader::new(file).take(2 * FILE_BYTES_MAX);
        let mut line = Vec::new();
        while {
            line.clear();
            file.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut line)? > 0
        } {
            records.extend(record(&line));
        }
    }
    Ok(records)
}

/// A line of the file, if it is one.
#[must_use]
pub fn record(line: &[u8]) -> Option<OrderRecord> {
    serde_json::from_slice(line).ok()
}

#[cfg(test)]
mod tests {
    use crrl_types::Outcome;

    use super::*;

    fn asked(target: &str) -> Asked {
        Asked {
            who: "anna".into(),
            roles: vec!["operator".into()],
            operation: "drain",
            target: target.into(),
            detail: String::new(),
        }
    }

    #[tokio::test]
    async fn an_order_is_found_by_its_number_whatever_became_of_the_one_who_wrote_it() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let run = RunDir::new(folder.path());
        let done = OrderAnswer::new(Outcome::Done, "drains");
        let log = OrderLog::new(run.clone());
        let id = log.asked(&asked("rollout-0")).await.expect("writable");
        // Killed in the middle of the next line.
        OpenOptions::new()
            .append(true)
            .open(run.orders())
            .and_then(|mut file| file.write_all(b"{\"id\":7"))
            .expect("writable");
        let log = OrderLog::new(run.clone());
        let next = log.asked(&asked("rollout-1")).await.expect("writable");
        log.answered(Some(id), &asked("rollout-0"), &done).await.expect("writable");
        let records = read(&run).expect("readable");
        let seen: Vec<_> = records.iter().map(|r| (r.id, r.outcome)).collect();
        assert_eq!(seen, [(id, None), (next, None), (id, Some(Outcome::Done))]);
        assert!(next > id);
    }

    #[tokio::test]
    async fn the_log_keeps_within_its_bounds_and_its_numbers_go_on() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let run = RunDir::new(folder.path());
        let log = OrderLog::new(run.clone());
        let first = log.asked(&asked("a")).await.expect("writable");
        let filler = " ".repeat(usize::try_from(FILE_BYTES_MAX).expect("small"));
        std::fs::write(run.orders(), format!("{filler}\n")).expect("writable");
        let id = log.asked(&asked("b")).await.expect("writable");
        assert_eq!(id, first + 1);
        let len = |path: &Path| std::fs::metadata(path).expect("is there").len();
        assert!(len(&run.orders()) < 1000 && len(&run.orders_before()) > FILE_BYTES_MAX);
        assert_eq!(read(&run).expect("readable").len(), 1);
    }
}
