//! `events.jsonl`: the history of a run, one JSON object a line, appended and never rewritten.
//!
//! A line torn by a crash is cut off when the log is opened again, so that every line of the file
//! can be read.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crrl_machine::disk;
use crrl_types::Event;

use crate::error::StoreError;

/// An open history. The ledger in the store is the truth; this is its account for people and for
/// an audit, so it is synced from time to time and not before every message.
#[derive(Debug)]
pub struct EventLog {
    path: PathBuf,
    file: File,
    sync_every: Duration,
    synced: Instant,
    buffer: Vec<u8>,
}

impl EventLog {
    /// Opens a history to append to. It is brought to the disk every `sync_every` (zero: with
    /// every append) and when it is dropped.
    ///
    /// # Errors
    /// The file cannot be opened or repaired.
    pub fn open(path: &Path, sync_every: Duration) -> Result<Self, StoreError> {
        let wrap = |error: std::io::Error| StoreError::of_file(path, &error);
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(wrap)?;
        }
        let mut file =
            OpenOptions::new().read(true).append(true).create(true).open(path).map_err(wrap)?;
        if file.metadata().map_err(wrap)?.is_file() {
            cut_torn_line(&mut file).map_err(wrap)?;
        }
        Ok(Self {
            path: path.to_owned(),
            file,
            sync_every,
            synced: Instant::now(),
            buffer: Vec::new(),
        })
    }

    /// Appends events.
    ///
    /// # Errors
    /// Disk full, mostly. What was appended before stays readable.
    pub fn append(&mut self, events: &[Event]) -> Result<(), StoreError> {
        if events.is_empty() {
            return Ok(());
        }
        let wrap = |error: std::io::Error| StoreError::of_file(&self.path, &error);
        self.buffer.clear();
        for event in events {
            serde_json::to_writer(&mut self.buffer, event).map_err(|e| wrap(e.into()))?;
            self.buffer.push(b'\n');
        }
        disk::before_write().map_err(wrap)?;
        let before = self.file.metadata().map_err(wrap)?.len();
        if let Err(error) = self.file.write_all(&self.buffer) {
            // What fitted is taken back: whoever tries again begins with a whole line.
            let _ = self.file.set_len(before);
            return Err(wrap(error));
        }
        if self.synced.elapsed() >= self.sync_every {
            self.file.sync_data().map_err(wrap)?;
            self.synced = Instant::now();
        }
        Ok(())
    }
}

impl Drop for EventLog {
    fn drop(&mut self) {
        // Nobody is left to be told; the store has everything that matters.
        let _ = self.file.sync_data();
    }
}

/// Shortens the file to the end of its last whole line.
fn cut_torn_line(file: &mut File) -> std::io::Result<()> {
    const WINDOW: u64 = 64 * 1024;
    let len = file.metadata()?.len();
    let mut end = len;
    let mut window = Vec::new();
    while end > 0 {
        let start = end.saturating_sub(WINDOW);
        file.seek(SeekFrom::Start(start))?;
        window.resize((end - start) as usize, 0);
        file.read_exact(&mut window)?;
        if let Some(at) = window.iter().rposition(|byte| *byte == b'\n') {
            end = start + at as u64 + 1;
            break;
        }
        end = start;
    }
    if end < len {
        file.set_len(end)?;
    }
    file.seek(SeekFrom::End(0)).map(drop)
}
