//! Several runs side by side, as the report compares them.

use std::sync::Arc;

use axum::extract::State;
use crrl_report::model::comparison::SETTINGS_MAX;
use crrl_report::{Facts, Report};
use serde_json::json;

use super::{Answer, Json, Problem, reading};
use crate::run::{Read, Run};
use crate::server::Shared;

/// `GET /api/compare`
pub(crate) async fn compare(State(shared): State<Arc<Shared>>) -> Answer {
    let runs: Vec<Arc<Run>> = shared.runs.iter().map(|(run, _)| Arc::clone(run)).collect();
    if runs.len() < 2 {
        return Err(Problem::missing("one run is shown; `crrl dashboard RUN RUN` compares two"));
    }
    reading(&shared, move || {
        let read: Vec<Arc<Read>> = runs.iter().map(|run| run.read()).collect::<Result<_, _>>()?;
        let facts: Vec<&Facts> = read.iter().map(|read| &read.facts).collect();
        let comparison = Report::of(&facts).comparison;
        let comparison = comparison.ok_or_else(|| Problem::missing("nothing to compare"))?;
        Json::of(&json!({
            "revisions": read.iter().map(|read| read.revision).collect::<Vec<_>>(),
            "names": runs.iter().map(|run| run.name()).collect::<Vec<_>>(),
            "rows": comparison.rows,
            "settings": comparison.settings.iter().take(SETTINGS_MAX).collect::<Vec<_>>(),
            "settings_all": comparison.settings.len(),
        }))
    })
    .await
}
