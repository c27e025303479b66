//! What a run looks like right now: the coordinator writes it, people's tools read it.
//!
//! Putting a report up costs the same however many nodes there are. The board knows since when things are
//! as they are, so that their ages are true whoever looks, and whenever.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Duration, Instant, UNIX_EPOCH};

use crrl_control::wire::{NodeReport, NodeState, StepMetrics};
use crrl_machine::clock;
use crrl_types::actor::ActorEvent;
use crrl_types::{NodeName, Vitals};
use serde::{Deserialize, Serialize};

use crate::clock_offset::ClockOffset;
use crate::happened::{Happened, Lately};

/// Points of the reward history that are kept; older ones are in the run store.
pub const HISTORY_MAX: usize = 512;
/// Episode lines that are kept.
pub const LINES_MAX: usize = 32;
/// Characters of one episode line.
pub const LINE_CHARS_MAX: usize = 240;

/// How far the run is.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default)]
pub struct Progress {
    /// What the run is doing: `starting`, `evaluating before`, `training`, `evaluating after`,
    /// `done`.
    pub phase: String,
    /// Optimizer steps committed.
    pub step: u64,
    /// Optimizer steps wanted.
    pub steps: u64,
    /// Newest adapter version.
    pub adapter_version: u64,
    /// One point for each step, oldest first; at most [`HISTORY_MAX`].
    pub history: VecDeque<RewardPoint>,
    /// Episodes by what became of them.
    pub episodes: EpisodeCounts,
    /// Numbers of the last step.
    pub metrics: StepMetrics,
    /// The last episodes, one line each, newest last; at most [`LINES_MAX`].
    pub lines: VecDeque<String>,
}

/// What the policy earned between one step and the next.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize, schemars::JsonSchema)]
pub struct RewardPoint {
    /// The step.
    pub step: u64,
    /// Mean reward.
    pub reward: f64,
    /// Share of episodes that count as solved.
    pub success: f64,
    /// Attempts these are means over.
    pub attempts: u64,
}

/// Episodes by what became of them.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(default)]
pub struct EpisodeCounts {
    /// Handed out.
    pub dispatched: u64,
    /// Handed out and not back yet.
    pub in_flight: u64,
    /// Came back with a reward.
    pub finished: u64,
    /// Trained on.
    pub trained: u64,
    /// Left out of training.
    pub dropped: u64,
    /// Could not be rolled out.
    pub failed: u64,
}

impl Progress {
    /// The same without history and lines.
    #[must_use]
    pub fn headline(&self) -> Self {
        Self {
            phase: self.phase.clone(),
            metrics: self.metrics.clone(),
            history: VecDeque::new(),
            lines: VecDeque::new(),
            ..*self
        }
    }

    /// Whether the run is in the phase it was in then, however far: `evaluating before (3/300)` and
    /// `evaluating before (9/300)` are the same.
    #[must_use]
    pub fn is_in_phase_of(&self, then: &Self) -> bool {
        phase_name(&self.phase) == phase_name(&then.phase)
    }

    /// Adds a point to the history; the oldest goes when it is full.
    pub fn push_point(&mut self, point: RewardPoint) {
        self.history.push_back(point);
        while self.history.len() > HISTORY_MAX {
            self.history.pop_front();
        }
    }

    /// Adds a line about an episode; the oldest goes when there are too many.
    pub fn push_line(&mut self, line: &str) {
        self.lines.push_back(line.chars().take(LINE_CHARS_MAX).collect());
        while self.lines.len() > LINES_MAX {
            self.lines.pop_front();
        }
    }
}

/// A phase without how far it is.
fn phase_name(phase: &str) -> (&str, &str) {
    let Some((name, rest)) = phase.split_once(" (") else { return (phase, "") };
    (name, rest.split_once(')').map_or("", |(_, after)| after))
}

