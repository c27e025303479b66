//! Faults that are injected into a run, as a user does it, and its audit.

use crrl_cluster::{OperatorClient, OperatorError, host};
use crrl_types::fault::{Fault, Injection};
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::world::{World, end};

const NETWORK: &str = r#"
[[fault]]
name = "cut off"
kind = "drop"
node = "rollout-1"
duration_s = 3
[[fault]]
kind = "delay"
role = "coordinator"
ms = 50
jitter_ms = 100
duration_s = 1
[[fault]]
kind = "duplicate"
role = "coordinator"
share = 0.5
duration_s = 1
[[fault]]
kind = "corrupt"
role = "coordinator"
share = 0.3
duration_s = 1
[[fault]]
kind = "truncate"
role = "coordinator"
share = 0.3
duration_s = 1
"#;

#[test]
fn faults_fire_are_survived_and_lose_nothing() {
    let world = World::new();
    world.configure("steps = 20", "steps = 100000");
    std::fs::write(world.folder.path().join("faults.toml"), NETWORK).expect("writable");
    let mut training = world.train(&[]);
    training.until_step(2);
    let chaos = "chaos run kill-rollout faults.toml not-finite corrupt-offer kill-coordinator \
                 --window 0.5 --json";
    let output = world.crrl(&chaos.split_whitespace().collect::<Vec<_>>());
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let value: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    assert_eq!(output.status.code(), Some(0), "{said}\n{value:#}");
    let outcomes = value["outcomes"].as_array().expect("a list");
    assert_eq!(outcomes.len(), 9);
    for outcome in outcomes {
        assert!(outcome["fired"].as_u64().is_some_and(|fired| fired > 0), "{outcome}");
    }
    // What was killed or cut off was missed, and not only waited for.
    for at in [0, 1, 8] {
        assert!(outcomes[at]["noticed_s"].is_f64(), "{}", outcomes[at]);
    }
    training.signal(Signal::SIGINT);
    let (code, said) = training.ended();
    assert_eq!(code, Some(130), "{said}");
    world.succeeds(&["audit", "run"]);

    // With every checkpoint spoilt the run cannot keep its word, and that is said.
    for folder in std::fs::read_dir(world.run.checkpoints()).expect("checkpoints").flatten() {
        let _ = std::fs::write(folder.path().join("moments.safetensors"), b"torn");
    }
    let output = world.crrl(&["audit", "run"]);
    let out = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{out}");
    assert!(out.contains("BROKEN  I6"), "{out}");
    assert!(out.contains("no checkpoint loads"), "{out}");
}

/// One that would outlast any test.
const LONG: &str = r#"
[[fault]]
kind = "slow-tools"
node = "rollout-0"
ms = 1
duration_s = 600
"#;

#[test]
fn a_fault_is_lifted_when_whoever_injected_it_is_told_to_stop() {
    let world = World::new();
    world.configure("steps = 20", "steps = 100000");
    std::fs::write(world.folder.path().join("long.toml"), LONG).expect("writable");
    let mut training = world.train(&[]);
    training.until_step(1);
    let chaos = ["chaos", "run", "long.toml", "--window", "0.2"];
    let mut chaos = world.starts(&chaos, "chaos.stderr");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let seen = || {
        let snapshot = runtime.block_on(async {
            let client = OperatorClient::connect(&world.run).await.ok()?;
            let snapshot = client.status().await.ok();
            client.close().await;
            snapshot
        });
        let mut nodes = snapshot?.nodes.into_iter();
        let report = nodes.find(|report| report.node.as_str() == "rollout-0")?;
        report.faults.into_iter().find(|seen| seen.fault == Fault::SlowTools { ms: 1 })
    };
    let begun = training.until("the fault", || seen().filter(|seen| seen.active));
    end(chaos.id(), Signal::SIGINT);
    let over = training.until("the end of the fault", || seen().filter(|seen| !seen.active));
    assert_eq!(over.id, begun.id);
    assert_eq!(chaos.wait().expect("is ours").code(), Some(130));
    let said = std::fs::read_to_string(world.folder.path().join("chaos.stderr")).expect("a file");
    assert!(said.contains("the fault in rollout-0") && said.contains("was lifted"), "{said}");
    let log = std::fs::read_to_string(world.run.log("rollout-0")).expect("a log");
    assert!(log.contains("a fault is lifted"), "{log}");
    // The run goes on, and what was asked for is written down.
    training.until_step(world.steps() + 2);
    let orders = std::fs::read_to_string(world.run.orders()).expect("a log of orders");
    assert!(orders.contains("lifted"), "{orders}");
}

