//! Faults that are injected into a run, as a user does it, and its audit.

use crrl_cluster::{OperatorClient, OperatorError, host};
use crrl_types::EventKind;
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
                 --window 0.5 --within 0.5 --json";
    let output = world.crrl(&chaos.split_whitespace().collect::<Vec<_>>());
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let value: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    assert_eq!(output.status.code(), Some(0), "{said}\n{value:#}");
    let outcomes = value["outcomes"].as_array().expect("a list");
    assert_eq!(outcomes.len(), 9);
    for outcome in outcomes {
        assert!(outcome["fired"].as_u64().is_some_and(|fired| fired > 0), "{outcome}");
    }
    // Nine faults, and windows of half a second, tell nothing of throughput.
    assert_eq!(value["throughput"]["all"]["judgement"], "not-judged", "{value:#}");
    assert_eq!(value["throughput"]["within_s"], 0.5);
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
    let all_seen = || {
        let snapshot = runtime.block_on(async {
            let client = OperatorClient::connect(&world.run).await.ok()?;
            let snapshot = client.status().await.ok();
            client.close().await;
            snapshot
        });
        let mut nodes = snapshot?.nodes.into_iter();
        let report = nodes.find(|report| report.node.as_str() == "rollout-0")?;
        Some(report.faults.into_iter().filter(|seen| seen.fault == Fault::SlowTools { ms: 1 }))
    };
    let seen = || all_seen()?.next();
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
    // Another one of the same seed is not taken for the first, which its node still tells of.
    let mut chaos = world.starts(&["chaos", "run", "long.toml", "--window", "0.2"], "chaos.stderr");
    let another = training.until("another fault", || all_seen()?.find(|seen| seen.active));
    assert_ne!(another.id, begun.id);
    end(chaos.id(), Signal::SIGINT);
    assert_eq!(chaos.wait().expect("is ours").code(), Some(130));
    let said = std::fs::read_to_string(world.folder.path().join("chaos.stderr")).expect("a file");
    assert!(said.contains("was lifted"), "{said}");
}

/// Whether a process stands still.
fn is_stopped(pid: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| stat.rsplit(')').next().unwrap_or_default().starts_with(" T"))
}

#[test]
fn a_pause_a_partition_and_a_hang_are_lifted_though_their_node_hears_nobody() {
    let world = World::new();
    world.configure("steps = 20", "steps = 100000");
    let mut training = world.train(&[]);
    training.until_all_work();
    let pid = world.pid("rollout-0").expect("runs");
    let count = |what: fn(&EventKind) -> bool| {
        world.history().iter().filter(|event| what(&event.kind)).count()
    };
    let given = |kind: &EventKind| matches!(kind, EventKind::Dispatched { to, .. } if to.as_str() == "rollout-0");
    let lost = |kind: &EventKind| matches!(kind, EventKind::NodeDown { peer, .. } if peer.as_str() == "rollout-0");
    let log = || std::fs::read_to_string(world.run.log("rollout-0")).unwrap_or_default();
    for kind in ["pause", "drop", "hang"] {
        // They would outlast any test.
        let fault =
            format!("[[fault]]\nkind = \"{kind}\"\nnode = \"rollout-0\"\nduration_s = 600\n");
        std::fs::write(world.folder.path().join("long.toml"), fault).expect("writable");
        let (downs, begun) = (count(lost), log().matches("a fault begins").count());
        let chaos = ["chaos", "run", "long.toml", "--window", "0.2"];
        let mut chaos = world.starts(&chaos, "chaos.stderr");
        training.until(kind, || {
            match kind {
                "pause" => is_stopped(pid) && count(lost) > downs,
                "drop" => count(lost) > downs,
                _ => log().matches("a fault begins").count() > begun,
            }
            .then_some(())
        });
        end(chaos.id(), Signal::SIGINT);
        assert_eq!(chaos.wait().expect("is ours").code(), Some(130), "{kind}");
        let said = std::fs::read_to_string(world.folder.path().join("chaos.stderr"));
        let said = said.expect("a file");
        assert!(said.contains("the fault in rollout-0") && said.contains("was lifted"), "{said}");
        // What it may still have been given before it was lost is less than that.
        let before = count(given);
        training.until("work for it", || (count(given) > before + 8).then_some(()));
        assert_eq!(world.pid("rollout-0"), Some(pid), "the same process: {kind}");
        let left = world.run.lifts_wanted("rollout-0");
        assert!(left.is_empty(), "{kind}: {left:?}");
    }
    let orders = std::fs::read_to_string(world.run.orders()).expect("a log of orders");
    for fault in ["stands still", "100 % of packets both ways lost", "actors take no message"] {
        assert!(orders.contains(&format!("{fault}: lifted")), "{fault}: {orders}");
    }
    training.signal(Signal::SIGINT);
    let (code, said) = training.ended();
    assert_eq!(code, Some(130), "{said}");
    world.succeeds(&["audit", "run"]);
}

