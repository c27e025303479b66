//! The handle of one sandbox. Everything it gives back is bounded and checked; dropping it ends
//! the sandbox.
//!
//! A call may be abandoned (its future dropped): the next call ends the command that is running
//! and skips its late answer.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::process::Child;
use tokio::time::timeout;

use crate::diff;
use crate::error::SandboxError;
use crate::frame::{
    self, Answer, Ask, Ended, PatchOutcome, Ran, Request, Response, SAID_BYTES_MAX,
};
use crate::image::{self, Kind};
use crate::options::Limits;
use crate::template::Template;

/// Time an answer may take beyond the command it is about.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(10);
/// Time the end may take before we stop watching it; the kernel goes on with it.
const CLOSE_TIME_MAX: Duration = Duration::from_secs(5);

/// What a command did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExecOutput {
    /// stdout and stderr as they came, as text, with a line at the end that says what was cut and
    /// why it ended, where it did not end by itself with 0.
    pub output: String,
    /// Whether it ended by itself with status 0.
    pub ok: bool,
    /// Exit status; 128 + signal where a signal ended it.
    pub status: i32,
    /// Whether its wall time was up.
    pub timed_out: bool,
    /// Bytes of output that were dropped.
    pub cut_bytes: u64,
}

/// What a replacement did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied {
    /// The outcome, in words for the policy.
    pub output: String,
    /// Whether the file was changed.
    pub ok: bool,
    /// The outcome.
    pub outcome: PatchOutcome,
}

/// Files that differ from the base, `.git` and compiled Python left out.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Export {
    pub(crate) files: BTreeMap<String, (Kind, Vec<u8>)>,
    /// Files of the base that are gone.
    pub deleted: Vec<String>,
    /// What is there but was not taken: pipes, devices, sockets, names that are not plain text.
    pub skipped: Vec<String>,
}

impl Export {
    /// Changed and new files: path and content. A symbolic link's content is its target.
    pub fn files(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.files.iter().map(|(path, (_, content))| (path.as_str(), &content[..]))
    }
}

/// A sandbox.
#[derive(Debug)]
pub struct Sandbox {
    child: Child,
    stream: UnixStream,
    template: Arc<Template>,
    limits: Limits,
    /// Where there are no walls; removed by the launcher, and by us in case that was killed.
    _folder: Option<TempDir>,
    next_id: u64,
    sent: Vec<u8>,
    received: Vec<u8>,
}

impl Sandbox {
    pub(crate) fn new(
        child: Child,
        stream: UnixStream,
        template: Arc<Template>,
        limits: Limits,
        folder: Option<TempDir>,
    ) -> Self {
        let (sent, received) = (Vec::new(), Vec::new());
        Self { child, stream, template, limits, _folder: folder, next_id: 1, sent, received }
    }

    pub(crate) async fn greeting(&mut self) -> Result<Answer, SandboxError> {
        self.answer(0).await.map(|(answer, _)| answer)
    }

    /// Process id of the launcher, while it lives.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// Runs a command line in rbash at the root of the repository. Whatever it leaves running is
    /// killed.
    ///
    /// # Errors
    /// When the sandbox failed; a failing command is a result.
    pub async fn exec(&mut self, cmd: &str) -> Result<ExecOutput, SandboxError> {
        if cmd.len() > SAID_BYTES_MAX {
            return Ok(unsaid());
        }
        let time = self.limits.command_time_max + ANSWER_TIME_MAX;
        match self.ask(Ask::Exec { cmd: cmd.to_owned() }, &[], time).await? {
            (Answer::Ran(ran), body) => Ok(told(&ran, &body, &self.limits)),
            (other, _) => Err(unexpected(&other)),
        }
    }

