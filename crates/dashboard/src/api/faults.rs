//! What went wrong and was mended, what people had done, and the run's history as it grows.

use std::sync::Arc;

use axum::extract::{Path, State};
use crrl_inspect::filter::Filter;
use crrl_inspect::state::history::EventRow;
use crrl_report::model::timeline::Timeline;
use crrl_types::Deed;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Answer, Asked, Json, Problem, asked, reading};
use crate::excerpt;
use crate::server::Shared;

/// Marks of the history that are told.
const MARKS_MAX: usize = 1_000;
/// Injected faults and orders that are told, the newest.
const DEEDS_MAX: usize = 500;
/// Faults that are told.
const FAULTS_MAX: usize = 200;
/// Events of one answer.
const EVENTS_MAX: usize = 500;

/// `GET /api/runs/N/faults`
pub(crate) async fn faults(State(shared): State<Arc<Shared>>, Path(number): Path<usize>) -> Answer {
    let run = super::run(&shared, number)?;
    reading(&shared, move || {
        // The run's files may be on another machine; what is seen of its cluster is told all the same.
        let (read, problem) = match run.read() {
            Ok(read) => (Some(read), None),
            Err(error) => (None, Some(error.to_string())),
        };
        let timeline = read.as_ref().map(|read| &read.model.timeline);
        let summary = read.as_ref().map(|read| &read.model.summary);
        let marks = timeline.map_or(&[][..], |timeline| &timeline.marks);
        let left_out = timeline.map_or(0, |timeline| timeline.left_out)
            + marks.len().saturating_sub(MARKS_MAX) as u64;
        let seen = run.seen();
        Json::of(&json!({
            "revision": read.as_ref().map(|read| read.revision),
            "problem": problem,
            "began_ms": summary.and_then(|summary| summary.began_ms),
            "wall_ms": summary.and_then(|summary| summary.wall_ms),
            "counts": timeline.map(|timeline| &timeline.counts),
            "marks": marks.iter().take(MARKS_MAX).map(|(at_s, mark)| json!({
                "at_s": at_s,
                "kind": mark.kind,
                "name": mark.kind.name(),
                "node": excerpt::listed(&mark.node),
                "detail": excerpt::listed(&mark.detail),
                "times": mark.times,
            })).collect::<Vec<_>>(),
            "left_out": left_out,
            "deeds": timeline.map_or_else(Vec::new, deeds),
            "deeds_left_out": timeline.map_or(0, deeds_left_out),
            "throughput": timeline.and_then(|timeline| timeline.throughput.as_ref()),
            "processes": read.as_ref().and_then(|read| read.model.host.as_ref()).map(|h| &h.nodes),
            "active": seen.world.faults().iter().take(FAULTS_MAX).collect::<Vec<_>>(),
        }))
    })
    .await
}

/// Injected faults and orders that are too old to be told.
fn deeds_left_out(timeline: &Timeline) -> usize {
    timeline.deeds.len().saturating_sub(DEEDS_MAX)
}

/// Faults that people injected, and their orders, oldest first: who, when, and for how long.
pub(crate) fn deeds(timeline: &Timeline) -> Vec<Value> {
    let told = |(at_s, deed): &(f64, Deed)| {
        json!({
            "at_s": at_s,
            "lasts_s": deed.lasts_ms.map(|ms| ms as f64 / 1_000.0),
            "is_fault": deed.is_fault,
            "what": excerpt::listed(&deed.what),
            "target": excerpt::listed(&deed.target),
            "who": excerpt::listed(&deed.who),
            "outcome": deed.outcome,
            "is_done": deed.is_done(),
        })
    };
    timeline.deeds.iter().skip(deeds_left_out(timeline)).map(told).collect()
}

/// Which events.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Events {
    filter: String,
    limit: usize,
}

impl Default for Events {
    fn default() -> Self {
        Self { filter: String::new(), limit: 100 }
    }
}

/// `GET /api/runs/N/history`
pub(crate) async fn history(
    State(shared): State<Arc<Shared>>,
    Path(number): Path<usize>,
    events: Asked<Events>,
) -> Answer {
    let (run, events) = (super::run(&shared, number)?, asked(events)?);
    let filter = Filter::parse::<EventRow>(&events.filter)
        .map_err(|error| Problem::usage(format!("filter: {error}")))?;
    let seen = run.seen();
    let history = &seen.world.history;
    let rows = history.rows().rev().filter(|row| filter.shows(*row));
    Json::of(&json!({
        "kept": history.len(),
        "unreadable": history.unreadable,
        "rows": rows.take(events.limit.min(EVENTS_MAX)).collect::<Vec<_>>(),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_many_deeds_the_newest_are_told() {
        let deed = |at_ms| Deed {
            at_ms,
            lasts_ms: None,
            is_fault: false,
            what: "drain".into(),
            target: "rollout-0".into(),
            who: "anna".into(),
            outcome: None,
        };
        let timeline = |most: u64| Timeline {
            throughput: None,
            marks: Vec::new(),
            counts: Vec::new(),
            left_out: 0,
            deeds: (0..most).map(|s| (s as f64, deed(1_000 * s))).collect(),
        };
        let all = timeline(DEEDS_MAX as u64);
        assert_eq!((deeds(&all).len(), deeds_left_out(&all)), (DEEDS_MAX, 0));
        let more = timeline(DEEDS_MAX as u64 + 20);
        let told = deeds(&more);
        assert_eq!((told.len(), deeds_left_out(&more)), (DEEDS_MAX, 20));
        assert_eq!((&told[0]["at_s"], &told[DEEDS_MAX - 1]["at_s"]), (&json!(20.0), &json!(519.0)));
    }
}