/// Some of a guest's packets are lost: it lives, and what fired is known by its own word alone.
const GUEST: &str = r#"
[[fault]]
kind = "drop"
node = "guest-1"
share = 0.3
duration_s = 1
"#;

#[test]
fn a_node_that_joined_by_invitation_is_reached_by_faults() {
    let world = World::new();
    world.configure("steps = 20", "steps = 100000");
    std::fs::write(world.folder.path().join("faults.toml"), GUEST).expect("writable");
    let mut training = world.train(&[]);
    training.until_step(1);
    world.succeeds(&["cluster", "invite", "guest-1"]);
    let join = ["node", "--join", "guest-1.join", "--dir", "elsewhere", "--threads", "1"];
    let mut guest = world.starts(&join, "guest.stderr");
    training.until("the guest", || {
        let up = |kind: &EventKind| matches!(kind, EventKind::NodeUp { peer, .. } if peer.as_str() == "guest-1");
        world.history().iter().any(|event| up(&event.kind)).then_some(())
    });
    let chaos = "chaos run faults.toml --window 0.3 --within 0.3 --json";
    let output = world.crrl(&chaos.split_whitespace().collect::<Vec<_>>());
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let value: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    assert_eq!(output.status.code(), Some(0), "{said}\n{value:#}");
    let outcome = &value["outcomes"][0];
    assert_eq!(outcome["node"], "guest-1", "{outcome}");
    assert!(outcome["fired"].as_u64().is_some_and(|fired| fired > 0), "{outcome}");
    // Once it has left it is not reached any more.
    end(guest.id(), Signal::SIGTERM);
    assert!(guest.wait().expect("is ours").success(), "did not leave in peace");
    training.until("its end", || {
        let down = |kind: &EventKind| matches!(kind, EventKind::NodeDown { peer, .. } if peer.as_str() == "guest-1");
        world.history().iter().any(|event| down(&event.kind)).then_some(())
    });
    let (code, said) = world.refused(&["chaos", "run", "faults.toml"]);
    assert_eq!(code, 2, "{said}");
    assert!(said.contains("no node that is up") && said.contains("rollout-0"), "{said}");
    // What was found before that is told all the same, and judged.
    let both = format!("{}{GUEST}", GUEST.replace("guest-1", "rollout-0"));
    std::fs::write(world.folder.path().join("faults.toml"), both).expect("writable");
    let output = world.crrl(&chaos.split_whitespace().collect::<Vec<_>>());
    let value: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    assert_eq!(output.status.code(), Some(2), "{value:#}");
    let outcomes = value["outcomes"].as_array().expect("a list");
    assert_eq!((outcomes.len(), &outcomes[0]["node"]), (1, &"rollout-0".into()), "{value:#}");
    assert_eq!((&value["ok"], &value["audit"]["ok"]), (&false.into(), &true.into()), "{value:#}");
    assert!(value["error"].as_str().is_some_and(|why| why.contains("no node")), "{value:#}");
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
    let chaos = "chaos run faults.toml --window 0.3 --within 0.3 --json";
    let output = world.crrl(&chaos.split_whitespace().collect::<Vec<_>>());
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
