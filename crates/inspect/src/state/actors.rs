//! Actors, as their table shows them: columns, order, trouble.

use std::cmp::Ordering;

use crrl_types::actor::{ActorReport, ActorState};
use serde::Serialize;

use super::window::Window;
use crate::filter::Fields;
use crate::text::plain;

/// An actor at one message, or with one that waits, for longer than this is slow, milliseconds.
pub const SLOW_MS: u64 = 5_000;
/// Characters of a name, a kind, a reason.
const CHARS_MAX: usize = 200;

/// Other words for columns and fields: what waits for an actor is its mailbox elsewhere.
const OTHER_WORDS: &[(&str, &str)] = &[("mbox", "waiting")];

/// Which actor: names are unique in their node.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ActorId {
    /// Its node.
    pub node: String,
    /// Its name there.
    pub name: String,
}

/// What is wrong with an actor, worst last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Trouble {
    /// Nothing.
    None,
    /// What is known of it is old.
    Stale,
    /// At one message for long, or with one that has waited for long.
    Slow,
    /// It failed.
    Failed,
}

/// An actor.
#[derive(Debug, Clone, PartialEq, Serialize, schemars::JsonSchema)]
pub struct ActorRow {
    /// What is wrong with it.
    pub trouble: Trouble,
    /// Its node.
    pub node: String,
    /// Its name there.
    pub name: String,
    /// Its type.
    pub kind: String,
    /// Its supervisor.
    pub parent: Option<String>,
    /// What it is doing.
    pub state: ActorState,
    /// Messages that wait for it.
    pub waiting: u32,
    /// Most that ever did.
    pub waiting_max: u32,
    /// How long the oldest has waited.
    pub oldest_ms: u64,
    /// Messages a second; `None` before the second report.
    pub rate: Option<f64>,
    /// Share of the time it is at a message; `None` before the second report.
    pub busy: Option<f64>,
    /// The message it is at, and for how long.
    pub handling: Option<(String, u64)>,
    /// Messages handled.
    pub handled: u64,
    /// How often it was started again.
    pub restarts: u32,
    /// Why it failed last.
    pub last_failure: Option<String>,
    /// Since it was started.
    pub up_ms: u64,
}

impl ActorRow {
    pub(super) fn of(node: &str, report: &ActorReport, window: &Window, is_stale: bool) -> Self {
        let short = |text: &str| plain(text, CHARS_MAX);
        let mut row = Self {
            trouble: Trouble::None,
            node: node.to_owned(),
            name: short(&report.name),
            kind: short(report.kind.rsplit("::").next().unwrap_or_default()),
            parent: report.parent.as_deref().map(short),
            state: report.state,
            waiting: report.waiting,
            waiting_max: report.waiting_max,
            oldest_ms: report.oldest_ms,
            rate: window.rate(),
            busy: window.busy(),
            handling: report.handling.as_ref().map(|(kind, ms)| (short(kind), *ms)),
            handled: report.handled,
            restarts: report.restarts,
            last_failure: report.last_failure.as_deref().map(short),
            up_ms: report.up_ms,
        };
        row.judge(is_stale);
        row
    }

    /// What is wrong with it, where what is known of it is old or is not.
    pub(super) fn judge(&mut self, is_stale: bool) {
        let at_it = self.handling.as_ref().map_or(0, |(_, ms)| *ms);
        self.trouble = if self.state == ActorState::Failed {
            Trouble::Failed
        } else if is_stale {
            Trouble::Stale
        } else if at_it > SLOW_MS || self.oldest_ms > SLOW_MS {
            Trouble::Slow
        } else {
            Trouble::None
        };
    }

    /// Which it is.
    #[must_use]
    pub fn id(&self) -> ActorId {
        ActorId { node: self.node.clone(), name: self.name.clone() }
    }

    /// Its state in a word.
    #[must_use]
    pub fn state_word(&self) -> &'static str {
        match self.state {
            ActorState::Starting => "starting",
            ActorState::Idle => "idle",
            ActorState::Busy => "busy",
            ActorState::Stopped => "stopped",
            ActorState::Failed => "FAILED",
            ActorState::Suspended => "suspended",
        }
    }
}