/// Everything the board shows.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default)]
pub struct Snapshot {
    /// The last report of every node, by name.
    pub nodes: Vec<NodeReport>,
    /// How far the run is.
    pub progress: Progress,
    /// Since when the run has been in its phase, milliseconds since the Unix epoch on the clock of
    /// whoever looks; none where the coordinator is of a build that does not tell.
    pub phase_since_ms: Option<u64>,
    /// When each node was heard, by name; empty where the coordinator is of a build that does not tell.
    /// Not limited by what a viewer may be sent: it is there before a node's report is.
    pub seen: Vec<NodeSeen>,
    /// Since when no episode has come back although one could have, milliseconds since the Unix epoch: since
    /// the first was handed out after one had come back last; where none was, since then. Whether any are
    /// out is not in it. None where the coordinator is of a build that does not tell.
    pub none_back_since_ms: Option<u64>,
    /// What became of actors lately, oldest first: the last 32 of each node; empty where the coordinator is
    /// of a build that does not tell.
    pub actor_events: Vec<ActorEvent>,
}

/// When a node was heard, and what it measures. Times are on the clock of whoever looks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct NodeSeen {
    /// Who.
    pub node: NodeName,
    /// When it last reported to the coordinator, milliseconds since the Unix epoch.
    pub reported_at_ms: u64,
    /// Since when it has been saying what it is doing, milliseconds since the Unix epoch.
    pub activity_since_ms: u64,
    /// How far its clock is ahead of the coordinator's, microseconds, less than 0 where it is behind;
    /// `None` where that cannot be told.
    #[serde(default)]
    pub clock_ahead_us: Option<i64>,
    /// What it measures; `None` from a node of a build that does not tell.
    #[serde(default)]
    pub vitals: Option<Vitals>,
}

/// The board. Cloning gives another handle to the same board.
#[derive(Debug, Clone, Default)]
pub struct StatusBoard(Arc<RwLock<Board>>);

/// A node's place on the board. A node keeps its place.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) report: NodeReport,
    /// When the report was put up, in reports: larger is later.
    pub(crate) revision: u64,
    /// What the node measures.
    pub(crate) vitals: Option<Vitals>,
    /// When the node itself last reported.
    reported: Instant,
    /// Since when it says what it is doing.
    activity_since: Instant,
    offset: ClockOffset,
    /// What became of its actors.
    lately: Lately,
}

impl Place {
    /// Since the node itself last reported.
    pub(crate) fn silent(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.reported)
    }

    /// Since it says what it is doing.
    pub(crate) fn doing(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.activity_since)
    }

    /// What became of its actors after what has this number, oldest first.
    pub(crate) fn happened_after(&self, number: u64) -> impl Iterator<Item = &Happened> {
        self.lately.after(number)
    }

    /// How far its clock is ahead of this one, microseconds.
    pub(crate) fn clock_ahead_us(&self) -> Option<i64> {
        let round_trip = self.vitals.as_ref()?.round_trip?;
        self.offset.us(round_trip.p50_us)
    }
}

/// What is on the board.
#[derive(Debug, Default)]
pub(crate) struct Board {
    pub(crate) progress: Progress,
    pub(crate) places: Vec<Place>,
    by_name: BTreeMap<NodeName, usize>,
    revision: u64,
    /// How often everything on it was replaced.
    pub(crate) replaced: u64,
    /// Since when the run is in its phase; none before anything was said of it.
    phase_since: Option<Instant>,
    back: Back,
    /// Number of what became of an actor last.
    pub(crate) happened: u64,
}

/// How long no episode has come back.
#[derive(Debug, Default, Clone, Copy)]
struct Back {
    /// When one came back last, or something was said of the run for the first time.
    last: Option<Instant>,
    /// When one was handed out first since then.
    out: Option<Instant>,
}

impl Board {
    /// Puts up a report, which the node itself has sent or somebody else made of its last one.
    fn put(&mut self, report: NodeReport, is_its_own: bool, now: Instant) {
        self.revision += 1;
        let revision = self.revision;
        let Some(at) = self.by_name.get(&report.node).copied() else {
            self.by_name.insert(report.node.clone(), self.places.len());
            return self.places.push(Place {
                report,
                revision,
                vitals: None,
                reported: now,
                activity_since: now,
                offset: ClockOffset::default(),
                lately: Lately::default(),
            });
        };
        let place = &mut self.places[at];
        if is_its_own {
            place.lately.note(&place.report, &report, now, &mut self.happened);
        }
        if place.report.activity != report.activity {
            place.activity_since = now;
        }
        if place.report.incarnation != report.incarnation {
            (place.vitals, place.offset) = (None, ClockOffset::default());
        }
        if is_its_own {
            place.reported = now;
        }
        (place.report, place.revision) = (report, revision);
    }

