//! The certificates of a run: its one authority, and keys that are changed for new ones.

use std::collections::BTreeMap;

use crrl_cluster::{OperatorClient, OperatorError};
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::world::World;

/// Name under which somebody keeps what was an operator's.
const STALE: &str = "stale";

/// Fingerprints of the certificates in the run's folder, by name. None of them may be revoked.
fn fingerprints(world: &World) -> BTreeMap<String, String> {
    let output = world.crrl(&["tls", "list", "--json"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let list: Vec<Value> = serde_json::from_slice(&output.stdout).expect(&said);
    let text = |of: &Value| of.as_str().expect("text").to_owned();
    list.iter()
        .map(|certificate| {
            assert_eq!(certificate["revoked"], false, "{certificate}");
            (text(&certificate["name"]), text(&certificate["fingerprint"]))
        })
        .collect()
}

/// What the coordinator says to whoever shows a certificate of the run's folder.
fn asks_as(world: &World, who: &str) -> Result<(), OperatorError> {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let client = OperatorClient::connect_as(&world.run, who).await?;
        let answer = client.status().await;
        client.close().await;
        answer.map(drop)
    })
}

#[test]
fn after_a_rotation_the_run_comes_up_with_new_certificates_and_old_ones_are_refused() {
    let world = World::new();
    world.configure("steps = 20", "steps = 100000");
    let mut training = world.train(&[]);
    training.until_step(1);
    // Nodes read theirs when they start.
    let (code, said) = world.refused(&["tls", "rotate"]);
    assert_eq!(code, 2, "{said}");
    assert!(said.contains("the cluster is up"), "{said}");
    training.signal(Signal::SIGINT);
    let (code, said) = training.ended();
    assert_eq!(code, Some(130), "{said}");
    let tls = world.run.tls();
    let kept = ["pem", "key", "seed"].map(|kind| {
        let file = std::fs::read(tls.join(format!("operator.{kind}"))).expect("was issued");
        (tls.join(format!("{STALE}.{kind}")), file)
    });
    let authority = std::fs::read(tls.join("ca.pem")).expect("was made");
    let before = fingerprints(&world);
    let nodes = ["coordinator", "learner", "rollout-0", "rollout-1"];
    for name in nodes.iter().chain(&["operator"]) {
        assert!(before.contains_key(*name), "{name}: {before:?}");
    }

    // One alone, and then everyone.
    let said = world.succeeds(&["tls", "rotate", "learner"]);
    assert!(said.contains("learner: a new key") && said.lines().count() == 1, "{said}");
    let said = world.succeeds(&["tls", "rotate"]);
    assert_eq!(said.lines().count(), before.len(), "{said}");
    let after = fingerprints(&world);
    assert!(before.keys().eq(after.keys()), "{before:?}, {after:?}");
    for (name, fingerprint) in &after {
        assert_ne!(before.get(name), Some(fingerprint), "{name}");
    }
    assert_eq!(std::fs::read(tls.join("ca.pem")).expect("is there"), authority);

    let reached = world.steps();
    let mut training = world.train(&["--resume"]);
    training.until_step(reached + 2);
    assert_eq!(fingerprints(&world), after, "what was rotated is what is used");
    training.until_all_work();
    // Whoever has a copy of what was good before is sent away.
    for (path, file) in &kept {
        std::fs::write(path, file).expect("writable");
    }
    asks_as(&world, "operator").expect("is let in");
    asks_as(&world, STALE).expect_err("was revoked");
    training.until("word of it", || {
        let log = std::fs::read_to_string(world.run.log("coordinator")).unwrap_or_default();
        log.contains("the certificate of operator was revoked").then_some(())
    });
    training.until_step(world.steps() + 1);
}

#[test]
fn a_run_has_one_authority_and_whoever_comes_first_makes_it() {
    let world = World::new();
    let said = world.succeeds(&["tls", "init"]);
    let file = world.run.tls().join("ca.pem");
    assert!(said.contains("run/tls/ca.pem"), "{said}");
    let made = std::fs::read(&file).expect("was made");
    world.succeeds(&["tls", "init"]);
    assert_eq!(std::fs::read(&file).expect("is there"), made, "made anew");
    assert!(fingerprints(&world).is_empty(), "nobody has a certificate yet");
    let (code, said) = world.refused(&["tls", "rotate", "learner"]);
    assert_eq!(code, 2, "{said}");
    assert!(said.contains("learner has no certificate"), "{said}");
    // A run that is started afterwards has it for its own.
    let mut training = world.train(&[]);
    training.until_step(1);
    assert_eq!(std::fs::read(&file).expect("is there"), made);
    assert!(fingerprints(&world).contains_key("learner"));
}

#[test]
fn a_rotation_of_everyone_lets_nobody_in_whom_an_earlier_build_revoked() {
    let world = World::new();
    world.succeeds(&["tls", "init"]);
    for name in ["guest", "other"] {
        world.succeeds(&["tls", "issue", name, "--role", "rollout"]);
    }
    world.succeeds(&["tls", "revoke", "guest"]);
    // It wrote down certificates that were revoked, and no names.
    std::fs::remove_file(world.run.tls().join("revoked_names.json")).expect("was written");
    let said = world.succeeds(&["tls", "rotate"]);
    assert!(said.contains("guest: was revoked, and stays so"), "{said}");
    assert!(said.contains("other: a new key"), "{said}");
    // Somebody may say that it is to be let in.
    let said = world.succeeds(&["tls", "rotate", "guest"]);
    assert!(said.contains("guest: a new key"), "{said}");
    assert_eq!(fingerprints(&world).len(), 2);
}