/// A column of the actors' table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "named as the table's head")]
pub enum ActorColumn {
    Trouble,
    Node,
    Name,
    Kind,
    State,
    Waiting,
    Oldest,
    Rate,
    Busy,
    Handler,
    Restarts,
    Up,
}

impl ActorColumn {
    /// Every column, in the table's order, with the name scripts call it.
    pub const ALL: [(Self, &'static str); 12] = [
        (Self::Trouble, "trouble"),
        (Self::Node, "node"),
        (Self::Name, "name"),
        (Self::Kind, "type"),
        (Self::State, "state"),
        (Self::Waiting, "waiting"),
        (Self::Oldest, "oldest"),
        (Self::Rate, "rate"),
        (Self::Busy, "busy"),
        (Self::Handler, "handler"),
        (Self::Restarts, "restarts"),
        (Self::Up, "up"),
    ];

    /// The column of this name, or of another word for it.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        let other = OTHER_WORDS.iter().find(|(other, _)| *other == name);
        let name = other.map_or(name, |(_, known)| *known);
        Self::ALL.iter().find(|(_, known)| *known == name).map(|(column, _)| *column)
    }

    /// The name scripts call it.
    #[must_use]
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(column, _)| *column == self).map_or("", |(_, name)| *name)
    }

    /// Whether large values are looked at first.
    #[must_use]
    pub fn is_descending(self) -> bool {
        !matches!(self, Self::Node | Self::Name | Self::Kind | Self::State)
    }

    /// How two actors compare in this column.
    #[must_use]
    pub fn compare(self, a: &ActorRow, b: &ActorRow) -> Ordering {
        let known = |value: Option<f64>| value.unwrap_or(-1.0);
        let at_it = |row: &ActorRow| row.handling.as_ref().map(|(_, ms)| *ms);
        match self {
            Self::Trouble => a.trouble.cmp(&b.trouble),
            Self::Node => a.node.cmp(&b.node),
            Self::Name => a.name.cmp(&b.name),
            Self::Kind => a.kind.cmp(&b.kind),
            Self::State => a.state_word().cmp(b.state_word()),
            Self::Waiting => a.waiting.cmp(&b.waiting),
            Self::Oldest => a.oldest_ms.cmp(&b.oldest_ms),
            Self::Rate => known(a.rate).total_cmp(&known(b.rate)),
            Self::Busy => known(a.busy).total_cmp(&known(b.busy)),
            Self::Handler => at_it(a).cmp(&at_it(b)),
            Self::Restarts => a.restarts.cmp(&b.restarts),
            Self::Up => a.up_ms.cmp(&b.up_ms),
        }
    }

    /// Sorts; among equals by node and name, so that nothing jumps.
    pub fn sort(self, descending: bool, rows: &mut [&ActorRow]) {
        rows.sort_by(|a, b| {
            let order = self.compare(a, b);
            let order = if descending { order.reverse() } else { order };
            order.then_with(|| (&a.node, &a.name).cmp(&(&b.node, &b.name)))
        });
    }
}

impl Fields for ActorRow {
    const TEXTS: &'static [&'static str] = &["node", "name", "type", "state", "handler"];
    const NUMBERS: &'static [&'static str] =
        &["waiting", "oldest", "rate", "busy", "handling", "restarts", "up"];
    const OTHER_WORDS: &'static [(&'static str, &'static str)] = OTHER_WORDS;

    fn text(&self, field: &str) -> String {
        match field {
            "node" => self.node.clone(),
            "name" => self.name.clone(),
            "type" => self.kind.clone(),
            "state" => self.state_word().to_owned(),
            _ => self.handling.as_ref().map_or_else(String::new, |(kind, _)| kind.clone()),
        }
    }

    fn number(&self, field: &str) -> Option<f64> {
        match field {
            "waiting" => Some(self.waiting.into()),
            "oldest" => Some(self.oldest_ms as f64),
            "rate" => self.rate,
            "busy" => self.busy.map(|share| 100.0 * share),
            "handling" => self.handling.as_ref().map(|(_, ms)| *ms as f64),
            "restarts" => Some(self.restarts.into()),
            _ => Some(self.up_ms as f64),
        }
    }

    fn is_pinned(&self) -> bool {
        self.trouble == Trouble::Failed
    }
}
