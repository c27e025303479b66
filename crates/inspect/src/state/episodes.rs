//! Episodes: those under way, and those that are over.

use std::cmp::Ordering;

use crrl_store::EpisodeRow;
use crrl_types::actor::EpisodeReport;
use serde::Serialize;

use crate::filter::Fields;
use crate::text::plain;

/// An episode that does nothing new for longer than this hangs, milliseconds.
pub const HANGS_MS: u64 = 30_000;
/// Characters of a task's name or of what is being done.
const CHARS_MAX: usize = 200;

/// An episode under way.
#[derive(Debug, Clone, PartialEq, Serialize, schemars::JsonSchema)]
pub struct LiveRow {
    /// Its number.
    pub episode: u64,
    /// The attempts it is compared with.
    pub group: u64,
    /// What is to be repaired.
    pub task: String,
    /// Where.
    pub node: String,
    /// Turns taken.
    pub turns: u32,
    /// Calls of tools.
    pub calls: u32,
    /// What is being done.
    pub doing: String,
    /// Since it began.
    pub age_ms: u64,
    /// Since it last did something else.
    pub idle_ms: u64,
    /// Adapter its node serves.
    pub version: u64,
    /// Versions that were published since.
    pub behind: u64,
    /// Whether what is known of its node is old.
    pub stale: bool,
}

impl LiveRow {
    pub(super) fn of(node: &str, seen: &EpisodeReport, newest: u64, stale: bool) -> Self {
        Self {
            episode: seen.episode.0,
            group: seen.group.0,
            task: plain(seen.task.as_str(), CHARS_MAX),
            node: node.to_owned(),
            turns: seen.turns,
            calls: seen.calls,
            doing: plain(&seen.doing, CHARS_MAX),
            age_ms: seen.age_ms,
            idle_ms: seen.idle_ms,
            version: seen.version.0,
            behind: newest.saturating_sub(seen.version.0),
            stale,
        }
    }

    /// Whether it hangs.
    #[must_use]
    pub fn hangs(&self) -> bool {
        self.idle_ms > HANGS_MS
    }
}

/// A row of the rollouts' table.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Rollout<'a> {
    /// Under way.
    Live(&'a LiveRow),
    /// Over.
    Over(&'a EpisodeRow),
}

impl Rollout<'_> {
    /// The episode's number.
    #[must_use]
    pub fn episode(&self) -> u64 {
        match self {
            Self::Live(row) => row.episode,
            Self::Over(row) => row.episode.0,
        }
    }
}

/// By what episodes under way are sorted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "named as the table's head")]
pub enum LiveColumn {
    Episode,
    Node,
    Task,
    Turns,
    Calls,
    Age,
    Idle,
    Version,
}

impl LiveColumn {
    /// Every column that can be sorted by, in the table's order.
    pub const ALL: [(Self, &'static str); 8] = [
        (Self::Episode, "episode"),
        (Self::Node, "node"),
        (Self::Task, "task"),
        (Self::Turns, "turns"),
        (Self::Calls, "calls"),
        (Self::Age, "age"),
        (Self::Idle, "idle"),
        (Self::Version, "version"),
    ];

    /// The name of the column.
    #[must_use]
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(column, _)| *column == self).map_or("", |(_, name)| *name)
    }

    /// Whether large values are looked at first.
    #[must_use]
    pub fn is_descending(self) -> bool {
        !matches!(self, Self::Node | Self::Task)
    }

    fn compare(self, a: &LiveRow, b: &LiveRow) -> Ordering {
        match self {
            Self::Episode => a.episode.cmp(&b.episode),
            Self::Node => a.node.cmp(&b.node),
            Self::Task => a.task.cmp(&b.task),
            Self::Turns => a.turns.cmp(&b.turns),
            Self::Calls => a.calls.cmp(&b.calls),
            Self::Age => a.age_ms.cmp(&b.age_ms),
            Self::Idle => a.idle_ms.cmp(&b.idle_ms),
            Self::Version => a.version.cmp(&b.version),
        }
    }

    /// Sorts; among equals by number.
    pub fn sort(self, descending: bool, rows: &mut [&LiveRow]) {
        rows.sort_by(|a, b| {
            let order = self.compare(a, b);
            let order = if descending { order.reverse() } else { order };
            order.then_with(|| a.episode.cmp(&b.episode))
        });
    }
}

impl Fields for Rollout<'_> {
    const TEXTS: &'static [&'static str] = &["node", "task", "doing", "state"];
    const NUMBERS: &'static [&'static str] =
        &["episode", "group", "turns", "calls", "age", "idle", "version", "reward"];

    fn text(&self, field: &str) -> String {
        match (self, field) {
            (Self::Live(row), "node") => row.node.clone(),
            (Self::Live(row), "task") => row.task.clone(),
            (Self::Live(row), "doing") => row.doing.clone(),
            (Self::Live(_), _) => "live".to_owned(),
            (Self::Over(row), "node") => {
                row.node.as_ref().map_or_else(String::new, ToString::to_string)
            }
            (Self::Over(row), "task") => row.task.to_string(),
            (Self::Over(row), "doing") => row.reason.clone().unwrap_or_default(),
            (Self::Over(row), _) => row.state.clone(),
        }
    }

    fn number(&self, field: &str) -> Option<f64> {
        match (self, field) {
            (_, "episode") => Some(self.episode() as f64),
            (Self::Live(row), "group") => Some(row.group as f64),
            (Self::Live(row), "turns") => Some(row.turns.into()),
            (Self::Live(row), "calls") => Some(row.calls.into()),
            (Self::Live(row), "age") => Some(row.age_ms as f64),
            (Self::Live(row), "idle") => Some(row.idle_ms as f64),
            (Self::Live(row), "version") => Some(row.version as f64),
            (Self::Over(row), "group") => Some(row.group.0 as f64),
            (Self::Over(row), "version") => row.oldest.map(|version| version.0 as f64),
            (Self::Over(row), "reward") => row.reward,
            _ => None,
        }
    }
}