    /// Replaces `old` by `new` in a file of the repository, where `old` occurs exactly once.
    ///
    /// # Errors
    /// When the sandbox failed; a replacement that cannot be made is a result.
    pub async fn apply_patch(
        &mut self,
        path: &str,
        old: &str,
        new: &str,
    ) -> Result<Applied, SandboxError> {
        let said = path.len() + old.len() + new.len();
        let (path, old, new) = (path.to_owned(), old.to_owned(), new.to_owned());
        let shown = path.clone();
        let outcome = if said > SAID_BYTES_MAX {
            PatchOutcome::TooLarge
        } else {
            match self.ask(Ask::Patch { path, old, new }, &[], ANSWER_TIME_MAX).await? {
                (Answer::Patched(outcome), _) => outcome,
                (other, _) => return Err(unexpected(&other)),
            }
        };
        let ok = outcome == PatchOutcome::Applied;
        Ok(Applied { output: in_words(&outcome, &shown), ok, outcome })
    }

    /// A file of the repository, of at most `bytes_max` bytes.
    ///
    /// # Errors
    /// When there is no such plain file, or it is larger.
    pub async fn read_file(
        &mut self,
        path: &str,
        bytes_max: usize,
    ) -> Result<Vec<u8>, SandboxError> {
        let ask = Ask::Read { path: path.to_owned(), bytes_max };
        match self.ask(ask, &[], ANSWER_TIME_MAX).await? {
            (Answer::Content, body) => Ok(body),
            (other, _) => Err(unexpected(&other)),
        }
    }

    /// Writes a file of the repository, with its folders.
    ///
    /// # Errors
    /// When the path leads elsewhere or there is no room.
    pub async fn write_file(&mut self, path: &str, content: &[u8]) -> Result<(), SandboxError> {
        match self.ask(Ask::Write { path: path.to_owned() }, content, ANSWER_TIME_MAX).await? {
            (Answer::Done, _) => Ok(()),
            (other, _) => Err(unexpected(&other)),
        }
    }

    /// The files that differ from the base.
    ///
    /// # Errors
    /// [`SandboxError::TooMuch`] when there are too many, they are too large or too deep in folders;
    /// any other when the sandbox failed.
    pub async fn export(&mut self) -> Result<Export, SandboxError> {
        let (answer, body) = self.ask(Ask::Export, &[], ANSWER_TIME_MAX).await?;
        let Answer::Exported { mut deleted, mut skipped } = answer else {
            return Err(unexpected(&answer));
        };
        deleted.retain(|path| matches!(self.template.base(path), Ok(Some(_))));
        skipped.truncate(self.limits.export_files_max);
        let protocol = |why: String| SandboxError::Protocol(why);
        let entries = image::entries(&body).map_err(|error| protocol(error.to_string()))?;
        let mut files = BTreeMap::new();
        for entry in entries {
            if entry.kind == Kind::Folder || image::is_git(entry.path) {
                return Err(protocol(format!("exported {}", entry.path)));
            }
            files.insert(entry.path.to_owned(), (entry.kind, entry.content.to_vec()));
        }
        Ok(Export { files, deleted, skipped })
    }

    /// What was changed: a unified diff by our git against our pristine base; empty where nothing
    /// was.
    ///
    /// # Errors
    /// [`SandboxError::TooMuch`] as [`Self::export`], or when it is too large; any other when the
    /// sandbox or git failed.
    pub async fn diff(&mut self) -> Result<String, SandboxError> {
        let export = self.export().await?;
        let (template, bytes_max) = (Arc::clone(&self.template), self.limits.diff_bytes);
        let work = move || diff::canonical(&template, &export, bytes_max);
        let done = tokio::task::spawn_blocking(work).await;
        match done.map_err(|panic| SandboxError::Failed(panic.to_string()))? {
            Err(error) if error.is_too_much() => Err(SandboxError::TooMuch(error.to_string())),
            other => Ok(other?),
        }
    }

    /// Ends the sandbox: everything in it is killed and removed when this returns.
    pub async fn close(self) {
        let Self { mut child, stream, .. } = self;
        drop(stream);
        if timeout(CLOSE_TIME_MAX, child.wait()).await.is_err() {
            tracing::warn!(pid = child.id(), "a sandbox did not end by itself");
            // Dropping the child kills it, and its death kills the rest.
        }
    }

