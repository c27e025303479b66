//! Curves over optimizer steps, smoothed as asked, with the report's intervals; when each step was, and when
//! people injected faults or gave orders.

use std::sync::Arc;

use axum::extract::{Path, State};
use crrl_cluster::Progress;
use crrl_report::model::curve::sample;
use crrl_report::model::{Chart, Point, Series, Unit, steps, training};
use serde::Deserialize;
use serde_json::json;

use super::{Answer, Asked, Json, asked, reading};
use crate::run::{Read, Run};
use crate::server::Shared;

/// Steps a line may be the mean of at most.
const SMOOTH_MAX: usize = 1_000;

/// How smooth.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct How {
    smooth: Option<usize>,
}

/// `GET /api/runs/N/curves`
pub(crate) async fn curves(
    State(shared): State<Arc<Shared>>,
    Path(number): Path<usize>,
    how: Asked<How>,
) -> Answer {
    let (run, how) = (super::run(&shared, number)?, asked(how)?);
    let smooth = how.smooth.map(|steps| steps.clamp(1, SMOOTH_MAX));
    reading(&shared, move || match run.read() {
        Ok(read) => of_facts(&run, &read, smooth),
        Err(error) => of_board(&run).unwrap_or_else(|| Err(error.into())),
    })
    .await
}

fn of_facts(run: &Run, read: &Read, smooth: Option<usize>) -> Answer {
    let facts = &read.facts;
    let (mut charts, all_zero) = steps::charts_over(facts, smooth);
    charts.extend(training::of(facts).0);
    let began = facts.history.began_ms.unwrap_or(0);
    let since = |at_ms: u64| at_ms.saturating_sub(began) as f64 / 1_000.0;
    let times: Vec<(u64, f64)> =
        facts.history.stepped.iter().map(|(step, at_ms)| (*step, since(*at_ms))).collect();
    Json::of(&json!({
        "name": run.name(),
        "revision": read.revision,
        "steps": facts.steps.len(),
        "charts": charts,
        "all_zero": all_zero,
        "times": sample(&times),
        "deeds": super::faults::deeds(&read.model.timeline),
        "throughput": read.model.timeline.throughput,
        "step_time": read.model.step_time,
    }))
}

/// What the coordinator's board keeps, where the run's files are on another machine.
fn of_board(run: &Run) -> Option<Answer> {
    let seen = run.seen();
    let progress = seen.world.progress().filter(|progress| !progress.history.is_empty())?;
    let charts = [
        chart(progress, "reward", "Reward of all attempts", Unit::Plain, |point| point.reward),
        chart(progress, "success", "Attempts that repaired their task", Unit::Share, |point| {
            point.success
        }),
    ];
    Some(Json::of(&json!({
        "name": run.name(),
        "revision": run.revision(),
        "steps": progress.step,
        "charts": charts,
        "all_zero": [],
        "times": [],
        "deeds": [],
        "throughput": null,
        "step_time": null,
    })))
}

fn chart(
    progress: &Progress,
    id: &str,
    title: &str,
    unit: Unit,
    value: fn(&crrl_cluster::board::RewardPoint) -> f64,
) -> Chart {
    let point = |at: &crrl_cluster::board::RewardPoint| Point { x: at.step as f64, y: value(at) };
    let line = progress.history.iter().map(point).collect();
    Chart {
        id: id.into(),
        title: title.into(),
        x_name: steps::STEP_AXIS.into(),
        unit,
        about:
            "As the coordinator's board has it: the run's files are on another machine, so there \
                are no intervals and no other curves."
                .into(),
        series: vec![Series { label: title.into(), raw: Vec::new(), line, band: Vec::new() }],
    }
}
