//! Traces of messages: what a probe sees while somebody looks. Nobody looks: one look at a flag.
//!
//! A trace keeps what was seen since it was read last, at most [`UNREAD_MAX`] events, and ends with a
//! reason. It never keeps a message.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crrl_control::trace::{Meter, TraceFilter};
use crrl_machine::clock;
use crrl_types::{NodeName, TraceEnd, TraceEvent, TraceRequest, TraceStop, Traced};

use crate::peer::lock;

/// Traces of one node at once.
pub const TRACES_MAX: usize = 4;
/// Time between two readings of a trace.
const READ_EVERY: Duration = Duration::from_millis(100);
/// Events that wait to be read. Whoever falls behind by more does not read.
const UNREAD_MAX: usize = 1024;
/// Events handed on at once: they are to fit a control frame.
const AT_ONCE_MAX: usize = 256;

/// Where traces of a node's actors hang. Cloning gives another handle to the same.
#[derive(Debug, Clone, Default)]
pub struct Taps(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    on: AtomicBool,
    taps: Mutex<Vec<Arc<Tap>>>,
}

#[derive(Debug)]
struct Tap {
    node: NodeName,
    actor: Option<String>,
    filter: TraceFilter,
    began: Instant,
    seen: Mutex<Seen>,
}

#[derive(Debug)]
struct Seen {
    meter: Meter,
    unread: Vec<TraceEvent>,
    events: u64,
    why: Option<TraceStop>,
}

/// A message as a probe sees it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sight<'a> {
    pub(crate) actor: &'a str,
    pub(crate) message: &'a str,
    pub(crate) from: Option<&'a NodeName>,
    /// None where it was only received.
    pub(crate) took: Option<Duration>,
}

impl Taps {
    /// Whether anybody looks.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.0.on.load(Ordering::Relaxed)
    }

    /// Begins a trace within its bounds. It ends when what is returned is dropped.
    ///
    /// # Errors
    /// In words: there are [`TRACES_MAX`] already.
    pub fn open(
        &self,
        node: NodeName,
        request: &TraceRequest,
        filter: TraceFilter,
    ) -> Result<TraceReader, String> {
        let mut taps = lock(&self.0.taps);
        if taps.len() >= TRACES_MAX {
            return Err(format!(
                "{TRACES_MAX} traces of {node} go on already; end one of them and try again"
            ));
        }
        let (meter, unread) = (Meter::new(request), Vec::new());
        let tap = Arc::new(Tap {
            node,
            actor: request.target.actor.clone(),
            filter,
            began: Instant::now(),
            seen: Mutex::new(Seen { meter, unread, events: 0, why: None }),
        });
        taps.push(Arc::clone(&tap));
        self.0.on.store(true, Ordering::Relaxed);
        Ok(TraceReader { taps: self.clone(), tap, is_over: false })
    }

    /// A message was seen. To be called where [`Taps::is_on`].
    pub(crate) fn see(&self, sight: Sight<'_>) {
        for tap in lock(&self.0.taps).iter() {
            tap.see(sight);
        }
    }

    fn close(&self, tap: &Arc<Tap>) {
        let mut taps = lock(&self.0.taps);
        taps.retain(|held| !Arc::ptr_eq(held, tap));
        self.0.on.store(!taps.is_empty(), Ordering::Relaxed);
    }
}

impl Tap {
    fn see(&self, Sight { actor, message, from, took }: Sight<'_>) {
        let is_meant = self.actor.as_deref().is_none_or(|meant| meant == actor);
        if !is_meant || !self.filter.passes(message, from.map(NodeName::as_str), took) {
            return;
        }
        let mut seen = lock(&self.seen);
        if seen.why.is_some() {
            return;
        }
        let taken = seen.meter.take(self.began.elapsed());
        let room = seen.unread.len() < UNREAD_MAX;
        if let Err(why) = taken.and(if room { Ok(()) } else { Err(TraceStop::Unread) }) {
            seen.why = Some(why);
            return;
        }
        seen.events += 1;
        let us = |took: Duration| u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        seen.unread.push(TraceEvent {
            at_ms: clock::unix_ms(),
            node: self.node.clone(),
            actor: actor.to_owned(),
            message: message.to_owned(),
            from: from.cloned(),
            handled_us: took.map(us),
        });
    }