    async fn ask(
        &mut self,
        ask: Ask,
        body: &[u8],
        time: Duration,
    ) -> Result<(Answer, Vec<u8>), SandboxError> {
        let id = self.next_id;
        self.next_id += 1;
        self.sent.extend_from_slice(&frame::encode(&Request { id, ask }, body)?);
        let answer = timeout(time, self.answer(id)).await;
        match answer.map_err(|_| SandboxError::Timeout(time))?? {
            (Answer::TooMuch { reason }, _) => Err(SandboxError::TooMuch(reason)),
            (Answer::Rejected { reason }, _) => Err(SandboxError::Failed(reason)),
            other => Ok(other),
        }
    }

    /// Sends what waits to be sent and reads until the answer is there. Loses nothing when it is
    /// dropped half-way.
    async fn answer(&mut self, id: u64) -> Result<(Answer, Vec<u8>), SandboxError> {
        while !self.sent.is_empty() {
            let n = self.stream.write(&self.sent).await.map_err(gone)?;
            self.sent.drain(..n);
        }
        loop {
            if let Some((response, body, n)) = frame::decode::<Response>(&self.received)? {
                self.received.drain(..n);
                if response.id == id {
                    return Ok((response.answer, body));
                }
                // The late answer of an abandoned call.
                continue;
            }
            if self.stream.read_buf(&mut self.received).await.map_err(gone)? == 0 {
                return Err(SandboxError::Gone);
            }
        }
    }
}

fn gone(error: io::Error) -> SandboxError {
    match error.kind() {
        io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => SandboxError::Gone,
        _ => SandboxError::Io(error),
    }
}

fn unexpected(answer: &Answer) -> SandboxError {
    let mut shown = format!("{answer:?}");
    shown.truncate(shown.floor_char_boundary(200));
    SandboxError::Protocol(shown)
}

/// What comes of a command line too long for any program's argument, as a shell has it.
fn unsaid() -> ExecOutput {
    let output = format!("the command line is over {SAID_BYTES_MAX} bytes\n[exit status 126]");
    ExecOutput { output, ok: false, status: 126, timed_out: false, cut_bytes: 0 }
}

/// A command's output as text: bytes that are no text replaced, control characters other than tab
/// and newline made visible.
fn told(ran: &Ran, body: &[u8], limits: &Limits) -> ExecOutput {
    let mut output: String = String::from_utf8_lossy(body)
        .chars()
        .map(|c| if c.is_control() && !matches!(c, '\n' | '\t') { '\u{fffd}' } else { c })
        .collect();
    let status = ran.code.or(ran.signal.map(|signal| 128 + signal)).unwrap_or(-1);
    let mut note = |text: String| {
        if !output.is_empty() && !output.ends_with('\n') {
            output.push('\n');
        }
        output.push_str(&text);
    };
    if ran.cut_bytes > 0 {
        note(format!("[output cut: {} more bytes]", ran.cut_bytes));
    }
    match ran.ended {
        Ended::WallTime => {
            note(format!("[killed after {} s]", limits.command_time_max.as_secs_f64()));
        }
        Ended::Memory => note(format!("[killed: more than {} MiB]", limits.memory_bytes >> 20)),
        Ended::Abandoned => note("[abandoned]".to_owned()),
        Ended::Itself if status != 0 => note(format!("[exit status {status}]")),
        Ended::Itself => {}
    }
    ExecOutput {
        output,
        ok: ran.ended == Ended::Itself && status == 0,
        status,
        timed_out: ran.ended == Ended::WallTime,
        cut_bytes: ran.cut_bytes,
    }
}

fn in_words(outcome: &PatchOutcome, path: &str) -> String {
    match outcome {
        PatchOutcome::Applied => "ok".to_owned(),
        PatchOutcome::NotFound => format!("there is no file {path}"),
        PatchOutcome::NoMatch => format!("`old` does not occur in {path}"),
        PatchOutcome::ManyMatches(n) => {
            format!("`old` occurs {n} times in {path}; it must occur once")
        }
        PatchOutcome::Outside => format!("{path} is not a file of the repository"),
        PatchOutcome::TooLarge => format!("{path} is too large"),
        PatchOutcome::NotAllowed => format!("{path} may not be read or written: permission denied"),
        PatchOutcome::NoRoom => format!("there is no room left for {path}"),
    }
}
