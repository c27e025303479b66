//! The life and death of a run on one machine: whatever is killed, stopped or full, the run goes on
//! or can be resumed, and its ledger accounts for every episode.

mod adapters;
mod certificates;
mod chaos;
mod container;
mod damage;
mod disks;
mod guests;
mod intruders;
mod leases;
mod ledger;
mod networks;
mod orders;
mod quarantine;
mod remote;
mod reproducible;
mod restart;
mod scale;
#[path = "../support/skips.rs"]
mod skips;
mod terminal;
#[path = "../../crates/inspect/tests/inspect/tmux.rs"]
mod tmux;
mod traces;
mod wedged;
mod world;

use std::net::UdpSocket;

use crrl_cluster::host;
use nix::sys::signal::Signal;
use world::{World, end, until_gone};

/// Optimizer steps of these runs.
const STEPS: u64 = 20;
/// Those of a run that something else goes on beside: it is not to be over first.
const MANY_STEPS: u64 = 60;

#[test]
fn a_rollout_node_that_is_killed_comes_back_and_no_episode_is_lost() {
    let world = World::new();
    let mut training = world.train(&[]);
    training.until_step(2);
    let killed = world.pid("rollout-1").expect("runs");
    end(killed, Signal::SIGKILL);
    assert!(world.steps() < STEPS, "killed too late to tell anything");
    training.completes();
    let state = host::state(&world.run).expect("was started");
    let node = state.nodes.iter().find(|node| node.name == "rollout-1").expect("is there");
    assert_eq!(node.restarts, 1, "{node:?}");
    ledger::check(&world.run, STEPS);
}

#[test]
fn a_learner_that_is_killed_goes_on_from_its_checkpoint() {
    let world = World::new();
    world.configure("dir = \"run\"", "dir = \"run\"\nsync = true");
    let mut training = world.train(&[]);
    training.until_step(2);
    end(world.pid("learner").expect("runs"), Signal::SIGKILL);
    assert!(world.steps() < STEPS, "killed too late to tell anything");
    training.completes();
    let log = std::fs::read_to_string(world.run.log("learner")).expect("a log");
    assert!(log.contains("resumed"), "{log}");
    ledger::check(&world.run, STEPS);
}

#[test]
fn a_run_that_is_stopped_is_resumed_whatever_stopped_it() {
    let world = World::long();
    let set = ["--set", "run.seed=5"];
    let (mut more, mut reached) = (set.to_vec(), 0);
    for signal in [Signal::SIGINT, Signal::SIGHUP, Signal::SIGKILL] {
        let mut training = world.train(&more);
        training.until_step(reached + 2);
        let pids = world.pids();
        training.signal(signal);
        let (code, said) = training.ended();
        if signal == Signal::SIGKILL {
            assert_eq!(code, None, "{said}");
        } else {
            assert_eq!(code, Some(130), "{said}");
            let resume = "crrl train -f cluster.toml --set run.seed=5 --resume";
            assert!(said.contains(resume), "{said}");
            let exits = world.exits();
            assert!(exits.iter().all(|(_, how)| how == "exit code 0"), "{exits:?}");
            assert_eq!(host::host_pid(&world.run).expect("can be looked at"), None);
        }
        // Its cluster went with it.
        until_gone(&pids);
        reached = world.steps();
        assert!(reached < MANY_STEPS, "stopped too late to tell anything");
        more = [&set[..], &["--resume"]].concat();
    }
    world.train(&more).completes();
    ledger::check(&world.run, MANY_STEPS);
    // A run that is over has nothing left to do.
    let again = world.succeeds(&[&["train"][..], &more].concat());
    assert!(again.contains("written to"), "{again}");
}

#[test]
fn a_cluster_that_was_brought_up_stays_until_it_is_taken_down() {
    let world = World::new();
    world.configure("steps = 20", "steps = 100000");
    world.succeeds(&["cluster", "up"]);
    let pids = world.pids();
    assert_eq!(pids.len(), 5);
    assert_eq!(host::host_pid(&world.run).expect("can be looked at"), pids.last().copied());
    let said = world.succeeds(&["cluster", "down"]);
    assert!(said.contains("every node has left"), "{said}");
    let exits = world.exits();
    assert!(exits.iter().all(|(_, how)| how == "exit code 0"), "{exits:?}");
    until_gone(&pids);
    // It was planned as `train` plans it, with what the configuration says of leases and quarantine.
    let reached = world.steps();
    world.train(&["--resume"]).until_step(reached + 1);
}

#[test]
fn a_port_in_use_is_named_with_what_to_do() {
    let world = World::new();
    let taken = UdpSocket::bind("127.0.0.1:0").expect("a free port");
    let port = taken.local_addr().expect("is bound").port();
    let set = format!("cluster.listen=127.0.0.1:{port}");
    let (code, said) = world.refused(&["train", "--set", &set]);
    assert_eq!(code, 4, "{said}");
    assert!(said.contains(&format!("UDP port {port}")), "{said}");
    assert!(said.contains("cluster.listen"), "{said}");
    // Once it is free, the run that could not start does.
    drop(taken);
    let mut training = world.train(&["--set", &set, "--resume"]);
    training.until_step(1);
}

#[test]
fn a_patch_that_does_not_apply_is_named_before_anything_starts() {
    let world = World::new();
    let path = world.folder.path().join("tasks.jsonl");
    let tasks = std::fs::read_to_string(&path).expect("was written");
    let (first, rest) = tasks.split_once('\n').expect("several tasks");
    let damaged = first.replacen("\\n-  ", "\\n-zzz  ", 1);
    assert_ne!(first, damaged);
    std::fs::write(&path, format!("{damaged}\n{rest}")).expect("writable");
    let task: serde_json::Value = serde_json::from_str(first).expect("a task");
    let name = task["instance_id"].as_str().expect("a name");
    let (code, said) = world.refused(&["train"]);
    assert_eq!(code, 2, "{said}");
    for part in ["tasks.jsonl", name, "does not apply", "crrl tasks verify"] {
        assert!(said.contains(part), "{part}: {said}");
    }
    assert!(!world.run.path().exists(), "started all the same");
}

#[test]
fn a_model_that_is_not_there_is_named() {
    let world = World::new();
    let (code, said) = world.refused(&["train", "--set", "model.path=no/such/model"]);
    assert_eq!(code, 2, "{said}");
    assert!(said.contains("no/such/model") && said.contains("model.path"), "{said}");
    assert!(!world.run.path().exists(), "started all the same");
}
