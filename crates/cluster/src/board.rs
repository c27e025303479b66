//! What a run looks like right now: the coordinator writes it, people's tools read it.
//!
//! Putting a report up costs the same however many nodes there are.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use crrl_control::wire::{NodeReport, NodeState, StepMetrics};
use crrl_types::NodeName;
use serde::{Deserialize, Serialize};

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

/// Everything the board shows.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default)]
pub struct Snapshot {
    /// The last report of every node, by name.
    pub nodes: Vec<NodeReport>,
    /// How far the run is.
    pub progress: Progress,
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
}

impl Board {
    fn put(&mut self, report: NodeReport) {
        self.revision += 1;
        let revision = self.revision;
        match self.by_name.get(&report.node) {
            Some(at) => self.places[*at] = Place { report, revision },
            None => {
                self.by_name.insert(report.node.clone(), self.places.len());
                self.places.push(Place { report, revision });
            }
        }
    }

    fn snapshot(&self) -> Snapshot {
        let nodes = self.by_name.values().map(|at| self.places[*at].report.clone()).collect();
        Snapshot { nodes, progress: self.progress.clone() }
    }
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
        self.write().put(report);
    }

    /// A node was lost: what it said last is no longer so.
    pub fn lost(&self, node: &NodeName, reason: &str) {
        let mut board = self.write();
        let Some(at) = board.by_name.get(node).copied() else { return };
        let mut report = board.places[at].report.clone();
        report.state = NodeState::Stopped;
        report.tokens_per_s = 0.0;
        report.activity = format!("lost: {reason}");
        board.put(report);
    }

    /// Changes how far the run is. Short work only: readers wait.
    pub fn progress(&self, change: impl FnOnce(&mut Progress)) {
        change(&mut self.write().progress);
    }

    /// How far the run is; the history of rewards and the lines are left out.
    #[must_use]
    pub fn headline(&self) -> Progress {
        self.read().progress.headline()
    }

    /// Changes everything that is on it, at the cost of everything that is on it: viewers begin anew.
    pub fn update(&self, change: impl FnOnce(&mut Snapshot)) {
        let mut board = self.write();
        let mut snapshot = board.snapshot();
        change(&mut snapshot);
        let replaced = board.replaced + 1;
        *board = Board { progress: snapshot.progress, replaced, ..Board::default() };
        for report in snapshot.nodes {
            board.put(report);
        }
    }

    /// A copy of the board.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        self.read().snapshot()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_history_keeps_the_newest_points() {
        let board = StatusBoard::new();
        for step in 0..HISTORY_MAX as u64 + 5 {
            board.progress(|p| p.push_point(RewardPoint { step, ..Default::default() }));
        }
        let history = board.snapshot().progress.history;
        assert_eq!((history.len(), history[0].step), (HISTORY_MAX, 5));
    }
}
