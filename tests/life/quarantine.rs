//! Tasks in quarantine, as a person sees them.

use crrl_store::{Op, Options, Writer};
use serde_json::Value;

use crate::world::World;

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
    heard.recv().expect("said").expect("written");
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
