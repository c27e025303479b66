//! Files of a run that are damaged between two lives: found, named, and done without where that is
//! possible.

use std::collections::BTreeMap;
use std::path::Path;

use crrl_store::Copies;
use crrl_types::{EpisodeId, EventKind, Step};
use nix::sys::signal::Signal;

use crate::world::World;
use crate::{MANY_STEPS, ledger};

/// A run that was stopped after a few steps.
fn stopped() -> World {
    let world = World::long();
    let mut training = world.train(&[]);
    training.until_step(3);
    training.signal(Signal::SIGINT);
    let (code, said) = training.ended();
    assert_eq!(code, Some(130), "{said}");
    assert!(world.steps() < MANY_STEPS, "stopped too late to tell anything");
    world
}

/// Overwrites all of the ledger but the page that says that it is one. Gives what is there now.
fn damage_ledger(world: &World) -> Vec<u8> {
    let path = world.run.store();
    let mut bytes = std::fs::read(&path).expect("a store");
    bytes[4096..].fill(0xa5);
    std::fs::write(&path, &bytes).expect("writable");
    bytes
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
    damage_ledger(&world);
    let (code, said) = world.refused(&["train", "--resume"]);
    assert_eq!(code, 1, "{said}");
    for part in ["run.sqlite is damaged", "last good copy", "--resume --ledger last-good"] {
        assert!(said.contains(part), "{part}: {said}");
    }
    assert!(!said.contains("restarts"), "tried again and again: {said}");
    let output = world.crrl(&["audit", "run"]);
    assert!(!output.status.success(), "an audit of it passed");
}

#[test]
fn a_run_whose_ledger_is_damaged_goes_on_from_its_last_good_copy_and_says_what_is_lost() {
    let world = World::long();
    world.configure("dir = \"run\"", "dir = \"run\"\nledger_copies = 64");
    let (resume, last_good) = (["--resume"], ["--resume", "--ledger", "last-good"]);
    let mut training = world.train(&[]);
    let copies = Copies::new(world.run.ledger_copies(), 1);
    let copied = || copies.newest().ok()?.copy.map(|copy| copy.manifest.step.0);
    let first = training.until("copy of the ledger", copied);
    training.until_step(first + 3);
    training.signal(Signal::SIGINT);
    let (code, said) = training.ended();
    assert_eq!(code, Some(130), "{said}");
    let reached = world.steps();
    assert!(reached < MANY_STEPS, "stopped too late to tell anything");
    // A ledger that shows no damage is not gone back from.
    let (code, said) = world.refused(&[&["train"][..], &last_good].concat());
    assert_eq!(code, 2, "{said}");
    assert!(said.contains("shows no damage"), "{said}");

    // Steps after the first copy are then in checkpoints and history alone.
    let list = std::fs::read_dir(world.run.ledger_copies()).expect("copies");
    for copy in list.map(|entry| entry.expect("readable").path()) {
        if !copy.ends_with("copy-00000001") {
            std::fs::remove_dir_all(copy).expect("is there");
        }
    }
    let damaged = damage_ledger(&world);
    // Results that cannot be read do not stand in the way: they are made again.
    std::fs::write(world.run.path().join("results.json"), b"{\"torn").expect("writable");
    let batches = trained_on(&world);
    let said = world.train(&last_good).completes();
    for part in ["is put aside as", "run.sqlite.damaged-1", "records", "crrl audit"] {
        assert!(said.contains(part), "{part}: {said}");
    }
    let aside = world.run.path().join("run.sqlite.damaged-1");
    assert_eq!(std::fs::read(aside).expect("put aside"), damaged);
    // Every invariant holds, every step is there once, and what was trained on before still is, in the
    // very same steps.
    ledger::check(&world.run, MANY_STEPS);
    let after = trained_on(&world);
    assert!(batches.len() >= reached as usize * 2, "{batches:?}");
    for (episode, step) in &batches {
        assert_eq!(after.get(episode), Some(step), "episode {episode}");
    }
    let verdict = crrl_actors::evidence::judge(&world.run).expect("a run");
    let told = |note: &String| note.contains("the ledger was restored from its copy of step");
    assert!(verdict.notes.iter().any(told), "{:?}", verdict.notes);
    // What was done once is done.
    world.train(&resume).completes();
}

