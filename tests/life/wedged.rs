//! Actors that hang on purpose: the inspector names them, soon and in the right node.

use std::process::Child;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::world::World;

/// Long enough to be looked for on a machine that is busy, in seconds.
const HANG_S: u32 = 30;
/// Longest a look may take that names an actor.
const NAMED_WITHIN: Duration = Duration::from_secs(5);

/// A command in the background, until this is dropped.
struct Background(Child);

impl Drop for Background {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What a short look finds.
fn findings(world: &World) -> Vec<Value> {
    let look = ["inspect", "diagnose", "--for", "1", "--json", "--run", "run"];
    let output = world.crrl(&look);
    let verdict: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    verdict["findings"].as_array().cloned().unwrap_or_default()
}

#[test]
fn an_actor_that_hangs_is_named_with_its_node_within_seconds() {
    hangs_and_is_named("rollout-1");
}

#[test]
fn the_coordinators_own_actors_are_named_when_they_hang() {
    hangs_and_is_named("coordinator");
}

fn hangs_and_is_named(node: &str) {
    let world = World::new();
    world.configure("steps = 20", "steps = 100000");
    let hang = format!("[[fault]]\nkind = \"hang\"\nnode = \"{node}\"\nduration_s = {HANG_S}\n");
    std::fs::write(world.folder.path().join("faults.toml"), hang).expect("writable");
    let mut training = world.train(&[]);
    training.until_all_work();
    let chaos = ["chaos", "run", "faults.toml", "--window", "0.5", "--run", "run"];
    let _chaos = Background(world.starts(&chaos, "chaos.stderr"));
    let (found, took) = training.until("an actor that hangs", || {
        let began = Instant::now();
        let mut found = findings(&world);
        let took = began.elapsed();
        found.retain(|finding| finding["rule"] == "actor-busy");
        (!found.is_empty()).then_some((found, took))
    });
    assert!(took < NAMED_WITHIN, "it took {took:?}: {found:?}");
    for finding in &found {
        assert_eq!(finding["node"], node, "{found:?}");
        assert!(finding["actor"].is_string(), "{finding}");
        assert!(finding["for_ms"].as_u64() > Some(5_000), "{finding}");
    }
}
