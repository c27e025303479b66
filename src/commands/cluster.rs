//! `crrl cluster`: the nodes of a cluster.toml as processes of this machine.

use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::Subcommand;
use crrl_cluster::host::{self, Down, HostState, NodeProcess, Up};
use crrl_cluster::invitation::{Guest, Invitation};
use crrl_cluster::{OperatorClient, RunDir, Snapshot};
use crrl_config::{ClusterConfig, Overrides, Role};
use crrl_control::plan::{Limits, PLAN_FILE, PLAN_FORMAT, Plan};
use crrl_control::wire::{NodeReport, NodeState};
use crrl_transport::Validity;
use serde::Serialize;

use super::config::Source;
use super::failure::{Coded, UNREACHABLE, host_error};
use crate::run::{Run, absolute, phases};

/// Exit code of a plan that has changes.
const CHANGES: u8 = 3;
/// Exit code of a cluster that is not as it should be.
const UNHEALTHY: u8 = 1;
/// Time between two looks at nodes that start, or at logs that are followed.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// Bytes of a log that `logs` shows without `-f`, and that it begins with.
const LOG_BYTES: u64 = 16 << 10;

/// Arguments of `crrl cluster`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Print what `up` would start. Exit code 3 if it would start anything, 0 if it is up.
    Plan {
        #[command(flatten)]
        source: Source,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Start every node and wait until all are ready. Twice changes nothing.
    Up {
        #[command(flatten)]
        source: Source,
        /// Seconds to wait for the nodes to be ready; 0 does not wait.
        #[arg(long, default_value_t = 120, value_name = "SECONDS")]
        wait: u64,
    },
    /// One line for each node: process, state, adapter. Exit code 0 if all are ready.
    Status {
        #[command(flatten)]
        place: Place,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// What the nodes wrote.
    Logs {
        /// Nodes to show; all if none is named. `host` is the process that watches them.
        nodes: Vec<String>,
        /// Go on as they write more, until Ctrl-C.
        #[arg(short = 'f', long)]
        follow: bool,
        /// Configuration file.
        #[arg(long, default_value = "cluster.toml", value_name = "FILE")]
        file: PathBuf,
        /// Folder of the run, instead of a configuration file.
        #[arg(long, value_name = "DIR", conflicts_with = "file")]
        run: Option<PathBuf>,
    },
    /// Write the file with which a node on another machine joins a run that is up: `crrl node --join
    /// FILE` there.
    Invite {
        /// Name of the node: one the configuration calls external, or a new rollout node.
        name: String,
        #[command(flatten)]
        place: Place,
        /// File to write; NAME.join without it. It holds a private key: carry it by a safe way.
        #[arg(short, long, value_name = "FILE")]
        out: Option<PathBuf>,
        /// Address of this machine as the guest sees it.
        #[arg(long, value_name = "IP")]
        address: Option<IpAddr>,
        /// Hours until the certificate in it expires.
        #[arg(long, default_value_t = 24 * 7, value_name = "HOURS")]
        hours: u32,
    },
    /// Stop every node: asked first, then by signal. Nothing is left behind.
    Down {
        #[command(flatten)]
        place: Place,
    },
}

/// Which run: the one of a configuration file, or the one in a folder.
#[derive(Debug, clap::Args)]
struct Place {
    #[command(flatten)]
    source: Source,
    /// Folder of the run, instead of a configuration file.
    #[arg(long, value_name = "DIR", conflicts_with_all = ["file", "set"])]
    run: Option<PathBuf>,
}

impl Place {
    fn run_dir(&self) -> anyhow::Result<RunDir> {
        match &self.run {
            Some(dir) => Ok(RunDir::new(absolute(dir))),
            None => Ok(run_dir(&self.source.load()?)),
        }
    }
}

fn run_dir(config: &ClusterConfig) -> RunDir {
    RunDir::new(absolute(&config.run.dir))
}

pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    match args.action {
        Action::Plan { source, json } => plan(&source.load()?, json),
        Action::Up { source, wait } => up(source.load()?, Duration::from_secs(wait)),
        Action::Status { place, json } => status(&place.run_dir()?, json),
        Action::Logs { nodes, follow, file, run } => {
            let run = match run {
                Some(dir) => RunDir::new(absolute(&dir)),
                None => run_dir(&crrl_config::load(
                    &file,
                    &Overrides::from_environment(std::env::vars()),
                )?),
            };
            logs(&run, &nodes, follow)
        }
        Action::Invite { name, place, out, address, hours } => {
            let guest = Guest { name: name.into(), address, validity: Validity::hours(hours) };
            invite(&place.run_dir()?, &guest, out)
        }
        Action::Down { place } => down(&place.run_dir()?),
    }
}