    fn change(&mut self, change: impl FnOnce(&mut Progress), now: Instant) {
        let before = Progress { phase: self.progress.phase.clone(), ..Progress::default() };
        let in_flight = self.progress.episodes.in_flight;
        change(&mut self.progress);
        self.back.last.get_or_insert(now);
        if self.progress.episodes.in_flight > in_flight {
            self.back.out.get_or_insert(now);
        }
        if self.phase_since.is_none() || !self.progress.is_in_phase_of(&before) {
            self.phase_since = Some(now);
        }
    }

    /// An episode came back.
    fn came_back(&mut self, line: &str, now: Instant) {
        self.change(|progress| progress.push_line(line), now);
        self.back = Back { last: Some(now), out: None };
    }

    /// For how long no episode has come back, counted from when one could.
    pub(crate) fn none_back_for(&self, now: Instant) -> Option<Duration> {
        let since = self.back.out.or(self.back.last);
        since.map(|since| now.saturating_duration_since(since))
    }

    /// What became of actors after what has this number, oldest first, with their nodes.
    pub(crate) fn happened_after(&self, number: u64) -> Vec<(&NodeName, &Happened)> {
        if number == self.happened {
            return Vec::new();
        }
        let mut all: Vec<(&NodeName, &Happened)> = Vec::new();
        for place in &self.places {
            let node = &place.report.node;
            all.extend(place.happened_after(number).map(|happened| (node, happened)));
        }
        all.sort_unstable_by_key(|(_, happened)| happened.number);
        all
    }

    /// For how long the run has been in its phase.
    pub(crate) fn phase_for(&self, now: Instant) -> Option<Duration> {
        self.phase_since.map(|since| now.saturating_duration_since(since))
    }

    /// As it is `now`, which is `now_ms` milliseconds since the Unix epoch.
    fn snapshot(&self, now: Instant, now_ms: u64) -> Snapshot {
        let ago = |time: Duration| now_ms.saturating_sub(ms(time));
        let places: Vec<&Place> = self.by_name.values().map(|at| &self.places[*at]).collect();
        let seen = |place: &&Place| NodeSeen {
            node: place.report.node.clone(),
            reported_at_ms: ago(place.silent(now)),
            activity_since_ms: ago(place.doing(now)),
            clock_ahead_us: place.clock_ahead_us(),
            vitals: place.vitals.clone(),
        };
        Snapshot {
            nodes: places.iter().map(|place| place.report.clone()).collect(),
            progress: self.progress.clone(),
            phase_since_ms: self.phase_for(now).map(ago),
            seen: places.iter().map(seen).collect(),
            none_back_since_ms: self.none_back_for(now).map(ago),
            actor_events: self
                .happened_after(0)
                .into_iter()
                .map(|(node, happened)| ActorEvent {
                    at_ms: ago(now.saturating_duration_since(happened.at)),
                    node: node.clone(),
                    actor: happened.actor.clone(),
                    fate: happened.fate,
                    why: happened.why.clone(),
                })
                .collect(),
        }
    }
}

/// In whole milliseconds.
pub(crate) fn ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

impl StatusBoard {
    /// An empty board.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn write(&self) -> RwLockWriteGuard<'_, Board> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn read(&self) -> RwLockReadGuard<'_, Board> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts up what a node says of itself.
    pub fn report(&self, report: NodeReport) {
        self.report_at(report, Instant::now());
    }

    pub(crate) fn report_at(&self, report: NodeReport, now: Instant) {
        self.write().put(report, true, now);
    }

    /// Puts up what a node measures of itself. It sent that at `sent_us` of its own clock (microseconds
    /// since the Unix epoch), and had been saying what it is doing for `activity_ms`. Of a node that has
    /// not reported yet, or was lost, nothing is kept.
    pub fn vitals(&self, node: &NodeName, sent_us: u64, activity_ms: u64, vitals: Vitals) {
        let came = clock::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let came_us = u64::try_from(came.as_micros()).unwrap_or(u64::MAX);
        self.vitals_at(node, (sent_us, came_us), activity_ms, vitals, Instant::now());
    }