    /// What is there to be read; nothing where nothing happened.
    fn read(&self) -> Option<Traced> {
        let mut seen = lock(&self.seen);
        if seen.unread.is_empty() {
            let over = seen.meter.over(self.began.elapsed()).err();
            let why = seen.why.or(over)?;
            seen.why = Some(why);
            return Some(Traced::End(TraceEnd { why, events: seen.events }));
        }
        let count = seen.unread.len().min(AT_ONCE_MAX);
        Some(Traced::Events(seen.unread.drain(..count).collect()))
    }
}

/// A trace that goes on.
#[derive(Debug)]
pub struct TraceReader {
    taps: Taps,
    tap: Arc<Tap>,
    is_over: bool,
}

impl TraceReader {
    /// What was seen since the last call, once there is something; nothing after the end.
    pub async fn next(&mut self) -> Option<Traced> {
        while !self.is_over {
            tokio::time::sleep(READ_EVERY).await;
            if let Some(traced) = self.tap.read() {
                self.is_over = matches!(traced, Traced::End(_));
                return Some(traced);
            }
        }
        None
    }
}

impl Drop for TraceReader {
    fn drop(&mut self) {
        self.taps.close(&self.tap);
    }
}

#[cfg(test)]
mod tests {
    use crrl_types::Target;

    use super::*;

    fn open(taps: &Taps, request: &TraceRequest) -> Result<TraceReader, String> {
        let filter = TraceFilter::parse(&request.filter).expect("makes sense");
        taps.open("rollout-0".into(), request, filter)
    }

    fn see(taps: &Taps, actor: &str, message: &str) {
        taps.see(Sight { actor, message, from: None, took: None });
    }

    #[tokio::test]
    async fn what_is_asked_for_is_seen_until_there_was_enough_of_it() {
        let taps = Taps::default();
        assert!(!taps.is_on());
        let target = Target::actor("rollout-0", "rollout");
        let request =
            TraceRequest { max_count: 2, filter: "!tick".into(), ..TraceRequest::of(target) };
        let mut reader = open(&taps, &request).expect("the first");
        assert!(taps.is_on());
        for (actor, message) in
            [("learner", "Ack"), ("rollout", "Tick"), ("rollout", "Ack"), ("rollout", "Assign")]
        {
            see(&taps, actor, message);
        }
        see(&taps, "rollout", "Cancel");
        let Some(Traced::Events(events)) = reader.next().await else { panic!("no events") };
        let messages: Vec<&str> = events.iter().map(|event| event.message.as_str()).collect();
        assert_eq!(messages, ["Ack", "Assign"]);
        let end = TraceEnd { why: TraceStop::Count, events: 2 };
        assert_eq!(reader.next().await, Some(Traced::End(end)));
        assert_eq!(reader.next().await, None);
        drop(reader);
        assert!(!taps.is_on(), "goes on after its session");
    }

    #[tokio::test]
    async fn there_are_so_many_traces_at_once_and_no_more_and_a_quiet_one_ends() {
        let taps = Taps::default();
        let request = TraceRequest { ttl_ms: 1, ..TraceRequest::of(Target::node("rollout-0")) };
        let mut readers: Vec<TraceReader> =
            (0..TRACES_MAX).map(|_| open(&taps, &request).expect("room")).collect();
        assert!(open(&taps, &request).is_err());
        let end = TraceEnd { why: TraceStop::Time, events: 0 };
        assert_eq!(readers[0].next().await, Some(Traced::End(end)));
        readers.pop();
        assert!(open(&taps, &request).is_ok());
    }

    #[test]
    fn one_that_is_not_read_ends_and_keeps_no_more() {
        let taps = Taps::default();
        let target = Target::node("rollout-0");
        let (max_count, max_rate) = (u64::MAX, u32::MAX);
        let reader = open(&taps, &TraceRequest { max_count, max_rate, ..TraceRequest::of(target) });
        let reader = reader.expect("the first");
        (0..UNREAD_MAX + 5).for_each(|_| see(&taps, "rollout", "Tick"));
        let seen = lock(&reader.tap.seen);
        assert_eq!((seen.unread.len(), seen.why), (UNREAD_MAX, Some(TraceStop::Unread)));
    }
}
