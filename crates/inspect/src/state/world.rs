//! The cluster as it is seen, with what only time tells: rates, ages, since when.

use std::collections::{HashMap, HashSet};
use std::ops::Range;

use crrl_cluster::host::NodeProcess;
use crrl_cluster::{NodeSeen, Progress};
use crrl_control::wire::NodeReport;

use super::actors::{ActorId, ActorRow};
use super::episodes::LiveRow;
use super::history::{EventRow, History};
use super::nodes::{NodeRow, STALE_MS, Standing};
use super::window::Window;
use crate::frame::Frame;

/// The role of the process whose board is seen, as the configuration writes it.
const COORDINATOR: &str = "coordinator";

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
    /// When a report was first seen here that says something else than the one before.
    changed_ms: u64,
    /// When it reported to the coordinator, if that tells.
    reported_ms: Option<u64>,
    /// Since when it has been saying what it is doing; where the coordinator does not tell, since when
    /// that has been seen here.
    activity_ms: u64,
    windows: HashMap<String, Window>,
    faults: HashMap<u64, u64>,
    /// Where its rows are, as of the last rebuild; none if what they are made of has changed since.
    made: Option<Made>,
}

/// Where the rows of a node are among those of all.
#[derive(Debug, Clone)]
struct Made {
    actors: Range<usize>,
    live: Range<usize>,
    /// The newest adapter then: how stale an episode is hangs on it.
    newest: u64,
}

