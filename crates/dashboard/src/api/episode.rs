//! One episode in full: what it was to repair, what it said and did, what it changed, what that
//! earned. Long texts are cut; the rest is asked for piece by piece.

use std::sync::Arc;

use axum::extract::{Path, State};
use crrl_inspect::pieces;
use crrl_store::{EpisodeQuery, Reader};
use crrl_types::{EpisodeId, ToolRecord, Trajectory};
use serde::Deserialize;
use serde_json::{Value, json};

use super::rollouts::row;
use super::{Answer, Asked, Json, Problem, asked, no_such, reading, under_way};
use crate::server::Shared;
use crate::{excerpt, patch};

/// Turns that are told.
const TURNS_MAX: usize = 300;
/// Calls of one turn that are told.
const CALLS_MAX: usize = 50;
/// Attempts at the same task that are told.
const SIBLINGS_MAX: u64 = 128;
/// Parts of a reward, and spans of adapters, that are told.
const PARTS_MAX: usize = 64;

/// `GET /api/runs/N/episodes/ID`
pub(crate) async fn one(
    State(shared): State<Arc<Shared>>,
    Path((number, id)): Path<(usize, u64)>,
) -> Answer {
    let run = super::run(&shared, number)?;
    reading(&shared, move || {
        let store = run.store()?;
        store.hold()?;
        let found = store.episode(EpisodeId(id))?.ok_or_else(|| no_such(EpisodeId(id)))?;
        let query = EpisodeQuery { group: Some(found.group.0), ..EpisodeQuery::default() };
        let group = store.page(&query, 0, SIBLINGS_MAX)?;
        let neighbour = |descending| neighbour(&store, id, descending);
        let left = store.trajectory(EpisodeId(id))?;
        let read = run.read()?;
        let task = read.facts.tasks.get(&found.task);
        let gold = task.map_or("", |task| task.patch.as_str());
        Json::of(&json!({
            "row": row(&found),
            "phase": read.model.phases.get(found.phase as usize).map(|phase| &phase.label),
            "before": neighbour(true)?,
            "after": neighbour(false)?,
            "group": group.rows.iter().map(|row| json!({
                "episode": row.episode.0,
                "reward": row.reward.filter(|reward| reward.is_finite()),
                "success": row.success,
                "state": row.state,
            })).collect::<Vec<_>>(),
            "task": task.map(|task| json!({
                "kind": task.kind,
                "statement": excerpt::first(&task.statement),
            })),
            "reference": task.map(|_| patch::read(gold, left.as_ref().map_or("", |t| &t.diff))),
            "left": left.as_ref().map(|trajectory| transcript(trajectory, gold)),
        }))
    })
    .await
}

/// The number of the episode next to this one.
fn neighbour(store: &Reader, id: u64, descending: bool) -> Result<Option<u64>, Problem> {
    let edge = match descending {
        true => id.checked_sub(1),
        false => id.checked_add(1),
    };
    let Some(edge) = edge else { return Ok(None) };
    let query = if descending {
        EpisodeQuery { until: Some(edge), descending, ..EpisodeQuery::default() }
    } else {
        EpisodeQuery { from: Some(edge), ..EpisodeQuery::default() }
    };
    Ok(store.page(&query, 0, 1)?.rows.first().map(|row| row.episode.0))
}

fn transcript(trajectory: &Trajectory, gold: &str) -> Value {
    let Trajectory { reward, turns, adapters, .. } = trajectory;
    let means = pieces::means(trajectory);
    let turn = |(at, turn): (usize, &crrl_types::Turn)| {
        let mean = means.as_ref().and_then(|means| means.get(at)).filter(|mean| mean.is_finite());
        json!({
            "text": excerpt::first(&turn.text),
            "tokens": turn.tokens,
            "logprob": mean,
            "calls": turn.tools.iter().take(CALLS_MAX).map(call).collect::<Vec<_>>(),
            "calls_left_out": turn.tools.len().saturating_sub(CALLS_MAX),
        })
    };
    let spans = adapters.iter().take(PARTS_MAX).map(|span| {
        json!({
            "version": span.version.0,
            "tokens": span.end.saturating_sub(span.start),
            "digest": span.digest,
        })
    });
    json!({
        "finish": trajectory.finish,
        "temperature": trajectory.temperature,
        "wall_ms": trajectory.wall_ms,
        "tokens": trajectory.tokens.len(),
        "generated": trajectory.generated_len(),
        "adapters": spans.collect::<Vec<_>>(),
        "reward": {
            "total": reward.total,
            "success": reward.success,
            "components": reward.components.iter().take(PARTS_MAX).collect::<Vec<_>>(),
        },
        "turns": turns.iter().enumerate().take(TURNS_MAX).map(turn).collect::<Vec<_>>(),
        "turns_left_out": turns.len().saturating_sub(TURNS_MAX),
        "patch": patch::read(&trajectory.diff, gold),
    })
}

