//! A span, as plain data.

use std::borrow::Cow;

use crrl_types::NodeName;

use super::ids::{SpanId, TraceId};

/// Nanoseconds since the Unix epoch, from the first to the last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Interval {
    /// Its beginning.
    pub from: u64,
    /// Its end, never before it.
    pub to: u64,
}

impl Interval {
    /// Between two times in milliseconds.
    #[must_use]
    pub fn ms(from: u64, to: u64) -> Self {
        let ns = |ms: u64| ms.saturating_mul(1_000_000);
        Self { from: ns(from), to: ns(to.max(from)) }
    }

    /// The part of it that lies in another.
    #[must_use]
    pub fn within(self, outer: Self) -> Self {
        let from = self.from.clamp(outer.from, outer.to);
        Self { from, to: self.to.clamp(from, outer.to) }
    }

    /// Moved as little as possible so that it lies in another; cut where it is longer than that.
    #[must_use]
    pub fn moved_into(self, outer: Self) -> Self {
        let took = self.to - self.from;
        let from = self.from.min(outer.to.saturating_sub(took)).max(outer.from);
        Self { from, to: from.saturating_add(took) }.within(outer)
    }
}

/// What an attribute says.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// Text.
    Text(String),
    /// A whole number.
    Int(i64),
    /// A number; one that is not finite is left out.
    Float(f64),
    /// Yes or no.
    Bool(bool),
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<u64> for Value {
    fn from(number: u64) -> Self {
        Self::Int(i64::try_from(number).unwrap_or(i64::MAX))
    }
}

impl From<u32> for Value {
    fn from(number: u32) -> Self {
        Self::Int(number.into())
    }
}

impl From<i64> for Value {
    fn from(number: i64) -> Self {
        Self::Int(number)
    }
}

impl From<f64> for Value {
    fn from(number: f64) -> Self {
        Self::Float(number)
    }
}

impl From<bool> for Value {
    fn from(yes: bool) -> Self {
        Self::Bool(yes)
    }
}

/// An attribute.
pub type Attribute = (Cow<'static, str>, Value);

/// One piece of work in a trace.
#[derive(Debug, Clone, PartialEq)]
pub struct Span {
    /// Who did it.
    pub node: NodeName,
    /// Of which trace.
    pub trace: TraceId,
    /// Which.
    pub id: SpanId,
    /// Part of what; none for the root.
    pub parent: Option<SpanId>,
    /// What it is called.
    pub name: String,
    /// When.
    pub at: Interval,
    /// What more there is to say.
    pub attributes: Vec<Attribute>,
    /// Spans of other traces it belongs together with.
    pub links: Vec<(TraceId, SpanId)>,
    /// Links that were left out.
    pub links_left_out: u32,
    /// Why it failed; none where it did not.
    pub failed: Option<String>,
}

impl Span {
    /// Says something about it.
    pub fn say(&mut self, key: impl Into<Cow<'static, str>>, value: impl Into<Value>) -> &mut Self {
        self.attributes.push((key.into(), value.into()));
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_another_clock_measured_is_moved_no_further_than_needed() {
        let outer = Interval { from: 100, to: 200 };
        let moved = |from, to| Interval { from, to }.moved_into(outer);
        assert_eq!(moved(120, 130), Interval { from: 120, to: 130 });
        assert_eq!(moved(10, 40), Interval { from: 100, to: 130 });
        assert_eq!(moved(190, 220), Interval { from: 170, to: 200 });
        assert_eq!(moved(10, 900), outer);
        assert_eq!(Interval { from: 900, to: 950 }.within(outer), Interval { from: 200, to: 200 });
    }
}