#[test]
fn a_ledger_that_is_missing_is_not_begun_anew() {
    let world = World::long();
    let mut training = world.train(&[]);
    let copies = Copies::new(world.run.ledger_copies(), 1);
    training.until("copy of the ledger", || copies.newest().ok()?.copy.map(drop));
    training.signal(Signal::SIGINT);
    let (code, said) = training.ended();
    assert_eq!(code, Some(130), "{said}");
    assert!(world.steps() < MANY_STEPS, "stopped too late to tell anything");
    std::fs::remove_file(world.run.store()).expect("is there");
    let (code, said) = world.refused(&["train", "--resume"]);
    assert_eq!(code, 2, "{said}");
    assert!(said.contains("run.sqlite is missing"), "{said}");
    assert!(said.contains("--resume --ledger last-good"), "{said}");
    assert!(!world.run.store().exists(), "an empty one was begun");
    // One that is there and empty is no better.
    std::fs::write(world.run.store(), b"").expect("writable");
    let (code, said) = world.refused(&["train", "--resume"]);
    assert_eq!(code, 2, "{said}");
    assert!(said.contains("missing or empty"), "{said}");
    std::fs::remove_file(world.run.store()).expect("is there");
    // Without any good copy nothing is made up.
    for copy in std::fs::read_dir(world.run.ledger_copies()).expect("copies").flatten() {
        std::fs::write(copy.path().join("run.sqlite"), b"torn").expect("writable");
    }
    let (code, said) = world.refused(&["train", "--resume", "--ledger", "last-good"]);
    assert_eq!(code, 2, "{said}");
    assert!(said.contains("no good copy") && said.contains("is damaged"), "{said}");
    assert!(!world.run.store().exists(), "an empty one was begun");
}

/// Which step every episode was trained on in, by the history.
fn trained_on(world: &World) -> BTreeMap<EpisodeId, Step> {
    let trained = world.history().into_iter().filter_map(|event| match event.kind {
        EventKind::Trained { episode, step } => Some((episode, step)),
        _ => None,
    });
    trained.collect()
}

/// A run is not resumed while this is in a file of it, and says so with these words.
#[track_caller]
fn is_named(world: &World, path: &Path, damaged: &[u8], words: &[&str]) {
    let was = std::fs::read(path).expect("is there");
    std::fs::write(path, damaged).expect("writable");
    let (code, said) = world.refused(&["train", "--resume"]);
    assert_ne!(code, 0, "{said}");
    assert!(words.iter().all(|part| said.contains(part)), "{words:?}: {said}");
    assert!(!said.contains("restarts"), "tried again and again: {said}");
    std::fs::write(path, was).expect("writable");
}

#[test]
fn damaged_results_a_damaged_plan_or_task_file_are_named_with_their_line() {
    let world = stopped();
    let torn = b"{\n\"torn";
    let results = world.run.path().join("results.json");
    is_named(&world, &results, torn, &["results.json", "at line 2"]);
    let plan = world.run.path().join("plan.json");
    is_named(&world, &plan, torn, &["plan.json", "at line 2"]);
    let tasks = world.folder.path().join("tasks.jsonl");
    let text = std::fs::read_to_string(&tasks).expect("tasks");
    let mut lines: Vec<&str> = text.lines().collect();
    lines[2] = "{\"torn";
    is_named(&world, &tasks, lines.join("\n").as_bytes(), &["tasks.jsonl:3: not a task"]);
    // Put back as they were, they stand in nobody's way.
    world.train(&["--resume"]).completes();
    ledger::check(&world.run, MANY_STEPS);
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
    ledger::check_without_history(&world.run, MANY_STEPS);
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
    assert_eq!(world.steps(), MANY_STEPS);
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
    ledger::check(&world.run, MANY_STEPS);
}