#[derive(Serialize)]
struct PlannedNode {
    name: String,
    role: String,
    threads: usize,
    action: &'static str,
}

fn plan(config: &ClusterConfig, json: bool) -> anyhow::Result<ExitCode> {
    let run = run_dir(config);
    let state = running(&run)?;
    let same = state.is_some() && is_same(&run, config);
    let action = |name: &str| match &state {
        None => "start",
        Some(_) if !same => "restart",
        Some(state) if pid_of(state, name).is_some() => "keep",
        Some(_) => "start",
    };
    let nodes: Vec<PlannedNode> = config
        .nodes()
        .into_iter()
        .filter(|node| !node.external)
        .map(|node| PlannedNode {
            role: role_names(&node.roles),
            threads: node.threads,
            action: action(&node.name),
            name: node.name,
        })
        .collect();
    let changes = nodes.iter().any(|node| node.action != "keep");
    let mut out = std::io::stdout().lock();
    if json {
        let value = serde_json::json!({ "run": run.path(), "changes": changes, "nodes": nodes });
        writeln!(out, "{value}")?;
    } else {
        writeln!(out, "run folder  {}", run.path().display())?;
        for PlannedNode { name, role, threads, action } in &nodes {
            let threads = if *threads == 0 { "all".into() } else { threads.to_string() };
            writeln!(out, "{action:<8} {name:<16} {role:<28} threads {threads}")?;
        }
    }
    Ok(ExitCode::from(if changes { CHANGES } else { 0 }))
}

fn up(mut config: ClusterConfig, wait: Duration) -> anyhow::Result<ExitCode> {
    // The same paths must mean the same files in every process, whatever folder it is started in.
    config.run.dir = absolute(&config.run.dir);
    config.model.path = absolute(&config.model.path);
    config.model.adapter = config.model.adapter.as_deref().map(absolute);
    let run = run_dir(&config);
    if let Some(state) = running(&run)? {
        if !is_same(&run, &config) {
            return Err(Coded::usage(format!(
                "{} is up (host pid {}) with another configuration; take it down first: crrl \
                 cluster down --run {}",
                run.path().display(),
                state.host_pid,
                run.path().display()
            )));
        }
    } else {
        let plan_path = run.path().join(PLAN_FILE);
        let held = std::fs::read_to_string(&plan_path).ok();
        let plan = match &held {
            Some(text) => Plan::parse(text)
                .with_context(|| format!("{} cannot be resumed", plan_path.display()))?,
            None => Plan {
                format: PLAN_FORMAT,
                seed: config.run.seed,
                limits: Limits::default(),
                phases: phases(&config, 0),
            },
        };
        let dir = config.run.dir.clone();
        let title = "cluster up".to_owned();
        let resume = format!("crrl cluster up -f {}", run.config_path().display());
        Run { title, dir, config, plan, resume }.prepare(held.is_some())?;
    }
    match host::up(&run).map_err(host_error)? {
        Up::Already { pid } => eprintln!("already up (host pid {pid})"),
        Up::Started { pid } => eprintln!("started (host pid {pid})"),
    }
    if wait.is_zero() { Ok(ExitCode::SUCCESS) } else { until_ready(&run, wait) }
}

