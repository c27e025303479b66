//! The process that starts, watches and stops nodes, and what brings it up and down.
//!
//! - [`mod@state`]: what it writes down: pids, restarts, exits
//! - [`prepare`]: certificates and addresses, before anything starts
//! - [`child`]: one node's process, which ends when the host does
//! - [`log`]: a node's log, bounded
//! - [`process`]: the host itself
//!
//! One host for each run folder, ensured by a lock the system releases when its holder dies.

pub mod child;
pub mod log;
pub mod prepare;
pub mod process;
pub mod state;

use std::fs::OpenOptions;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

use crrl_config::{ClusterConfig, Node};
use crrl_machine::Lock;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::operator::OperatorClient;
use crate::run_dir::{RunDir, RunDirError};

pub use prepare::PrepareError;
pub use process::{LIFT_SIGNAL, RESTART_SIGNAL, run};
pub use state::{HostState, NodeProcess, state};

/// The binary's hidden subcommand for [`run`]; called with `--run-dir DIR`, and with [`TIED`] where
/// the host is to go away with whoever started it.
pub const HOST_SUBCOMMAND: &str = "host";
/// The flag of a host that ends when its standard input does.
pub const TIED: &str = "--tied";
/// The binary's hidden subcommand for one node; called with `--run-dir DIR --name NAME`.
pub const NODE_SUBCOMMAND: &str = "node";

/// How long the host may take to start every process.
const UP_TIMEOUT: Duration = Duration::from_secs(20);
/// How long the host may take to see to another configuration. A node that fails at once looks as if
/// it never had.
const TAKEN_UP_TIMEOUT: Duration = Duration::from_secs(3);
/// How long a node may take to end a fault once its host has told it to.
const LIFT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long nodes may take to leave once they were asked to.
const ASKED_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the host may take to end nodes once it got SIGTERM: longer than it gives them.
const TERM_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the system may take to clean up after SIGKILL.
const KILL_TIMEOUT: Duration = Duration::from_secs(5);
/// Time between two looks at a process that is ending or starting.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// Bytes of the host's log that are quoted when it does not start.
const QUOTE_BYTES: u64 = 2000;

/// What [`up`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Up {
    /// Every node's process was started.
    Started {
        /// The host.
        pid: u32,
    },
    /// A host was running already; nothing was changed.
    Already {
        /// The host.
        pid: u32,
    },
}

/// What [`down`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Down {
    /// No host was running.
    NotRunning,
    /// Nodes left when the coordinator asked them to.
    Asked,
    /// The host had to be told by signal.
    Terminated,
    /// The host had to be killed; its nodes died with it.
    Killed,
}

