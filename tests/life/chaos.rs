//! Faults that are injected into a run, as a user does it, and its audit.

use crrl_cluster::{OperatorClient, OperatorError};
use crrl_types::fault::{Fault, Injection};
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::world::World;

const CUT_OFF: &str = r#"
[[fault]]
name = "cut off"
kind = "drop"
node = "rollout-1"
duration_s = 3
"#;

#[test]
fn faults_fire_are_survived_and_lose_nothing() {
    let world = World::new();
    world.configure("steps = 20", "steps = 100000");
    std::fs::write(world.folder.path().join("faults.toml"), CUT_OFF).expect("writable");
    let mut training = world.train(&[]);
    training.until_step(2);
    let chaos = "chaos run kill-rollout faults.toml not-finite corrupt-offer kill-coordinator \
                 --window 0.5 --json";
    let output = world.crrl(&chaos.split_whitespace().collect::<Vec<_>>());
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let value: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    assert_eq!(output.status.code(), Some(0), "{said}\n{value:#}");
    let outcomes = value["outcomes"].as_array().expect("a list");
    assert_eq!(outcomes.len(), 5);
    for outcome in outcomes {
        assert!(outcome["fired"].as_u64().is_some_and(|fired| fired > 0), "{outcome}");
    }
    // What was killed or cut off was missed, and not only waited for.
    for at in [0, 1, 4] {
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
    assert!(reason.contains("Operator"), "{reason}");
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
