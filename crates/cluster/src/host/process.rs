//! The host itself: one process for each node, restarted as [`crate::restart`] decides, until every
//! node has ended or it is told to stop.
//!
//! Everything runs on the calling thread: nodes die with the thread that started them.

use std::ffi::OsStr;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crrl_config::{ClusterConfig, Node, Role};
use crrl_transport::random_bytes;
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, setsid};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, BufReader};
use tokio::process::Child;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::host::child::{self, Bounds};
use crate::host::log::{LOG_BYTES_MAX, NodeLog};
use crate::host::prepare;
use crate::host::state::{HostState, NodeProcess};
use crate::host::{self, HostError, LOOK_EVERY, NODE_SUBCOMMAND, describe_exit, system};
use crate::peer::lock;
use crate::remote::{REMOTE_SUBCOMMAND, phase};
use crate::restart::{Backoff, Intensity, Restarts, Strategy, Verdict};
use crate::run_dir::RunDir;

/// How long nodes may take to end by themselves once the coordinator has: it told them to.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(2);
/// How long nodes may take to end after SIGTERM.
const TERM_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a dead node's last lines may take to come through the pipe. A grandchild that inherited
/// the pipe may hold it open for ever.
const LAST_LINES_TIMEOUT: Duration = Duration::from_millis(200);
/// Asks a node to leave as if it came back: it does not tell others that the run is over.
pub const RESTART_SIGNAL: Signal = Signal::SIGUSR1;
/// Has a node look which faults it is to end ([`RunDir::lifts_wanted`]). One that stands still goes on, and
/// one that knows nothing of it is not harmed.
pub const LIFT_SIGNAL: Signal = Signal::SIGCONT;
/// Exit codes that starting again cannot help: usage or configuration, failed preflight.
const HOPELESS: [i32; 2] = [2, 4];
/// Exit code of a process that did not reach the machine of its node.
const UNREACHABLE: i32 = 6;
/// Longest line of a log.
const LINE_BYTES_MAX: usize = 64 << 10;

/// How long others may look at the lock while this process takes it.
const LOCK_TIMEOUT: Duration = Duration::from_secs(1);

/// Runs the host of a run folder until every node has ended; a `tied` one also until its standard
/// input ends, which is when whoever started it is gone.
///
/// # Errors
/// [`HostError`]: another host runs, or nothing can be started at all.
pub fn run(run: &RunDir, tied: bool) -> Result<(), HostError> {
    // Away from the terminal it was started from: Ctrl-C there is not meant for the nodes. Fails
    // only where the process leads a session already, which is as good.
    let _ = setsid();
    let late = Instant::now() + LOCK_TIMEOUT;
    let _lock = loop {
        match host::lock(&run.host_lock())? {
            Ok(lock) => break lock,
            Err(pid) if Instant::now() > late => {
                return Err(HostError::HostRuns { run: run.path().to_owned(), pid });
            }
            // Somebody looks whether a host is running.
            Err(_) => std::thread::sleep(LOOK_EVERY),
        }
    };
    let config = run.config()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(system("start the host's event loop"))?;
    let outcome = runtime.block_on(async { Host::new(run.clone(), &config)?.run(tied).await });
    // A read of the standard input that has not ended must not hold the exit up.
    runtime.shutdown_background();
    outcome
}

enum Event {
    Exited {
        node: usize,
        status: std::io::Result<ExitStatus>,
    },
    RestartDue {
        node: usize,
    },
    /// A process that was asked to leave for a restart should have left by now.
    LeaveDue {
        node: usize,
        pid: u32,
    },
}

/// What is done about a process that ended by itself.
#[derive(Debug, PartialEq, Eq)]
enum Next {
    /// Nothing: it was to end.
    Rest,
    /// It is not started again.
    GiveUp,
    /// It is started again, as often as is allowed.
    Restart,
    /// Its node's machine is away: nothing has failed, and it is tried until the machine is back.
    TryAgain,
}

