//! Actors, as their table shows them: columns, order, trouble.

use std::cmp::Ordering;

use crrl_types::actor::{ActorReport, ActorState};
use serde::Serialize;

use super::window::Window;
use crate::filter::Fields;
use crate::text::plain;

/// An actor at one message, or with one that waits, for longer than this is slow, milliseconds.
pub const SLOW_MS: u64 = 5_000;
/// An actor that has been starting for longer than this is slow, milliseconds: a coordinator reads its ledger.
pub const STARTS_MS: u64 = 30_000;
/// A thread is at one thing for as long as that takes: it is slow after this many times the usual length
/// of its work,
pub const THREAD_TIMES: u64 = 5;
/// and no sooner than after this, milliseconds;
pub const THREAD_MS: u64 = 120_000;
/// where it has done no work yet and nothing is usual, or loads its model once more, no sooner than after
/// this.
pub const THREAD_FIRST_MS: u64 = 600_000;
/// How the kind of a thread ends.
const THREAD: &str = "Thread";
/// The kind of a pool of sandboxes.
const POOL: &str = "SandboxPool";
/// The phase in which a thread that was started, or started again, loads its model.
const LOADS: &str = "load model";
/// Characters of a name, a kind, a reason.
const CHARS_MAX: usize = 200;

/// Other words for columns and fields: what waits for an actor is its mailbox elsewhere.
const OTHER_WORDS: &[(&str, &str)] = &[("mbox", "waiting"), ("dmbox", "growth")];

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
    /// At one message for long, with one that has waited for long, or starting for long.
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
    /// By how many a second they become more, less than 0 where they become fewer; `None` before the
    /// second report.
    pub waiting_growth: Option<f64>,
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
    /// Messages handled since it was first started.
    pub handled: u64,
    /// Time spent on them, milliseconds.
    pub busy_ms: u64,
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
            waiting_growth: window.growth(),
            waiting_max: report.waiting_max,
            oldest_ms: report.oldest_ms,
            rate: window.rate(),
            busy: window.busy(),
            handling: report.handling.as_ref().map(|(kind, ms)| (short(kind), *ms)),
            handled: report.handled,
            busy_ms: report.busy_ms,
            restarts: report.restarts,
            last_failure: report.last_failure.as_deref().map(short),
            up_ms: report.up_ms,
        };
        row.judge(is_stale);
        row
    }

    /// What it is at and for how long, as `with` puts these together. A pool's words have the time in them.
    #[must_use]
    pub fn at(&self, with: impl Fn(&str, u64) -> String) -> Option<String> {
        let (what, ms) = self.handling.as_ref()?;
        Some(if self.kind == POOL { what.clone() } else { with(what, *ms) })
    }

    /// What is wrong with it, where what is known of it is old or is not.
    pub(super) fn judge(&mut self, is_stale: bool) {
        let at_it = self.handling.as_ref().map_or(0, |(_, ms)| *ms);
        self.trouble = if self.state == ActorState::Failed {
            Trouble::Failed
        } else if is_stale {
            Trouble::Stale
        } else if at_it > self.patience_ms()
            || self.starts_long()
            || (!self.is_thread() && self.oldest_ms > SLOW_MS)
        {
            Trouble::Slow
        } else {
            Trouble::None
        };
    }

    /// Whether it has been starting for longer than an actor takes. What is said of a thread is its phase.
    #[must_use]
    pub fn starts_long(&self) -> bool {
        self.state == ActorState::Starting && !self.is_thread() && self.up_ms > STARTS_MS
    }

    /// Whether it is a thread of its own, which is at a phase of its work and not at a message.
    #[must_use]
    pub fn is_thread(&self) -> bool {
        self.kind.ends_with(THREAD)
    }

    /// Whether it is a pool of sandboxes. What it is at says, in words, who has had a place for longest and for
    /// how long, while somebody waits for one.
    #[must_use]
    pub fn is_pool(&self) -> bool {
        self.kind == POOL
    }

    /// How long its work takes on the average, milliseconds; `None` before any was done.
    #[must_use]
    pub fn usual_ms(&self) -> Option<u64> {
        self.busy_ms.checked_div(self.handled)
    }

    /// How long it may be at one thing before it is slow, milliseconds.
    #[must_use]
    pub fn patience_ms(&self) -> u64 {
        if !self.is_thread() {
            return SLOW_MS;
        }
        let loads = self.handling.as_ref().is_some_and(|(phase, _)| phase == LOADS);
        match self.usual_ms() {
            Some(usual) => {
                let least = if loads { THREAD_FIRST_MS } else { THREAD_MS };
                usual.saturating_mul(THREAD_TIMES).max(least)
            }
            None => THREAD_FIRST_MS,
        }
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

/// What is counted of actors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Counted {
    /// What happened over the last seconds, a second.
    #[default]
    Lately,
    /// All that happened since they were first started.
    Ever,
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
    Growth,
    Oldest,
    Rate,
    Busy,
    Handler,
    Restarts,
    Up,
}

