//! What the owner and the launcher say to each other: a JSON head and a body of bytes, both with
//! their length in front and both bounded. Never trusts a length it reads.

use std::io::{self, Read, Write};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::options::Limits;

/// Bytes of a head: names, a command line, two texts of a patch.
const HEAD_BYTES_MAX: usize = 1 << 20;
/// Bytes of what a policy may say in one request. JSON takes at most six for one of them.
pub(crate) const SAID_BYTES_MAX: usize = HEAD_BYTES_MAX / 8;
/// Bytes of a body: an export with its names.
const BODY_BYTES_MAX: usize = 64 << 20;
/// Bytes in front of a frame: two lengths.
const PREFIX: usize = 8;

/// The first frame, from the owner.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Setup {
    pub(crate) limits: Limits,
    /// Where there are no walls: the folder to live in.
    pub(crate) open_folder: Option<String>,
}

/// What is asked.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Request {
    pub(crate) id: u64,
    pub(crate) ask: Ask,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Ask {
    Exec {
        cmd: String,
    },
    Read {
        path: String,
        bytes_max: usize,
    },
    /// The content is the body.
    Write {
        path: String,
    },
    Patch {
        path: String,
        old: String,
        new: String,
    },
    Export,
}

/// What is answered. The id of the greeting is 0.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Response {
    pub(crate) id: u64,
    pub(crate) answer: Answer,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Answer {
    Ready,
    Refused {
        layer: String,
        reason: String,
    },
    /// The output is the body.
    Ran(Ran),
    /// The content is the body.
    Content,
    Done,
    Patched(PatchOutcome),
    /// The changed files are the body, as an image.
    Exported {
        deleted: Vec<String>,
        skipped: Vec<String>,
    },
    /// More was changed than is read back.
    TooMuch {
        reason: String,
    },
    /// The call was wrong.
    Rejected {
        reason: String,
    },
}

/// How a command ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Ran {
    /// Exit status; none where a signal ended it.
    pub(crate) code: Option<i32>,
    pub(crate) signal: Option<i32>,
    pub(crate) ended: Ended,
    /// Bytes of output that were dropped.
    pub(crate) cut_bytes: u64,
}

/// Who ended a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Ended {
    Itself,
    WallTime,
    Memory,
    Abandoned,
}

/// What came of a literal replacement.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum PatchOutcome {
    /// Done.
    Applied,
    /// No such file.
    NotFound,
    /// `old` does not occur.
    NoMatch,
    /// `old` occurs this many times.
    ManyMatches(usize),
    /// The path leads out of the repository, into `.git`, or to something that is not a file.
    Outside,
    /// The file is, or would become, too large.
    TooLarge,
    /// The file, or a folder on the way to it, may not be read or written.
    NotAllowed,
    /// There is no room for it; the file is as it was.
    NoRoom,
}

/// One frame as bytes.
pub(crate) fn encode(head: &impl Serialize, body: &[u8]) -> io::Result<Vec<u8>> {
    let head = serde_json::to_vec(head)?;
    if head.len() > HEAD_BYTES_MAX || body.len() > BODY_BYTES_MAX {
        return Err(invalid("frame too large"));
    }
    let mut frame = Vec::with_capacity(PREFIX + head.len() + body.len());
    for part in [&head[..], body] {
        let length = u32::try_from(part.len()).map_err(|_| invalid("frame too large"))?;
        frame.extend_from_slice(&length.to_le_bytes());
    }
    frame.extend_from_slice(&head);
    frame.extend_from_slice(body);
    Ok(frame)
}

/// The first frame of a buffer, if it is all there, and how many bytes it took.
pub(crate) fn decode<T: DeserializeOwned>(
    buffer: &[u8],
) -> io::Result<Option<(T, Vec<u8>, usize)>> {
    let Some(prefix) = buffer.first_chunk::<PREFIX>() else { return Ok(None) };
    let (head, body) = lengths(*prefix)?;
    let end = PREFIX + head + body;
    if buffer.len() < end {
        return Ok(None);
    }
    let value = serde_json::from_slice(&buffer[PREFIX..PREFIX + head])?;
    Ok(Some((value, buffer[PREFIX + head..end].to_vec(), end)))
}

/// Reads one frame, blocking; `None` at the end of the stream.
pub(crate) fn read<T: DeserializeOwned>(
    stream: &mut impl Read,
) -> io::Result<Option<(T, Vec<u8>)>> {
    let mut prefix = [0; PREFIX];
    match stream.read_exact(&mut prefix) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        other => other?,
    }
    let (head, body) = lengths(prefix)?;
    let value = serde_json::from_slice(&exactly(stream, head)?)?;
    Ok(Some((value, exactly(stream, body)?)))
}

/// Bytes of a stream, given room as they come and not as they are announced.
fn exactly(stream: &mut impl Read, bytes: usize) -> io::Result<Vec<u8>> {
    let mut read = Vec::new();
    stream.take(bytes as u64).read_to_end(&mut read)?;
    if read.len() == bytes { Ok(read) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

/// Writes one frame, blocking.
pub(crate) fn write(stream: &mut impl Write, head: &impl Serialize, body: &[u8]) -> io::Result<()> {
    stream.write_all(&encode(head, body)?)
}

fn lengths(prefix: [u8; PREFIX]) -> io::Result<(usize, usize)> {
    let [a, b, c, d, e, f, g, h] = prefix;
    let head = u32::from_le_bytes([a, b, c, d]) as usize;
    let body = u32::from_le_bytes([e, f, g, h]) as usize;
    if head > HEAD_BYTES_MAX || body > BODY_BYTES_MAX {
        return Err(invalid("frame too large"));
    }
    Ok((head, body))
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}
