//! What is seen of single messages: when, at which actor, which kind, for how long; never what is in
//! them.

use serde::{Deserialize, Serialize};

use crate::id::NodeName;
use crate::order::Target;

/// Events of a trace, unless said otherwise.
pub const COUNT: u64 = 1_000;
/// Events a second, unless said otherwise.
pub const RATE: u32 = 100;
/// How long a trace lasts unless said otherwise, in milliseconds.
pub const TTL_MS: u64 = 60_000;
/// Most events of a trace.
pub const COUNT_MAX: u64 = 100_000;
/// Most events a second.
pub const RATE_MAX: u32 = 1_000;
/// Longest trace, in milliseconds.
pub const TTL_MS_MAX: u64 = 600_000;

/// What is to be traced, and when that ends by itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TraceRequest {
    /// One actor, or every actor of a node.
    pub target: Target,
    /// Which messages: words that are part of a message's name, `!word` for those that are not,
    /// `from:NODE`, `over:5ms` for those whose handling took at least so long. Empty: all.
    pub filter: String,
    /// So many events, and no more; at most [`COUNT_MAX`].
    pub max_count: u64,
    /// More events within a second end it; at most [`RATE_MAX`].
    pub max_rate: u32,
    /// It ends after so long; at most [`TTL_MS_MAX`].
    pub ttl_ms: u64,
}

impl TraceRequest {
    /// Every message of a target, with the usual limits.
    #[must_use]
    pub fn of(target: Target) -> Self {
        let (max_count, max_rate, ttl_ms) = (COUNT, RATE, TTL_MS);
        Self { target, filter: String::new(), max_count, max_rate, ttl_ms }
    }

    /// The same within what is allowed; whether anything was cut.
    #[must_use]
    pub fn bounded(mut self) -> (Self, bool) {
        let asked = (self.max_count, self.max_rate, self.ttl_ms);
        self.max_count = self.max_count.min(COUNT_MAX);
        self.max_rate = self.max_rate.min(RATE_MAX);
        self.ttl_ms = self.ttl_ms.min(TTL_MS_MAX);
        let is_cut = asked != (self.max_count, self.max_rate, self.ttl_ms);
        (self, is_cut)
    }
}

/// Something happened to a message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct TraceEvent {
    /// When, by the node's clock, in milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// Where.
    pub node: NodeName,
    /// At which actor.
    pub actor: String,
    /// The message's kind.
    pub message: String,
    /// Whose message it is, where it came from a peer.
    pub from: Option<NodeName>,
    /// How long it was handled, in microseconds; none: it was received, and waits.
    pub handled_us: Option<u64>,
}

/// Why a trace is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum TraceStop {
    /// It had as many events as it may have.
    Count,
    /// There were more events in a second than it may have.
    Rate,
    /// Its time is over.
    Time,
    /// Whoever traces does not read fast enough.
    Unread,
    /// The node has left or was lost.
    Gone,
    /// Whoever traced has left.
    Left,
}

impl TraceStop {
    /// In words.
    #[must_use]
    pub fn says(self) -> &'static str {
        match self {
            Self::Count => "as many events as the trace may have",
            Self::Rate => "more events a second than the trace may have",
            Self::Time => "its time is over",
            Self::Unread => "events came faster than they were read",
            Self::Gone => "the node has left or was lost",
            Self::Left => "whoever traced has left",
        }
    }
}

/// The end of a trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct TraceEnd {
    /// Why.
    pub why: TraceStop,
    /// Events it had.
    pub events: u64,
}

/// What a trace says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Traced {
    /// Events, in the order they happened at their node.
    Events(Vec<TraceEvent>),
    /// Nothing more comes.
    End(TraceEnd),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_is_held_to_its_bounds_and_says_so() {
        let usual = TraceRequest::of(Target::node("rollout-0"));
        assert_eq!(usual.clone().bounded(), (usual.clone(), false));
        let greedy = TraceRequest { max_count: u64::MAX, ..usual };
        let (bounded, is_cut) = greedy.bounded();
        assert_eq!((bounded.max_count, is_cut), (COUNT_MAX, true));
    }
}
