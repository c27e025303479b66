//! Nodes that stand still longer than their leases, and parts that are killed which no other test kills.

use crrl_cluster::host;
use crrl_types::EventKind;
use nix::sys::signal::Signal;

use crate::world::{World, end};
use crate::{MANY_STEPS, ledger};

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
    // Its leases end before it is missed.
    world.has_patience();
    world.configure("lease_s = 60.0", "lease_s = 6.0");
    world.configure("calls_max = 2", "calls_max = 2\ntime_max_s = 4.0");
    world.configure("steps = 20", "steps = 100000");
    let mut training = world.train(&[]);
    training.until_step(2);
    let pid = world.pid("rollout-0").expect("runs");
    // Where the history tells of it.
    let places = |is_it: fn(&EventKind) -> bool| -> Vec<usize> {
        let history = world.history().into_iter().enumerate();
        history.filter(|(_, event)| is_it(&event.kind)).map(|(at, _)| at).collect()
    };
    let taken: fn(&EventKind) -> bool =
        |kind| matches!(kind, EventKind::LeaseLost { from, .. } if from.as_str() == "rollout-0");
    let missed: fn(&EventKind) -> bool =
        |kind| matches!(kind, EventKind::NodeDown { peer, .. } if peer.as_str() == "rollout-0");
    let before = [places(taken).len(), places(missed).len()];
    end(pid, Signal::SIGSTOP);
    let first_taken = training.until("leases taken back", || places(taken).get(before[0]).copied());
    let first_missed = training.until("its loss", || places(missed).get(before[1]).copied());
    assert!(first_taken < first_missed, "missed before its leases had ended");
    let reached = world.steps();
    training.until_step(reached + 2);
    let up = |world: &World| {
        let back = |kind: &EventKind| matches!(kind, EventKind::NodeUp { peer, .. } if peer.as_str() == "rollout-0");
        world.history().iter().filter(|event| back(&event.kind)).count()
    };
    let before = up(&world);
    end(pid, Signal::SIGCONT);
    training.until("its return", || (up(&world) > before).then_some(()));
    let given = |world: &World| {
        let to_it = |kind: &EventKind| matches!(kind, EventKind::Dispatched { to, .. } if to.as_str() == "rollout-0");
        world.history().iter().filter(|event| to_it(&event.kind)).count()
    };
    // It holds four: that it gets more says that its results are taken again.
    let before = given(&world);
    training.until("work for it", || (given(&world) > before + 8).then_some(()));
    // The same process; and whatever it had finished meanwhile counts once at most.
    assert_eq!(world.pid("rollout-0"), Some(pid));
    training.signal(Signal::SIGINT);
    let (code, said) = training.ended();
    assert_eq!(code, Some(130), "{said}");
    world.succeeds(&["audit", "run"]);
}

#[test]
fn a_coordinator_or_a_parameter_server_that_is_killed_goes_on_where_it_was() {
    let world = World::long();
    let path = world.folder.path().join("cluster.toml");
    let config = std::fs::read_to_string(&path).expect("was written");
    std::fs::write(&path, config + NODES).expect("writable");
    let mut training = world.train(&[]);
    for (name, step) in [("params", 2), ("coordinator", 5)] {
        training.until_step(step);
        let killed = world.pid(name).expect("runs");
        end(killed, Signal::SIGKILL);
        training.until("its next life", || world.pid(name).filter(|pid| *pid != killed).map(drop));
        assert!(world.steps() < MANY_STEPS, "{name} was killed too late to tell anything");
    }
    training.completes();
    let state = host::state(&world.run).expect("was started");
    for node in &state.nodes {
        let killed = ["params", "coordinator"].contains(&node.name.as_str());
        assert_eq!(node.restarts, u32::from(killed), "{node:?}");
    }
    // A coordinator that is killed may not have written the last lines of the history.
    ledger::check_without_history(&world.run, MANY_STEPS);
}
