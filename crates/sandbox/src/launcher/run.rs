//! One command: its limits, its output, and the end of everything it started.

use std::fs;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use super::serve::Home;
use super::sys;
use crate::frame::{Ended, Ran};
use crate::options::Limits;

/// Time between two looks at the memory of all processes.
const LOOK: Duration = Duration::from_millis(20);
/// Time everything may take to die of SIGKILL.
const END_TIME_MAX: Duration = Duration::from_secs(5);
/// Exit status of a command that cannot be started, as a shell has it.
const NOT_STARTED: i32 = 126;

/// What came of it.
pub(super) enum End {
    /// How it ended, and its output.
    Answer(Ran, Vec<u8>),
    /// Nobody waits for it any more.
    OwnerGone,
}

/// Output that is kept up to a bound and counted beyond it.
struct Kept {
    bytes: Vec<u8>,
    bytes_max: usize,
    dropped: u64,
}

/// Runs a command line in rbash to its end, whoever brings that about.
pub(super) fn run(home: &Home, limits: &Limits, cmd: &str, owner: &UnixStream) -> io::Result<End> {
    let (output, write) = io::pipe()?;
    nonblocking(output.as_fd())?;
    let mut child = match start(home, limits, cmd, write) {
        Err(error) if is_the_commands(&error, &home.repo) => return Ok(not_started(&error)),
        other => other?,
    };
    let exit = sys::watch(i32::try_from(child.id()).map_err(io::Error::other)?)?;
    let mut kept = Kept { bytes: Vec::new(), bytes_max: limits.output_bytes, dropped: 0 };
    let deadline = Instant::now() + limits.command_time_max;
    let mut next_look = Instant::now() + LOOK;
    let watched = Watched { output: output.as_fd(), exit: &exit, owner };
    let ended = loop {
        match watched.wait(deadline)? {
            Seen::Output => {
                kept.drain(&output)?;
            }
            Seen::Exit => break Ended::Itself,
            Seen::OwnerGone => {
                end_all(home.walled);
                return Ok(End::OwnerGone);
            }
            Seen::NextRequest => break Ended::Abandoned,
            Seen::Nothing if Instant::now() >= deadline => break Ended::WallTime,
            Seen::Nothing => {}
        }
        if Instant::now() >= deadline {
            break Ended::WallTime;
        }
        if home.walled && Instant::now() >= next_look {
            next_look = Instant::now() + LOOK;
            if held_bytes() > limits.memory_bytes {
                break Ended::Memory;
            }
        }
    };
    let status = end(child_group(&child), &mut child, home.walled)?;
    // Whoever held the other end is dead: what is in the pipe is all there is.
    while kept.drain(&output)? {}
    let ran = Ran { code: status.code(), signal: status.signal(), ended, cut_bytes: kept.dropped };
    Ok(End::Answer(ran, kept.bytes))
}

fn start(home: &Home, limits: &Limits, cmd: &str, output: io::PipeWriter) -> io::Result<Child> {
    let mut command = Command::new("/bin/bash");
    command
        .args(["--restricted", "--noprofile", "--norc", "-c", cmd])
        .current_dir(&home.repo)
        .env_clear()
        .env("PATH", "/usr/local/bin:/usr/bin:/bin")
        .env("HOME", &home.home)
        .env("TMPDIR", &home.tmp)
        .env("USER", "agent")
        .env("LANG", "C.UTF-8")
        .env("TERM", "dumb")
        .env("PAGER", "cat")
        .env("GIT_PAGER", "cat")
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .stdin(Stdio::null())
        .stdout(output.try_clone()?)
        .stderr(output);
    let mut bounds = vec![
        (libc::RLIMIT_CPU, limits.cpu_time_max_s),
        (libc::RLIMIT_AS, limits.memory_bytes),
        // In place of what its node may have.
        (libc::RLIMIT_DATA, limits.memory_bytes),
        (libc::RLIMIT_FSIZE, limits.file_bytes),
        (libc::RLIMIT_NOFILE, limits.descriptors_max),
        (libc::RLIMIT_CORE, 0),
        (libc::RLIMIT_MEMLOCK, 0),
        (libc::RLIMIT_MSGQUEUE, 0),
    ];
    if home.walled {
        // The launcher and process 1 count too. Without walls it would count all that you run.
        bounds.push((libc::RLIMIT_NPROC, limits.processes_max + 2));
    }
    sys::confine(&mut command, bounds);
    command.spawn()
}