/// The cluster as seen from here. Bounded by what one frame holds.
#[derive(Debug, Clone, Default)]
pub struct World {
    now_ms: u64,
    /// What the viewer's clock said last: it may be set back, and time goes on from there.
    clock_ms: u64,
    frame: Option<Frame>,
    phase_ms: u64,
    tracks: HashMap<String, Track>,
    nodes: Vec<NodeRow>,
    actors: Vec<ActorRow>,
    live: Vec<LiveRow>,
    faults: Vec<FaultRow>,
    /// What became of actors lately, oldest first.
    actor_events: Vec<EventRow>,
    /// Since when processes have said nothing at all, by node: which process, and when that was started or
    /// first seen, or its coordinator was started, whatever came last.
    silent: HashMap<String, (Option<u32>, u64)>,
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
        let progress = &frame.snapshot.progress;
        let held = self.frame.as_ref().map(|held| &held.snapshot.progress);
        if let Some(since) = frame.snapshot.phase_since_ms {
            self.phase_ms = since;
        } else if held.is_none_or(|held| !progress.is_in_phase_of(held)) {
            self.phase_ms = at_ms;
        }
        let names: HashSet<&str> = frame.snapshot.nodes.iter().map(|n| n.node.as_str()).collect();
        self.tracks.retain(|name, _| names.contains(name.as_str()));
        for report in &frame.snapshot.nodes {
            self.tracks.entry(report.node.to_string()).or_default().take(report, at_ms);
        }
        self.tracks.values_mut().for_each(|track| track.reported_ms = None);
        for seen in &frame.snapshot.seen {
            if let Some(track) = self.tracks.get_mut(seen.node.as_str()) {
                track.told(seen);
            }
        }
        self.actor_events = frame.snapshot.actor_events.iter().map(EventRow::of_actor).collect();
        self.miss(&frame);
        self.frame = Some(frame);
        (self.now_ms, self.clock_ms) = (at_ms, at_ms);
        self.rebuild();
    }

    /// Notes since when processes have been there that have said nothing.
    fn miss(&mut self, frame: &Frame) {
        let mut silent = HashMap::new();
        // A coordinator that was started again has heard nobody before they dialled it again.
        let is_coordinator =
            |process: &&NodeProcess| process.roles.iter().any(|r| r == COORDINATOR);
        let coordinators = frame.processes.iter().filter(is_coordinator);
        let listens = coordinators.filter_map(|process| process.started_ms).max().unwrap_or(0);
        // The row of one that was heard may have to wait for its turn.
        let is_told =
            |name: &str| frame.snapshot.seen.iter().any(|seen| seen.node.as_str() == name);
        let unheard = |name: &str| !self.tracks.contains_key(name) && !is_told(name);
        let there = frame.processes.iter().filter(|process| process.pid.is_some());
        for process in there.filter(|process| unheard(&process.name)) {
            let held = self.silent.get(&process.name).filter(|(pid, _)| *pid == process.pid);
            let first_seen = held.map_or(frame.at_ms, |(_, since)| *since);
            let since = process.started_ms.unwrap_or(first_seen).max(listens);
            silent.insert(process.name.clone(), (process.pid, since));
        }
        self.silent = silent;
    }

    /// For how long the process of a node has said nothing at all, to the coordinator that is there now.
    fn silent_ms(&self, node: &str) -> u64 {
        self.silent.get(node).map_or(0, |(_, since)| self.now_ms.saturating_sub(*since))
    }

    /// Time goes on, whether anything comes or not. Only ages change, and what is old by them. A clock that
    /// was set back makes nothing younger.
    pub fn tick(&mut self, now_ms: u64) {
        self.now_ms = self.now_ms.saturating_add(now_ms.saturating_sub(self.clock_ms));
        self.clock_ms = now_ms;
        let now = self.now_ms;
        let Some(frame) = &self.frame else { return };
        let mut turned: HashMap<&str, bool> = HashMap::new();
        for node in &mut self.nodes {
            let Some(track) = self.tracks.get(&node.name) else {
                let since = self.silent.get(&node.name).map_or(now, |(_, since)| *since);
                node.activity_ms = now.saturating_sub(since);
                continue;
            };
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

    /// Makes the rows; those of nodes that said nothing new are taken over.
    fn rebuild(&mut self) {
        let now = self.now_ms;
        let Some(frame) = &self.frame else { return };
        let reports = &frame.snapshot.nodes;
        let process = |name: &str| frame.processes.iter().find(|p| p.name == name);
        let seen: HashMap<&str, &NodeSeen> =
            frame.snapshot.seen.iter().map(|seen| (seen.node.as_str(), seen)).collect();
        self.nodes.clear();
        self.faults.clear();
        let mut old_actors = take_out(&mut self.actors);
        let mut old_live = take_out(&mut self.live);
        let newest = frame.snapshot.progress.adapter_version;
        for report in reports {
            let Some(track) = self.tracks.get_mut(report.node.as_str()) else { continue };
            let name = report.node.as_str();
            let mut node = NodeRow::of(Some(report), process(name), seen.get(name).copied());
            node.age_ms = track.age_ms(now, frame.at_ms);
            node.activity_ms = now.saturating_sub(track.activity_ms);
            if node.state == Standing::Left {
                // Its actors, episodes and faults went with it.
                track.made = None;
                self.nodes.push(node);
                continue;
            }
            let stale = node.is_stale() || node.is_down();
            let (actors_from, live_from) = (self.actors.len(), self.live.len());
            let made = track.made.take().filter(|made| made.newest == newest);
            // Out of bounds only where a recording has a node twice.
            let held = made.and_then(|made| {
                Some((old_actors.get_mut(made.actors)?, old_live.get_mut(made.live)?))
            });
            if let Some((actors, live)) = held {
                self.actors.extend(actors.iter_mut().filter_map(Option::take).map(|mut row| {
                    row.judge(stale);
                    row
                }));
                let rows = live.iter_mut().filter_map(Option::take);
                self.live.extend(rows.map(|row| LiveRow { stale, ..row }));
            } else {
                let empty = Window::default();
                self.actors.extend(report.actors.iter().map(|actor| {
                    let window = track.windows.get(&actor.name).unwrap_or(&empty);
                    ActorRow::of(&node.name, actor, window, stale)
                }));
                let rows = report.live.iter();
                self.live.extend(rows.map(|seen| LiveRow::of(&node.name, seen, newest, stale)));
            }
            let actors = actors_from..self.actors.len();
            track.made = Some(Made { actors, live: live_from..self.live.len(), newest });
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
        let rows: Vec<NodeRow> = silent
            .map(|process| NodeRow {
                activity_ms: self.silent_ms(&process.name),
                ..NodeRow::of(None, Some(process), None)
            })
            .collect();
        self.nodes.extend(rows);
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

    /// How long the run has been in its phase; as far as it was watched, unless [`World::tells_ages`].
    #[must_use]
    pub fn phase_ms(&self) -> u64 {
        self.now_ms.saturating_sub(self.phase_ms)
    }

    /// Whether the coordinator tells since when things are as they are. One of the build before does not:
    /// ages count from when it was first looked at, and are at least as long as they seem.
    #[must_use]
    pub fn tells_ages(&self) -> bool {
        self.frame.as_ref().is_some_and(|frame| frame.snapshot.phase_since_ms.is_some())
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

    /// What has happened, oldest first: the run's history, and what became of actors lately.
    #[must_use]
    pub fn events(&self) -> Vec<&EventRow> {
        let mut rows: Vec<&EventRow> = self.history.rows().chain(&self.actor_events).collect();
        // The history by itself has its order, whatever became of its clock.
        if !self.actor_events.is_empty() {
            rows.sort_by_key(|row| row.at_ms);
        }
        rows
    }

    /// Faults, those that go on first.
    #[must_use]
    pub fn faults(&self) -> &[FaultRow] {
        &self.faults
    }
}

/// The rows there were, to be taken over one by one.
fn take_out<T>(rows: &mut Vec<T>) -> Vec<Option<T>> {
    std::mem::take(rows).into_iter().map(Some).collect()
}

impl Track {
    /// How old the last report is, by when it reached the coordinator: with many actors the report itself
    /// may have to wait for its turn to be shown. Where that is not told, a node that tells of no actors
    /// may say the same twice, so its age cannot be told before the board it is on is old.
    fn age_ms(&self, now: u64, frame_ms: u64) -> Option<u64> {
        if let Some(reported) = self.reported_ms {
            return Some(now.saturating_sub(reported));
        }
        let is_told = self.report.as_ref().is_some_and(|report| !report.actors.is_empty());
        let of_frame = now.saturating_sub(frame_ms);
        match is_told {
            true => Some(now.saturating_sub(self.changed_ms)),
            false => (of_frame > STALE_MS).then_some(of_frame),
        }
    }

    /// What the coordinator tells of the node.
    fn told(&mut self, seen: &NodeSeen) {
        self.reported_ms = Some(seen.reported_at_ms);
        self.activity_ms = seen.activity_since_ms;
    }

    fn take(&mut self, report: &NodeReport, at_ms: u64) {
        let held = self.report.as_ref();
        if held == Some(report) {
            return;
        }
        self.made = None;
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
