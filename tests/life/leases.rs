//! Nodes that stand still longer than their leases, and parts that are killed which no other test kills.

use crrl_cluster::host;
use crrl_types::EventKind;
use nix::sys::signal::Signal;

use crate::world::{World, end};
use crate::{STEPS, ledger};

/// Every part in a process of its own.
const NODES: &str = r#"
[[node]]
name = "coordinator"
roles = ["coordinator"]
threads = 1
[[node]]
name = "params"
roles = ["parameter-server"]
threads = 1
[[node]]
name = "learner"
roles = ["learner"]
[[node]]
name = "rollout-0"
roles = ["rollout"]
[[node]]
name = "rollout-1"
roles = ["rollout"]
"#;

#[test]
fn a_node_that_stood_still_past_its_leases_is_fenced_and_goes_on() {
    let world = World::new();
    world.configure("lease_s = 60.0", "lease_s = 2.0");
    world.configure("steps = 20", "steps = 60");
    let mut training = world.train(&[]);
    training.until_step(2);
    let pid = world.pid("rollout-0").expect("runs");
    let held = |world: &World| {
        let of_it = |kind: &EventKind| matches!(kind, EventKind::LeaseLost { from, .. } if from.as_str() == "rollout-0");
        world.history().iter().filter(|event| of_it(&event.kind)).count()
    };
    end(pid, Signal::SIGSTOP);
    training.until("leases taken back", || (held(&world) > 0).then_some(()));
    let reached = world.steps();
    training.until_step(reached + 2);
    assert!(world.steps() < 60, "stopped too late to tell anything");
    let up = |world: &World| {
        let back = |kind: &EventKind| matches!(kind, EventKind::NodeUp { peer, .. } if peer.as_str() == "rollout-0");
        world.history().iter().filter(|event| back(&event.kind)).count()
    };
    let before = up(&world);
    end(pid, Signal::SIGCONT);
    training.until("its return", || (up(&world) > before).then_some(()));
    training.completes();
    // The same process, and what it had finished meanwhile counts for nobody.
    let state = host::state(&world.run).expect("was started");
    assert!(state.nodes.iter().all(|node| node.restarts == 0), "{state:?}");
    ledger::check(&world.run, 60);
}

#[test]
fn a_coordinator_or_a_parameter_server_that_is_killed_goes_on_where_it_was() {
    let world = World::new();
    let path = world.folder.path().join("cluster.toml");
    let config = std::fs::read_to_string(&path).expect("was written");
    std::fs::write(&path, config + NODES).expect("writable");
    let mut training = world.train(&[]);
    for (name, step) in [("params", 2), ("coordinator", 5)] {
        training.until_step(step);
        let killed = world.pid(name).expect("runs");
        end(killed, Signal::SIGKILL);
        training.until("its next life", || world.pid(name).filter(|pid| *pid != killed).map(drop));
        assert!(world.steps() < STEPS, "{name} was killed too late to tell anything");
    }
    training.completes();
    let state = host::state(&world.run).expect("was started");
    for node in &state.nodes {
        let killed = ["params", "coordinator"].contains(&node.name.as_str());
        assert_eq!(node.restarts, u32::from(killed), "{node:?}");
    }
    ledger::check(&world.run, STEPS);
}
