//! A trace: messages of one actor as they are received and handled, until a limit trips it off.

use std::collections::VecDeque;

use crrl_types::{OrderAnswer, TraceEnd, TraceEvent, TraceRequest, TraceStop, Traced};

/// Events that are kept; older ones are let go of.
pub const EVENTS_MAX: usize = 5_000;
/// The rate is that of the last so many milliseconds.
const RATE_SPAN_MS: u64 = 1_000;

/// How far a trace is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stage {
    /// It was asked for.
    Asked,
    /// Events come.
    Running,
    /// It was refused, or nobody answered; why.
    Refused(String),
    /// Nothing more comes.
    Over(TraceStop),
}

/// A trace.
#[derive(Debug, Clone, PartialEq)]
pub struct Tracing {
    /// What was asked for.
    pub request: TraceRequest,
    /// How far it is.
    pub stage: Stage,
    /// What was said when it began.
    pub says: String,
    /// The last events, oldest first.
    pub events: VecDeque<TraceEvent>,
    /// Events so far.
    pub count: u64,
    began_ms: u64,
    ended_ms: Option<u64>,
    arrivals: VecDeque<(u64, u64)>,
}

impl Tracing {
    /// One that was asked for at this time, milliseconds.
    #[must_use]
    pub fn new(request: TraceRequest, now_ms: u64) -> Self {
        Self {
            request,
            stage: Stage::Asked,
            says: String::new(),
            events: VecDeque::new(),
            count: 0,
            began_ms: now_ms,
            ended_ms: None,
            arrivals: VecDeque::new(),
        }
    }

    /// Whether events come, or may come yet.
    #[must_use]
    pub fn is_on(&self) -> bool {
        matches!(self.stage, Stage::Asked | Stage::Running)
    }

    /// It began, or did not.
    pub fn answered(&mut self, answer: Result<OrderAnswer, String>, now_ms: u64) {
        if self.stage != Stage::Asked {
            return;
        }
        self.stage = match answer {
            Ok(answer) if answer.outcome.is_done() => {
                self.began_ms = now_ms;
                self.says = answer.says;
                Stage::Running
            }
            Ok(answer) => {
                self.ended_ms = Some(now_ms);
                Stage::Refused(format!("{}: {}", answer.outcome.word(), answer.says))
            }
            Err(error) => {
                self.ended_ms = Some(now_ms);
                Stage::Refused(error)
            }
        };
    }

    /// Something was traced. What comes before the trace began is left from the one before it.
    pub fn take(&mut self, traced: Traced, now_ms: u64) {
        if self.stage != Stage::Running {
            return;
        }
        match traced {
            Traced::Events(events) => {
                self.count += events.len() as u64;
                self.arrivals.push_back((now_ms, events.len() as u64));
                self.events.extend(events);
                let over = self.events.len().saturating_sub(EVENTS_MAX);
                self.events.drain(..over);
            }
            Traced::End(TraceEnd { why, events }) => {
                self.count = self.count.max(events);
                self.end(why, now_ms);
            }
        }
        let old = |at: u64| now_ms.saturating_sub(at) > RATE_SPAN_MS;
        while self.arrivals.front().is_some_and(|(at, _)| old(*at)) {
            self.arrivals.pop_front();
        }
    }

    /// The person has had enough.
    pub fn end(&mut self, why: TraceStop, now_ms: u64) {
        if self.is_on() {
            self.stage = Stage::Over(why);
            self.ended_ms = Some(now_ms);
        }
    }

    /// Events within the last second.
    #[must_use]
    pub fn rate(&self, now_ms: u64) -> u64 {
        let young = |(at, _): &&(u64, u64)| now_ms.saturating_sub(*at) <= RATE_SPAN_MS;
        self.arrivals.iter().filter(young).map(|(_, events)| events).sum()
    }

    /// For how long it has been going on, or went on.
    #[must_use]
    pub fn lasted_ms(&self, now_ms: u64) -> u64 {
        self.ended_ms.unwrap_or(now_ms).saturating_sub(self.began_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crrl_types::{Outcome, Target};

    fn event(at_ms: u64) -> TraceEvent {
        TraceEvent {
            at_ms,
            node: "rollout-0".into(),
            actor: "engine".into(),
            message: "Generate".into(),
            from: None,
            handled_us: Some(7),
        }
    }

    fn running() -> Tracing {
        let target = Target::actor("rollout-0", "engine");
        let mut trace = Tracing::new(TraceRequest::of(target), 1_000);
        trace.answered(Ok(OrderAnswer::new(Outcome::Done, "it begins")), 1_200);
        trace
    }

    #[test]
    fn the_rate_is_that_of_the_last_second_and_nothing_comes_after_the_end() {
        let mut trace = running();
        trace.take(Traced::Events(vec![event(1); 3]), 1_300);
        trace.take(Traced::Events(vec![event(2); 2]), 2_250);
        assert_eq!((trace.count, trace.rate(2_250), trace.rate(2_400)), (5, 5, 2));
        trace.take(Traced::End(TraceEnd { why: TraceStop::Rate, events: 120 }), 2_300);
        trace.take(Traced::Events(vec![event(3)]), 2_400);
        assert_eq!((trace.count, trace.lasted_ms(9_000), trace.is_on()), (120, 1_100, false));
    }

    #[test]
    fn what_is_kept_is_bounded_and_a_refusal_is_told() {
        let mut trace = running();
        trace.take(Traced::Events((0..EVENTS_MAX as u64 + 9).map(event).collect()), 1_300);
        assert_eq!((trace.events.len(), trace.events[0].at_ms), (EVENTS_MAX, 9));
        let mut refused = Tracing::new(trace.request, 0);
        refused.answered(Ok(OrderAnswer::new(Outcome::Denied, "operators only")), 5);
        assert_eq!(refused.stage, Stage::Refused("denied: operators only".into()));
    }
}
