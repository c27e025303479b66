//! Tasks in quarantine, as a person sees them.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use crrl_store::{Op, Options, Writer};
use crrl_types::{Event, EventKind, NodeName, TaskId};
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::world::{DEADLINE, World, end};

/// Who is at attempts at a task, as far as the history tells, and where it tells of each.
fn at_work_on(history: &[Event], poison: &TaskId) -> Vec<(usize, NodeName)> {
    let mut at_work = BTreeMap::new();
    for (at, event) in history.iter().enumerate() {
        match &event.kind {
            EventKind::Dispatched { episode, task, to, .. } if task == poison => {
                at_work.insert(*episode, (at, to.clone()));
            }
            EventKind::Dispatched { episode, .. }
            | EventKind::Finished { episode, .. }
            | EventKind::Failed { episode, .. }
            | EventKind::Dropped { episode, .. }
            | EventKind::LeaseLost { episode, .. } => drop(at_work.remove(episode)),
            _ => {}
        }
    }
    at_work.into_values().collect()
}

#[test]
fn a_task_that_kills_whoever_works_on_it_is_quarantined_and_the_others_go_on() {
    let world = World::new();
    world.configure("steps = 20", "steps = 100000");
    world.configure("concurrency = 4", "concurrency = 1\nquarantine_after = 4");
    world.configure("idle_timeout_ms = 1500", "idle_timeout_ms = 1500\nrestarts_max = 1000");
    let path = world.folder.path().join("tasks.jsonl");
    let tasks = std::fs::read_to_string(&path).expect("was written");
    let few: Vec<&str> = tasks.lines().take(3).collect();
    std::fs::write(&path, few.join("\n")).expect("writable");
    let task: Value = serde_json::from_str(few[0]).expect("a task");
    let poison = TaskId::from(task["instance_id"].as_str().expect("a name"));
    let mut training = world.train(&[]);
    training.until_step(1);
    // Whoever is at it dies of it. A node that was done a moment before dies for nothing, and the task is
    // cleared of those that died before.
    let out = |history: &[Event]| {
        history.iter().find_map(|event| match &event.kind {
            EventKind::Quarantined { task, reason } if *task == poison => Some(reason.clone()),
            _ => None,
        })
    };
    let killed = RefCell::new(BTreeSet::new());
    let reason = training.until("its quarantine", || {
        let history = world.history();
        if let Some(reason) = out(&history) {
            return Some(reason);
        }
        for (at, node) in at_work_on(&history, &poison) {
            if killed.borrow_mut().insert(at) {
                end(world.pid(node.as_str())?, Signal::SIGKILL);
            }
        }
        None
    });
    assert!(reason.starts_with("4 nodes died"), "{reason}");
    let reached = world.steps();
    training.until_step(reached + 2);
    training.signal(Signal::SIGINT);
    let (code, said) = training.ended();
    assert_eq!(code, Some(130), "{said}");
    let listed = world.crrl(&["cluster", "quarantine", "--json"]);
    assert!(String::from_utf8_lossy(&listed.stdout).contains(poison.as_str()), "{listed:?}");
    world.succeeds(&["audit", "run"]);
}

#[test]
fn tasks_in_quarantine_are_listed_and_let_out() {
    let world = World::new();
    let mut training = world.train(&[]);
    training.until_step(1);
    training.completes();
    let (said, heard) = std::sync::mpsc::channel();
    let writer = Writer::start(&world.run.store(), Options::default(), move |outcome| {
        said.send(outcome).expect("the test waits");
    })
    .expect("nobody else writes");
    let bad = |name: &str| Op::Quarantined(name.into(), "3 nodes died".into());
    writer.submit(vec![bad("one"), bad("two")], ()).expect("taken");
    heard.recv_timeout(DEADLINE).expect("said").expect("written");
    drop(writer);
    let listed = || -> Vec<String> {
        let output = world.crrl(&["cluster", "quarantine", "--json"]);
        let value: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        let list = value.as_array().expect("a list");
        list.iter().filter_map(|row| row["task"].as_str().map(str::to_owned)).collect()
    };
    assert_eq!(listed(), ["one", "two"]);
    let (code, said) = world.refused(&["cluster", "quarantine", "--release", "three"]);
    assert_eq!(code, 2, "{said}");
    assert!(said.contains("three is not in quarantine"), "{said}");
    world.succeeds(&["cluster", "quarantine", "--release", "two"]);
    assert_eq!(listed(), ["one"]);
    world.succeeds(&["cluster", "quarantine", "--release-all"]);
    assert!(listed().is_empty());
}
