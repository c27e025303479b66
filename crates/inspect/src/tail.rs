//! The end of the run's history, `events.jsonl`, as it grows.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use crrl_types::Event;

use crate::state::history::History;

/// Read of the file at first: its end, bytes. Some two thousand events.
const FIRST_BYTES: u64 = 256 << 10;
/// Read at one time, bytes: what a slow disk may cost one redraw.
const ONCE_BYTES: u64 = 256 << 10;
/// Longest line that is kept while its end has not come, bytes.
const LINE_BYTES_MAX: usize = 64 << 10;

/// Where in the history one is.
#[derive(Debug)]
pub struct Tail {
    path: PathBuf,
    at: Option<u64>,
    rest: Vec<u8>,
    is_in_line: bool,
}

impl Tail {
    /// The end of this file, which need not be there yet.
    #[must_use]
    pub fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), at: None, rest: Vec::new(), is_in_line: false }
    }

    /// All of this file, from its first line on.
    #[must_use]
    pub fn whole(path: &Path) -> Self {
        Self { at: Some(0), ..Self::new(path) }
    }

    /// Adds what was written since. A file that is not there has nothing to say; one that became
    /// shorter is read anew.
    pub fn read(&mut self, history: &mut History) {
        self.each(|event| match event {
            Some(event) => history.push(&event),
            None => history.unreadable += 1,
        });
    }

    /// The same as plain events; lines that cannot be read are left out.
    pub fn take(&mut self) -> Vec<Event> {
        let mut events = Vec::new();
        self.each(|event| events.extend(event));
        events
    }

    /// Shows every line that was written since; nothing for one that cannot be read.
    fn each(&mut self, mut show: impl FnMut(Option<Event>)) {
        let Ok(mut file) = File::open(&self.path) else { return };
        let Ok(len) = file.metadata().map(|meta| meta.len()) else { return };
        let at = match self.at {
            Some(at) if at <= len => at,
            _ => {
                let at = len.saturating_sub(FIRST_BYTES);
                self.rest.clear();
                // In the middle of a line, unless at the beginning.
                self.is_in_line = at > 0;
                at
            }
        };
        let mut fresh = Vec::new();
        let is_read = file.seek(SeekFrom::Start(at)).is_ok()
            && file.by_ref().take(ONCE_BYTES).read_to_end(&mut fresh).is_ok();
        if !is_read {
            return;
        }
        self.at = Some(at + fresh.len() as u64);
        for piece in fresh.split_inclusive(|byte| *byte == b'\n') {
            self.piece(piece, &mut show);
        }
    }

    fn piece(&mut self, piece: &[u8], show: &mut impl FnMut(Option<Event>)) {
        let is_end = piece.ends_with(b"\n");
        if !self.is_in_line {
            self.rest.extend_from_slice(piece);
        }
        if self.rest.len() > LINE_BYTES_MAX {
            self.is_in_line = true;
            self.rest.clear();
            show(None);
        }
        if !is_end {
            return;
        }
        if !std::mem::take(&mut self.is_in_line) {
            // A later build may know more kinds than this one.
            show(serde_json::from_slice(&self.rest).ok());
        }
        self.rest.clear();
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    const LINE: &str = "{\"at_ms\":7,\"node\":\"coordinator\",\"event\":\"started\"}\n";

    #[test]
    fn lines_are_taken_whole_as_they_come() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("events.jsonl");
        let (mut tail, mut history) = (Tail::new(&path), History::default());
        tail.read(&mut history);
        let mut file = File::create(&path).expect("writable");
        file.write_all(LINE.as_bytes()).expect("writable");
        file.write_all(&LINE.as_bytes()[..20]).expect("writable");
        tail.read(&mut history);
        assert_eq!(history.len(), 1);
        file.write_all(&LINE.as_bytes()[20..]).expect("writable");
        file.write_all(b"not json\n").expect("writable");
        tail.read(&mut history);
        assert_eq!((history.len(), history.unreadable), (2, 1));
    }

    #[test]
    fn only_the_end_is_read_and_a_line_without_end_is_let_go() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("events.jsonl");
        let many = LINE.repeat(20_000) + &"x".repeat(3 << 20) + "\n" + LINE;
        std::fs::write(&path, many).expect("writable");
        let (mut tail, mut history) = (Tail::new(&path), History::default());
        for _ in 0..20 {
            tail.read(&mut history);
        }
        assert_eq!(history.len(), 1);
        assert!(tail.rest.capacity() <= LINE_BYTES_MAX + ONCE_BYTES as usize);
        std::fs::write(&path, LINE).expect("writable");
        tail.read(&mut history);
        assert_eq!(history.len(), 2, "a file that was cut is read anew");
    }
}