/// Why a cluster could not be brought up or down.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// Another `up` of the same run.
    #[error("another `up` of {run} is running (pid {pid}); wait for it, or end it", run = .run.display())]
    UpRuns {
        /// The run folder.
        run: PathBuf,
        /// Who runs it.
        pid: u32,
    },
    /// The host that was to be started found another.
    #[error("a host of {run} is running already (pid {pid})", run = .run.display())]
    HostRuns {
        /// The run folder.
        run: PathBuf,
        /// The host.
        pid: u32,
    },
    /// Certificates or addresses.
    #[error(transparent)]
    Prepare(#[from] PrepareError),
    /// The configuration.
    #[error(transparent)]
    Config(#[from] crrl_config::ConfigError),
    /// A file of the run folder.
    #[error(transparent)]
    RunDir(#[from] RunDirError),
    /// The host ended before it had started every node.
    #[error("the host did not start ({how}); its log {log} ends with:\n{tail}", log = .log.display())]
    NotStarted {
        /// How it ended.
        how: String,
        /// Its log.
        log: PathBuf,
        /// The end of that.
        tail: String,
    },
    /// The system refused something.
    #[error("cannot {what}: {source}")]
    System {
        /// What.
        what: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// It does not do what it is asked.
    #[error("the host (pid {pid}) does not answer; its log says why")]
    Deaf {
        /// The host.
        pid: u32,
    },
    /// It is still there after everything was tried.
    #[error("the host (pid {pid}) cannot be ended")]
    Immortal {
        /// The host.
        pid: u32,
    },
}

fn system(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> HostError {
    let what = what.into();
    move |source| HostError::System { what, source }
}

/// Ties a host to this process: it stops its nodes and ends when this is dropped, or when this
/// process ends, however it ends.
#[derive(Debug)]
pub struct Tie(#[expect(dead_code, reason = "held open until it is dropped")] ChildStdin);

/// Brings the cluster of a run folder up, by the `cluster.toml` in it: a host process that goes on
/// when the caller ends. Twice changes nothing. Returns once every node's process was started.
///
/// # Errors
/// [`HostError`], with what to do about it.
pub fn up(run: &RunDir, alone: &Alone) -> Result<Up, HostError> {
    Ok(start(run, alone, false)?.0)
}

/// As [`up`], but the host goes away with the caller. No tie where a host was running already: that
/// one belongs to whoever started it.
///
/// # Errors
/// [`HostError`], with what to do about it.
pub fn up_tied(run: &RunDir, alone: &Alone) -> Result<(Up, Option<Tie>), HostError> {
    start(run, alone, true)
}

/// Nobody else brings a run up or changes its nodes as long as this is held.
#[derive(Debug)]
pub struct Alone(Lock);

/// Makes sure that nobody else brings this run up or changes its nodes meanwhile. Whoever writes into
/// the run folder first for that takes this before. Makes the folder.
///
/// # Errors
/// [`HostError::UpRuns`], or the system's.
pub fn alone(run: &RunDir) -> Result<Alone, HostError> {
    let path = run.path();
    std::fs::create_dir_all(path).map_err(system(format!("make {}", path.display())))?;
    match lock(&path.join("up.lock"))? {
        Ok(lock) => Ok(Alone(lock)),
        Err(pid) => Err(HostError::UpRuns { run: path.to_owned(), pid }),
    }
}

fn start(run: &RunDir, Alone(_held): &Alone, tied: bool) -> Result<(Up, Option<Tie>), HostError> {
    let config = run.config()?;
    if let Some(pid) = host_pid(run)? {
        return Ok((Up::Already { pid }, None));
    }
    prepare::prepare(run, &config)?;
    let log = run.log("host");
    std::fs::create_dir_all(run.logs()).map_err(system("make the folder of logs"))?;
    // The state of an earlier host would be taken for the new one's.
    let _ = std::fs::remove_file(run.host_state());
    let mut host = spawn_host(run, &log, tied)?;
    let tie = host.stdin.take().map(Tie);
    let deadline = Instant::now() + UP_TIMEOUT;
    loop {
        if let Some(status) = host.try_wait().map_err(system("watch the host"))? {
            let how = describe_exit(status.code(), status.signal());
            return Err(HostError::NotStarted { how, tail: tail(&log), log });
        }
        let started = state(run).is_ok_and(|s| s.host_pid == host.id() && s.started);
        if started {
            return Ok((Up::Started { pid: host.id() }, tie));
        }
        if Instant::now() > deadline {
            end(host.id(), Signal::SIGKILL);
            let how = format!("nothing after {} s", UP_TIMEOUT.as_secs());
            return Err(HostError::NotStarted { how, tail: tail(&log), log });
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

fn spawn_host(run: &RunDir, log: &Path, tied: bool) -> Result<Child, HostError> {
    let executable = std::env::current_exe().map_err(system("find this program's own file"))?;
    let out = OpenOptions::new().create(true).append(true).open(log);
    let out = out.map_err(system(format!("open {}", log.display())))?;
    let err = out.try_clone().map_err(system("open the host's log"))?;
    Command::new(executable)
        .arg(HOST_SUBCOMMAND)
        .arg("--run-dir")
        .arg(run.path())
        .args(tied.then_some(TIED))
        .stdin(if tied { Stdio::piped() } else { Stdio::null() })
        .stdout(out)
        .stderr(err)
        .spawn()
        .map_err(system("start the host process"))
}

/// Brings a running cluster to the nodes its run folder's `cluster.toml` names now: certificates are
/// issued, and the host told to look. Only rollout nodes may have come or gone; see
/// [`crate::changes`].
///
/// # Errors
/// [`HostError`]. `false` where no host is running any more.
pub fn adjust(run: &RunDir, Alone(_held): &Alone) -> Result<bool, HostError> {
    let config = run.config()?;
    let Some(pid) = host_pid(run)? else { return Ok(false) };
    let state = state(run).unwrap_or_default();
    let runs = |node: &Node| state.nodes.iter().any(|n| n.name == node.name && n.pid.is_some());
    prepare::issue(run, &config, |node| !runs(node))?;
    end(pid, Signal::SIGHUP);
    // Whoever looks next must not see a node as it was before.
    let deadline = Instant::now() + TAKEN_UP_TIMEOUT;
    while !is_taken_up(run, &config) && Instant::now() < deadline {
        std::thread::sleep(LOOK_EVERY);
    }
    Ok(true)
}

/// Whether every node that is wanted is there or about to be.
fn is_taken_up(run: &RunDir, config: &ClusterConfig) -> bool {
    let Ok(state) = state(run) else { return false };
    let is_there = |node: &Node| {
        let held = state.nodes.iter().find(|held| held.name == node.name);
        held.is_some_and(|held| !held.retired && !held.given_up)
    };
    config.nodes().iter().filter(|node| !node.external).all(is_there)
}

/// Asks the host of a running cluster to restart a node with the program that is there now. `false`
/// where no host is running. Returns when the host has taken it up.
///
/// # Errors
/// [`HostError`].
pub fn restart(run: &RunDir, node: &str) -> Result<bool, HostError> {
    let Some(pid) = host_pid(run)? else { return Ok(false) };
    let wanted = run.restart_wanted(node);
    ask_host(run, pid, &wanted, UP_TIMEOUT)?;
    Ok(true)
}

/// Has the host of a running cluster tell a node that the fault of this number is over, whatever keeps
/// the node from hearing others: it may stand still or be cut off. `false` where no host is running, or
/// the node is not a process of this machine. Returns when the node has heard it: whether it had such a fault
/// its reports say.
///
/// # Errors
/// [`HostError`]; [`HostError::Deaf`] where neither host nor node has done so in time.
pub fn lift(run: &RunDir, node: &str, id: u64) -> Result<bool, HostError> {
    let Some(pid) = host_pid(run)? else { return Ok(false) };
    let is_here = |held: &NodeProcess| held.name == node && held.host.is_none();
    let state = state(run).unwrap_or_default();
    if !state.nodes.iter().any(|held| is_here(held) && held.pid.is_some()) {
        return Ok(false);
    }
    let wanted = run.lift_wanted(node, id);
    ask_host(run, pid, &wanted, LIFT_TIMEOUT)?;
    Ok(true)
}

/// Puts a file into the run folder that asks the host for something, and waits until it is taken away.
fn ask_host(run: &RunDir, host: u32, wanted: &Path, within: Duration) -> Result<(), HostError> {
    crate::run_dir::write_atomic(wanted, b"")?;
    end(host, Signal::SIGHUP);
    let deadline = Instant::now() + within;
    while wanted.exists() {
        if Instant::now() > deadline || host_pid(run)? != Some(host) {
            let _ = std::fs::remove_file(wanted);
            return Err(HostError::Deaf { pid: host });
        }
        std::thread::sleep(LOOK_EVERY);
    }
    Ok(())
}

/// Takes the cluster of a run folder down: asks, then SIGTERM, then SIGKILL, each with a deadline.
/// When it returns, no process of the run is left.
///
/// # Errors
/// [`HostError`].
pub fn down(run: &RunDir) -> Result<Down, HostError> {
    let Some(pid) = host_pid(run)? else { return Ok(Down::NotRunning) };
    if ask(run) && gone(run, ASKED_TIMEOUT)? {
        return Ok(Down::Asked);
    }
    end(pid, Signal::SIGTERM);
    if gone(run, TERM_TIMEOUT)? {
        return Ok(Down::Terminated);
    }
    end(pid, Signal::SIGKILL);
    if gone(run, KILL_TIMEOUT)? { Ok(Down::Killed) } else { Err(HostError::Immortal { pid }) }
}

/// Asks the coordinator to end the run; whether it agreed.
fn ask(run: &RunDir) -> bool {
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else {
        return false;
    };
    let asking = async {
        let client = OperatorClient::connect(run).await?;
        let agreed = client.stop("the cluster is taken down").await;
        client.close().await;
        agreed
    };
    runtime.block_on(async {
        tokio::time::timeout(Duration::from_secs(5), asking).await.is_ok_and(|asked| asked.is_ok())
    })
}

fn gone(run: &RunDir, within: Duration) -> Result<bool, HostError> {
    let deadline = Instant::now() + within;
    while host_pid(run)?.is_some() {
        if Instant::now() > deadline {
            return Ok(false);
        }
        std::thread::sleep(LOOK_EVERY);
    }
    Ok(true)
}

/// The host of a run folder, if one is running.
///
/// # Errors
/// The lock cannot be looked at.
pub fn host_pid(run: &RunDir) -> Result<Option<u32>, HostError> {
    let path = run.host_lock();
    Lock::holder(&path).map_err(system(format!("look at {}", path.display())))
}

/// Sends a signal to a process; to none where the lock's holder has not written its number yet: 0 would be
/// this process's own group.
fn end(pid: u32, signal: Signal) {
    if let Ok(pid @ 1..) = i32::try_from(pid) {
        // Already gone is what is wanted.
        let _ = kill(Pid::from_raw(pid), signal);
    }
}

/// Takes a lock, or says which process has it.
fn lock(path: &Path) -> Result<Result<Lock, u32>, HostError> {
    Lock::take(path).map_err(system(format!("lock {}", path.display())))
}

/// How a process ended, in words.
pub(crate) fn describe_exit(code: Option<i32>, signal: Option<i32>) -> String {
    match (code, signal) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => match Signal::try_from(signal) {
            Ok(signal) => format!("killed by {signal}"),
            Err(_) => format!("killed by signal {signal}"),
        },
        (None, None) => "ended".into(),
    }
}

fn tail(path: &Path) -> String {
    let read = || -> std::io::Result<Vec<u8>> {
        let mut file = std::fs::File::open(path)?;
        let len = file.metadata()?.len();
        file.seek(SeekFrom::Start(len.saturating_sub(QUOTE_BYTES)))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    String::from_utf8_lossy(&read().unwrap_or_default()).trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use nix::sys::signal::raise;
    use tokio::signal::unix::{SignalKind, signal};

    use super::*;

    #[tokio::test]
    async fn a_host_whose_number_is_not_known_yet_costs_nobody_else_a_signal() {
        let mut wrong = signal(SignalKind::window_change()).expect("can be listened to");
        let mut later = signal(SignalKind::user_defined2()).expect("can be listened to");
        end(0, Signal::SIGWINCH);
        raise(Signal::SIGUSR2).expect("is a signal");
        // What was sent before has come by then.
        later.recv().await;
        tokio::select! {
            biased;
            _ = wrong.recv() => panic!("this process's own group was told"),
            () = std::future::ready(()) => {}
        }
    }
}
