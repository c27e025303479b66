//! What goes wrong on purpose: the inspector names it, soon and in the right node.

use std::process::Child;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::world::{World, end};

/// Long enough to be looked for on a machine that is busy, in seconds.
const HANG_S: u32 = 120;
/// Longest a look may take that names an actor: far less than the actor hangs.
const NAMED_WITHIN: Duration = Duration::from_secs(30);

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

/// A node as `crrl inspect nodes` gives it.
fn node(world: &World, name: &str) -> Option<Value> {
    let output = world.crrl(&["inspect", "nodes", "--json", "--run", "run"]);
    let nodes: Value = serde_json::from_slice(&output.stdout).ok()?;
    nodes.as_array()?.iter().find(|node| node["name"] == name).cloned()
}

#[test]
fn a_node_that_was_killed_is_seen_with_how_it_ended_and_is_ready_again() {
    let world = World::new();
    world.configure("steps = 20", "steps = 100000");
    let mut training = world.train(&[]);
    training.until_all_work();
    let before = node(&world, "rollout-1").expect("it has reported");
    assert_eq!((&before["state"], &before["restarts"]), (&"ready".into(), &0.into()), "{before}");
    end(world.pid("rollout-1").expect("runs"), Signal::SIGKILL);
    let after = training.until("a node that was started again", || {
        // What the dead one said last is there until it is missed.
        let is_another = |n: &Value| n["state"] == "ready" && n["pid"] != before["pid"];
        node(&world, "rollout-1").filter(is_another)
    });
    let how = after["last_exit"].as_str().unwrap_or_default();
    assert!(how.contains("SIGKILL"), "{after}");
    assert_eq!(after["restarts"], 1, "{after}");
}

#[test]
fn a_node_that_is_cut_off_is_named_and_the_rest_is_told_of_all_the_while() {
    let world = World::new();
    world.configure("steps = 20", "steps = 100000");
    // It would outlast any test.
    let cut = "[[fault]]\nkind = \"drop\"\nnode = \"rollout-1\"\nduration_s = 600\n";
    std::fs::write(world.folder.path().join("faults.toml"), cut).expect("writable");
    let mut training = world.train(&[]);
    training.until_all_work();
    let chaos = ["chaos", "run", "faults.toml", "--window", "0.5", "--run", "run"];
    let mut chaos = Background(world.starts(&chaos, "chaos.stderr"));
    let lost = training.until("a node that was lost", || {
        findings(&world).into_iter().find(|finding| finding["rule"] == "node-down")
    });
    assert_eq!(lost["node"], "rollout-1", "{lost}");
    let other = node(&world, "rollout-0").expect("it is told of");
    assert_eq!(other["state"], "ready", "{other}");
    end(chaos.0.id(), Signal::SIGINT);
    assert_eq!(chaos.0.wait().expect("is ours").code(), Some(130));
    training.until("the node again", || {
        node(&world, "rollout-1").filter(|node| node["state"] == "ready")
    });
}

#[test]
fn nodes_say_what_they_measure_and_for_how_long_they_have_been_at_it() {
    let world = World::new();
    world.configure("steps = 20", "steps = 100000");
    let mut training = world.train(&[]);
    training.until_all_work();
    let told = training.until("what a node measures", || {
        let is_known = |node: &Value| node["cpu_percent"].is_f64() && node["rtt_p50_ms"].is_f64();
        node(&world, "rollout-1").filter(is_known)
    });
    assert_eq!(told["build"], env!("CARGO_PKG_VERSION"), "{told}");
    assert!(told["rtt_p99_ms"].as_f64() >= told["rtt_p50_ms"].as_f64(), "{told}");
    // All are on one machine, and have one clock.
    assert!(told["clock_skew_ms"].as_f64().is_some_and(|ms| ms.abs() < 30_000.0), "{told}");
    assert!(told["age_ms"].as_u64().is_some_and(|ms| ms < 30_000), "{told}");
    assert_eq!(told["gpus"], serde_json::json!([]), "a node on the CPU has no GPU to tell of");
    let coordinator = node(&world, "coordinator").expect("it is told of");
    assert!(coordinator["cpu_percent"].is_f64(), "{coordinator}");
    assert!(coordinator["rtt_p50_ms"].is_null() && coordinator["clock_skew_ms"].is_null());
}