/// Faults of the machine, of sandboxes and of actors, each for a moment.
const MACHINE: &str = r#"
[[fault]]
kind = "slow-disk"
role = "coordinator"
ms = 50
duration_s = 1
[[fault]]
kind = "full-disk"
role = "coordinator"
duration_s = 2
[[fault]]
kind = "full-disk"
role = "learner"
duration_s = 2
[[fault]]
kind = "torn-write"
role = "learner"
[[fault]]
kind = "clock-skew"
role = "coordinator"
skew_s = -7200
duration_s = 1
[[fault]]
kind = "hang"
role = "rollout"
duration_s = 2
[[fault]]
kind = "hang"
role = "coordinator"
duration_s = 2
[[fault]]
kind = "fork-bomb"
role = "rollout"
[[fault]]
kind = "memory-bomb"
role = "rollout"
[[fault]]
kind = "endless-output"
role = "rollout"
[[fault]]
kind = "disk-fill"
role = "rollout"
[[fault]]
kind = "egress"
role = "rollout"
"#;

#[test]
fn disks_clocks_actors_and_sandboxes_fail_and_lose_nothing() {
    let world = World::new();
    world.configure("steps = 20", "steps = 100000");
    // A bomb goes on until its command's time is up.
    world.configure("[cluster]", "[sandbox]\ncommand_time_max_s = 1.0\n[cluster]");
    std::fs::write(world.folder.path().join("faults.toml"), MACHINE).expect("writable");
    let mut training = world.train(&[]);
    training.until_step(2);
    let output = world.crrl(&["chaos", "run", "faults.toml", "--window", "0.3", "--json"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let value: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    assert_eq!(output.status.code(), Some(0), "{said}\n{value:#}");
    let outcomes = value["outcomes"].as_array().expect("a list");
    assert_eq!(outcomes.len(), 12);
    for outcome in outcomes {
        assert!(outcome["fired"].as_u64().is_some_and(|fired| fired > 0), "{outcome}");
    }
    // Only who was to die has died.
    let state = host::state(&world.run).expect("was started");
    for node in &state.nodes {
        assert_eq!(node.restarts, u32::from(node.name == "learner"), "{node:?}");
    }
    training.signal(Signal::SIGINT);
    let (code, said) = training.ended();
    assert_eq!(code, Some(130), "{said}");
    world.succeeds(&["audit", "run"]);
}

#[test]
fn only_the_chaos_role_may_harm_a_node() {
    let world = World::new();
    world.configure("steps = 20", "steps = 100000");
    let mut training = world.train(&[]);
    training.until_step(1);
    let pid = world.pid("rollout-0");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let refused = runtime.block_on(async {
        // An operator may look and stop; that is all.
        let client = OperatorClient::connect(&world.run).await.expect("is up");
        let injection = Injection { id: 1, fault: Fault::Kill, duration_ms: 0, seed: 0 };
        let refused = client.inject(&"rollout-0".into(), injection).await;
        client.close().await;
        refused
    });
    let Err(OperatorError::Refused(reason)) = refused else { panic!("{refused:?}") };
    assert!(reason.contains("is for operator, and this takes chaos"), "{reason}");
    training.until_step(world.steps() + 2);
    assert_eq!(world.pid("rollout-0"), pid);
}

#[test]
fn chaos_and_audit_say_what_they_miss() {
    let world = World::new();
    let (code, said) = world.refused(&["chaos", "run", "kill-rollout"]);
    assert_eq!(code, 6, "{said}");
    assert!(said.contains("no cluster is up"), "{said}");
    let (code, said) = world.refused(&["chaos", "run", "kill-rolout"]);
    assert_eq!(code, 2, "{said}");
    assert!(said.contains("did you mean kill-rollout"), "{said}");
    let (code, said) = world.refused(&["audit", "no-such-run"]);
    assert_eq!(code, 2, "{said}");
    let (code, said) = world.refused(&["audit", "."]);
    assert_eq!(code, 2, "{said}");
    assert!(said.contains("plan.json"), "{said}");
}
