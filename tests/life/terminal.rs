//! The viewer in a terminal, at a real cluster: a person looks round, traces, orders, and leaves.

use crrl_cluster::host;

use crate::tmux::Pane;
use crate::world::{World, until_gone};

const SIZE: (u16, u16) = (130, 40);

fn viewer(world: &World) -> Option<Pane> {
    let command = format!("'{}' inspect --run run", env!("CARGO_BIN_EXE_crrl"));
    Pane::open(SIZE, world.folder.path(), &command)
}

/// Orders with a viewer's certificate, which is all there is in the folder then.
fn one_who_may_only_watch(world: &World) {
    world.succeeds(&["tls", "issue", "viewer", "--role", "viewer", "--run", "run"]);
    let own = world.run.tls().join("operator.pem");
    let away = own.with_extension("away");
    std::fs::rename(&own, &away).expect("is there");
    if let Some(pane) = viewer(world) {
        pane.until(&["● live", "rollout-1"]);
        pane.types("Kcoordinator");
        pane.keys(&["Enter"]);
        pane.until(&["KILL", "denied: "]);
        pane.keys(&["Enter", "q"]);
        pane.until(&["ENDED 0"]);
    }
    std::fs::rename(&away, &own).expect("was put there");
}

#[test]
fn a_person_looks_round_orders_a_restart_and_leaves_and_the_run_goes_on() {
    let world = World::new();
    world.configure("steps = 20", "steps = 100000");
    let Some(early) = viewer(&world) else { return };
    // A folder that is no run's yet.
    early.until(&["run is not the folder of a run", "ENDED 2"]);
    drop(early);
    world.succeeds(&["cluster", "up"]);
    let pids = world.pids();
    let Some(pane) = viewer(&world) else { return };
    pane.until(&["● live", "rollout-1", "learner"]);
    // As small as a terminal gets, and back.
    pane.resize(20, 5);
    pane.until_that("a small screen", |text| text.contains("coordina…"));
    pane.resize(SIZE.0, SIZE.1);
    pane.until(&["● live", "LAST EPISODES"]);
    // By name.
    pane.types(":sort act wai");
    pane.until(&["COMMANDS", "› sort actors by waiting"]);
    pane.keys(&["Enter"]);
    pane.until(&["[2 Actors]", "MBOX▾", "parameter-server"]);
    // An episode under way, turn by turn.
    pane.types(":screen rollouts");
    pane.keys(&["Enter"]);
    // The head of the table, which is there once it has a row.
    pane.until(&["[6 Rollouts]", "EPISODE", "TURNS", "IDLE"]);
    pane.keys(&["g", "Enter"]);
    pane.until(&["episode ", "TURN 1", "tokens by log-probability"]);
    pane.keys(&["c"]);
    pane.until(&["tokens by adapter version"]);
    // One actor.
    pane.types("2/node:rollout-0 name:^rollout$");
    pane.keys(&["Enter"]);
    pane.until(&["shown: node:rollout-0"]);
    pane.types("t");
    pane.until(&["rollout-0/rollout", "of 1000 messages", "handled"]);
    pane.keys(&["Escape"]);
    pane.until_that("the end of the trace", |text| {
        text.contains("stopped") || text.contains("tripped off")
    });
    pane.keys(&["Escape"]);
    pane.until(&["[2 Actors]", "shown: node:rollout-0"]);
    // A restart wants the actor's name.
    pane.types("Rrollout-0");
    pane.keys(&["Enter"]);
    pane.until(&["RESTART", "that is not rollout"]);
    pane.keys(&["BSpace", "BSpace", "Enter"]);
    pane.until(&["RESTART", "done: "]);
    pane.keys(&["Enter", "q"]);
    pane.until(&["ENDED 0"]);
    assert_eq!(pane.knows("#{alternate_on}#{cursor_flag}"), "01");
    // The run goes on, in the very processes it had.
    world.reaches(world.steps() + 2);
    assert_eq!(world.pids(), pids);
    let orders = std::fs::read_to_string(world.run.orders()).expect("orders are written down");
    assert!(orders.contains("\"restart\"") && orders.contains("rollout-0/rollout"), "{orders}");
    one_who_may_only_watch(&world);
    // A viewer that is killed in the middle of a trace is nobody's loss.
    let Some(pane) = viewer(&world) else { return };
    pane.until(&["● live", "rollout-1"]);
    pane.types("2/node:rollout-0 name:^rollout$");
    pane.keys(&["Enter"]);
    pane.types("t");
    pane.until(&["rollout-0/rollout", "handled"]);
    drop(pane);
    world.reaches(world.steps() + 2);
    assert_eq!(world.pids(), pids);
    // A cluster that leaves while it is looked at, and one that is not up.
    let Some(pane) = viewer(&world) else { return };
    pane.until(&["● live"]);
    world.succeeds(&["cluster", "down"]);
    until_gone(&pids);
    pane.until(&["✕ lost"]);
    pane.keys(&["q"]);
    pane.until(&["ENDED 0"]);
    let Some(pane) = viewer(&world) else { return };
    pane.until(&["the run is not up: step ", "read from its folder", "exit code 0"]);
    pane.keys(&["q"]);
    pane.until(&["ENDED 0"]);
    assert_eq!(host::host_pid(&world.run).expect("can be looked at"), None);
    world.succeeds(&["audit", "run"]);
}
