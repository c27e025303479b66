//! Frames in a file, one JSON object a line behind a header, and back; between them what else there was to
//! see: history, curves, episodes.
//!
//! A line with a `kind` is a [`Kept`], one without is a frame. Version 1 had frames only.

use std::fs::{File, OpenOptions};
use std::io::{BufRead as _, BufReader, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::InspectError;
use crate::frame::Frame;
use crate::kept::Kept;
use crate::units::grouped;

/// Name of the format, in the header.
const FORMAT: &str = "crrl-inspect-recording";
/// Version of the format, in the header.
pub const VERSION: u32 = 2;
/// The first version that is read.
const OLDEST: u32 = 1;
/// Lines are shorter than this, bytes: a frame of a thousand nodes. A longer one is left out, whether it is
/// written or read.
const LINE_BYTES_MAX: u64 = 8 << 20;
/// Longest line beside the frames, bytes: a transcript of some 40,000 tokens. A longer one is left out.
const KEPT_BYTES_MAX: usize = 4 << 20;
/// Most that is written, bytes.
pub const FILE_BYTES_MAX: u64 = 1 << 30;
/// Of that, most that is written of what was done in episodes, bytes: frames, history and curves go on.
pub const EPISODES_BYTES_MAX: u64 = FILE_BYTES_MAX / 2;
/// Most frames that are read: more than two days of five a second.
const FRAMES_MAX: usize = 1_000_000;
/// Most other lines that are read.
const KEPT_MAX: usize = 1_000_000;

#[derive(Debug, Serialize, Deserialize)]
struct Header {
    format: String,
    version: u32,
    run: String,
}

/// What was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Written {
    /// Frames.
    pub frames: u64,
    /// Transcripts of episodes that are over.
    pub transcripts: u64,
    /// Frames that are too long for a line.
    pub frames_left_out: u64,
    /// Pieces of what was done in episodes that there was no room for.
    pub left_out: u64,
    /// All of it, bytes.
    pub bytes: u64,
}

/// A recording being made.
#[derive(Debug)]
pub struct Recorder {
    path: PathBuf,
    file: File,
    written: Written,
    episodes_bytes: u64,
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
        let mut recorder = Self {
            path: path.to_owned(),
            file,
            written: Written::default(),
            episodes_bytes: 0,
            last: None,
        };
        let header = Header { format: FORMAT.into(), version: VERSION, run: run.into() };
        let line = recorder.line(&header)?;
        recorder.write(&line)?;
        Ok(recorder)
    }

    /// Adds a frame, unless nothing changed since the last, or it is too long for a line. `false` when the
    /// file is full.
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
        if self.written.bytes >= FILE_BYTES_MAX {
            return Ok(false);
        }
        let line = self.line(frame)?;
        if (line.len() as u64) < LINE_BYTES_MAX {
            self.write(&line)?;
            self.written.frames += 1;
        } else {
            self.written.frames_left_out += 1;
        }
        self.last = Some(frame.clone());
        Ok(true)
    }

    /// Adds something beside the frames. `false` where there is no room for it: it is longer than a line
    /// may be, or the file is full, or its share for episodes is.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn keep(&mut self, kept: &Kept) -> Result<bool, InspectError> {
        let is_of_episode = matches!(kept, Kept::Journal { .. } | Kept::Left { .. });
        let line = match self.has_room(is_of_episode) {
            true => Some(self.line(kept)?).filter(|line| line.len() <= KEPT_BYTES_MAX),
            false => None,
        };
        let Some(line) = line else {
            self.written.left_out += u64::from(is_of_episode);
            return Ok(false);
        };
        self.write(&line)?;
        if is_of_episode {
            self.episodes_bytes += line.len() as u64;
        }
        self.written.transcripts += u64::from(matches!(kept, Kept::Left { .. }));
        Ok(true)
    }

    fn has_room(&self, is_of_episode: bool) -> bool {
        let is_full = self.written.bytes >= FILE_BYTES_MAX;
        !is_full && (!is_of_episode || self.episodes_bytes < EPISODES_BYTES_MAX)
    }

    /// What was written so far.
    #[must_use]
    pub fn written(&self) -> Written {
        self.written
    }

    fn line(&self, value: &impl Serialize) -> Result<Vec<u8>, InspectError> {
        let mut line = serde_json::to_vec(value).map_err(|e| wrong(&self.path, &e.to_string()))?;
        line.push(b'\n');
        Ok(line)
    }

    // A line is written whole, so that a recording that is interrupted ends with one.
    fn write(&mut self, line: &[u8]) -> Result<(), InspectError> {
        self.file.write_all(line).map_err(|e| wrong(&self.path, &e.to_string()))?;
        self.written.bytes += line.len() as u64;
        Ok(())
    }
}