impl Next {
    /// By its exit code; `ran` says whether its node has run on another machine.
    fn of(code: Option<i32>, ran: bool) -> Self {
        match code {
            Some(0) => Self::Rest,
            Some(UNREACHABLE) if ran => Self::TryAgain,
            Some(code) if HOPELESS.contains(&code) => Self::GiveUp,
            _ => Self::Restart,
        }
    }
}

struct Host {
    run: RunDir,
    executable: PathBuf,
    nodes: Vec<Node>,
    logs: Vec<Arc<Mutex<NodeLog>>>,
    restarts: Restarts,
    state: HostState,
    waiting: Vec<bool>,
    /// Since when the machine of a node that has run is not reached.
    away: Vec<Option<Instant>>,
    started: Instant,
    /// While it is stopping: what is sent to every node that is left, and when.
    next_signal: Option<(Instant, Signal)>,
    rng: StdRng,
    sender: mpsc::Sender<Event>,
    events: mpsc::Receiver<Event>,
}

impl Host {
    fn new(run: RunDir, config: &ClusterConfig) -> Result<Self, HostError> {
        let nodes: Vec<Node> = config.nodes().into_iter().filter(|node| !node.external).collect();
        std::fs::create_dir_all(run.logs()).map_err(system("make the folder of logs"))?;
        let mut logs = Vec::new();
        for node in &nodes {
            let path = run.log(&node.name);
            let log = NodeLog::open(&path, LOG_BYTES_MAX)
                .map_err(system(format!("open {}", path.display())))?;
            logs.push(Arc::new(Mutex::new(log)));
            forget_phase(&run, node);
        }
        let cluster = &config.cluster;
        let intensity = Intensity {
            restarts_max: cluster.restarts_max,
            window: Duration::from_secs_f64(cluster.restart_window_s.max(0.0)),
        };
        let backoff = Backoff {
            min: Duration::from_millis(cluster.backoff_min_ms),
            max: Duration::from_millis(cluster.backoff_max_ms),
        };
        let processes = nodes.iter().map(NodeProcess::of);
        let state = HostState {
            host_pid: std::process::id(),
            started: false,
            stopping: false,
            nodes: processes.collect(),
        };
        // What does not fit waits where it comes from.
        let (sender, events) = mpsc::channel(4 * nodes.len().max(1));
        Ok(Self {
            restarts: Restarts::new(Strategy::OneForOne, intensity, backoff, nodes.len()),
            waiting: vec![false; nodes.len()],
            away: vec![None; nodes.len()],
            started: Instant::now(),
            next_signal: None,
            rng: StdRng::from_seed(random_bytes().unwrap_or_default()),
            executable: std::env::current_exe().map_err(system("find this program's own file"))?,
            run,
            nodes,
            logs,
            state,
            sender,
            events,
        })
    }

    async fn run(mut self, tied: bool) -> Result<(), HostError> {
        let mut terminate =
            signal(SignalKind::terminate()).map_err(system("listen for SIGTERM"))?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(system("listen for SIGINT"))?;
        let mut hang_up = signal(SignalKind::hangup()).map_err(system("listen for SIGHUP"))?;
        let mut starter = std::pin::pin!(starter_gone(tied));
        for node in 0..self.nodes.len() {
            self.start(node);
        }
        self.state.started = true;
        self.state.write(&self.run)?;
        while self.is_busy() {
            let due = self.next_signal.map(|(at, _)| at.into());
            tokio::select! {
                event = self.events.recv() => match event {
                    Some(Event::Exited { node, status }) => self.exited(node, status).await,
                    Some(Event::RestartDue { node }) => self.restart(node),
                    Some(Event::LeaveDue { node, pid }) => self.leave_at_last(node, pid),
                    None => break,
                },
                _ = terminate.recv() => self.stop(),
                _ = interrupt.recv() => self.stop(),
                _ = hang_up.recv() => self.reload(),
                () = &mut starter, if !self.state.stopping => {
                    tracing::info!("whoever started this cluster is gone: stopping");
                    self.stop();
                }
                () = tokio::time::sleep_until(due.unwrap_or_else(|| Instant::now().into())), if due.is_some() => {
                    self.send_signal();
                }
            }
            self.write();
        }
        Ok(())
    }

