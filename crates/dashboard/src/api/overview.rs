//! Which runs there are, how far each got, and its pulse.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::response::IntoResponse;
use serde_json::json;

use super::{Answer, Json, Problem, reading};
use crate::excerpt;
use crate::pulse;
use crate::server::Shared;

/// Configuration that is passed on, characters.
const CONFIGURATION_CHARS_MAX: usize = 64 << 10;
/// Notes, evaluations and tasks in quarantine that are passed on.
const LISTED_MAX: usize = 200;

/// `GET /api/runs`
pub(crate) async fn runs(State(shared): State<Arc<Shared>>) -> Answer {
    let row = |(number, run): (usize, &Arc<crate::run::Run>)| {
        json!({
            "run": number,
            "name": run.name(),
            "folder": run.dir().path(),
            "link": pulse::link(run.seen().link.as_ref()),
        })
    };
    let runs: Vec<_> = shared.runs.iter().map(|(run, _)| run).enumerate().map(row).collect();
    Json::of(&json!({ "version": env!("CARGO_PKG_VERSION"), "runs": runs }))
}

/// `GET /api/runs/N`
pub(crate) async fn run(State(shared): State<Arc<Shared>>, Path(number): Path<usize>) -> Answer {
    let run = super::run(&shared, number)?;
    reading(&shared, move || {
        let read = run.read()?;
        let model = &read.model;
        let mut summary = json!(model.summary);
        if let Some(list) = summary["evaluations"].as_array_mut() {
            list.truncate(LISTED_MAX);
        }
        let configuration = model
            .configuration
            .as_deref()
            .map(|text| text.chars().take(CONFIGURATION_CHARS_MAX).collect::<String>());
        let quarantined = model.quarantined.iter();
        let quarantined = quarantined.map(|(task, why)| (task, excerpt::listed(why)));
        Json::of(&json!({
            "run": number,
            "name": run.name(),
            "folder": run.dir().path(),
            "revision": read.revision,
            "seed": model.seed,
            "summary": summary,
            "phases": model.phases.iter().take(LISTED_MAX).collect::<Vec<_>>(),
            "nodes": model.host.as_ref().map(|host| &host.nodes),
            "quarantined": quarantined.take(LISTED_MAX).collect::<Vec<_>>(),
            "configuration": configuration,
            "notes": model.notes.iter().take(LISTED_MAX).collect::<Vec<_>>(),
        }))
    })
    .await
}

/// `GET /api/runs/N/now`
pub(crate) async fn now(State(shared): State<Arc<Shared>>, Path(number): Path<usize>) -> Answer {
    Json::of(&pulse::of(&*super::run(&shared, number)?))
}

/// `GET /api/runs/N/pulse`
pub(crate) async fn pulse(
    State(shared): State<Arc<Shared>>,
    Path(number): Path<usize>,
) -> Result<impl IntoResponse, Problem> {
    super::run(&shared, number)?;
    shared.viewers.admit(shared.runs[number].1.clone())
}
