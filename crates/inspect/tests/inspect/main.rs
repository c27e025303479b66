//! The inspector over a made-up cluster: what is folded, what is judged, what is seen.

mod commands;
mod coordinator;
mod diagnosing;
mod folding;
mod keys;
mod leftovers;
mod live;
mod mice;
mod ordering;
mod past;
mod properties;
mod recordings;
mod scene;
mod schema;
mod screens;
mod scripts;
#[path = "../../../../tests/support/skips.rs"]
mod skips;
mod snapshots;
mod stores;
mod terminals;
mod tmux;
mod told;
mod traces;
mod under_way;
#[path = "../../../../tests/support/until.rs"]
mod until;

use crrl_inspect::frame::Frame;
use crrl_inspect::state::World;

/// The world after the seconds `from..=to`, each frame changed a little.
fn world(from: u64, to: u64, change: impl Fn(u64, &mut Frame)) -> World {
    let mut world = World::new();
    for s in from..=to {
        scene::events(s).iter().for_each(|event| world.history.push(event));
        let mut frame = scene::frame(s);
        change(s, &mut frame);
        world.fold(frame);
    }
    world
}

/// The made-up cluster in its third minute, nothing wrong with it, and its coordinator tells ages.
fn healthy() -> World {
    world(150, 190, |_, frame| told::tell(frame))
}
