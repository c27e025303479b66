//! Nodes, as the overview shows them.

use crrl_cluster::NodeSeen;
use crrl_cluster::host::NodeProcess;
use crrl_control::wire::{NodeReport, NodeRole, NodeState};
use crrl_types::Gpu;
use crrl_types::vitals::NAME_CHARS_MAX;
use serde::Serialize;

use crate::text::plain;

/// A report older than this is old, milliseconds: five were missed.
pub const STALE_MS: u64 = 5_000;
/// A node reports as soon as it has joined, before it loads its model: a process that has said nothing for
/// longer than this hangs, or does not reach the coordinator, milliseconds.
pub const UNHEARD_MS: u64 = 60_000;
/// The same of a node on another machine than its host, where program, model or image may have to be brought
/// first.
pub const UNHEARD_ELSEWHERE_MS: u64 = 600_000;
/// Characters of what a node says of itself.
const ACTIVITY_CHARS_MAX: usize = 200;

/// How a node stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Standing {
    /// Its process runs, and it has not said anything yet.
    Silent,
    /// Loading its model, or joining.
    Starting,
    /// Does its work.
    Ready,
    /// Takes no new work.
    Draining,
    /// Has given its work back and waits for a word.
    Suspended,
    /// Was lost.
    Lost,
    /// Was told to leave, and is not started again by itself.
    Left,
    /// Its process is not running; it is started again.
    Restarting,
    /// It failed too often to be started again.
    GivenUp,
}

impl Standing {
    /// One or two words.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Silent => "silent",
            Self::Starting => "starting",
            Self::Ready => "ready",
            Self::Draining => "draining",
            Self::Suspended => "suspended",
            Self::Lost => "lost",
            Self::Left => "left",
            Self::Restarting => "restarting",
            Self::GivenUp => "given up",
        }
    }
}

/// A node.
#[derive(Debug, Clone, PartialEq, Serialize, schemars::JsonSchema)]
pub struct NodeRow {
    /// Its name.
    pub name: String,
    /// Its roles, joined by `+`.
    pub roles: String,
    /// How it stands.
    pub state: Standing,
    /// Adapter it serves, published or trains; `None` before its first report.
    pub adapter: Option<u64>,
    /// Tokens sampled or trained on per second.
    pub tokens_per_s: Option<f64>,
    /// CPU time of its process over the last second, percent of one core; `None` where it has not told.
    pub cpu_percent: Option<f64>,
    /// Resident memory of its process.
    pub rss_bytes: Option<u64>,
    /// GPUs its tensors may live on, as their driver has them; empty where there are none, or where the
    /// node cannot tell.
    pub gpus: Vec<Gpu>,
    /// Packets to the coordinator and back, over the last two minutes: half took no longer than this,
    /// milliseconds. `None` in the coordinator itself, and where the node has not told.
    pub rtt_p50_ms: Option<f64>,
    /// As `rtt_p50_ms`, of 99 of 100.
    pub rtt_p99_ms: Option<f64>,
    /// How far its clock is ahead of the coordinator's, milliseconds, less than 0 where it is behind;
    /// right to half a round trip. `None` where that cannot be told.
    pub clock_skew_ms: Option<f64>,
    /// Version of the build it runs; `None` where it has not told.
    pub build: Option<String>,
    /// Episodes in flight; `None` before its first report, and once it has left.
    pub episodes: Option<u32>,
    /// Actors it told of; none once it has left.
    pub actors: usize,
    /// How often its process was started again; `None` where its host is elsewhere.
    pub restarts: Option<u32>,
    /// Age of its last report; `None` where that cannot be told.
    pub age_ms: Option<u64>,
    /// What it is doing, in its own words; empty once it has left.
    pub activity: String,
    /// For how long it has been saying just that, milliseconds; where it has not said anything yet, for how
    /// long its process and the coordinator's have both been there.
    pub activity_ms: u64,
    /// Its process.
    pub pid: Option<u32>,
    /// How its process ended last.
    pub last_exit: Option<String>,
    /// Whether it is on another machine than its host.
    #[serde(skip)]
    pub is_elsewhere: bool,
}

impl NodeRow {
    /// Whether its process and the coordinator's have been there for so long that it should have said
    /// something.
    #[must_use]
    pub fn is_unheard(&self) -> bool {
        let bound = if self.is_elsewhere { UNHEARD_ELSEWHERE_MS } else { UNHEARD_MS };
        self.state == Standing::Silent && self.activity_ms > bound
    }

