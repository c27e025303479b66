//! The git program, run to read: clean configuration, no prompts, no hooks, a deadline, bounded
//! output.

use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Time one command has.
const COMMAND_TIME_MAX: Duration = Duration::from_secs(120);
/// Bytes of output that are read.
const OUTPUT_BYTES_MAX: u64 = 512 * 1024 * 1024;
/// How often a command that closed its output is looked at.
const POLL: Duration = Duration::from_millis(2);

/// A git command that failed.
#[derive(Debug, thiserror::Error)]
pub enum GitError {
    /// There is no git, or it could not be started.
    #[error("git could not be run ({0}); is it installed?")]
    NoGit(std::io::Error),
    /// The folder is no repository.
    #[error("{}: not a git repository", .0.display())]
    NotARepository(PathBuf),
    /// The command failed.
    #[error("git {command} in {}: {message}", repo.display())]
    Failed {
        /// The command.
        command: String,
        /// Where.
        repo: PathBuf,
        /// What git said, or what went wrong.
        message: String,
    },
}

/// A repository that is only read.
#[derive(Debug, Clone)]
pub(crate) struct Repository {
    root: PathBuf,
}

impl Repository {
    pub(crate) fn open(root: &Path) -> Result<Self, GitError> {
        let repository = Self { root: root.to_owned() };
        match repository.text(&["rev-parse", "--git-dir"]) {
            Ok(_) => Ok(repository),
            Err(GitError::Failed { .. }) => Err(GitError::NotARepository(root.to_owned())),
            Err(other) => Err(other),
        }
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// Output as text; bytes that are not UTF-8 become replacement characters.
    pub(crate) fn text(&self, args: &[&str]) -> Result<String, GitError> {
        self.run(args, b"").map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Output of a command fed with `input`.
    pub(crate) fn run(&self, args: &[&str], input: &[u8]) -> Result<Vec<u8>, GitError> {
        let failed = |message: String| GitError::Failed {
            command: args.iter().take(2).copied().collect::<Vec<_>>().join(" "),
            repo: self.root.clone(),
            message,
        };
        let mut child = clean(&self.root, args).spawn().map_err(GitError::NoGit)?;
        let mut pipe = child.stdin.take();
        let input = input.to_vec();
        let feed = std::thread::spawn(move || {
            // A git that stops reading says why on its standard error.
            pipe.take().map(|mut pipe| pipe.write_all(&input))
        });
        let mut errors = child.stderr.take();
        let complaints = std::thread::spawn(move || {
            let mut text = String::new();
            if let Some(errors) = errors.as_mut() {
                let _ = errors.take(64 * 1024).read_to_string(&mut text);
            }
            text
        });
        let out = child.stdout.take();
        let read = std::thread::spawn(move || {
            let mut bytes = Vec::new();
            let read = out.map(|out| out.take(OUTPUT_BYTES_MAX + 1).read_to_end(&mut bytes));
            read.transpose().map(|_| bytes)
        });
        let deadline = Instant::now() + COMMAND_TIME_MAX;
        let status = loop {
            match child.try_wait() {
                Ok(Some(status)) => break status,
                Ok(None) if Instant::now() < deadline => std::thread::sleep(POLL),
                _ => {
                    let _ = child.kill();
                    let _ = child.wait();
                    return Err(failed(format!("no answer within {COMMAND_TIME_MAX:?}")));
                }
            }
        };
        let _ = feed.join();
        let complaint = complaints.join().unwrap_or_default();
        let bytes = match read.join() {
            Ok(Ok(bytes)) => bytes,
            Ok(Err(error)) => return Err(failed(error.to_string())),
            Err(_) => return Err(failed("its output could not be read".to_owned())),
        };
        if bytes.len() as u64 > OUTPUT_BYTES_MAX {
            return Err(failed(format!("more than {OUTPUT_BYTES_MAX} bytes of output")));
        }
        if !status.success() {
            return Err(failed(complaint.trim().to_owned()));
        }
        Ok(bytes)
    }

    /// Contents of a file at a commit; `None` where it is not there.
    pub(crate) fn blob(&self, commit: &str, path: &str) -> Result<Option<Vec<u8>>, GitError> {
        let listed = self.run(&["ls-tree", "-z", commit, "--", path], b"")?;
        let listed = String::from_utf8_lossy(&listed).into_owned();
        let Some(id) = listed.split_whitespace().nth(2) else { return Ok(None) };
        self.run(&["cat-file", "blob", id], b"").map(Some)
    }
}

fn clean(root: &Path, args: &[&str]) -> Command {
    let mut command = Command::new("git");
    command.arg("-C").arg(root);
    for setting in
        ["core.hooksPath=/dev/null", "core.fsmonitor=false", "core.quotePath=true", "gc.auto=0"]
    {
        command.args(["-c", setting]);
    }
    command.arg("--no-pager").args(args);
    for name in ["GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_EXTERNAL_DIFF", "GIT_CONFIG"] {
        command.env_remove(name);
    }
    command
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_TERMINAL_PROMPT", "0")
        .env("GIT_OPTIONAL_LOCKS", "0")
        .env("GIT_NO_LAZY_FETCH", "1")
        .env("LC_ALL", "C")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}
