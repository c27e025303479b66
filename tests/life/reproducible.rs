//! With `run.sync = true` a seed decides everything: neither the number of rollout nodes nor their
//! deaths change a bit of what is learnt.

use crrl_types::EventKind;
use nix::sys::signal::Signal;

use crate::ledger;
use crate::world::{World, end};

const STEPS: u64 = 6;

/// A run in turns of two-turn episodes, on this many rollout nodes.
fn world(rollouts: usize) -> World {
    let world = World::new();
    world.configure("steps = 20", &format!("steps = {STEPS}\nsync = true\nseed = 11"));
    // A random policy changes nothing and is nudged: that makes a second turn.
    world.configure("nudges_max = 0", "nudges_max = 1");
    world.configure("tokens_max = 200", "tokens_max = 480");
    let mut nodes = String::from(
        "[[node]]\nname = \"coordinator\"\nroles = [\"coordinator\", \"parameter-server\"]\n\
         [[node]]\nname = \"learner\"\nroles = [\"learner\"]\nthreads = 1\n",
    );
    for rollout in 0..rollouts {
        nodes += &format!(
            "[[node]]\nname = \"rollout-{rollout}\"\nroles = [\"rollout\"]\nthreads = 1\n"
        );
    }
    world.configure("[cluster]", &format!("{nodes}[cluster]"));
    world
}

/// The learnt adapter, and the optimizer's moments.
fn learnt(world: &World) -> [Vec<u8>; 2] {
    let folder = world.run.path().join(format!("checkpoints/step-{STEPS:08}"));
    ["adapter/adapter_model.safetensors", "moments.safetensors"].map(|file| {
        let path = folder.join(file);
        std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    })
}

/// A node that has an episode whose first turn is on disk and whose second is not.
fn in_the_middle(world: &World) -> Option<String> {
    let reader = crrl_store::Reader::open(&world.run.store()).ok()?;
    let begun = reader.journals().ok()?;
    let leased = reader.episodes_in(&["leased"]).ok()?;
    let row = leased.into_iter().find(|row| begun.contains_key(&row.episode))?;
    Some(row.node?.as_str().to_owned())
}

#[test]
fn neither_more_nodes_nor_their_deaths_change_what_is_learnt() {
    let alone = world(1);
    alone.train(&[]).completes();

    let more = world(3);
    let mut training = more.train(&[]);
    // Two, since a task that outlives three nodes would be quarantined.
    for _ in 0..2 {
        let node = training.until("episode in the middle", || in_the_middle(&more));
        if let Some(pid) = more.pid(&node) {
            end(pid, Signal::SIGKILL);
        }
        let resumed = || {
            let history = more.history();
            let resumed = |kind: &EventKind| matches!(kind, EventKind::Resumed { .. });
            let restarted = |kind: &EventKind| matches!(kind, EventKind::Restarted { .. });
            history.iter().any(|e| resumed(&e.kind) || restarted(&e.kind)).then_some(())
        };
        training.until("another node with the episode", resumed);
    }
    training.completes();
    ledger::check(&more.run, STEPS);
    let history = more.history();
    let resumed = history.iter().filter(|e| matches!(e.kind, EventKind::Resumed { .. })).count();
    assert!(resumed > 0, "no episode was gone on with");
    assert!(learnt(&alone) == learnt(&more), "another adapter was learnt");
}