impl ActorColumn {
    /// Every column, in the table's order, with the name scripts call it.
    pub const ALL: [(Self, &'static str); 13] = [
        (Self::Trouble, "trouble"),
        (Self::Node, "node"),
        (Self::Name, "name"),
        (Self::Kind, "type"),
        (Self::State, "state"),
        (Self::Waiting, "waiting"),
        (Self::Growth, "growth"),
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

    /// How two actors compare in this column, counted like this.
    #[must_use]
    pub fn compare(self, counted: Counted, a: &ActorRow, b: &ActorRow) -> Ordering {
        let known = |value: Option<f64>| value.unwrap_or(-1.0);
        let at_it = |row: &ActorRow| row.handling.as_ref().map(|(_, ms)| *ms);
        let grows = |row: &ActorRow| row.waiting_growth.unwrap_or(0.0);
        match self {
            Self::Growth if counted == Counted::Ever => a.waiting_max.cmp(&b.waiting_max),
            Self::Rate if counted == Counted::Ever => a.handled.cmp(&b.handled),
            Self::Busy if counted == Counted::Ever => a.busy_ms.cmp(&b.busy_ms),
            Self::Trouble => a.trouble.cmp(&b.trouble),
            Self::Node => a.node.cmp(&b.node),
            Self::Name => a.name.cmp(&b.name),
            Self::Kind => a.kind.cmp(&b.kind),
            Self::State => a.state_word().cmp(b.state_word()),
            Self::Waiting => a.waiting.cmp(&b.waiting),
            Self::Growth => grows(a).total_cmp(&grows(b)),
            Self::Oldest => a.oldest_ms.cmp(&b.oldest_ms),
            Self::Rate => known(a.rate).total_cmp(&known(b.rate)),
            Self::Busy => known(a.busy).total_cmp(&known(b.busy)),
            Self::Handler => at_it(a).cmp(&at_it(b)),
            Self::Restarts => a.restarts.cmp(&b.restarts),
            Self::Up => a.up_ms.cmp(&b.up_ms),
        }
    }

    /// Sorts, by what is counted over the last seconds; among equals by node and name, so that nothing
    /// jumps.
    pub fn sort(self, descending: bool, rows: &mut [&ActorRow]) {
        self.sort_counted(Counted::Lately, descending, rows);
    }

    /// As [`ActorColumn::sort`], counted like this.
    pub fn sort_counted(self, counted: Counted, descending: bool, rows: &mut [&ActorRow]) {
        rows.sort_by(|a, b| {
            let order = self.compare(counted, a, b);
            let order = if descending { order.reverse() } else { order };
            order.then_with(|| (&a.node, &a.name).cmp(&(&b.node, &b.name)))
        });
    }
}

impl Fields for ActorRow {
    const TEXTS: &'static [&'static str] = &["node", "name", "type", "state", "handler"];
    const NUMBERS: &'static [&'static str] =
        &["waiting", "growth", "oldest", "rate", "busy", "handling", "restarts", "up"];
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
            "growth" => self.waiting_growth,
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