    pub(crate) fn vitals_at(
        &self,
        node: &NodeName,
        (sent_us, came_us): (u64, u64),
        activity_ms: u64,
        vitals: Vitals,
        now: Instant,
    ) {
        let mut board = self.write();
        let Some(at) = board.by_name.get(node).copied() else { return };
        let place = &mut board.places[at];
        if place.report.state == NodeState::Stopped {
            return;
        }
        // The node has known it for longer than a coordinator that was started again.
        let since = now.checked_sub(Duration::from_millis(activity_ms));
        place.activity_since = since.unwrap_or(place.activity_since);
        place.offset.take(sent_us, came_us);
        place.vitals = Some(vitals.bounded());
    }

    /// A node was lost: what it said last is no longer so.
    pub fn lost(&self, node: &NodeName, reason: &str) {
        self.lost_at(node, reason, Instant::now());
    }

    pub(crate) fn lost_at(&self, node: &NodeName, reason: &str, now: Instant) {
        let mut board = self.write();
        let Some(at) = board.by_name.get(node).copied() else { return };
        let mut report = board.places[at].report.clone();
        report.state = NodeState::Stopped;
        report.tokens_per_s = 0.0;
        report.activity = format!("lost: {reason}");
        board.places[at].vitals = None;
        board.put(report, false, now);
    }

    /// Changes how far the run is. Short work only: readers wait.
    pub fn progress(&self, change: impl FnOnce(&mut Progress)) {
        self.progress_at(change, Instant::now());
    }

    pub(crate) fn progress_at(&self, change: impl FnOnce(&mut Progress), now: Instant) {
        self.write().change(change, now);
    }

    /// An episode came back, and a line about it.
    pub fn came_back(&self, line: &str) {
        self.came_back_at(line, Instant::now());
    }

    pub(crate) fn came_back_at(&self, line: &str, now: Instant) {
        self.write().came_back(line, now);
    }

    /// How far the run is; the history of rewards and the lines are left out.
    #[must_use]
    pub fn headline(&self) -> Progress {
        self.read().progress.headline()
    }

    /// How far each node's clock is ahead of this one, microseconds; `None` where that cannot be told.
    #[must_use]
    pub fn clocks(&self) -> Vec<(NodeName, Option<i64>)> {
        let ahead = |place: &Place| (place.report.node.clone(), place.clock_ahead_us());
        self.read().places.iter().map(ahead).collect()
    }

    /// Changes everything that is on it, at the cost of everything that is on it: viewers begin anew.
    /// When nodes were heard is not changed with it: they are heard now.
    pub fn update(&self, change: impl FnOnce(&mut Snapshot)) {
        let now = Instant::now();
        let mut board = self.write();
        let mut snapshot = board.snapshot(now, clock::unix_ms());
        change(&mut snapshot);
        let held = std::mem::take(&mut *board);
        board.replaced = held.replaced + 1;
        (board.progress, board.phase_since) = (held.progress, held.phase_since);
        board.back = held.back;
        board.change(|progress| *progress = snapshot.progress, now);
        for report in snapshot.nodes {
            board.put(report, true, now);
        }
        for place in &mut board.places {
            let before = held.by_name.get(&place.report.node).map(|at| &held.places[*at]);
            if let Some(before) = before.filter(|b| b.report.activity == place.report.activity) {
                place.activity_since = before.activity_since;
            }
        }
    }

    /// A copy of the board.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        self.read().snapshot(Instant::now(), clock::unix_ms())
    }
}

#[cfg(test)]
mod tests {
    use crrl_control::wire::NodeRole;
    use crrl_types::{AdapterVersion, Digest, RoundTrip};

    use super::*;

    /// Of some day.
    const NOW_MS: u64 = 1_700_000_000_000;

