//! Nodes restarted one after the other while the run goes on.

use crrl_cluster::host;
use crrl_types::EventKind;

use crate::world::World;

#[test]
fn every_node_is_restarted_in_turn_and_nothing_is_lost() {
    let world = World::new();
    world.has_patience();
    world.configure("steps = 20", "steps = 100000");
    world.succeeds(&["cluster", "up"]);
    let nodes = ["coordinator", "learner", "rollout-0", "rollout-1"];
    let pids = || -> Vec<Option<u32>> { nodes.iter().map(|name| world.pid(name)).collect() };
    let (before, host) = (pids(), host::host_pid(&world.run).expect("can be looked at"));
    let (code, said) = world.refused(&["cluster", "restart", "--rolling", "rollout-7"]);
    assert_eq!(code, 2, "{said}");
    assert!(said.contains("rollout-7") && said.contains("rollout-1"), "{said}");
    // While everybody still loads its model, what is on its way to a node may take longer than a drain waits.
    world.reaches(1);
    // A node that was drained takes nothing along.
    let said = world.succeeds(&["cluster", "restart", "--rolling", "rollout-0"]);
    assert!(said.contains("drained and restarted"), "{said}");
    let lost = world.history().into_iter().filter(|event| {
        matches!(&event.kind, EventKind::LeaseLost { from, .. } if from.as_str() == "rollout-0")
    });
    let lost: Vec<_> = lost.collect();
    assert!(lost.is_empty(), "work was lost: {lost:?}");
    let said = world.succeeds(&["cluster", "restart", "--rolling"]);
    // How far it is is told as well.
    let told = || said.lines().filter(|line| !line.starts_with("restarting:"));
    let order: Vec<&str> = told().filter_map(|l| l.split_whitespace().next()).collect();
    assert_eq!(order, ["rollout-0", "rollout-1", "learner", "coordinator"], "{said}");
    assert!(told().take(2).all(|line| line.contains("drained and restarted")), "{said}");
    let after = pids();
    for (name, (before, after)) in nodes.iter().zip(before.iter().zip(&after)) {
        assert!(after.is_some() && before != after, "{name}: {before:?}, {after:?}");
    }
    assert_eq!(host::host_pid(&world.run).expect("can be looked at"), host);
    world.reaches(world.steps() + 2);
    world.succeeds(&["cluster", "down"]);
    world.succeeds(&["audit", "run"]);
}
