//! The last events of the run, one line each.

use std::collections::VecDeque;

use crrl_types::actor::{ActorEvent, Fate};
use crrl_types::event::EventKind;
use crrl_types::{Deed, Event, Outcome};
use serde::Serialize;
use serde_json::Value;

use crate::filter::Fields;
use crate::text::plain;
use crate::units::age;

/// Events that are kept of a run under way; older ones are in the file.
pub const EVENTS_MAX: usize = 2_000;
/// Events that are kept of a run that is over.
pub const PAST_EVENTS_MAX: usize = 20_000;
/// Characters of one event.
const CHARS_MAX: usize = 400;

/// How much an event matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Weight {
    /// One of thousands.
    Routine,
    /// Progress of the run.
    Milestone,
    /// Something went wrong.
    Trouble,
}

/// An event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct EventRow {
    /// When, milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// Which kind.
    pub event: String,
    /// Which node it is about.
    pub node: String,
    /// The rest, as `name=value`.
    pub detail: String,
    /// How much it matters.
    pub weight: Weight,
}

impl EventRow {
    /// An event as it is shown.
    #[must_use]
    pub fn of(event: &Event) -> Self {
        let mut fields = match serde_json::to_value(event) {
            Ok(Value::Object(fields)) => fields,
            _ => serde_json::Map::new(),
        };
        let mut take = |name: &str| {
            fields.shift_remove(name).and_then(|value| value.as_str().map(str::to_owned))
        };
        let writer = take("node").unwrap_or_default();
        let kind = take("event").unwrap_or_default();
        let about = ["peer", "to", "from"].into_iter().find_map(&mut take).unwrap_or(writer);
        fields.shift_remove("at_ms");
        let detail: Vec<String> = fields.iter().map(|(name, value)| pair(name, value)).collect();
        let weight = match kind.as_str() {
            "node_down" | "failed" | "lease_lost" | "rolled_back" | "restored" => Weight::Trouble,
            "dispatched" | "finished" | "trained" | "dropped" => Weight::Routine,
            _ => Weight::Milestone,
        };
        Self {
            at_ms: event.at_ms,
            event: plain(&kind.replace('_', " "), 32),
            node: plain(&about, 64),
            detail: plain(&detail.join(" "), CHARS_MAX),
            weight,
        }
    }
}

impl EventRow {
    /// What became of an actor.
    #[must_use]
    pub fn of_actor(event: &ActorEvent) -> Self {
        let (fate, weight) = match event.fate {
            Fate::Failed => ("failed", Weight::Trouble),
            // One that was started again did fail, or somebody had it done.
            Fate::Restarted => ("restarted", Weight::Trouble),
            Fate::Stopped => ("stopped", Weight::Milestone),
        };
        let why = event.why.as_ref().map_or_else(String::new, |why| format!(" reason={why}"));
        let detail = format!("actor={} fate={fate}{why}", event.actor);
        Self {
            at_ms: event.at_ms,
            event: "actor".to_owned(),
            node: plain(event.node.as_str(), 64),
            detail: plain(&detail, CHARS_MAX),
            weight,
        }
    }

    /// A fault that was injected, or an order.
    #[must_use]
    pub fn of_deed(deed: &Deed) -> Self {
        let lasts = deed.lasts_ms.map_or_else(String::new, |ms| format!(" for {}", age(ms)));
        let outcome = deed.outcome.map_or("not known", Outcome::word);
        let detail = format!("{}{lasts} by={} outcome={outcome}", deed.what, deed.who);
        Self {
            at_ms: deed.at_ms,
            event: if deed.is_fault { "injected" } else { "order" }.to_owned(),
            node: plain(&deed.target, 64),
            detail: plain(&detail, CHARS_MAX),
            weight: Weight::Milestone,
        }
    }
}

fn pair(name: &str, value: &Value) -> String {
    match value {
        Value::String(text) if name == "digest" => {
            format!("{name}={}", text.get(..8).unwrap_or(text))
        }
        Value::String(text) => format!("{name}={text}"),
        Value::Number(number) if number.is_f64() => {
            format!("{name}={:.3}", number.as_f64().unwrap_or_default())
        }
        other => format!("{name}={other}"),
    }
}

/// The last events.
#[derive(Debug, Clone)]
pub struct History {
    rows: VecDeque<EventRow>,
    most: usize,
    /// When one came back last, or the coordinator was started.
    finished_ms: Option<u64>,
    /// When the first was handed out since then.
    out_ms: Option<u64>,
    /// Lines of the file that could not be read.
    pub unreadable: u64,
    /// Faults that were injected into a run that is over, and orders, oldest first.
    pub deeds: Vec<EventRow>,
}

