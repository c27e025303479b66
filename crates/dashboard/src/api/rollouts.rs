//! Episodes, a page at a time: those under way, and those that were handed out before.

use std::sync::Arc;

use axum::extract::{Path, State};
use crrl_inspect::state::episodes::LiveColumn;
use crrl_store::page::PAGE_MAX;
use crrl_store::{EpisodeQuery, EpisodeRow, Facet, Order};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Answer, Asked, Json, Problem, asked, reading};
use crate::excerpt;
use crate::server::Shared;

/// Episodes under way that are told.
const LIVE_MAX: usize = 200;
/// Orders by name.
const ORDERS: [(&str, Order); 5] = [
    ("episode", Order::Episode),
    ("reward", Order::Reward),
    ("tokens", Order::Generated),
    ("step", Order::Step),
    ("task", Order::Task),
];

/// Which episodes, and in which order.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct List {
    task: Option<String>,
    node: Option<String>,
    state: Option<String>,
    outcome: Option<String>,
    reward_min: Option<f64>,
    reward_max: Option<f64>,
    version: Option<u64>,
    step: Option<u64>,
    phase: Option<u32>,
    group: Option<u64>,
    until: Option<u64>,
    sort: String,
    limit: u64,
    offset: u64,
}

impl Default for List {
    fn default() -> Self {
        Self {
            task: None,
            node: None,
            state: None,
            outcome: None,
            reward_min: None,
            reward_max: None,
            version: None,
            step: None,
            phase: None,
            group: None,
            until: None,
            sort: "-episode".into(),
            limit: 50,
            offset: 0,
        }
    }
}

impl List {
    fn query(&self) -> Result<EpisodeQuery, Problem> {
        let (descending, name) =
            self.sort.strip_prefix('-').map_or((false, self.sort.as_str()), |name| (true, name));
        let order = ORDERS.iter().find(|(known, _)| *known == name).ok_or_else(|| {
            let known: Vec<&str> = ORDERS.iter().map(|(name, _)| *name).collect();
            Problem::usage(format!("sort: there is no {name:?}; there are {}", known.join(", ")))
        })?;
        let success = match self.outcome.as_deref() {
            None | Some("") => None,
            Some("solved") => Some(true),
            Some("unsolved") => Some(false),
            Some(other) => {
                let says = format!("outcome: {other:?} is neither solved nor unsolved");
                return Err(Problem::usage(says));
            }
        };
        let text = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
        Ok(EpisodeQuery {
            task: text(&self.task),
            node: text(&self.node),
            state: text(&self.state),
            success,
            reward_min: self.reward_min,
            reward_max: self.reward_max,
            version: self.version,
            step: self.step,
            phase: self.phase,
            group: self.group,
            from: None,
            until: self.until,
            order: order.1,
            descending,
        })
    }
}

/// `GET /api/runs/N/episodes`
pub(crate) async fn list(
    State(shared): State<Arc<Shared>>,
    Path(number): Path<usize>,
    list: Asked<List>,
) -> Answer {
    let (run, list) = (super::run(&shared, number)?, asked(list)?);
    let query = list.query()?;
    reading(&shared, move || {
        let store = run.store()?;
        store.hold()?;
        let page = store.page(&query, list.offset, list.limit.clamp(1, PAGE_MAX))?;
        let newest = store.page(
            &EpisodeQuery { until: None, order: Order::Episode, descending: true, ..query },
            0,
            1,
        )?;
        Json::of(&json!({
            "total": page.total,
            "offset": list.offset,
            "newer": newest.total.saturating_sub(page.total),
            "newest": newest.rows.first().map(|row| row.episode.0),
            "rows": page.rows.iter().map(row).collect::<Vec<_>>(),
        }))
    })
    .await
}

/// An episode as the ledger has it.
pub(super) fn row(row: &EpisodeRow) -> Value {
    json!({
        "episode": row.episode.0,
        "group": row.group.0,
        "task": row.task.as_str(),
        "phase": row.phase,
        "sample": row.sample,
        "evaluation": row.evaluation,
        "attempt": row.attempt,
        "node": row.node.as_ref().map(|node| node.as_str()),
        "state": row.state,
        "reason": row.reason.as_deref().map(excerpt::listed),
        "reward": row.reward.filter(|reward| reward.is_finite()),
        "success": row.success,
        "version": row.oldest.map(|version| version.0),
        "tokens": row.generated,
        "step": row.step.map(|step| step.0),
    })
}

/// `GET /api/runs/N/facets`
pub(crate) async fn facets(State(shared): State<Arc<Shared>>, Path(number): Path<usize>) -> Answer {
    let run = super::run(&shared, number)?;
    reading(&shared, move || {
        let [nodes, states, versions, phases] = run.store()?.facets()?;
        let values = |facets: Vec<Facet>| -> Vec<(String, u64)> {
            facets.into_iter().map(|facet| (facet.value, facet.episodes)).collect()
        };
        let plan = run.read().ok();
        let names: Vec<&str> =
            plan.iter().flat_map(|read| &read.model.phases).map(|p| p.label.as_str()).collect();
        Json::of(&json!({
            "nodes": values(nodes),
            "states": values(states),
            "versions": values(versions),
            "phases": values(phases),
            "phase_names": names,
        }))
    })
    .await
}

/// `GET /api/runs/N/live`
pub(crate) async fn live(State(shared): State<Arc<Shared>>, Path(number): Path<usize>) -> Answer {
    let run = super::run(&shared, number)?;
    let seen = run.seen();
    let mut rows: Vec<_> = seen.world.live().iter().collect();
    let all = rows.len();
    // By number: rows keep their places while they are looked at.
    LiveColumn::Episode.sort(true, &mut rows);
    rows.truncate(LIVE_MAX);
    Json::of(&json!({ "all": all, "age_ms": seen.world.frame_age_ms(), "rows": rows }))
}
