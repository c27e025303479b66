//! Frames in a file, one JSON object a line behind a header, and back.

use std::fs::{File, OpenOptions};
use std::io::{BufRead as _, BufReader, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::InspectError;
use crate::frame::Frame;

/// Name of the format, in the header.
const FORMAT: &str = "crrl-inspect-recording";
/// Version of the format, in the header.
pub const VERSION: u32 = 1;
/// Longest line, bytes: a frame of a thousand nodes.
const LINE_BYTES_MAX: u64 = 8 << 20;
/// Most that is written, bytes.
pub const FILE_BYTES_MAX: u64 = 1 << 30;
/// Most frames that are read: more than two days of five a second.
const FRAMES_MAX: usize = 1_000_000;

#[derive(Debug, Serialize, Deserialize)]
struct Header {
    format: String,
    version: u32,
    run: String,
}

/// A recording being made.
#[derive(Debug)]
pub struct Recorder {
    path: PathBuf,
    file: File,
    bytes: u64,
    frames: u64,
    last: Option<Frame>,
}

impl Recorder {
    /// Begins a file that is not there yet.
    ///
    /// # Errors
    /// It is there, or cannot be written.
    pub fn create(path: &Path, run: &str) -> Result<Self, InspectError> {
        let file = OpenOptions::new().write(true).create_new(true).open(path);
        let file = file.map_err(|error| match error.kind() {
            std::io::ErrorKind::AlreadyExists => {
                wrong(path, "is there already; give another name, or remove it")
            }
            _ => wrong(path, &error.to_string()),
        })?;
        let mut recorder = Self { path: path.to_owned(), file, bytes: 0, frames: 0, last: None };
        recorder.line(&Header { format: FORMAT.into(), version: VERSION, run: run.into() })?;
        Ok(recorder)
    }

    /// Adds a frame, unless nothing changed since the last. `false` when the file is full.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn push(&mut self, frame: &Frame) -> Result<bool, InspectError> {
        let is_same = self.last.as_ref().is_some_and(|last| {
            last.snapshot == frame.snapshot && last.processes == frame.processes
        });
        if is_same {
            return Ok(true);
        }
        if self.bytes >= FILE_BYTES_MAX {
            return Ok(false);
        }
        self.line(frame)?;
        self.frames += 1;
        self.last = Some(frame.clone());
        Ok(true)
    }

    /// Frames and bytes so far.
    #[must_use]
    pub fn size(&self) -> (u64, u64) {
        (self.frames, self.bytes)
    }

    // A line is written whole, so that a recording that is interrupted ends with one.
    fn line(&mut self, value: &impl Serialize) -> Result<(), InspectError> {
        let mut line = serde_json::to_vec(value).map_err(|e| wrong(&self.path, &e.to_string()))?;
        line.push(b'\n');
        self.file.write_all(&line).map_err(|e| wrong(&self.path, &e.to_string()))?;
        self.bytes += line.len() as u64;
        Ok(())
    }
}

/// A recording. Holds where its frames are, not the frames.
#[derive(Debug)]
pub struct Recording {
    path: PathBuf,
    file: BufReader<File>,
    frames: Vec<(u64, u64)>,
    run: String,
}

/// As much of a frame as the index needs.
#[derive(Deserialize)]
struct Stamp {
    at_ms: u64,
}

impl Recording {
    /// Opens a recording.
    ///
    /// # Errors
    /// Not a recording, one of another version, or one that holds nothing.
    pub fn open(path: &Path) -> Result<Self, InspectError> {
        let file = File::open(path).map_err(|error| wrong(path, &error.to_string()))?;
        let mut file = BufReader::new(file);
        let mut line = Vec::new();
        read_line(&mut file, &mut line).map_err(|error| wrong(path, &error.to_string()))?;
        let header: Header = serde_json::from_slice(&line)
            .ok()
            .filter(|header: &Header| header.format == FORMAT)
            .ok_or_else(|| wrong(path, "is not a recording; `crrl inspect record` makes one"))?;
        if header.version != VERSION {
            let says = format!(
                "is a recording of version {}, and this build reads version {VERSION}; replay it with \
                 the build that made it",
                header.version
            );
            return Err(wrong(path, &says));
        }
        let mut frames = Vec::new();
        let mut at = line.len() as u64;
        loop {
            line.clear();
            let taken = read_line(&mut file, &mut line).map_err(|e| wrong(path, &e.to_string()))?;
            if taken == 0 || frames.len() >= FRAMES_MAX {
                break;
            }
            match serde_json::from_slice::<Stamp>(&line) {
                Ok(stamp) => frames.push((stamp.at_ms, at)),
                // The last line of a recording that was interrupted.
                Err(_) if !line.ends_with(b"\n") => break,
                Err(error) => {
                    let says = format!("line {} is damaged: {error}", frames.len() + 2);
                    return Err(wrong(path, &says));
                }
            }
            at += taken;
        }
        if frames.is_empty() {
            return Err(wrong(path, "holds no frame: it ended before the cluster answered"));
        }
        frames.sort_unstable();
        Ok(Self { path: path.to_owned(), file, frames, run: header.run })
    }

    /// The run it is of.
    #[must_use]
    pub fn run(&self) -> &str {
        &self.run
    }

    /// Times of its frames, milliseconds since the Unix epoch, in order.
    pub fn times(&self) -> impl DoubleEndedIterator<Item = u64> + ExactSizeIterator + '_ {
        self.frames.iter().map(|(at_ms, _)| *at_ms)
    }

    /// Frames up to this time.
    #[must_use]
    pub fn until(&self, at_ms: u64) -> usize {
        self.frames.partition_point(|(at, _)| *at <= at_ms)
    }

    /// One frame.
    ///
    /// # Errors
    /// The file cannot be read any more, or has changed.
    pub fn frame(&mut self, at: usize) -> Result<Frame, InspectError> {
        let (_, offset) =
            *self.frames.get(at).ok_or_else(|| wrong(&self.path, &format!("has no frame {at}")))?;
        let mut line = Vec::new();
        self.file
            .seek(SeekFrom::Start(offset))
            .and_then(|_| read_line(&mut self.file, &mut line))
            .map_err(|error| wrong(&self.path, &error.to_string()))?;
        serde_json::from_slice(&line)
            .map_err(|error| wrong(&self.path, &format!("frame {} is damaged: {error}", at + 1)))
    }
}

fn read_line(file: &mut BufReader<File>, line: &mut Vec<u8>) -> std::io::Result<u64> {
    let taken = file.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', line)? as u64;
    if taken == LINE_BYTES_MAX {
        return Err(std::io::Error::other("a line is longer than 8 MiB"));
    }
    Ok(taken)
}

fn wrong(path: &Path, what: &str) -> InspectError {
    InspectError::Recording { path: path.to_owned(), what: what.to_owned() }
}
