//! What a screen shows, as JSON in a file.

use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use crrl_store::EpisodeRow;
use serde_json::{Value, json};

use crate::diagnose::diagnose;
use crate::state::episodes::Rollout;
use crate::state::transcript::{Fate, Journal, LiveCall, LiveTurn};
use crate::state::tree;
use crate::state::{App, Screen, World};
use crate::units::clock;

/// Files of the same second that are told apart.
const TRIES_MAX: u32 = 20;

/// Writes what is shown into a new file in this folder.
///
/// # Errors
/// The folder cannot be written to.
pub fn write(app: &App, world: &World, folder: &Path) -> io::Result<PathBuf> {
    let stem = format!(
        "crrl-{}-{}",
        app.screen.title().to_lowercase(),
        clock(world.now_ms()).replace(':', "")
    );
    let text = serde_json::to_string_pretty(&value(app, world)).map_err(io::Error::other)?;
    for at in 1..=TRIES_MAX {
        let more = if at == 1 { String::new() } else { format!("-{at}") };
        let path = folder.join(format!("{stem}{more}.json"));
        match OpenOptions::new().write(true).create_new(true).open(&path) {
            Ok(mut file) => {
                file.write_all(text.as_bytes())?;
                return Ok(std::path::absolute(&path).unwrap_or(path));
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::Error::other("there are too many of this second already"))
}

/// What is shown: all rows, not only those on the screen.
#[must_use]
pub fn value(app: &App, world: &World) -> Value {
    let rows = match app.screen {
        Screen::Overview => {
            json!({ "nodes": world.nodes(), "progress": world.progress(), "past": app.past })
        }
        Screen::Actors => json!(app.actor_rows(world)),
        Screen::Tree => json!(tree::rows(world)),
        Screen::Actor => {
            let actor = app.actor.as_ref();
            let snapshot = app.snapshot.as_ref().filter(|seen| Some(&seen.of) == actor);
            json!({
                "actor": actor.and_then(|id| world.actor(id)),
                "rates": actor.map(|id| world.rates(id)),
                "snapshot": snapshot.map(|seen| json!({ "says": seen.says, "value": seen.value })),
            })
        }
        Screen::Trace => match &app.trace {
            Some(trace) => json!({ "request": trace.request, "events": trace.events }),
            None => Value::Null,
        },
        Screen::Rollouts => app.rollout_rows(world).iter().map(rollout).collect(),
        Screen::Episode => episode(app, world),
        Screen::Learner => {
            let steps = app.archive.steps.iter().map(
                |row| json!({ "step": row.step, "version": row.version, "metrics": row.metrics }),
            );
            json!({ "progress": world.progress(), "steps": steps.collect::<Vec<_>>() })
        }
        Screen::Faults if app.past.is_some() => json!(app.trouble_rows(world)),
        Screen::Faults => json!(world.faults()),
        Screen::Events => json!(app.event_rows(world)),
        Screen::Diagnosis => json!(diagnose(world)),
        Screen::Help => Value::Null,
    };
    json!({ "screen": app.screen.title(), "at_ms": world.now_ms(), "rows": rows })
}

/// One episode: as the ledger has it, what it has written so far, and what it left behind.
fn episode(app: &App, world: &World) -> Value {
    let Some(opened) = &app.opened else { return Value::Null };
    let number = opened.episode;
    let row = app.archive.over.iter().find(|row| row.episode.0 == number);
    let left = match &opened.left {
        Some(Ok(Some(left))) => Some(&**left),
        _ => None,
    };
    json!({
        "episode": number,
        "live": world.live().iter().find(|row| row.episode == number),
        "over": row.map(over),
        "trajectory": left.map(|left| &left.trajectory),
        "advantage": left.and_then(|left| left.advantage),
        "scored": left.map(|left| left.scored),
        "trained_at": left.and_then(|left| left.trained_at),
        "is_final": left.map(|left| left.is_final),
        "turns": live_turns(&opened.journal),
        "change": opened.journal.change,
    })
}

/// What an episode under way has written so far.
fn live_turns(journal: &Journal) -> Value {
    let call = |call: &LiveCall| {
        let (output, ok) = match &call.fate {
            Fate::Waiting => (None, None),
            Fate::Refused(why) => (Some(why), Some(false)),
            Fate::Answered { output, ok, .. } => (Some(output), Some(*ok)),
        };
        json!({ "name": call.name, "arguments": call.arguments, "output": output, "ok": ok })
    };
    let turn = |turn: &LiveTurn| {
        let calls: Vec<Value> = turn.calls.iter().map(call).collect();
        json!({ "text": turn.text, "tokens": turn.tokens, "calls": calls })
    };
    journal.turns.iter().map(turn).collect()
}

fn rollout(row: &Rollout<'_>) -> Value {
    match row {
        Rollout::Live(row) => json!({ "live": row }),
        Rollout::Over(row) => json!({ "over": over(row) }),
    }
}

fn over(row: &EpisodeRow) -> Value {
    json!({
        "episode": row.episode, "group": row.group, "task": row.task, "state": row.state,
        "attempt": row.attempt, "node": row.node, "reason": row.reason, "reward": row.reward,
        "success": row.success, "step": row.step, "generated": row.generated, "oldest": row.oldest,
    })
}
