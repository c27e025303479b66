//! One line for each node.

use std::io::Write as _;
use std::process::ExitCode;

use crrl_cluster::host::{self, HostState, NodeProcess};
use crrl_cluster::remote::about::clock_ms;
use crrl_cluster::remote::{Phase, phase};
use crrl_cluster::{OperatorClient, RunDir, Snapshot};
use crrl_control::wire::{NodeReport, NodeState};
use serde::Serialize;

use super::UNHEALTHY;
use crate::commands::failure::UNREACHABLE;
use crate::meter::{Meter, Quiet};
use crate::run::given_up;

/// What `status` says of one node.
#[derive(Debug, Serialize)]
pub(super) struct Line {
    pub(super) name: String,
    role: String,
    /// The machine it is on, where it was started over ssh.
    pub(super) host: Option<String>,
    /// How far it has come there.
    pub(super) phase: Option<Phase>,
    pub(super) pid: Option<u32>,
    pub(super) state: String,
    adapter_version: u64,
    adapter_digest: Option<String>,
    pub(super) incarnation: Option<u64>,
    pub(super) restarts: u32,
    tokens_per_s: f32,
    pub(super) episodes: u32,
    rss_bytes: u64,
    activity: String,
    pub(super) last_exit: Option<String>,
    /// Whether the host of this machine did not start it.
    pub(super) guest: bool,
}

/// A cluster as it is at one moment.
#[derive(Default)]
pub(super) struct Seen {
    /// The host, if one is running.
    pub(super) host_pid: Option<u32>,
    /// Whether every node that the host starts is ready. Guests come and go as they please.
    pub(super) ready: bool,
    /// Every node.
    pub(super) lines: Vec<Line>,
    snapshot: Option<Snapshot>,
}

impl Seen {
    /// As the coordinator shows it, which is waited for a few seconds.
    pub(super) fn now(run: &RunDir) -> anyhow::Result<Self> {
        let host_pid = host::host_pid(run)?;
        Ok(Self::of(run, host_pid, host_pid.and_then(|_| snapshot(run))))
    }

    /// As far as this machine's host knows it, which takes no time.
    pub(super) fn unasked(run: &RunDir) -> anyhow::Result<Self> {
        Ok(Self::of(run, host::host_pid(run)?, None))
    }

    fn of(run: &RunDir, host_pid: Option<u32>, snapshot: Option<Snapshot>) -> Self {
        let state = host::state(run).unwrap_or_default();
        let mut lines = merge(&state, snapshot.as_ref(), host_pid.is_some());
        add_phases(run, &mut lines);
        let mut own = lines.iter().filter(|line| !line.guest);
        let ready = own.clone().next().is_some() && own.all(|line| line.state == "ready");
        Self { host_pid, ready, lines, snapshot }
    }

    /// What `status --json` prints, and `up` and `scale` among other things.
    pub(super) fn json(&self, run: &RunDir) -> serde_json::Value {
        serde_json::json!({
            "run": run.path(),
            "host_pid": self.host_pid,
            "ready": self.ready,
            "nodes": self.lines,
            "progress": self.snapshot.as_ref().map(|snapshot| &snapshot.progress),
        })
    }
}