impl Default for History {
    fn default() -> Self {
        Self::of(EVENTS_MAX)
    }
}

impl History {
    /// One that keeps so many.
    #[must_use]
    pub fn of(most: usize) -> Self {
        Self {
            rows: VecDeque::new(),
            most,
            finished_ms: None,
            out_ms: None,
            unreadable: 0,
            deeds: Vec::new(),
        }
    }

    /// Adds an event; the oldest goes when there are too many.
    pub fn push(&mut self, event: &Event) {
        match event.kind {
            // What was out before may be out still, and is missed from here on.
            EventKind::Started => (self.finished_ms, self.out_ms) = (Some(event.at_ms), None),
            EventKind::Dispatched { .. } => {
                self.out_ms.get_or_insert(event.at_ms);
            }
            EventKind::Finished { .. } => {
                (self.finished_ms, self.out_ms) = (Some(event.at_ms), None);
            }
            _ => {}
        }
        self.rows.push_back(EventRow::of(event));
        while self.rows.len() > self.most {
            self.rows.pop_front();
        }
    }

    /// The events, oldest first.
    pub fn rows(&self) -> impl DoubleEndedIterator<Item = &EventRow> {
        self.rows.iter()
    }

    /// How many are kept.
    #[must_use]
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether nothing has happened.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Since when no episode has come back although some are out, milliseconds since the Unix epoch: since
    /// the first was handed out after one had come back last, or the coordinator was started; where none
    /// was, since then. `None` where too little of the file was read. Whether any are out is not in it.
    #[must_use]
    pub fn none_back_since_ms(&self) -> Option<u64> {
        self.out_ms.or(self.finished_ms)
    }
}

impl Fields for EventRow {
    const TEXTS: &'static [&'static str] = &["event", "node", "detail"];
    const NUMBERS: &'static [&'static str] = &["at"];

    fn text(&self, field: &str) -> String {
        match field {
            "event" => self.event.clone(),
            "node" => self.node.clone(),
            _ => self.detail.clone(),
        }
    }

    fn number(&self, _: &str) -> Option<f64> {
        Some(self.at_ms as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(at_ms: u64, kind: EventKind) -> Event {
        Event { at_ms, node: "coordinator".into(), kind }
    }

    #[test]
    fn an_event_is_about_the_node_it_happened_to() {
        let down =
            EventKind::NodeDown { peer: "rollout-1".into(), reason: "timed\u{1b}[2J out".into() };
        let row = EventRow::of(&event(5, down));
        assert_eq!((row.node.as_str(), row.weight), ("rollout-1", Weight::Trouble));
        assert_eq!((row.event.as_str(), row.detail.as_str()), ("node down", "reason=timed out"));
    }

    #[test]
    fn what_comes_back_is_waited_for_from_when_it_was_handed_out() {
        let mut history = History::default();
        let dispatched = |at_ms| {
            let (group, task) = (crrl_types::GroupId(0), "t".into());
            let (episode, to) = (crrl_types::EpisodeId(at_ms), "rollout-0".into());
            event(at_ms, EventKind::Dispatched { episode, group, task, to, attempt: 1 })
        };
        let finished = |at_ms| {
            let episode = crrl_types::EpisodeId(at_ms);
            event(at_ms, EventKind::Finished { episode, reward: 0.0, success: false })
        };
        let mut since = |event: &Event| {
            history.push(event);
            history.none_back_since_ms()
        };
        assert_eq!(since(&event(1, EventKind::Started)), Some(1));
        assert_eq!(since(&dispatched(20)), Some(20));
        assert_eq!(since(&dispatched(30)), Some(20), "the first of them");
        assert_eq!(since(&finished(40)), Some(40), "others may be out");
        // The learner was at work for a night, and nothing was out.
        assert_eq!(since(&dispatched(9_000)), Some(9_000));
        assert_eq!(since(&event(9_500, EventKind::Started)), Some(9_500));
        assert_eq!(since(&dispatched(9_600)), Some(9_600));
    }

    #[test]
    fn the_oldest_go() {
        let mut history = History::default();
        for at_ms in 0..EVENTS_MAX as u64 + 7 {
            history.push(&event(at_ms, EventKind::Started));
        }
        assert_eq!(history.len(), EVENTS_MAX);
        assert_eq!(history.rows().next().map(|row| row.at_ms), Some(7));
    }
}