/// Whether it is the command's own doing, or that of one before it, that it does not start: no text for a
/// program's argument, or the working copy's folder gone or shut.
fn is_the_commands(error: &io::Error, repo: &Path) -> bool {
    match error.raw_os_error() {
        None => error.kind() == io::ErrorKind::InvalidInput,
        Some(libc::E2BIG) => true,
        Some(libc::EACCES | libc::ENOENT | libc::ENOTDIR) => fs::metadata(repo.join(".")).is_err(),
        Some(_) => false,
    }
}

fn not_started(error: &io::Error) -> End {
    let (code, signal) = (Some(NOT_STARTED), None);
    let ran = Ran { code, signal, ended: Ended::Itself, cut_bytes: 0 };
    End::Answer(ran, format!("the command cannot be started: {error}").into_bytes())
}

/// What there is to wait for.
struct Watched<'a> {
    output: BorrowedFd<'a>,
    exit: &'a OwnedFd,
    owner: &'a UnixStream,
}

enum Seen {
    Output,
    Exit,
    OwnerGone,
    NextRequest,
    Nothing,
}

impl Watched<'_> {
    fn wait(&self, deadline: Instant) -> io::Result<Seen> {
        let mut fds = [
            PollFd::new(self.output, PollFlags::POLLIN),
            PollFd::new(self.exit.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.owner.as_fd(), PollFlags::POLLIN),
        ];
        let left = deadline.saturating_duration_since(Instant::now()).min(LOOK);
        let left = PollTimeout::try_from(left).unwrap_or(PollTimeout::ZERO);
        match poll(&mut fds, left) {
            Err(nix::Error::EINTR) | Ok(0) => return Ok(Seen::Nothing),
            other => other?,
        };
        let [output, exit, owner] = fds.map(|fd| fd.revents().unwrap_or(PollFlags::empty()));
        Ok(if owner.intersects(PollFlags::POLLHUP | PollFlags::POLLERR) {
            Seen::OwnerGone
        } else if owner.contains(PollFlags::POLLIN) {
            Seen::NextRequest
        } else if exit.contains(PollFlags::POLLIN) {
            Seen::Exit
        } else if output.contains(PollFlags::POLLIN) {
            Seen::Output
        } else {
            Seen::Nothing
        })
    }
}