/// A recording. Holds where its lines are, not the lines.
#[derive(Debug)]
pub struct Recording {
    path: PathBuf,
    file: BufReader<File>,
    frames: Vec<(u64, u64)>,
    kept: Vec<Place>,
    run: String,
    left_out: LeftOut,
}

/// Lines of a recording that are not shown.
#[derive(Debug, Clone, Copy, Default)]
struct LeftOut {
    /// Those that are too long.
    long: usize,
    /// Frames beyond the first [`FRAMES_MAX`].
    frames: usize,
    /// Lines beside them beyond the first [`KEPT_MAX`].
    kept: usize,
}

/// Where a line beside the frames is.
#[derive(Debug, Clone, Copy)]
struct Place {
    at_ms: u64,
    offset: u64,
    what: What,
}

/// What is in a line beside the frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// [`Kept::Events`]
    Events,
    /// [`Kept::Steps`]
    Steps,
    /// [`Kept::Over`]
    Over {
        /// Whether these are all.
        is_all: bool,
    },
    /// [`Kept::Journal`] of this episode.
    Journal(u64),
    /// [`Kept::Left`] of this episode.
    Left(u64),
}

/// As much of a line as the index needs.
#[derive(Deserialize)]
struct Stamp {
    at_ms: u64,
    kind: Option<String>,
    #[serde(default)]
    episode: u64,
    #[serde(default)]
    is_all: bool,
}

impl Stamp {
    /// What is in the line; `None` for a frame.
    fn what(&self) -> Result<Option<What>, String> {
        Ok(Some(match self.kind.as_deref() {
            None => return Ok(None),
            Some("events") => What::Events,
            Some("steps") => What::Steps,
            Some("over") => What::Over { is_all: self.is_all },
            Some("journal") => What::Journal(self.episode),
            Some("left") => What::Left(self.episode),
            Some(other) => return Err(format!("there is no line of the kind {other:?}")),
        }))
    }
}

impl Recording {
    /// Opens a recording.
    ///
    /// # Errors
    /// Not a recording, one of a version this build does not read, or one that holds nothing.
    pub fn open(path: &Path) -> Result<Self, InspectError> {
        Self::index(path, (FRAMES_MAX, KEPT_MAX))
    }