    /// Whether a node runs or is about to.
    fn is_busy(&self) -> bool {
        self.state.nodes.iter().any(|n| n.pid.is_some()) || self.waiting.contains(&true)
    }

    fn start(&mut self, node: usize) {
        let name = self.nodes[node].name.clone();
        // One that was away for long has a certificate that has expired.
        let issued = self.run.config().map_err(HostError::from).and_then(|config| {
            Ok(prepare::issue(&self.run, &config, |wanted| wanted.name == name)?)
        });
        if let Err(error) = issued {
            self.note(node, &format!("its certificate was not looked at: {error}"));
        }
        let local = self.nodes[node].host.is_none();
        let arguments: [&OsStr; 5] = [
            if local { NODE_SUBCOMMAND } else { REMOTE_SUBCOMMAND }.as_ref(),
            "--run-dir".as_ref(),
            self.run.path().as_os_str(),
            "--name".as_ref(),
            name.as_ref(),
        ];
        // One on another machine is bounded there; the process here only watches it.
        let bounds = if local { Bounds::of(&self.nodes[node]) } else { Bounds::default() };
        match child::spawn(&self.executable, &arguments, bounds) {
            Ok(process) => {
                self.state.nodes[node].pid = process.id();
                self.state.nodes[node].started_ms = Some(crrl_machine::clock::unix_ms());
                self.note(node, &format!("started, pid {}", process.id().unwrap_or_default()));
                self.attend(node, process);
            }
            Err(error) => self.failed(node, &format!("could not be started: {error}")),
        }
    }

    /// Takes up what the configuration says now about which rollout nodes there are, and what each has of
    /// its machine. Everything else
    /// in it is as it was when the host started: whoever writes it sees to that.
    fn reload(&mut self) {
        self.lift();
        let config = match self.run.config() {
            Ok(config) => config,
            Err(error) => return tracing::error!(%error, "the configuration is not taken up"),
        };
        if self.state.stopping {
            return;
        }
        let wanted: Vec<Node> = config.nodes().into_iter().filter(|node| !node.external).collect();
        for index in 0..self.nodes.len() {
            let stays = wanted.iter().any(|node| node.name == self.nodes[index].name);
            if !stays && !self.state.nodes[index].retired {
                self.state.nodes[index].retired = true;
                self.waiting[index] = false;
                self.note(index, "leaves: the configuration no longer names it");
                self.signal(index, Signal::SIGTERM);
            }
        }
        for node in wanted {
            match self.nodes.iter().position(|held| held.name == node.name) {
                Some(index) if self.state.nodes[index].retired => self.recall(index, node),
                Some(index) if self.is_given_up(index) => self.recall(index, node),
                // Only a rollout node may be another; whoever writes the file sees to that.
                Some(index) if self.nodes[index] != node => {
                    self.nodes[index] = node;
                    self.renew(index);
                }
                Some(_) => {}
                None => self.add(node),
            }
        }
        for index in 0..self.nodes.len() {
            // Whoever asked looks whether the file is gone.
            let wanted = self.run.restart_wanted(&self.nodes[index].name);
            if std::fs::remove_file(wanted).is_ok() {
                self.renew(index);
            }
        }
    }

    /// Tells nodes that faults of theirs are over. They take the files away, for whoever waits for that.
    fn lift(&self) {
        for (index, node) in self.nodes.iter().enumerate() {
            if !self.run.lifts_wanted(&node.name).is_empty() {
                self.note(index, "is told that a fault is over");
                self.signal(index, LIFT_SIGNAL);
            }
        }
    }

    /// Whether a node failed too often and is not there.
    fn is_given_up(&self, index: usize) -> bool {
        let state = &self.state.nodes[index];
        state.given_up && state.pid.is_none() && !self.waiting[index]
    }

