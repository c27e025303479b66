//! Actors and who supervises whom, with the inspector's columns and filter.

use std::sync::Arc;

use axum::extract::{Path, State};
use crrl_inspect::filter::Filter;
use crrl_inspect::state::World;
use crrl_inspect::state::actors::{ActorColumn, ActorId, ActorRow};
use crrl_inspect::state::tree::{self, Leaf};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Answer, Asked, Json, Problem, asked};
use crate::pulse;
use crate::server::Shared;

/// Actors of one answer.
const ACTORS_MAX: usize = 500;

/// Which actors.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct List {
    sort: String,
    filter: String,
    limit: usize,
    offset: usize,
}

impl Default for List {
    fn default() -> Self {
        Self { sort: "trouble".into(), filter: String::new(), limit: 100, offset: 0 }
    }
}

/// `GET /api/runs/N/actors`
pub(crate) async fn list(
    State(shared): State<Arc<Shared>>,
    Path(number): Path<usize>,
    list: Asked<List>,
) -> Answer {
    let (run, list) = (super::run(&shared, number)?, asked(list)?);
    let (name, is_turned) =
        list.sort.strip_prefix('-').map_or((list.sort.as_str(), false), |name| (name, true));
    let column = ActorColumn::named(name).ok_or_else(|| {
        let known: Vec<&str> = ActorColumn::ALL.iter().map(|(_, name)| *name).collect();
        Problem::usage(format!("sort: there is no column {name:?}; there are {}", known.join(", ")))
    })?;
    let filter = filter::<ActorRow>(&list.filter)?;
    let seen = run.seen();
    let mut rows: Vec<&ActorRow> =
        seen.world.actors().iter().filter(|row| filter.shows(*row)).collect();
    column.sort(column.is_descending() != is_turned, &mut rows);
    let page = rows.iter().skip(list.offset).take(list.limit.min(ACTORS_MAX));
    Json::of(&json!({
        "link": pulse::link(seen.link.as_ref()),
        "age_ms": seen.world.frame_age_ms(),
        "all": seen.world.actors().len(),
        "total": rows.len(),
        "offset": list.offset,
        "rows": page.collect::<Vec<_>>(),
    }))
}

/// A filter as the inspector reads it.
fn filter<T: crrl_inspect::filter::Fields>(text: &str) -> Result<Filter, Problem> {
    Filter::parse::<T>(text).map_err(|error| Problem::usage(format!("filter: {error}")))
}

/// Where in the tree to begin.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Tree {
    filter: String,
    offset: usize,
}

/// `GET /api/runs/N/tree`
pub(crate) async fn tree(
    State(shared): State<Arc<Shared>>,
    Path(number): Path<usize>,
    tree: Asked<Tree>,
) -> Answer {
    let (run, asked) = (super::run(&shared, number)?, asked(tree)?);
    let filter = filter::<ActorRow>(&asked.filter)?;
    let seen = run.seen();
    let rows = branches(&seen.world, &filter);
    Json::of(&json!({
        "link": pulse::link(seen.link.as_ref()),
        "age_ms": seen.world.frame_age_ms(),
        "total": rows.len(),
        "offset": asked.offset,
        "rows": rows.iter().skip(asked.offset).take(ACTORS_MAX).collect::<Vec<_>>(),
    }))
}

/// Rows of the tree: those that pass the filter, and what leads to them.
fn branches(world: &World, filter: &Filter) -> Vec<Value> {
    let mut rows: Vec<Value> = Vec::new();
    // Whether something at this level or below was kept, from the end of the tree up.
    let mut kept: Vec<bool> = Vec::new();
    for row in tree::rows(world).iter().rev() {
        let (level, passes, value) = match row.what {
            Leaf::Node(node) => {
                (0, filter.as_str().is_empty(), json!({ "level": 0, "node": node }))
            }
            Leaf::Actor(actor) => {
                let level = row.branch.level();
                (level, filter.shows(actor), json!({ "level": level, "actor": actor }))
            }
        };
        kept.resize(kept.len().max(level + 2), false);
        let leads_on = kept[level + 1..].iter().any(|kept| *kept);
        kept[level + 1..].fill(false);
        if passes || leads_on {
            kept[level] = true;
            rows.push(value);
        }
    }
    rows.reverse();
    rows
}

/// Which actor.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Which {
    node: String,
    name: String,
}

/// `GET /api/runs/N/actor`
pub(crate) async fn one(
    State(shared): State<Arc<Shared>>,
    Path(number): Path<usize>,
    which: Asked<Which>,
) -> Answer {
    let (run, which) = (super::run(&shared, number)?, asked(which)?);
    let id = ActorId { node: which.node, name: which.name };
    let seen = run.seen();
    let actor = seen.world.actor(&id);
    let actor = actor.ok_or_else(|| Problem::missing("this actor is not told of any more"))?;
    let children =
        seen.world.actors().iter().filter(|other| {
            other.node == id.node && other.parent.as_deref() == Some(id.name.as_str())
        });
    Json::of(&json!({
        "actor": actor,
        "rates": seen.world.rates(&id),
        "children": children.take(ACTORS_MAX).map(|child| &child.name).collect::<Vec<_>>(),
    }))
}