    /// Reads where its lines are: of frames and of other lines the first so many.
    fn index(path: &Path, (frames_max, kept_max): (usize, usize)) -> Result<Self, InspectError> {
        let file = File::open(path).map_err(|error| wrong(path, &error.to_string()))?;
        let mut file = BufReader::new(file);
        let mut line = Vec::new();
        let header_bytes =
            read_line(&mut file, &mut line).map_err(|error| wrong(path, &error.to_string()))?.bytes;
        let header: Header = serde_json::from_slice(&line)
            .ok()
            .filter(|header: &Header| header.format == FORMAT)
            .ok_or_else(|| wrong(path, "is not a recording; `crrl inspect record` makes one"))?;
        check(header.version).map_err(|says| wrong(path, &says))?;
        let (mut frames, mut kept) = (Vec::new(), Vec::new());
        let mut left_out = LeftOut::default();
        let (mut offset, mut number) = (header_bytes, 1_u64);
        loop {
            let read = read_line(&mut file, &mut line).map_err(|e| wrong(path, &e.to_string()))?;
            let Taken { bytes: taken, is_long } = read;
            if taken == 0 {
                break;
            }
            number += 1;
            if is_long {
                left_out.long += 1;
                offset += taken;
                continue;
            }
            let read = serde_json::from_slice::<Stamp>(&line).map_err(|error| error.to_string());
            let read = read.and_then(|stamp| Ok((stamp.at_ms, stamp.what()?)));
            match read {
                Ok((at_ms, None)) if frames.len() < frames_max => frames.push((at_ms, offset)),
                Ok((_, None)) => left_out.frames += 1,
                Ok((at_ms, Some(what))) if kept.len() < kept_max => {
                    kept.push(Place { at_ms, offset, what });
                }
                Ok((_, Some(_))) => left_out.kept += 1,
                // The last line of a recording that was interrupted.
                Err(_) if !line.ends_with(b"\n") => break,
                Err(error) => {
                    return Err(wrong(path, &format!("line {number} is damaged: {error}")));
                }
            }
            offset += taken;
        }
        if frames.is_empty() {
            let says = match left_out.long {
                0 => "holds no frame: it ended before the cluster answered".to_owned(),
                long => format!(
                    "holds no frame that can be shown: {} lines of it are 8 MiB or longer",
                    grouped(long)
                ),
            };
            return Err(wrong(path, &says));
        }
        frames.sort_unstable();
        // Those of one moment stay in the order they were written in.
        kept.sort_by_key(|place| place.at_ms);
        Ok(Self { path: path.to_owned(), file, frames, kept, run: header.run, left_out })
    }

    /// The run it is of.
    #[must_use]
    pub fn run(&self) -> &str {
        &self.run
    }

    /// What of it is not shown, in words, if anything is not.
    #[must_use]
    pub fn left_out(&self) -> Option<String> {
        let LeftOut { long, frames, kept } = self.left_out;
        let beyond = |max: usize| format!("beyond the first {}", grouped(max));
        let parts = [
            (long, "lines of 8 MiB or more".to_owned()),
            (frames, format!("frames {}", beyond(FRAMES_MAX))),
            (kept, format!("lines beside the frames {}", beyond(KEPT_MAX))),
        ];
        let parts = parts.iter().filter(|(count, _)| *count > 0);
        let parts: Vec<String> =
            parts.map(|(count, what)| format!("{what} ({})", grouped(*count))).collect();
        let says = "not all of the recording is shown; what is left out:";
        (!parts.is_empty()).then(|| format!("{says} {}", parts.join(", ")))
    }

