//! What a screen shows, as JSON in a file.

use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

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
            json!({
                "actor": actor.and_then(|id| world.actor(id)),
                "rates": actor.map(|id| world.rates(id)),
            })
        }
        Screen::Trace => match &app.trace {
            Some(trace) => json!({ "request": trace.request, "events": trace.events }),
            None => Value::Null,
        },
        Screen::Rollouts => app.rollout_rows(world).iter().map(rollout).collect(),
        Screen::Episode => {
            let opened = app.opened.as_ref();
            let found = opened.and_then(|opened| opened.left.as_ref());
            let live =
                opened.and_then(|o| world.live().iter().find(|row| row.episode == o.episode));
            json!({
                "episode": opened.map(|opened| opened.episode),
                "live": live,
                "trajectory": found.and_then(|found| Some(&found.as_ref().ok()?.as_ref()?.trajectory)),
                "turns": opened.map(|opened| live_turns(&opened.journal)),
            })
        }
        Screen::Learner => {
            let steps = app.archive.steps.iter().map(
                |row| json!({ "step": row.step, "version": row.version, "metrics": row.metrics }),
            );
            json!({ "progress": world.progress(), "steps": steps.collect::<Vec<_>>() })
        }
        Screen::Faults => json!(world.faults()),
        Screen::Events => json!(app.event_rows(world)),
        Screen::Diagnosis => json!(diagnose(world)),
        Screen::Help => Value::Null,
    };
    json!({ "screen": app.screen.title(), "at_ms": world.now_ms(), "rows": rows })
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
        Rollout::Over(row) => json!({ "over": {
            "episode": row.episode, "group": row.group, "task": row.task, "state": row.state,
            "node": row.node, "reason": row.reason, "reward": row.reward, "success": row.success,
            "step": row.step, "generated": row.generated, "oldest": row.oldest,
        } }),
    }
}
