//! A node's log: appended to, and bounded. At the bound the file becomes `NAME.log.1`, replacing
//! the one before.

use std::fs::{File, OpenOptions, rename};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Size at which a log is put aside.
pub const LOG_BYTES_MAX: u64 = 8 << 20;
/// Characters of the last line that are kept.
const LAST_CHARS_MAX: usize = 300;

/// A log that is being written.
#[derive(Debug)]
pub struct NodeLog {
    path: PathBuf,
    file: File,
    len: u64,
    bytes_max: u64,
    last: String,
}

impl NodeLog {
    /// Opens a log for appending.
    ///
    /// # Errors
    /// The system refuses.
    pub fn open(path: &Path, bytes_max: u64) -> io::Result<Self> {
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        let len = file.metadata()?.len();
        Ok(Self { path: path.to_owned(), file, len, bytes_max, last: String::new() })
    }

    /// Appends a line.
    ///
    /// # Errors
    /// The system refuses, say on a full disk.
    pub fn line(&mut self, line: &[u8]) -> io::Result<()> {
        let text = String::from_utf8_lossy(line);
        if !text.trim().is_empty() {
            self.last = text.trim().chars().take(LAST_CHARS_MAX).collect();
        }
        if self.len > 0 && self.len + line.len() as u64 + 1 > self.bytes_max {
            rename(&self.path, self.path.with_extension("log.1"))?;
            *self = Self {
                last: std::mem::take(&mut self.last),
                ..Self::open(&self.path, self.bytes_max)?
            };
        }
        let mut whole = line.to_vec();
        whole.push(b'\n');
        self.file.write_all(&whole)?;
        self.len += whole.len() as u64;
        Ok(())
    }

    /// The last line that was not empty.
    #[must_use]
    pub fn last(&self) -> &str {
        &self.last
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_never_grows_past_its_bound_and_keeps_the_newest() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("node.log");
        let mut log = NodeLog::open(&path, 100).expect("can be made");
        for n in 0..50 {
            log.line(format!("line number {n}").as_bytes()).expect("can be written");
        }
        let read = |path: &Path| std::fs::read_to_string(path).expect("is there");
        let (new, old) = (read(&path), read(&path.with_extension("log.1")));
        assert!(new.len() <= 100 && old.len() <= 100);
        assert!(new.ends_with("line number 49\n"));
        assert_eq!(log.last(), "line number 49");
    }
}