    /// Ends a node, which leaves everything as it is, and starts it again with the program that is
    /// there now.
    fn renew(&mut self, index: usize) {
        if self.state.stopping || self.state.nodes[index].retired {
            return;
        }
        self.note(index, "is restarted, as it was asked for or is configured otherwise");
        let Some(pid) = self.state.nodes[index].pid else {
            // One that waits to be started again is about to be.
            if !self.waiting[index] {
                self.state.nodes[index].given_up = false;
                self.start(index);
            }
            return;
        };
        self.waiting[index] = true;
        self.signal(index, RESTART_SIGNAL);
        let sender = self.sender.clone();
        tokio::spawn(async move {
            tokio::time::sleep(TERM_TIMEOUT).await;
            let _ = sender.send(Event::LeaveDue { node: index, pid }).await;
        });
    }

    fn leave_at_last(&self, node: usize, pid: u32) {
        if self.state.nodes[node].pid == Some(pid) {
            self.note(node, "has not left in time: it is killed");
            self.signal(node, Signal::SIGKILL);
        }
    }

    /// A node that had left, or was about to, is wanted again.
    fn recall(&mut self, index: usize, node: Node) {
        self.nodes[index] = node;
        self.state.nodes[index].retired = false;
        self.state.nodes[index].given_up = false;
        // One that is still leaving is started again when it has.
        self.waiting[index] = self.state.nodes[index].pid.is_some();
        if !self.waiting[index] {
            self.start(index);
        }
    }

    fn add(&mut self, node: Node) {
        let path = self.run.log(&node.name);
        match NodeLog::open(&path, LOG_BYTES_MAX) {
            Ok(log) => self.logs.push(Arc::new(Mutex::new(log))),
            Err(error) => {
                return tracing::error!(%error, path = %path.display(), "no log, no node");
            }
        }
        forget_phase(&self.run, &node);
        self.state.nodes.push(NodeProcess::of(&node));
        self.nodes.push(node);
        self.waiting.push(false);
        self.away.push(None);
        self.restarts.add_child();
        self.start(self.nodes.len() - 1);
    }

    /// Copies a node's output into its log and waits for its end.
    fn attend(&self, node: usize, mut process: Child) {
        let pump = |stream: Option<Box<dyn AsyncRead + Unpin + Send>>| {
            stream.map(|stream| tokio::spawn(copy_lines(stream, Arc::clone(&self.logs[node]))))
        };
        let out = pump(process.stdout.take().map(|s| Box::new(s) as _));
        let err = pump(process.stderr.take().map(|s| Box::new(s) as _));
        let sender = self.sender.clone();
        tokio::spawn(async move {
            let status = process.wait().await;
            for pump in [out, err].into_iter().flatten() {
                finish(pump).await;
            }
            let _ = sender.send(Event::Exited { node, status }).await;
        });
    }

    async fn exited(&mut self, node: usize, status: std::io::Result<ExitStatus>) {
        self.state.nodes[node].pid = None;
        let (code, by) = match &status {
            Ok(status) => (status.code(), status.signal()),
            Err(_) => (None, None),
        };
        let mut how = describe_exit(code, by);
        if code != Some(0) {
            let last = lock(&self.logs[node]).last().to_owned();
            if !last.is_empty() {
                how = format!("{how}; last line: {last}");
            }
        }
        self.note(node, &how);
        self.state.nodes[node].last_exit = Some(how.clone());
        if code != Some(UNREACHABLE) {
            self.away[node] = None;
        }
        if std::mem::take(&mut self.waiting[node]) && !self.state.stopping {
            // It was wanted again while it was leaving.
            return self.start(node);
        }
        if code == Some(0) && self.nodes[node].roles.contains(&Role::Coordinator) {
            // It told the others to leave; whoever was not there to hear it is told by signal.
            self.stop_after(LEAVE_TIMEOUT);
        }
        if self.state.stopping || self.state.nodes[node].retired {
            return;
        }
        match Next::of(code, self.has_run_elsewhere(node)) {
            Next::Rest => {}
            Next::GiveUp => self.give_up(node),
            Next::Restart => self.failed(node, &how),
            Next::TryAgain => self.try_again(node, &how),
        }
    }