    fn report(activity: &str) -> NodeReport {
        NodeReport {
            node: "learner".into(),
            roles: vec![NodeRole::Learner],
            pid: 7,
            incarnation: 1,
            state: NodeState::Ready,
            adapter_version: AdapterVersion(0),
            adapter_digest: Digest::default(),
            tokens_per_s: 0.0,
            episodes: 0,
            rss_bytes: 0,
            activity: activity.to_owned(),
            faults: Vec::new(),
            actors: Vec::new(),
            live: Vec::new(),
        }
    }

    /// The node's ages on the board after so many seconds: since it reported, since it does what it does.
    fn ages(board: &StatusBoard, begin: Instant, s: u64) -> (u64, u64) {
        let snapshot = board.read().snapshot(begin + Duration::from_secs(s), NOW_MS);
        let seen = snapshot.seen.first().expect("it has reported");
        (NOW_MS - seen.reported_at_ms, NOW_MS - seen.activity_since_ms)
    }

    #[test]
    fn the_history_keeps_the_newest_points() {
        let board = StatusBoard::new();
        for step in 0..HISTORY_MAX as u64 + 5 {
            board.progress(|p| p.push_point(RewardPoint { step, ..Default::default() }));
        }
        let history = board.snapshot().progress.history;
        assert_eq!((history.len(), history[0].step), (HISTORY_MAX, 5));
    }

    #[test]
    fn ages_count_from_when_the_node_said_so_and_not_from_when_somebody_looks() {
        let (board, begin) = (StatusBoard::new(), Instant::now());
        let after = |s| begin + Duration::from_secs(s);
        for s in 0..=40 {
            board.report_at(report("waiting for a batch"), after(s));
        }
        assert_eq!(ages(&board, begin, 41), (1_000, 41_000));
        board.report_at(report("step 3: 64 episodes"), after(42));
        assert_eq!(ages(&board, begin, 42), (0, 0));
        // Somebody else says that it was lost: that is new, and makes no report young.
        board.lost_at(&"learner".into(), "timed out", after(50));
        assert_eq!(ages(&board, begin, 53), (11_000, 3_000));
    }

    #[test]
    fn a_phase_is_as_old_as_it_is_however_far_it_has_come() {
        let (board, begin) = (StatusBoard::new(), Instant::now());
        let after = |s| begin + Duration::from_secs(s);
        let since = |s| board.read().snapshot(after(s), NOW_MS).phase_since_ms;
        assert_eq!(since(1), None, "nothing was said of it");
        for s in 1..30 {
            let phase = format!("evaluating before ({s}/300)");
            board.progress_at(|progress| progress.phase = phase, after(s));
        }
        assert_eq!(since(31), Some(NOW_MS - 30_000));
        board.progress_at(|progress| progress.phase = "training".into(), after(32));
        board.progress_at(|progress| progress.step += 1, after(40));
        assert_eq!(since(45), Some(NOW_MS - 13_000));
    }

    #[test]
    fn a_node_knows_since_when_better_than_a_board_that_has_just_begun() {
        let (board, begin) = (StatusBoard::new(), Instant::now() + Duration::from_secs(3_600));
        let vitals = || Vitals {
            build: "0.1.0".into(),
            round_trip: Some(RoundTrip { p50_us: 4_000, p99_us: 9_000, samples: 60 }),
            ..Vitals::default()
        };
        let (sent_us, came_us) = (5_000_000, 7_002_500);
        board.vitals_at(&"learner".into(), (sent_us, came_us), 90_000, vitals(), begin);
        assert!(board.snapshot().seen.is_empty(), "it has not reported");
        board.report_at(report("waiting for a batch"), begin);
        board.vitals_at(&"learner".into(), (sent_us, came_us), 90_000, vitals(), begin);
        assert_eq!(ages(&board, begin, 1), (1_000, 91_000));
        let seen = board.snapshot().seen.remove(0);
        // It travelled for 2 ms of the 2.0025 s by which the two clocks differ.
        assert_eq!((seen.clock_ahead_us, seen.vitals), (Some(-2_000_500), Some(vitals())));
        // What another life of the node measured says nothing of this one.
        board.report_at(NodeReport { incarnation: 2, ..report("waiting for a batch") }, begin);
        let seen = board.snapshot().seen.remove(0);
        assert_eq!((seen.clock_ahead_us, seen.vitals), (None, None));
    }
}
