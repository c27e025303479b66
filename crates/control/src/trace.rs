//! Which messages a trace shows, and when it has had enough. Pure: time is passed in.

use std::collections::VecDeque;
use std::time::Duration;

use crrl_types::trace::{TraceRequest, TraceStop};

/// Longest filter, in bytes.
pub const FILTER_BYTES_MAX: usize = 256;

/// Which messages are shown: all that pass every word.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TraceFilter(Vec<Word>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Word {
    /// Is part of the message's name, or is not.
    Named { part: String, wanted: bool },
    /// Comes from this node.
    From(String),
    /// Took at least so long.
    Over(Duration),
}

impl TraceFilter {
    /// Reads `assign`, `!tick`, `from:coordinator`, `over:5ms`, any of them side by side.
    ///
    /// # Errors
    /// What makes no sense, in words.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.len() > FILTER_BYTES_MAX {
            return Err(format!("the filter is longer than {FILTER_BYTES_MAX} bytes"));
        }
        text.split_whitespace().map(word).collect::<Result<_, _>>().map(Self)
    }

    /// Whether a message passes. One that was only received took no time yet.
    #[must_use]
    pub fn passes(&self, message: &str, from: Option<&str>, took: Option<Duration>) -> bool {
        self.0.iter().all(|word| match word {
            Word::Named { part, wanted } => message.to_lowercase().contains(part) == *wanted,
            Word::From(node) => from == Some(node),
            Word::Over(least) => took.is_some_and(|took| took >= *least),
        })
    }
}

fn word(text: &str) -> Result<Word, String> {
    if let Some(node) = text.strip_prefix("from:") {
        return match node {
            "" => Err("from: wants a node, as in from:coordinator".into()),
            node => Ok(Word::From(node.to_owned())),
        };
    }
    if let Some(time) = text.strip_prefix("over:") {
        return duration(time)
            .map(Word::Over)
            .ok_or_else(|| format!("over:{time} is no time; write over:500us, over:5ms, over:2s"));
    }
    let (part, wanted) = match text.strip_prefix('!') {
        Some(part) => (part, false),
        None => (text, true),
    };
    if part.is_empty() || !part.chars().all(|c| c.is_alphanumeric() || c == '_') {
        return Err(format!(
            "{text:?} is no part of a message's name; write assign, !tick, from:NODE or over:5ms"
        ));
    }
    Ok(Word::Named { part: part.to_lowercase(), wanted })
}

fn duration(text: &str) -> Option<Duration> {
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().ok()?;
    match unit {
        "us" => Some(Duration::from_micros(number)),
        "ms" => Some(Duration::from_millis(number)),
        "s" => Some(Duration::from_secs(number)),
        _ => None,
    }
}

/// Counts a trace's events.
#[derive(Debug)]
pub struct Meter {
    count_left: u64,
    rate_max: usize,
    ttl: Duration,
    /// When the last events were, at most as many as there may be in a second.
    last: VecDeque<Duration>,
}

impl Meter {
    /// For a trace within its bounds ([`TraceRequest::bounded`]).
    #[must_use]
    pub fn new(request: &TraceRequest) -> Self {
        Self {
            count_left: request.max_count,
            rate_max: request.max_rate as usize,
            ttl: Duration::from_millis(request.ttl_ms),
            last: VecDeque::new(),
        }
    }

    /// Takes an event at a time since the trace began, unless the trace is over.
    ///
    /// # Errors
    /// Why it is over; the event is not part of it.
    pub fn take(&mut self, at: Duration) -> Result<(), TraceStop> {
        self.over(at)?;
        if self.last.len() >= self.rate_max {
            let is_within_a_second = |first: &Duration| at.saturating_sub(*first) < SECOND;
            if self.last.front().is_none_or(is_within_a_second) {
                return Err(TraceStop::Rate);
            }
            self.last.pop_front();
        }
        self.last.push_back(at);
        self.count_left -= 1;
        Ok(())
    }

    /// Whether it is over without another event.
    ///
    /// # Errors
    /// Why it is over.
    pub fn over(&self, at: Duration) -> Result<(), TraceStop> {
        if self.count_left == 0 {
            return Err(TraceStop::Count);
        }
        if at >= self.ttl { Err(TraceStop::Time) } else { Ok(()) }
    }
}

const SECOND: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use crrl_types::Target;

    use super::*;

    fn meter(max_count: u64, max_rate: u32, ttl_ms: u64) -> Meter {
        let target = Target::node("rollout-0");
        Meter::new(&TraceRequest { max_count, max_rate, ttl_ms, ..TraceRequest::of(target) })
    }

    #[test]
    fn a_trace_ends_at_its_count_its_rate_or_its_time() {
        let ms = Duration::from_millis;
        let mut counted = meter(3, 100, 60_000);
        for at in 0..3 {
            assert_eq!(counted.take(ms(at)), Ok(()));
        }
        assert_eq!(counted.take(ms(4)), Err(TraceStop::Count));
        let mut fast = meter(1000, 2, 60_000);
        assert_eq!([fast.take(ms(0)), fast.take(ms(600))], [Ok(()), Ok(())]);
        // A second has passed since the first of the two, not since the second.
        assert_eq!(fast.take(ms(1000)), Ok(()));
        assert_eq!(fast.take(ms(1599)), Err(TraceStop::Rate));
        let mut late = meter(1000, 100, 50);
        assert_eq!(late.take(ms(49)), Ok(()));
        assert_eq!(late.take(ms(50)), Err(TraceStop::Time));
        assert_eq!(meter(1, 0, 50).take(ms(0)), Err(TraceStop::Rate));
        assert_eq!(meter(0, 1, 50).over(ms(0)), Err(TraceStop::Count));
    }

    #[test]
    fn a_filter_shows_what_passes_every_word_of_it() {
        let passes = |filter: &str, message: &str, from: Option<&str>, took: Option<u64>| {
            let filter = TraceFilter::parse(filter).expect("makes sense");
            filter.passes(message, from, took.map(Duration::from_millis))
        };
        assert!(passes("", "Tick", None, None));
        assert!(passes("assign", "Assign", Some("coordinator"), None));
        assert!(!passes("!tick", "Tick", None, Some(1)));
        assert!(passes("from:coordinator over:5ms", "Ack", Some("coordinator"), Some(5)));
        assert!(!passes("from:coordinator over:5ms", "Ack", Some("learner"), Some(5)));
        assert!(!passes("over:5ms", "Ack", None, Some(4)));
        assert!(!passes("over:5ms", "Ack", None, None), "a message that waits took no time");
        for wrong in ["!", "from:", "over:5", "over:fast", "a\u{1b}b", &"x".repeat(300)] {
            assert!(TraceFilter::parse(wrong).is_err(), "{wrong:?}");
        }
    }
}