pub(super) fn run(run: &RunDir, quiet: Quiet, json: bool) -> anyhow::Result<ExitCode> {
    let asking = Meter::start(quiet, "asking the coordinator", "", 0);
    let seen = Seen::now(run);
    drop(asking);
    let seen = seen?;
    let mut out = std::io::stdout().lock();
    if json {
        writeln!(out, "{}", seen.json(run))?;
    } else {
        print_lines(&mut out, &seen.lines, seen.snapshot.as_ref())?;
    }
    if seen.host_pid.is_none() {
        eprintln!("no host is running for {}", run.path().display());
        return Ok(ExitCode::from(UNREACHABLE));
    }
    Ok(ExitCode::from(if seen.ready { 0 } else { UNHEALTHY }))
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
            Some(exit) if line.pid.is_none() => exit.clone(),
            _ => line.phase().unwrap_or_else(|| line.activity.clone()),
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

/// Every node, as it is now.
pub(super) fn lines(run: &RunDir) -> anyhow::Result<Vec<Line>> {
    let running = host::host_pid(run)?.is_some();
    let state = host::state(run)?;
    let mut lines = merge(&state, snapshot(run).as_ref(), running);
    add_phases(run, &mut lines);
    Ok(lines)
}

/// How far nodes on other machines have come.
fn add_phases(run: &RunDir, lines: &mut [Line]) {
    for line in lines.iter_mut().filter(|line| line.host.is_some()) {
        line.phase = phase(run, &line.name);
    }
}

/// The state of a node that is not started again.
const GIVEN_UP: &str = "given-up";
/// The state of a node that has ended with an error, and is started again before long.
const FAILED: &str = "failed";

impl Line {
    pub(super) fn is_ready(&self) -> bool {
        self.state == "ready"
    }

    /// Whether it is not started again.
    pub(super) fn is_given_up(&self) -> bool {
        self.state == GIVEN_UP
    }

    /// Where it is on its way: its state, for one on another machine how far it has come there and what
    /// went wrong last, and for one of this machine that has failed how.
    pub(super) fn standing(&self) -> String {
        let state = if self.is_given_up() { given_up(self.restarts) } else { self.state.clone() };
        if let Some(phase) = self.phase.as_ref().filter(|_| !self.is_ready()) {
            let Phase { host, what, last_error, .. } = phase;
            let error = last_error.as_ref().map(|error| format!("; {error}")).unwrap_or_default();
            return format!("{state} on {host}: {what}{error}");
        }
        match &self.last_exit {
            Some(exit) if self.is_given_up() || self.state == FAILED => format!("{state}: {exit}"),
            _ => state,
        }
    }

    /// What keeps a node on another machine from being ready: where it is on its way, for how long,
    /// and what went wrong last.
    fn phase(&self) -> Option<String> {
        let phase = self.phase.as_ref().filter(|_| self.state != "ready")?;
        let seconds = clock_ms().saturating_sub(phase.since_ms) / 1000;
        let error = phase.last_error.as_ref().map(|error| format!("; last: {error}"));
        let Phase { host, what, .. } = phase;
        Some(format!("{host}: {what} for {seconds} s{}", error.unwrap_or_default()))
    }
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
        .filter(|node| !node.retired || node.pid.is_some())
        .map(|node| {
            let pid = node.pid.filter(|_| host_runs);
            let report = snapshot
                .and_then(|s| s.nodes.iter().find(|report| report.node.as_str() == node.name))
                // The process of a node elsewhere has a number of its own there.
                .filter(|report| pid.is_some() && (node.host.is_some() || Some(report.pid) == pid));
            Line {
                name: node.name.clone(),
                role: node.roles.join(","),
                host: node.host.clone(),
                phase: None,
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
        host: None,
        phase: None,
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
        NodeState::Suspended => "suspended",
    }
}

fn state_of(node: &NodeProcess, pid: Option<u32>, report: Option<&NodeReport>) -> String {
    match (pid, report) {
        _ if node.given_up => GIVEN_UP,
        (None, _) if node.last_exit.as_deref() == Some("exit code 0") => "stopped",
        (None, _) if node.last_exit.is_some() => FAILED,
        (None, _) => "stopped",
        (Some(_), None) => "starting",
        (Some(_), Some(report)) => state_word(report.state),
    }
    .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_of_this_machine_that_failed_is_shown_with_how() {
        let node = |given_up: bool, last_exit: Option<&str>| {
            let value = serde_json::json!({
                "name": "learner", "roles": ["learner"], "pid": null, "restarts": 2,
                "given_up": given_up, "last_exit": last_exit,
            });
            let node: NodeProcess = serde_json::from_value(value).expect("a node");
            let state = HostState { nodes: vec![node], ..HostState::default() };
            merge(&state, None, true)[0].standing()
        };
        let exit = "exit code 1: no space left";
        assert_eq!(node(false, Some(exit)), format!("failed: {exit}"));
        assert_eq!(node(true, Some(exit)), format!("was given up after 2 restarts: {exit}"));
        assert_eq!(node(false, Some("exit code 0")), "stopped");
        assert_eq!(node(false, None), "stopped");
    }
}