fn until_ready(run: &RunDir, wait: Duration) -> anyhow::Result<ExitCode> {
    let deadline = Instant::now() + wait;
    let mut said: Vec<(String, String)> = Vec::new();
    loop {
        let lines = lines(run)?;
        for line in &lines {
            let now = (line.name.clone(), line.state.clone());
            if !said.contains(&now) {
                said.retain(|(name, _)| *name != line.name);
                eprintln!("{:<16} {}", line.name, line.state);
                said.push(now);
            }
            if line.state == "given-up" {
                anyhow::bail!(
                    "{} failed too often: {}\n  its log: {}",
                    line.name,
                    line.last_exit.as_deref().unwrap_or("no reason known"),
                    run.log(&line.name).display()
                );
            }
        }
        if lines.iter().all(|line| line.state == "ready") {
            return Ok(ExitCode::SUCCESS);
        }
        if host::host_pid(run)?.is_none() {
            eprintln!("every node has ended; crrl cluster status --run {}", run.path().display());
            return Ok(ExitCode::from(UNHEALTHY));
        }
        if Instant::now() > deadline {
            anyhow::bail!(
                "not every node was ready after {} s; they go on starting: crrl cluster status \
                 --run {}",
                wait.as_secs(),
                run.path().display()
            );
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

/// What `status` says of one node.
#[derive(Debug, Serialize)]
struct Line {
    name: String,
    role: String,
    pid: Option<u32>,
    state: String,
    adapter_version: u64,
    adapter_digest: Option<String>,
    incarnation: Option<u64>,
    restarts: u32,
    tokens_per_s: f32,
    episodes: u32,
    rss_bytes: u64,
    activity: String,
    last_exit: Option<String>,
    /// Whether the host of this machine did not start it.
    guest: bool,
}

fn status(run: &RunDir, json: bool) -> anyhow::Result<ExitCode> {
    let host = host::host_pid(run)?;
    let snapshot = host.and_then(|_| snapshot(run));
    let lines = merge(&host::state(run).unwrap_or_default(), snapshot.as_ref(), host.is_some());
    // Guests come and go as they please.
    let mut own = lines.iter().filter(|line| !line.guest);
    let ready = own.clone().next().is_some() && own.all(|line| line.state == "ready");
    let mut out = std::io::stdout().lock();
    if json {
        let progress = snapshot.as_ref().map(|snapshot| &snapshot.progress);
        let value = serde_json::json!({
            "run": run.path(),
            "host_pid": host,
            "ready": ready,
            "nodes": lines,
            "progress": progress,
        });
        writeln!(out, "{value}")?;
    } else {
        print_lines(&mut out, &lines, snapshot.as_ref())?;
    }
    if host.is_none() {
        eprintln!("no host is running for {}", run.path().display());
        return Ok(ExitCode::from(UNREACHABLE));
    }
    Ok(ExitCode::from(if ready { 0 } else { UNHEALTHY }))
}

fn print_lines(
    out: &mut impl std::io::Write,
    lines: &[Line],
    snapshot: Option<&Snapshot>,
) -> std::io::Result<()> {
    writeln!(
        out,
        "{:<16} {:<28} {:>8} {:<10} {:>7} {:>8} {:>9}  doing",
        "node", "role", "pid", "state", "adapter", "restarts", "tokens/s"
    )?;
    for line in lines {
        let pid = line.pid.map_or_else(|| "-".to_owned(), |pid| pid.to_string());
        let doing = match &line.last_exit {
            Some(exit) if line.pid.is_none() => exit,
            _ => &line.activity,
        };
        writeln!(
            out,
            "{:<16} {:<28} {pid:>8} {:<10} {:>7} {:>8} {:>9.0}  {doing}",
            line.name,
            line.role,
            line.state,
            line.adapter_version,
            line.restarts,
            line.tokens_per_s
        )?;
    }
    if let Some(Snapshot { progress, .. }) = snapshot.filter(|s| !s.progress.phase.is_empty()) {
        let counts = &progress.episodes;
        writeln!(
            out,
            "{}: step {} of {}, adapter {}; episodes: {} finished, {} in flight, {} failed",
            progress.phase,
            progress.step,
            progress.steps,
            progress.adapter_version,
            counts.finished,
            counts.in_flight,
            counts.failed
        )?;
    }
    Ok(())
}

fn lines(run: &RunDir) -> anyhow::Result<Vec<Line>> {
    let running = host::host_pid(run)?.is_some();
    let state = host::state(run)?;
    Ok(merge(&state, snapshot(run).as_ref(), running))
}

/// What the coordinator shows; none if it does not answer.
fn snapshot(run: &RunDir) -> Option<Snapshot> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().ok()?;
    runtime.block_on(async {
        let client = OperatorClient::connect(run).await.ok()?;
        let snapshot = client.status().await.ok();
        client.close().await;
        snapshot
    })
}

/// What the host knows of processes, and what nodes say of themselves. A report of another process
/// than the one that runs is of an earlier life.
fn merge(state: &HostState, snapshot: Option<&Snapshot>, host_runs: bool) -> Vec<Line> {
    let own = |name: &str| state.nodes.iter().any(|node| node.name == name);
    let reports = snapshot.map_or(&[][..], |snapshot| &snapshot.nodes);
    let guests = reports.iter().filter(|report| !own(report.node.as_str())).map(guest_line);
    let lines: Vec<Line> = state
        .nodes
        .iter()
        .map(|node| {
            let pid = node.pid.filter(|_| host_runs);
            let report = snapshot
                .and_then(|s| s.nodes.iter().find(|report| report.node.as_str() == node.name))
                .filter(|report| Some(report.pid) == pid);
            Line {
                name: node.name.clone(),
                role: node.roles.join(","),
                pid,
                state: state_of(node, pid, report),
                adapter_version: report.map_or(0, |r| r.adapter_version.0),
                adapter_digest: report.map(|r| r.adapter_digest.to_string()),
                incarnation: report.map(|r| r.incarnation),
                restarts: node.restarts,
                tokens_per_s: report.map_or(0.0, |r| r.tokens_per_s),
                episodes: report.map_or(0, |r| r.episodes),
                rss_bytes: report.map_or(0, |r| r.rss_bytes),
                activity: report.map_or_else(String::new, |r| r.activity.clone()),
                last_exit: node.last_exit.clone(),
                guest: false,
            }
        })
        .collect();
    lines.into_iter().chain(guests).collect()
}

/// A node that the host of this machine did not start, by its own word.
fn guest_line(report: &NodeReport) -> Line {
    let roles = report.roles.iter().map(|role| crrl_cluster::mesh::role_text(*role));
    Line {
        name: report.node.to_string(),
        role: roles.collect::<Vec<_>>().join(","),
        pid: Some(report.pid),
        state: state_word(report.state).to_owned(),
        adapter_version: report.adapter_version.0,
        adapter_digest: Some(report.adapter_digest.to_string()),
        incarnation: Some(report.incarnation),
        restarts: 0,
        tokens_per_s: report.tokens_per_s,
        episodes: report.episodes,
        rss_bytes: report.rss_bytes,
        activity: report.activity.clone(),
        last_exit: None,
        guest: true,
    }
}

fn state_word(state: NodeState) -> &'static str {
    match state {
        NodeState::Starting => "starting",
        NodeState::Ready => "ready",
        NodeState::Draining => "draining",
        NodeState::Stopped => "stopped",
    }
}

fn state_of(node: &NodeProcess, pid: Option<u32>, report: Option<&NodeReport>) -> String {
    match (pid, report) {
        _ if node.given_up => "given-up",
        (None, _) if node.last_exit.as_deref() == Some("exit code 0") => "stopped",
        (None, _) if node.last_exit.is_some() => "failed",
        (None, _) => "stopped",
        (Some(_), None) => "starting",
        (Some(_), Some(report)) => state_word(report.state),
    }
    .to_owned()
}

fn logs(run: &RunDir, wanted: &[String], follow: bool) -> anyhow::Result<ExitCode> {
    let state = host::state(run).with_context(|| {
        format!("{} has no logs: it was never brought up", run.path().display())
    })?;
    let mut known: Vec<String> = state.nodes.into_iter().map(|node| node.name).collect();
    known.push("host".into());
    if let Some(wrong) = wanted.iter().find(|name| !known.contains(name)) {
        let hint = if wrong.ends_with(".toml") {
            "; a configuration file is given with --file here, -f follows"
        } else {
            ""
        };
        return Err(Coded::usage(format!(
            "no node {wrong:?}; there are {}{hint}",
            known.join(", ")
        )));
    }
    let shown = known.into_iter().filter(|name| wanted.is_empty() || wanted.contains(name));
    let mut tails: Vec<Tail> = shown.map(|name| Tail::new(run.log(&name), name)).collect();
    let label = tails.len() > 1;
    loop {
        let mut out = std::io::stdout().lock();
        for tail in &mut tails {
            tail.print(&mut out, label)?;
        }
        out.flush()?;
        if !follow {
            return Ok(ExitCode::SUCCESS);
        }
        drop(out);
        std::thread::sleep(LOOK_EVERY);
    }
}

/// A log that is read as it grows.
struct Tail {
    path: PathBuf,
    name: String,
    offset: Option<u64>,
    partial: Vec<u8>,
}

impl Tail {
    fn new(path: PathBuf, name: String) -> Self {
        Self { path, name, offset: None, partial: Vec::new() }
    }

    fn print(&mut self, out: &mut impl std::io::Write, label: bool) -> anyhow::Result<()> {
        let bytes = self.read().with_context(|| format!("cannot read {}", self.path.display()))?;
        self.partial.extend_from_slice(&bytes);
        let Some(end) = self.partial.iter().rposition(|byte| *byte == b'\n') else {
            return Ok(());
        };
        let rest = self.partial.split_off(end + 1);
        for line in String::from_utf8_lossy(&self.partial).lines() {
            if label {
                writeln!(out, "{:<16} {line}", self.name)?;
            } else {
                writeln!(out, "{line}")?;
            }
        }
        self.partial = rest;
        Ok(())
    }

    /// What came since the last look, at most 1 MiB; a file that got shorter begins anew.
    fn read(&mut self) -> std::io::Result<Vec<u8>> {
        let mut file = match std::fs::File::open(&self.path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other?,
        };
        let len = file.metadata()?.len();
        let first = self.offset.is_none();
        let start = match self.offset {
            None => len.saturating_sub(LOG_BYTES),
            Some(offset) if offset > len => 0,
            Some(offset) => offset,
        };
        file.seek(SeekFrom::Start(start))?;
        let mut bytes = Vec::new();
        file.take(1 << 20).read_to_end(&mut bytes)?;
        self.offset = Some(start + bytes.len() as u64);
        if first && start > 0 {
            // Begin with a whole line.
            let begin = bytes.iter().position(|byte| *byte == b'\n').map_or(0, |at| at + 1);
            bytes.drain(..begin);
        }
        Ok(bytes)
    }
}

fn invite(run: &RunDir, guest: &Guest, out: Option<PathBuf>) -> anyhow::Result<ExitCode> {
    let out = out.unwrap_or_else(|| PathBuf::from(format!("{}.join", guest.name)));
    // Before a certificate is issued, which ends the validity of none but may be in the way.
    if out.exists() {
        return Err(Coded::usage(format!("{} is there already", out.display())));
    }
    let invitation = Invitation::issue(run, guest).map_err(|e| Coded::usage(e.to_string()))?;
    invitation.save(&out).map_err(|error| Coded::usage(error.to_string()))?;
    let places: Vec<String> =
        invitation.addresses.iter().map(|(node, at)| format!("{node} at {at} (UDP)")).collect();
    eprintln!(
        "{} written; it holds a private key. It dials {}. On the other machine:\n  crrl node --join \
         {} --model PATH/TO/THE/SAME/MODEL",
        out.display(),
        places.join(", "),
        out.display()
    );
    if invitation.addresses.values().any(|at| at.ip().is_loopback()) {
        eprintln!(
            "these are loopback addresses: it can be taken on this machine only. For others, set \
             cluster.listen to an address they reach"
        );
    }
    Ok(ExitCode::SUCCESS)
}

fn down(run: &RunDir) -> anyhow::Result<ExitCode> {
    let what = match host::down(run).map_err(host_error)? {
        Down::NotRunning => "nothing is running",
        Down::Asked => "every node has left",
        Down::Terminated => "every node was terminated",
        Down::Killed => "the host hung and was killed, and its nodes with it",
    };
    eprintln!("{what}");
    Ok(ExitCode::SUCCESS)
}

fn running(run: &RunDir) -> anyhow::Result<Option<HostState>> {
    match host::host_pid(run)? {
        None => Ok(None),
        // A host that has only just begun has not written anything down yet.
        Some(_) => Ok(Some(host::state(run).unwrap_or_default())),
    }
}

fn is_same(run: &RunDir, config: &ClusterConfig) -> bool {
    let mut wanted = config.clone();
    make_absolute(&mut wanted, run.path());
    run.config().is_ok_and(|mut held| {
        make_absolute(&mut held, run.path());
        held == wanted
    })
}

/// Two configurations are compared with their paths spelled out.
fn make_absolute(config: &mut ClusterConfig, run: &Path) {
    config.run.dir = run.to_owned();
    config.model.path = absolute(&config.model.path);
    config.model.adapter = config.model.adapter.as_deref().map(absolute);
}

fn pid_of(state: &HostState, name: &str) -> Option<u32> {
    state.nodes.iter().find(|node| node.name == name).and_then(|node| node.pid)
}

fn role_names(roles: &[Role]) -> String {
    let name = |role: &Role| match role {
        Role::Coordinator => "coordinator",
        Role::ParameterServer => "parameter-server",
        Role::Learner => "learner",
        Role::Rollout => "rollout",
    };
    roles.iter().map(name).collect::<Vec<_>>().join(",")
}