    /// Whether a node has run on another machine, or in a container, since this host was started.
    fn has_run_elsewhere(&self, node: usize) -> bool {
        let node = &self.nodes[node];
        node.host.is_some() && phase(&self.run, &node.name).is_some_and(|phase| phase.ran)
    }

    fn try_again(&mut self, node: usize, how: &str) {
        let since = *self.away[node].get_or_insert_with(Instant::now);
        let seconds = since.elapsed().as_secs();
        let told = format!("unreachable for {seconds} s, trying again; {how}");
        self.state.nodes[node].last_exit = Some(told);
        let after = self.restarts.uncounted(self.rng.random());
        self.start_after(node, after);
    }

    fn failed(&mut self, node: usize, how: &str) {
        self.state.nodes[node].last_exit = Some(how.to_owned());
        let jitter = self.rng.random();
        match self.restarts.failed(node, self.started.elapsed(), jitter) {
            Verdict::Restart { after, .. } => self.start_after(node, after),
            Verdict::Escalate { restarts, .. } => {
                self.note(node, &format!("given up after {restarts} restarts"));
                self.give_up(node);
            }
        }
    }

    fn start_after(&mut self, node: usize, after: Duration) {
        self.waiting[node] = true;
        let sender = self.sender.clone();
        tokio::spawn(async move {
            tokio::time::sleep(after).await;
            let _ = sender.send(Event::RestartDue { node }).await;
        });
    }

    /// A cluster can do without a rollout node for a while, never without the others.
    fn give_up(&mut self, node: usize) {
        self.state.nodes[node].given_up = true;
        let roles = &self.nodes[node].roles;
        if roles.iter().any(|role| *role != Role::Rollout) {
            self.stop();
        }
    }

    fn restart(&mut self, node: usize) {
        // One that was recalled meanwhile runs, or has come to its end since, as it was to.
        if self.state.nodes[node].pid.is_some() || !std::mem::take(&mut self.waiting[node]) {
            return;
        }
        if !self.state.stopping && !self.state.nodes[node].retired {
            // Its node is started no sooner than its machine is reached.
            if self.away[node].is_none() {
                self.state.nodes[node].restarts += 1;
            }
            self.start(node);
        }
    }

    /// Ends every node: SIGTERM now, SIGKILL for those it does not end.
    fn stop(&mut self) {
        self.stop_after(Duration::ZERO);
        if self.next_signal.is_some_and(|(_, signal)| signal == Signal::SIGTERM) {
            self.send_signal();
        }
    }

    /// Ends every node that has not ended by itself after `grace`.
    fn stop_after(&mut self, grace: Duration) {
        if !self.state.stopping {
            self.state.stopping = true;
            self.next_signal = Some((Instant::now() + grace, Signal::SIGTERM));
        }
    }

    /// Sends what is due to every node that is left. SIGKILL again and again: a process may need it
    /// after the system was too busy to start or end it.
    fn send_signal(&mut self) {
        let Some((_, signal)) = self.next_signal else { return };
        self.next_signal = Some((Instant::now() + TERM_TIMEOUT, Signal::SIGKILL));
        for node in 0..self.nodes.len() {
            self.signal(node, signal);
        }
    }

    fn signal(&self, node: usize, signal: Signal) {
        if let Some(pid) = self.state.nodes[node].pid.and_then(|pid| i32::try_from(pid).ok()) {
            let _ = kill(Pid::from_raw(pid), signal);
        }
    }

    /// A line of the host about a node, in the host's log.
    fn note(&self, node: usize, what: &str) {
        tracing::info!(node = self.nodes[node].name, what);
    }