fn call(tool: &ToolRecord) -> Value {
    json!({
        "name": tool.name.chars().take(PARTS_MAX).collect::<String>(),
        "arguments": excerpt::first(&tool.arguments),
        "output": excerpt::first(&tool.output),
        "ok": tool.ok,
        "wall_ms": tool.wall_ms,
    })
}

/// Which turn.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct WhichTurn {
    turn: usize,
}

/// `GET /api/runs/N/episodes/ID/tokens`
pub(crate) async fn tokens(
    State(shared): State<Arc<Shared>>,
    Path((number, id)): Path<(usize, u64)>,
    which: Asked<WhichTurn>,
) -> Answer {
    let (run, which) = (super::run(&shared, number)?, asked(which)?);
    reading(&shared, move || {
        let (store, id) = (run.store()?, EpisodeId(id));
        store.hold()?;
        store.episode(id)?.ok_or_else(|| no_such(id))?;
        let found = match store.trajectory(id)? {
            Some(left) => pieces::of_turn(&left, which.turn, run.tokenizer()),
            None => under_way::tokens(&run, &store, id, which.turn)?,
        };
        let says = "this turn has no tokens of its own: it is not there, or turns and tokens of the \
                    transcript do not add up";
        Json::of(&found.ok_or_else(|| Problem::missing(says))?)
    })
    .await
}

/// Which text.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Of {
    /// What the policy wrote in a turn.
    Turn,
    /// The arguments of a call.
    Arguments,
    /// What a call answered.
    Output,
    /// What the episode changed.
    Patch,
    /// What the task's reference changes.
    Reference,
    /// What the agent was told.
    Statement,
}

/// Which text, and from where on.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct WhichText {
    pub(super) of: Of,
    #[serde(default)]
    pub(super) turn: usize,
    #[serde(default)]
    pub(super) call: usize,
    #[serde(default)]
    pub(super) from: usize,
}

/// `GET /api/runs/N/episodes/ID/text`
pub(crate) async fn text(
    State(shared): State<Arc<Shared>>,
    Path((number, id)): Path<(usize, u64)>,
    which: Asked<WhichText>,
) -> Answer {
    let (run, which) = (super::run(&shared, number)?, asked(which)?);
    reading(&shared, move || {
        let (store, id) = (run.store()?, EpisodeId(id));
        store.hold()?;
        let row = store.episode(id)?.ok_or_else(|| no_such(id))?;
        let left = store.trajectory(id)?;
        let found = match (&which.of, &left) {
            (Of::Reference | Of::Statement, _) => {
                let read = run.read()?;
                read.facts.tasks.get(&row.task).map(|task| {
                    let is_patch = matches!(which.of, Of::Reference);
                    let text = if is_patch { &task.patch } else { &task.statement };
                    excerpt::more(text, which.from)
                })
            }
            (_, None) => under_way::text(&run, &store, id, &which)?,
            (of, Some(left)) => {
                let turn = left.turns.get(which.turn);
                let tool = turn.and_then(|turn| turn.tools.get(which.call));
                let text = match of {
                    Of::Turn => turn.map(|turn| &turn.text),
                    Of::Arguments => tool.map(|tool| &tool.arguments),
                    Of::Output => tool.map(|tool| &tool.output),
                    Of::Patch | Of::Reference | Of::Statement => Some(&left.diff),
                };
                text.map(|text| excerpt::more(text, which.from))
            }
        };
        Json::of(&found.ok_or_else(|| Problem::missing("this episode has no such text"))?)
    })
    .await
}