    /// Times of its frames, milliseconds since the Unix epoch, in order.
    pub fn times(&self) -> impl DoubleEndedIterator<Item = u64> + ExactSizeIterator + '_ {
        self.frames.iter().map(|(at_ms, _)| *at_ms)
    }

    /// When the last thing in it was seen, milliseconds since the Unix epoch.
    #[must_use]
    pub fn end_ms(&self) -> u64 {
        let frame = self.frames.last().map_or(0, |(at_ms, _)| *at_ms);
        self.kept.last().map_or(frame, |place| place.at_ms.max(frame))
    }

    /// Frames up to this time.
    #[must_use]
    pub fn until(&self, at_ms: u64) -> usize {
        self.frames.partition_point(|(at, _)| *at <= at_ms)
    }

    /// Lines beside the frames up to this time.
    #[must_use]
    pub fn kept_until(&self, at_ms: u64) -> usize {
        self.kept.partition_point(|place| place.at_ms <= at_ms)
    }

    /// When the next thing was seen after so many frames and so many lines beside them; `None` at the end.
    #[must_use]
    pub fn next_ms(&self, frames: usize, kept: usize) -> Option<u64> {
        let frame = self.frames.get(frames).map(|(at_ms, _)| *at_ms);
        let place = self.kept.get(kept).map(|place| place.at_ms);
        frame.into_iter().chain(place).min()
    }

    /// What is in a line beside the frames.
    #[must_use]
    pub fn what(&self, at: usize) -> Option<What> {
        self.kept.get(at).map(|place| place.what)
    }

    /// One frame.
    ///
    /// # Errors
    /// The file cannot be read any more, or has changed.
    pub fn frame(&mut self, at: usize) -> Result<Frame, InspectError> {
        let (_, offset) =
            *self.frames.get(at).ok_or_else(|| wrong(&self.path, &format!("has no frame {at}")))?;
        let line = self.line_at(offset)?;
        serde_json::from_slice(&line)
            .map_err(|error| wrong(&self.path, &format!("frame {} is damaged: {error}", at + 1)))
    }

    /// One line beside the frames.
    ///
    /// # Errors
    /// The file cannot be read any more, or has changed.
    pub fn kept(&mut self, at: usize) -> Result<Kept, InspectError> {
        let place = self.kept.get(at).copied();
        let place =
            place.ok_or_else(|| wrong(&self.path, &format!("has no line {at} beside frames")))?;
        let line = self.line_at(place.offset)?;
        serde_json::from_slice(&line).map_err(|error| {
            wrong(&self.path, &format!("a line at byte {} is damaged: {error}", place.offset))
        })
    }

    fn line_at(&mut self, offset: u64) -> Result<Vec<u8>, InspectError> {
        let mut line = Vec::new();
        let taken = self
            .file
            .seek(SeekFrom::Start(offset))
            .and_then(|_| read_line(&mut self.file, &mut line))
            .map_err(|error| wrong(&self.path, &error.to_string()))?;
        match taken.is_long {
            true => Err(wrong(&self.path, "has changed while it was read")),
            false => Ok(line),
        }
    }
}

fn check(version: u32) -> Result<(), String> {
    if (OLDEST..=VERSION).contains(&version) {
        return Ok(());
    }
    let whose = if version > VERSION { ", of a newer build" } else { "" };
    Err(format!(
        "is a recording of version {version}{whose}, and this build reads versions {OLDEST} to {VERSION}; \
         replay it with the build that made it"
    ))
}

/// What was taken off a file.
struct Taken {
    /// The line with its end, bytes; 0 at the end of the file.
    bytes: u64,
    /// Whether it was too long, and was passed over.
    is_long: bool,
}

/// Reads a line in place of the one that is held; of one that is too long nothing is held.
fn read_line(file: &mut BufReader<File>, line: &mut Vec<u8>) -> std::io::Result<Taken> {
    line.clear();
    let bytes = file.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', line)? as u64;
    if bytes < LINE_BYTES_MAX {
        return Ok(Taken { bytes, is_long: false });
    }
    let is_whole = line.ends_with(b"\n");
    line.clear();
    let rest = if is_whole { 0 } else { file.skip_until(b'\n')? as u64 };
    Ok(Taken { bytes: bytes + rest, is_long: true })
}

fn wrong(path: &Path, what: &str) -> InspectError {
    InspectError::Recording { path: path.to_owned(), what: what.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_go_on_where_no_more_lines_beside_them_are_read_and_it_is_said() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("run.rec");
        let mut text = format!("{{\"format\":\"{FORMAT}\",\"version\":{VERSION},\"run\":\"x\"}}\n");
        for at_ms in 1..=4 {
            text += &format!("{{\"at_ms\":{at_ms},\"kind\":\"events\"}}\n{{\"at_ms\":{at_ms}}}\n");
        }
        std::fs::write(&path, text).expect("writable");
        let all = Recording::open(&path).expect("a recording");
        assert_eq!((all.times().len(), all.kept_until(9), all.left_out()), (4, 4, None));
        let cut = Recording::index(&path, (3, 1)).expect("a recording");
        assert_eq!((cut.times().len(), cut.kept_until(9), cut.end_ms()), (3, 1, 3));
        let says = cut.left_out().expect("it says so");
        assert!(says.contains("frames beyond the first 1,000,000 (1), lines"), "{says}");
        assert!(says.ends_with("beside the frames beyond the first 1,000,000 (3)"), "{says}");
    }
}
