//! Files of a run that are damaged between two lives: found, named, and done without where that is
//! possible.

use nix::sys::signal::Signal;

use crate::world::World;
use crate::{STEPS, ledger};

/// A run that was stopped after a few steps.
fn stopped() -> World {
    let world = World::new();
    let mut training = world.train(&[]);
    training.until_step(3);
    training.signal(Signal::SIGINT);
    let (code, said) = training.ended();
    assert_eq!(code, Some(130), "{said}");
    assert!(world.steps() < STEPS, "stopped too late to tell anything");
    world
}

/// Folders of checkpoints, oldest first.
fn checkpoints(world: &World) -> Vec<std::path::PathBuf> {
    let list = std::fs::read_dir(world.run.checkpoints()).expect("checkpoints");
    let mut list: Vec<_> = list.map(|entry| entry.expect("readable").path()).collect();
    list.retain(|path| !path.file_name().is_some_and(|n| n.to_string_lossy().starts_with('.')));
    list.sort_unstable();
    list
}

#[test]
fn a_damaged_ledger_is_named_at_once_with_what_to_do() {
    let world = stopped();
    let path = world.run.store();
    let mut bytes = std::fs::read(&path).expect("a store");
    // All but the page that says that it is one.
    bytes[4096..].fill(0xa5);
    std::fs::write(&path, bytes).expect("writable");
    let (code, said) = world.refused(&["train", "--resume"]);
    assert_eq!(code, 1, "{said}");
    for part in ["run.sqlite is damaged", "a copy", "last checkpoint", "--resume"] {
        assert!(said.contains(part), "{part}: {said}");
    }
    assert!(!said.contains("restarts"), "tried again and again: {said}");
    let output = world.crrl(&["audit", "run"]);
    assert!(!output.status.success(), "an audit of it passed");
}

#[test]
fn damaged_results_or_a_damaged_plan_are_named() {
    let world = stopped();
    let path = world.run.path().join("results.json");
    let was = std::fs::read(&path).expect("results");
    std::fs::write(&path, b"{\"torn").expect("writable");
    let (code, said) = world.refused(&["train", "--resume"]);
    assert_ne!(code, 0, "{said}");
    assert!(said.contains("results.json"), "{said}");
    std::fs::write(&path, was).expect("writable");
    world.train(&["--resume"]).completes();
    ledger::check(&world.run, STEPS);
}

#[test]
fn without_its_newest_checkpoint_the_one_before_is_used_and_that_is_said() {
    let world = stopped();
    let newest = checkpoints(&world).pop().expect("one a step");
    std::fs::write(newest.join("moments.safetensors"), b"torn").expect("writable");
    world.train(&["--resume"]).completes();
    let log = std::fs::read_to_string(world.run.log("learner")).expect("a log");
    let name = newest.file_name().expect("a name").to_string_lossy();
    assert!(log.contains("is damaged") && log.contains(&*name), "{log}");
    assert!(log.contains("resumed"), "{log}");
    // Of a step that was made again the history tells twice.
    ledger::check_without_history(&world.run, STEPS);
}

#[test]
fn without_any_checkpoint_the_steps_are_made_again_and_none_counts_twice() {
    let world = stopped();
    for folder in checkpoints(&world) {
        std::fs::write(folder.join("manifest.json"), b"{}").expect("writable");
    }
    world.train(&["--resume"]).completes();
    let log = std::fs::read_to_string(world.run.log("learner")).expect("a log");
    assert!(log.contains("is damaged"), "{log}");
    // Those that do not load are still there, for a person to look at; the ledger is whole.
    let output = world.crrl(&["audit", "run"]);
    let out = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{out}");
    assert_eq!(world.steps(), STEPS);
}

#[test]
fn a_damaged_adapter_is_published_again_and_the_run_goes_on() {
    let world = stopped();
    let folder = world.run.path().join("adapters");
    for file in std::fs::read_dir(&folder).expect("adapters").flatten() {
        if file.path().extension().is_some_and(|e| e == "safetensors") {
            std::fs::write(file.path(), b"torn").expect("writable");
        }
    }
    world.train(&["--resume"]).completes();
    let log = std::fs::read_to_string(world.run.log("coordinator")).expect("a log");
    assert!(log.contains("safetensors is damaged"), "{log}");
    ledger::check(&world.run, STEPS);
}
