//! What every viewer is sent once a second: small whatever the cluster's size, the same for all.

use crrl_inspect::diagnose::diagnose;
use crrl_inspect::frame::Link;
use crrl_inspect::state::World;
use crrl_inspect::state::history::Weight;
use serde_json::{Value, json};

use crate::run::Run;

/// Nodes of one pulse.
pub const NODES_MAX: usize = 256;
/// Faults and findings of one pulse.
pub const TROUBLES_MAX: usize = 20;
/// Events of one pulse: those that matter.
pub const EVENTS_MAX: usize = 12;

/// The pulse of a run.
#[must_use]
pub fn of(run: &Run) -> Value {
    let seen = run.seen();
    let mut pulse = match seen.link {
        Some(_) => of_world(&seen.world),
        None => json!({ "events": events(&seen.world) }),
    };
    pulse["link"] = link(seen.link.as_ref());
    pulse["revision"] = run.revision().into();
    pulse["at_ms"] = seen.world.now_ms().into();
    pulse
}

/// Whether a cluster is looked at, for scripts and the page.
#[must_use]
pub fn link(link: Option<&Link>) -> Value {
    match link {
        None => json!({ "state": "off" }),
        Some(Link::Connecting { reason }) => json!({ "state": "connecting", "reason": reason }),
        Some(Link::Lost { reason, since_ms }) => {
            json!({ "state": "lost", "reason": reason, "since_ms": since_ms })
        }
        Some(Link::Live | Link::Past | Link::Replay { .. }) => json!({ "state": "live" }),
    }
}

fn of_world(world: &World) -> Value {
    let nodes = world.nodes();
    let verdict = diagnose(world);
    let progress = world.progress().map(|progress| {
        json!({
            "phase": progress.phase,
            "phase_ms": world.phase_ms(),
            "step": progress.step,
            "steps": progress.steps,
            "adapter_version": progress.adapter_version,
            "episodes": progress.episodes,
        })
    });
    json!({
        "frame_age_ms": world.frame_age_ms(),
        "progress": progress,
        "nodes": nodes.iter().take(NODES_MAX).collect::<Vec<_>>(),
        "nodes_all": nodes.len(),
        "actors_all": world.actors().len(),
        "live_all": world.live().len(),
        "faults": world.faults().iter().take(TROUBLES_MAX).collect::<Vec<_>>(),
        "healthy": verdict.healthy,
        "findings": verdict.findings.iter().take(TROUBLES_MAX).collect::<Vec<_>>(),
        "events": events(world),
    })
}

/// The last events that are not one of thousands, newest first.
fn events(world: &World) -> Vec<Value> {
    let rows = world.history.rows().rev().filter(|row| row.weight != Weight::Routine);
    rows.take(EVENTS_MAX).map(|row| json!(row)).collect()
}
