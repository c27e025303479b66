//! Several runs side by side, as the report compares them.

use std::sync::{Arc, PoisonError};
use std::time::Instant;

use axum::extract::State;
use crrl_report::model::comparison::SETTINGS_MAX;
use crrl_report::{Facts, Report};
use serde_json::json;

use super::{Answer, Json, Problem, reading};
use crate::run::{Read, Run, pause};
use crate::server::Shared;

/// What was said last: bootstraps take their time, and runs under way change all the time.
#[derive(Debug)]
pub(crate) struct Told {
    revisions: Vec<u64>,
    next: Instant,
    json: Json,
}

/// `GET /api/compare`
pub(crate) async fn compare(State(shared): State<Arc<Shared>>) -> Answer {
    let runs: Vec<Arc<Run>> = shared.runs.iter().map(|(run, _)| Arc::clone(run)).collect();
    if runs.len() < 2 {
        return Err(Problem::missing("one run is shown; `crrl dashboard RUN RUN` compares two"));
    }
    let all = Arc::clone(&shared);
    reading(&shared, move || {
        let read: Vec<Arc<Read>> = runs.iter().map(|run| run.read()).collect::<Result<_, _>>()?;
        let revisions: Vec<u64> = read.iter().map(|read| read.revision).collect();
        let mut told = all.comparison.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(told) = &*told
            && (told.revisions == revisions || told.next > Instant::now())
        {
            return Ok(told.json.clone());
        }
        let began = Instant::now();
        let facts: Vec<&Facts> = read.iter().map(|read| &read.facts).collect();
        let comparison = Report::of(&facts).comparison;
        let comparison = comparison.ok_or_else(|| Problem::missing("nothing to compare"))?;
        let json = Json::of(&json!({
            "revisions": revisions,
            "names": runs.iter().map(|run| run.name()).collect::<Vec<_>>(),
            "rows": comparison.rows,
            "settings": comparison.settings.iter().take(SETTINGS_MAX).collect::<Vec<_>>(),
            "settings_all": comparison.settings.len(),
        }))?;
        let next = Instant::now() + pause(began.elapsed());
        *told = Some(Told { revisions, next, json: json.clone() });
        Ok(json)
    })
    .await
}