impl Kept {
    /// Takes what is there now, at most one chunk's worth and a rest; says whether there may be
    /// more. An endless writer must not keep us from looking at the clock.
    fn drain(&mut self, mut output: &io::PipeReader) -> io::Result<bool> {
        let mut chunk = [0; 64 << 10];
        loop {
            match output.read(&mut chunk) {
                Ok(0) => return Ok(false),
                Ok(n) => {
                    let room = self.bytes_max - self.bytes.len();
                    self.bytes.extend_from_slice(&chunk[..n.min(room)]);
                    self.dropped += n.saturating_sub(room) as u64;
                    if n == chunk.len() {
                        return Ok(true);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

fn child_group(child: &Child) -> Option<Pid> {
    i32::try_from(child.id()).ok().map(Pid::from_raw)
}

/// Kills the command and all it started, and reaps them.
fn end(group: Option<Pid>, child: &mut Child, walled: bool) -> io::Result<ExitStatus> {
    if let Some(group) = group {
        // It may have ended, with its whole group.
        let _ = kill(Pid::from_raw(-group.as_raw()), Signal::SIGKILL);
    }
    let status = child.wait()?;
    end_all(walled);
    Ok(status)
}

/// Kills and reaps every process but this one: behind walls all there are, without walls our
/// descendants.
pub(super) fn end_all(walled: bool) {
    let deadline = Instant::now() + END_TIME_MAX;
    while Instant::now() < deadline {
        if walled && std::process::id() == 1 {
            // Process 1 of its namespace: this reaches nobody outside.
            let _ = kill(Pid::from_raw(-1), Signal::SIGKILL);
        } else {
            for pid in children() {
                let _ = kill(pid, Signal::SIGKILL);
            }
        }
        loop {
            match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Err(nix::Error::ECHILD) => return,
                Ok(WaitStatus::StillAlive) | Err(_) => break,
                Ok(_) => {}
            }
        }
        // Nothing to poll on: a killed process is gone within microseconds.
        std::thread::yield_now();
    }
}

/// Our children, orphans of our children among them (we are their subreaper).
fn children() -> Vec<Pid> {
    let me = std::process::id();
    let list = fs::read_to_string(format!("/proc/{me}/task/{me}/children")).unwrap_or_default();
    list.split_whitespace().filter_map(|pid| pid.parse().ok()).map(Pid::from_raw).collect()
}

/// Memory of every process but this one, in bytes.
fn held_bytes() -> u64 {
    let pids = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let held = pids.filter(|&pid| pid != 1).filter_map(|pid| {
        // A process names itself, and not always in UTF-8.
        let status = fs::read(format!("/proc/{pid}/status")).ok()?;
        Some(held_kib(&String::from_utf8_lossy(&status)))
    });
    held.sum::<u64>() * 1024
}

/// What a process holds that is in no file, by its status (proc(5)): its own pages, in memory and swapped
/// out, and the tables of its pages. Pages that it still shares with one it was forked from count for
/// both. Those of files (`RssFile`, `RssShmem`) do not count: the files do, by the size of the tmpfs, and
/// memory that is shared without a file is not to be had.
fn held_kib(status: &str) -> u64 {
    let counted = |line: &str| {
        let (name, value) = line.split_once(':')?;
        match name {
            "RssAnon" | "VmSwap" | "VmPTE" => {
                value.trim().trim_end_matches(" kB").parse::<u64>().ok()
            }
            _ => None,
        }
    };
    status.lines().filter_map(counted).sum()
}

fn nonblocking(fd: BorrowedFd<'_>) -> io::Result<()> {
    fcntl(fd, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).map(drop).map_err(io::Error::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_process_holds_is_its_own_pages_wherever_they_are_and_their_tables() {
        let status = "Name:\ta\u{fffd}RssAnon:\nVmHWM:\t  9000 kB\nVmRSS:\t    7012 kB\n\
                      RssAnon:\t    6800 kB\nRssFile:\t     112 kB\nRssShmem:\t     100 kB\n\
                      VmPTE:\t      64 kB\nVmSwap:\t    1000 kB\nThreads:\t1\n";
        assert_eq!(held_kib(status), 6800 + 64 + 1000);
        assert_eq!(held_kib("Name:\tkthreadd\nState:\tZ (zombie)\n"), 0);
    }

    #[test]
    fn what_a_command_cannot_be_started_for_is_its_own_or_ours() {
        let folder = tempfile::tempdir().expect("a folder");
        let errno = io::Error::from_raw_os_error;
        let gone = folder.path().join("gone");
        assert!(is_the_commands(&errno(libc::E2BIG), folder.path()));
        assert!(is_the_commands(&io::ErrorKind::InvalidInput.into(), folder.path()));
        assert!(is_the_commands(&errno(libc::ENOENT), &gone));
        // No bash, say, and no process left on the host.
        assert!(!is_the_commands(&errno(libc::ENOENT), folder.path()));
        assert!(!is_the_commands(&errno(libc::EACCES), folder.path()));
        assert!(!is_the_commands(&errno(libc::EAGAIN), &gone));
    }
}
