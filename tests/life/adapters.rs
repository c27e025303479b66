//! What a run publishes, followed from outside it; relays among its nodes; a checkpoint that never lands.

use std::process::{Command, Stdio};

use crrl_model::peft;
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::ledger;
use crate::world::{World, end};

#[test]
fn a_tool_follows_the_adapters_of_a_run_to_its_end() {
    let world = World::new();
    let mut training = world.train(&[]);
    training.until_step(1);
    let out = world.folder.path().join("out");
    let following = Command::new(env!("CARGO_BIN_EXE_crrl"))
        .args(["adapters", "follow", "run", "--out", "out", "--json"])
        .current_dir(world.folder.path())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the binary was built");
    training.completes();
    let output = following.wait_with_output().expect("is ours");
    assert!(output.status.success());
    let lines: Vec<Value> = String::from_utf8_lossy(&output.stdout)
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    let versions: Vec<u64> = lines.iter().filter_map(|line| line["version"].as_u64()).collect();
    assert!(versions.len() > 1 && versions.is_sorted(), "{versions:?}");
    for line in &lines {
        let path = line["path"].as_str().expect("a text");
        assert!(peft::load(path.as_ref()).is_ok(), "{path}");
    }
    let newest = std::fs::read_link(out.join("latest")).expect("a link");
    assert_eq!(newest.to_str(), versions.last().map(|v| format!("v{v}")).as_deref());
    let (code, said) = world.refused(&["adapters", "follow", "nowhere", "--out", "out"]);
    assert_eq!(code, 2, "{said}");
}

#[test]
fn nodes_fetch_from_each_other_and_one_that_damages_what_it_passes_on_is_left() {
    let world = World::new();
    world.configure("steps = 20", "steps = 100000");
    let more = "[[node]]\nname = \"coordinator\"\nroles = [\"coordinator\", \"parameter-server\"]\n\
                [[node]]\nname = \"learner\"\nroles = [\"learner\"]\n";
    let rollouts: String = (0..4)
        .map(|n| format!("[[node]]\nname = \"rollout-{n}\"\nroles = [\"rollout\"]\n"))
        .collect();
    world.configure("[cluster]", &format!("{more}{rollouts}[cluster]"));
    let mut training = world.train(&[]);
    training.until_step(3);
    // Two fetch from the server and the others from them; which two may change as the run goes on.
    let faults: String = (0..4)
        .map(|n| {
            format!(
                "[[fault]]\nkind = \"corrupt-adapter\"\nnode = \"rollout-{n}\"\nduration_s = 10\n"
            )
        })
        .collect();
    std::fs::write(world.folder.path().join("fault.toml"), faults).expect("writable");
    // One fault after the other; the first to befall a relay is enough.
    let chaos = "chaos run fault.toml -f cluster.toml --window 1 --within 1";
    let chaos: Vec<&str> = chaos.split_whitespace().collect();
    let mut injecting = world.starts(&chaos, "chaos.stderr");
    training.until("a node that was left for another source", || {
        let left = |n: u32| {
            let log = std::fs::read_to_string(world.run.log(&format!("rollout-{n}")));
            log.is_ok_and(|log| log.contains("did not match its hash"))
        };
        (0..4).any(left).then_some(())
    });
    injecting.kill().expect("is ours");
    injecting.wait().expect("is ours");
    // What is served meanwhile is what was published: its results are taken.
    training.until_step(world.steps() + 2);
}

#[test]
fn a_learner_that_dies_while_its_checkpoint_is_written_leaves_no_gap() {
    let world = World::new();
    let mut training = world.train(&[]);
    for steps in [1, 3, 5] {
        training.until_step(steps);
        // Right behind a step: the next adapter goes ahead of its checkpoint at some moment here.
        if let Some(learner) = world.pid("learner") {
            end(learner, Signal::SIGKILL);
        }
    }
    training.completes();
    ledger::check(&world.run, 20);
}