    /// A state that cannot be written must not take the nodes down.
    fn write(&self) {
        if let Err(error) = self.state.write(&self.run) {
            tracing::warn!(%error);
        }
    }
}

/// How far a node came under an earlier host says nothing.
fn forget_phase(run: &RunDir, node: &Node) {
    let _ = std::fs::remove_file(run.phase(&node.name));
}

/// Resolves when the standard input of a tied host ends; never otherwise.
async fn starter_gone(tied: bool) {
    if tied {
        let mut buffer = [0];
        // Whoever started it writes nothing: it ends, or cannot be read.
        while tokio::io::stdin().read(&mut buffer).await.is_ok_and(|len| len > 0) {}
    } else {
        std::future::pending::<()>().await;
    }
}

async fn finish(mut pump: JoinHandle<()>) {
    if tokio::time::timeout(LAST_LINES_TIMEOUT, &mut pump).await.is_err() {
        pump.abort();
    }
}

async fn copy_lines(stream: Box<dyn AsyncRead + Unpin + Send>, log: Arc<Mutex<NodeLog>>) {
    let mut stream = BufReader::new(stream);
    let mut line = Vec::new();
    loop {
        let (used, ended) = match stream.fill_buf().await {
            Ok([]) | Err(_) => break,
            Ok(bytes) => match bytes.iter().position(|byte| *byte == b'\n') {
                Some(end) => {
                    line.extend_from_slice(&bytes[..end]);
                    (end + 1, true)
                }
                None => {
                    line.extend_from_slice(bytes);
                    (bytes.len(), false)
                }
            },
        };
        stream.consume(used);
        if ended || line.len() >= LINE_BYTES_MAX {
            // A full disk must not stop the node: its lines are lost, it goes on.
            let _ = lock(&log).line(&line);
            line.clear();
        }
    }
    if !line.is_empty() {
        let _ = lock(&log).line(&line);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host() -> (tempfile::TempDir, Host) {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let run = RunDir::new(folder.path());
        let host = Host::new(run, &ClusterConfig::default()).expect("a folder to write into");
        (folder, host)
    }

    #[test]
    fn a_restart_that_was_due_before_a_node_was_recalled_starts_no_second_one() {
        let (_folder, mut host) = host();
        // It was recalled and runs; and is to leave for a restart.
        (host.state.nodes[3].pid, host.waiting[3]) = (Some(u32::MAX), true);
        host.restart(3);
        assert_eq!((host.state.nodes[3].pid, host.waiting[3]), (Some(u32::MAX), true));
        // It was recalled, and has come to its end.
        (host.state.nodes[3].pid, host.waiting[3]) = (None, false);
        host.restart(3);
        assert_eq!((host.state.nodes[3].pid, host.state.nodes[3].restarts), (None, 0));
    }

    #[test]
    fn how_far_a_node_came_before_says_nothing_of_one_that_is_added() {
        let (_folder, mut host) = host();
        // Nothing is started: there is no such program.
        host.executable = PathBuf::from("/no/such/program");
        let node = Node { name: "rollout-9".to_owned(), ..host.nodes[3].clone() };
        let path = host.run.phase(&node.name);
        crate::run_dir::write_atomic(&path, b"{}").expect("writable");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.expect("an event loop");
        let _inside = runtime.enter();
        host.add(node);
        assert!(!path.exists());
    }

    #[test]
    fn a_machine_that_is_away_is_no_failure_of_a_node_that_has_run_there() {
        assert_eq!(Next::of(Some(UNREACHABLE), true), Next::TryAgain);
        // One that never ran may be configured wrongly.
        assert_eq!(Next::of(Some(UNREACHABLE), false), Next::Restart);
        for ran in [false, true] {
            assert_eq!(Next::of(Some(0), ran), Next::Rest);
            assert_eq!(Next::of(Some(1), ran), Next::Restart);
            assert_eq!(Next::of(None, ran), Next::Restart, "a signal");
            assert!(HOPELESS.iter().all(|code| Next::of(Some(*code), ran) == Next::GiveUp));
        }
    }
}