    /// Whether what is known of it is old. One that was told to leave has nothing more to say.
    #[must_use]
    pub fn is_stale(&self) -> bool {
        self.state != Standing::Left && self.age_ms.is_some_and(|age| age > STALE_MS)
    }

    /// Whether it is not at work and ought to be.
    #[must_use]
    pub fn is_down(&self) -> bool {
        matches!(self.state, Standing::Lost | Standing::Restarting | Standing::GivenUp)
    }

    pub(super) fn of(
        report: Option<&NodeReport>,
        process: Option<&NodeProcess>,
        seen: Option<&NodeSeen>,
    ) -> Self {
        let vitals = seen.and_then(|seen| seen.vitals.as_ref());
        let round_trip = vitals.and_then(|vitals| vitals.round_trip);
        let gpu = |gpu: &Gpu| Gpu { name: plain(&gpu.name, NAME_CHARS_MAX), ..gpu.clone() };
        let name = report.map_or_else(
            || process.map_or_else(String::new, |process| process.name.clone()),
            |report| report.node.to_string(),
        );
        let roles = match (report, process) {
            (Some(report), _) => report.roles.iter().map(role_word).collect::<Vec<_>>().join("+"),
            (None, Some(process)) => process.roles.join("+"),
            (None, None) => String::new(),
        };
        let state = standing(report, process);
        // Of one that has left, what it said last is no longer so.
        let at_work = report.filter(|_| state != Standing::Left);
        Self {
            name: plain(&name, 64),
            roles: plain(&roles, 64),
            state,
            adapter: report.map(|r| r.adapter_version.0),
            tokens_per_s: report.map(|r| f64::from(r.tokens_per_s)),
            cpu_percent: vitals.and_then(|vitals| vitals.cpu_percent),
            rss_bytes: report.map(|r| r.rss_bytes),
            gpus: vitals.map(|v| v.gpus.iter().map(gpu).collect()).unwrap_or_default(),
            rtt_p50_ms: round_trip.map(|trip| trip.p50_us as f64 / 1e3),
            rtt_p99_ms: round_trip.map(|trip| trip.p99_us as f64 / 1e3),
            clock_skew_ms: seen.and_then(|seen| seen.clock_ahead_us).map(|us| us as f64 / 1e3),
            build: vitals.map(|vitals| plain(&vitals.build, NAME_CHARS_MAX)),
            episodes: at_work.map(|r| r.episodes),
            actors: at_work.map_or(0, |r| r.actors.len()),
            restarts: process.map(|p| p.restarts),
            age_ms: None,
            activity: at_work.map_or_else(String::new, |r| plain(&r.activity, ACTIVITY_CHARS_MAX)),
            activity_ms: 0,
            pid: report.map(|r| r.pid).or_else(|| process.and_then(|p| p.pid)),
            last_exit: process
                .and_then(|p| p.last_exit.as_deref())
                .map(|text| plain(text, ACTIVITY_CHARS_MAX)),
            is_elsewhere: process.is_some_and(|p| p.host.is_some()),
        }
    }
}

/// How the host puts the end of a node that was told to leave.
const IN_GOOD_ORDER: &str = "exit code 0";

fn standing(report: Option<&NodeReport>, process: Option<&NodeProcess>) -> Standing {
    if process.is_some_and(|process| process.given_up) {
        return Standing::GivenUp;
    }
    let is_away = process.is_some_and(|p| p.pid.is_none());
    let has_left =
        process.is_some_and(|p| p.retired || p.last_exit.as_deref() == Some(IN_GOOD_ORDER));
    match report.map(|report| report.state) {
        None | Some(NodeState::Stopped) if is_away && has_left => Standing::Left,
        None | Some(NodeState::Stopped) if is_away => Standing::Restarting,
        None => Standing::Silent,
        Some(NodeState::Starting) => Standing::Starting,
        Some(NodeState::Ready) => Standing::Ready,
        Some(NodeState::Draining) => Standing::Draining,
        Some(NodeState::Suspended) => Standing::Suspended,
        Some(NodeState::Stopped) => Standing::Lost,
    }
}

fn role_word(role: &NodeRole) -> &'static str {
    match role {
        NodeRole::Coordinator => "coordinator",
        NodeRole::ParameterServer => "params",
        NodeRole::Learner => "learner",
        NodeRole::Rollout => "rollout",
        NodeRole::Operator => "operator",
        NodeRole::Chaos => "chaos",
        NodeRole::Viewer => "viewer",
    }
}
