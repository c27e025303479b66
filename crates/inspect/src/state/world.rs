//! The cluster as it is seen, with what only time tells: rates, ages, since when.

use std::collections::{HashMap, HashSet};

use crrl_cluster::Progress;
use crrl_control::wire::NodeReport;

use super::actors::{ActorId, ActorRow};
use super::episodes::LiveRow;
use super::history::History;
use super::nodes::{NodeRow, STALE_MS};
use super::window::Window;
use crate::frame::Frame;

/// A fault in a node.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct FaultRow {
    /// Where.
    pub node: String,
    /// Number it was injected under.
    pub id: u64,
    /// What it is.
    pub what: String,
    /// How often it did something.
    pub fired: u64,
    /// Whether it goes on.
    pub active: bool,
    /// How long ago it was first seen here.
    pub seen_ms: u64,
}

/// What is remembered of a node from report to report.
#[derive(Debug, Clone, Default)]
struct Track {
    report: Option<NodeReport>,
    changed_ms: u64,
    activity_ms: u64,
    windows: HashMap<String, Window>,
    faults: HashMap<u64, u64>,
}

/// The cluster as seen from here. Bounded by what one frame holds.
#[derive(Debug, Clone, Default)]
pub struct World {
    now_ms: u64,
    frame: Option<Frame>,
    phase_ms: u64,
    tracks: HashMap<String, Track>,
    nodes: Vec<NodeRow>,
    actors: Vec<ActorRow>,
    live: Vec<LiveRow>,
    faults: Vec<FaultRow>,
    /// The last events of the run.
    pub history: History,
}

impl World {
    /// Nothing seen yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes in what is seen now. Frames come in order.
    pub fn fold(&mut self, frame: Frame) {
        let at_ms = frame.at_ms;
        let is_new_phase = self.frame.as_ref().is_none_or(|held| {
            phase_name(&held.snapshot.progress) != phase_name(&frame.snapshot.progress)
        });
        if is_new_phase {
            self.phase_ms = at_ms;
        }
        let names: HashSet<&str> = frame.snapshot.nodes.iter().map(|n| n.node.as_str()).collect();
        self.tracks.retain(|name, _| names.contains(name.as_str()));
        for report in &frame.snapshot.nodes {
            self.tracks.entry(report.node.to_string()).or_default().take(report, at_ms);
        }
        self.frame = Some(frame);
        self.now_ms = self.now_ms.max(at_ms);
        self.rebuild();
    }

    /// Time goes on, whether anything comes or not. Only ages change, and what is old by them.
    pub fn tick(&mut self, now_ms: u64) {
        self.now_ms = self.now_ms.max(now_ms);
        let now = self.now_ms;
        let Some(frame) = &self.frame else { return };
        let mut turned: HashMap<&str, bool> = HashMap::new();
        for node in &mut self.nodes {
            let Some(track) = self.tracks.get(&node.name) else { continue };
            let was = node.is_stale() || node.is_down();
            node.age_ms = track.age_ms(now, frame.at_ms);
            node.activity_ms = now.saturating_sub(track.activity_ms);
            let is = node.is_stale() || node.is_down();
            if is != was {
                turned.insert(&node.name, is);
            }
        }
        if !turned.is_empty() {
            for actor in &mut self.actors {
                if let Some(stale) = turned.get(actor.node.as_str()) {
                    actor.judge(*stale);
                }
            }
            for episode in &mut self.live {
                if let Some(stale) = turned.get(episode.node.as_str()) {
                    episode.stale = *stale;
                }
            }
        }
        for fault in &mut self.faults {
            let seen = self.tracks.get(&fault.node).and_then(|track| track.faults.get(&fault.id));
            fault.seen_ms = now.saturating_sub(seen.copied().unwrap_or(now));
        }
    }

    /// Makes all rows anew.
    fn rebuild(&mut self) {
        let now = self.now_ms;
        let Some(frame) = &self.frame else { return };
        let reports = &frame.snapshot.nodes;
        let process = |name: &str| frame.processes.iter().find(|p| p.name == name);
        self.nodes.clear();
        self.actors.clear();
        self.live.clear();
        self.faults.clear();
        for report in reports {
            let Some(track) = self.tracks.get(report.node.as_str()) else { continue };
            let mut node = NodeRow::of(Some(report), process(report.node.as_str()));
            node.age_ms = track.age_ms(now, frame.at_ms);
            node.activity_ms = now.saturating_sub(track.activity_ms);
            let stale = node.is_stale() || node.is_down();
            let empty = Window::default();
            self.actors.extend(report.actors.iter().map(|actor| {
                let window = track.windows.get(&actor.name).unwrap_or(&empty);
                ActorRow::of(&node.name, actor, window, stale)
            }));
            let newest = frame.snapshot.progress.adapter_version;
            let rows = report.live.iter().map(|seen| LiveRow::of(&node.name, seen, newest, stale));
            self.live.extend(rows);
            self.faults.extend(report.faults.iter().map(|fault| FaultRow {
                node: node.name.clone(),
                id: fault.id,
                what: fault.fault.to_string(),
                fired: fault.fired,
                active: fault.active,
                seen_ms: now.saturating_sub(track.faults.get(&fault.id).copied().unwrap_or(now)),
            }));
            self.nodes.push(node);
        }
        let silent = frame.processes.iter().filter(|process| {
            !process.retired && !reports.iter().any(|r| r.node.as_str() == process.name)
        });
        self.nodes.extend(silent.map(|process| NodeRow::of(None, Some(process))));
        self.nodes.sort_by(|a, b| a.name.cmp(&b.name));
        self.faults.sort_by(|a, b| (!a.active, &a.node, a.id).cmp(&(!b.active, &b.node, b.id)));
    }

    /// Now, milliseconds since the Unix epoch.
    #[must_use]
    pub fn now_ms(&self) -> u64 {
        self.now_ms
    }

    /// The last frame.
    #[must_use]
    pub fn frame(&self) -> Option<&Frame> {
        self.frame.as_ref()
    }

    /// How long ago the last frame came.
    #[must_use]
    pub fn frame_age_ms(&self) -> Option<u64> {
        self.frame.as_ref().map(|frame| self.now_ms.saturating_sub(frame.at_ms))
    }

    /// How far the run is.
    #[must_use]
    pub fn progress(&self) -> Option<&Progress> {
        self.frame.as_ref().map(|frame| &frame.snapshot.progress)
    }

    /// How long the run has been in its phase, as far as it was watched.
    #[must_use]
    pub fn phase_ms(&self) -> u64 {
        self.now_ms.saturating_sub(self.phase_ms)
    }

    /// Nodes by name.
    #[must_use]
    pub fn nodes(&self) -> &[NodeRow] {
        &self.nodes
    }

    /// Actors by node, in the order they were started.
    #[must_use]
    pub fn actors(&self) -> &[ActorRow] {
        &self.actors
    }

    /// An actor, if it is still told of.
    #[must_use]
    pub fn actor(&self, id: &ActorId) -> Option<&ActorRow> {
        self.actors.iter().find(|actor| actor.node == id.node && actor.name == id.name)
    }

    /// Messages a second of an actor over the last minute, oldest first.
    #[must_use]
    pub fn rates(&self, id: &ActorId) -> Vec<f64> {
        let window = self.tracks.get(&id.node).and_then(|track| track.windows.get(&id.name));
        window.map(Window::rates).unwrap_or_default()
    }

    /// Episodes under way.
    #[must_use]
    pub fn live(&self) -> &[LiveRow] {
        &self.live
    }

    /// Faults, those that go on first.
    #[must_use]
    pub fn faults(&self) -> &[FaultRow] {
        &self.faults
    }
}

impl Track {
    /// How old the last report is. A node that tells of no actors may say the same twice, so its age
    /// cannot be told before the board it is on is old.
    fn age_ms(&self, now: u64, frame_ms: u64) -> Option<u64> {
        let is_told = self.report.as_ref().is_some_and(|report| !report.actors.is_empty());
        let of_frame = now.saturating_sub(frame_ms);
        match is_told {
            true => Some(now.saturating_sub(self.changed_ms)),
            false => (of_frame > STALE_MS).then_some(of_frame),
        }
    }

    fn take(&mut self, report: &NodeReport, at_ms: u64) {
        let held = self.report.as_ref();
        if held == Some(report) {
            return;
        }
        if held.is_none_or(|held| held.activity != report.activity) {
            self.activity_ms = at_ms;
        }
        // A node that was lost says nothing; the board does, and that makes no report young.
        let is_said = report.state != crrl_control::wire::NodeState::Stopped;
        if is_said || held.is_none() {
            self.changed_ms = at_ms;
        }
        if held.is_some_and(|held| held.incarnation != report.incarnation) {
            self.windows.clear();
        }
        let names: HashSet<&str> = report.actors.iter().map(|a| a.name.as_str()).collect();
        self.windows.retain(|name, _| names.contains(name.as_str()));
        for actor in &report.actors {
            self.windows.entry(actor.name.clone()).or_default().push(actor);
        }
        self.faults.retain(|id, _| report.faults.iter().any(|fault| fault.id == *id));
        for fault in &report.faults {
            self.faults.entry(fault.id).or_insert(at_ms);
        }
        self.report = Some(report.clone());
    }
}

/// The phase without how far it is: `evaluating before (3/300)` is `evaluating before`.
fn phase_name(progress: &Progress) -> String {
    let phase = &progress.phase;
    let Some((name, rest)) = phase.split_once(" (") else { return phase.clone() };
    let after = rest.split_once(')').map_or("", |(_, after)| after);
    format!("{name}{after}")
}
