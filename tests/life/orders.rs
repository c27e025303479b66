//! Orders to nodes and actors of a run that goes on, traces of its messages, and the log of who asked for
//! what.

use crrl_types::EventKind;
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::world::{Training, World};

/// A run that goes on until it is told to end.
fn endless() -> World {
    let world = World::new();
    world.configure("steps = 20", "steps = 100000");
    world
}

/// Ends a run, which lost and doubled nothing.
fn ends_well(world: &World, training: Training<'_>) {
    training.signal(Signal::SIGINT);
    let (code, said) = training.ended();
    assert_eq!(code, Some(130), "{said}");
    world.succeeds(&["audit", "run"]);
}

/// Gives an order; the exit code, and what was answered.
fn give(world: &World, words: &str) -> (i32, Value) {
    let words = format!("inspect do {words} --yes --json --run run");
    let output = world.crrl(&words.split_whitespace().collect::<Vec<_>>());
    let answer = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| {
        panic!("{words}: {}", String::from_utf8_lossy(&output.stderr));
    });
    (output.status.code().expect("no signal"), answer)
}

fn done(world: &World, words: &str) {
    let (code, answer) = give(world, words);
    assert_eq!((code, &answer["outcome"]), (0, &Value::from("done")), "{words}: {answer}");
}

/// What `crrl inspect` says of every node or actor.
fn seen(world: &World, what: &str) -> Vec<Value> {
    let output = world.crrl(&["inspect", what, "--json", "--run", "run"]);
    serde_json::from_slice(&output.stdout).unwrap_or_default()
}

fn node(world: &World, name: &str) -> Option<Value> {
    seen(world, "nodes").into_iter().find(|node| node["name"] == name)
}

fn actor(world: &World, node: &str, name: &str) -> Option<Value> {
    let is_it = |actor: &Value| actor["node"] == node && actor["name"] == name;
    seen(world, "actors").into_iter().find(is_it)
}

/// What an actor has published of its state: the exit code, and what is printed.
fn published(world: &World, words: &str) -> (Option<i32>, Value) {
    let words = format!("inspect actor {words} --json --run run");
    let output = world.crrl(&words.split_whitespace().collect::<Vec<_>>());
    (output.status.code(), serde_json::from_slice(&output.stdout).unwrap_or_default())
}

/// Waits until an actor was started so many times again and works.
fn restarted(training: &mut Training<'_>, of: &str, name: &str, times: u64) -> Value {
    let world = training.world();
    training.until(&format!("restart {times} of {name}"), || {
        let at_work = |a: &Value| ["idle", "busy"].iter().any(|state| a["state"] == *state);
        actor(world, of, name).filter(|a| a["restarts"].as_u64() >= Some(times) && at_work(a))
    })
}

/// Episodes a node was given so far.
fn given(world: &World, node: &str) -> usize {
    let to_it =
        |kind: &EventKind| matches!(kind, EventKind::Dispatched { to, .. } if to.as_str() == node);
    world.history().iter().filter(|event| to_it(&event.kind)).count()
}

/// The run goes on, and the node gets nothing of it.
fn idles(training: &mut Training<'_>, node: &str) {
    let world = training.world();
    let before = given(world, node);
    training.until_step(world.steps() + 3);
    assert_eq!(given(world, node), before, "{node} was given work");
}

fn works(training: &mut Training<'_>, node: &str) {
    let world = training.world();
    let before = given(world, node);
    training.until(&format!("work for {node}"), || (given(world, node) > before + 4).then_some(()));
}

fn stands(training: &mut Training<'_>, name: &str, state: &str) {
    let world = training.world();
    training.until(&format!("{name} {state} and empty"), || {
        let node = node(world, name)?;
        (node["state"] == state && node["episodes"] == 0).then_some(())
    });
}

#[test]
fn nodes_and_actors_do_as_they_are_told_and_no_episode_is_lost() {
    let world = endless();
    let mut training = world.train(&[]);
    training.until_all_work();

    done(&world, "drain rollout-0");
    stands(&mut training, "rollout-0", "draining");
    idles(&mut training, "rollout-0");
    // An actor that is started again finds its node draining.
    done(&world, "restart rollout-0/rollout");
    restarted(&mut training, "rollout-0", "rollout", 1);
    idles(&mut training, "rollout-0");
    done(&world, "resume rollout-0");
    works(&mut training, "rollout-0");

    done(&world, "suspend rollout-1");
    stands(&mut training, "rollout-1", "suspended");
    idles(&mut training, "rollout-1");
    done(&world, "resume rollout-1");
    works(&mut training, "rollout-1");

    done(&world, "kill rollout-1/rollout");
    let killed = restarted(&mut training, "rollout-1", "rollout", 1);
    assert_eq!(killed["last_failure"], "killed by an order of operator");
    works(&mut training, "rollout-1");

    done(&world, "suspend learner/learner");
    training.until("a suspended learner", || {
        actor(&world, "learner", "learner").filter(|actor| actor["state"] == "suspended")
    });
    let output = world.crrl(&["inspect", "diagnose", "--for", "3", "--run", "run"]);
    let says = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(says.contains("actor learner in learner is suspended"), "{says}");
    // It publishes nothing more; the last it has published is there, and old.
    let (code, last) = published(&world, "learner/learner");
    assert_eq!((code, &last["outcome"]), (Some(0), &"done".into()), "{last}");
    assert!(last["age_ms"].as_u64() > Some(2_000) && !last["snapshot"].is_null(), "{last}");
    done(&world, "resume learner/learner");
    let reached = world.steps();
    training.until_step(reached + 1);

    ends_well(&world, training);
    // The run is over; what was asked for stays.
    let output = world.crrl(&["inspect", "orders", "--json", "--run", "run"]);
    let orders: Vec<Value> = serde_json::from_slice(&output.stdout).expect("a list");
    let told: Vec<String> = orders
        .iter()
        // Whoever takes a run down asks its coordinator first.
        .filter(|order| order["operation"] != "stop-run")
        .map(|o| format!("{} {} {}", o["operation"], o["target"], o["outcome"]).replace('"', ""))
        .collect();
    assert_eq!(
        told,
        [
            "drain rollout-0 done",
            "restart rollout-0/rollout done",
            "resume rollout-0 done",
            "suspend rollout-1 done",
            "resume rollout-1 done",
            "kill rollout-1/rollout done",
            "suspend learner/learner done",
            "resume learner/learner done",
        ]
    );
    assert!(orders.iter().all(|order| order["who"] == "operator"), "{orders:?}");
}

#[test]
fn processes_are_ended_and_started_and_the_log_of_orders_outlives_them() {
    let world = endless();
    let mut training = world.train(&[]);
    training.until_all_work();
    let another = |training: &mut Training<'_>, name: &str, before: Option<u32>| {
        training.until(&format!("another {name}"), || {
            world.pid(name).filter(|pid| Some(*pid) != before).map(drop)
        });
    };

    let before = world.pid("rollout-1");
    done(&world, "stop rollout-1");
    training.until("its end", || world.pid("rollout-1").is_none().then_some(()));
    training.until("a node that has left", || {
        node(&world, "rollout-1").filter(|node| node["state"] == "left")
    });
    let (code, answer) = give(&world, "kill rollout-1");
    assert_eq!((code, &answer["outcome"]), (2, &Value::from("absent")), "{answer}");
    done(&world, "restart rollout-1");
    another(&mut training, "rollout-1", before);
    works(&mut training, "rollout-1");

    // Whoever writes the log goes down in the middle of it.
    for word in ["kill", "restart"] {
        let before = world.pid("coordinator");
        done(&world, &format!("{word} coordinator"));
        another(&mut training, "coordinator", before);
        let reached = world.steps();
        training.until_step(reached + 2);
    }
    let before = world.pid("learner");
    done(&world, "kill learner");
    // Its connection is not known to be dead yet; an order over it ends with it.
    let (_, answer) = give(&world, "drain learner");
    assert!(!answer.to_string().contains("has not answered for"), "{answer}");
    another(&mut training, "learner", before);
    training.until("the learner again", || {
        let learner = node(&world, "learner")?;
        (learner["state"] == "ready" && learner["pid"] != Value::from(before)).then_some(())
    });

    world.succeeds(&["tls", "issue", "anna", "--role", "viewer", "--run", "run"]);
    let (code, answer) = give(&world, "kill rollout-0 --as anna");
    assert_eq!((code, &answer["outcome"]), (7, &Value::from("denied")), "{answer}");
    let (code, answer) = give(&world, "drain learner");
    assert_eq!((code, &answer["outcome"]), (1, &Value::from("unsupported")), "{answer}");
    let (code, said) = world.refused(&["inspect", "do", "kill", "learner", "--run", "run"]);
    assert!(code == 2 && said.contains("--yes"), "{said}");

    ends_well(&world, training);
    let output = world.crrl(&["inspect", "orders", "--json", "--run", "run"]);
    let orders: Vec<Value> = serde_json::from_slice(&output.stdout).expect("a list");
    let ids: Vec<u64> = orders.iter().filter_map(|order| order["id"].as_u64()).collect();
    assert_eq!(ids, (1..=ids.len() as u64).collect::<Vec<_>>());
    let denied: Vec<&Value> = orders.iter().filter(|o| o["outcome"] == "denied").collect();
    assert!(denied.len() == 1 && denied[0]["who"] == "anna", "{orders:?}");
    assert_eq!(denied[0]["roles"], serde_json::json!(["viewer"]));
}

#[test]
fn a_viewer_of_a_name_of_its_own_looks_at_everything_and_changes_nothing() {
    let world = endless();
    let mut training = world.train(&[]);
    training.until_all_work();
    let inspect = |words: &str| {
        let words = format!("inspect {words} --run run");
        world.crrl(&words.split_whitespace().collect::<Vec<_>>())
    };
    world.succeeds(&["tls", "issue", "anna", "--role", "viewer", "--run", "run"]);
    for look in ["nodes", "actors", "tree", "episodes", "record anna.rec --for 0.5"] {
        let output = inspect(&format!("{look} --as anna"));
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(0), "{look}: {said}");
    }
    let output = inspect("actors --sort mbox --limit 2 --json --as anna");
    let rows: Vec<Value> = serde_json::from_slice(&output.stdout).expect("a list and nothing else");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let is_told = |line: &str| line.starts_with("2 of ") && line.ends_with("--limit prints more");
    assert!(rows.len() == 2 && said.lines().any(is_told), "{said}");
    let output = inspect("diagnose --for 0.5 --json --as anna");
    let verdict: Value = serde_json::from_slice(&output.stdout).expect("a verdict");
    let looked_at = verdict["looked_at"].as_str().unwrap_or_default();
    assert!(looked_at.starts_with("4 nodes"), "{verdict}");
    for (target, field) in [
        ("coordinator/coordinator", "run"),
        ("coordinator/parameter-server", "engines"),
        ("learner/learner", "stage"),
        ("rollout-0/rollout", "credit"),
        ("rollout-0/sandboxes", "open_max"),
    ] {
        let (code, shown) = published(&world, &format!("{target} --as anna"));
        assert_eq!((code, &shown["outcome"]), (Some(0), &"done".into()), "{target}: {shown}");
        assert!(!shown["snapshot"][field].is_null(), "{target}: {shown}");
    }
    let (code, shown) = published(&world, "rollout-0/engine --as anna");
    assert_eq!((code, &shown["outcome"]), (Some(1), &"unsupported".into()), "{shown}");
    let (code, shown) = published(&world, "rollout-0/nobody --as anna");
    assert_eq!((code, &shown["outcome"]), (Some(2), &"absent".into()), "{shown}");
    for (of, name, kind) in [
        ("learner", "trainer", "TrainerThread"),
        ("rollout-0", "engine", "EngineThread"),
        ("rollout-0", "sandboxes", "SandboxPool"),
        ("rollout-0", "inbox", "Inbox"),
        ("rollout-0", "sessions", "Sessions"),
    ] {
        let row = actor(&world, of, name).unwrap_or_else(|| panic!("no row {name} of {of}"));
        assert_eq!(row["kind"], kind, "{row}");
        assert!(row["handled"].as_u64() > Some(0), "{row}");
    }
    let (code, answer) = give(&world, "kill rollout-0/engine");
    assert_eq!((code, &answer["outcome"]), (1, &Value::from("unsupported")), "{answer}");
    let (code, answer) = give(&world, "drain rollout-0 --as anna");
    assert_eq!((code, &answer["outcome"]), (7, &Value::from("denied")), "{answer}");
    works(&mut training, "rollout-0");

    // A name without a certificate is told, whatever is asked; one that does nothing as well.
    let wrong = [
        ("nodes --as bob", "bob.pem"),
        ("watch --as bob", "bob.pem"),
        ("diagnose --as bob", "bob.pem"),
        ("do drain rollout-0 --yes --as bob", "bob.pem"),
        ("orders --as anna", "reads a file"),
    ];
    for (asked, says) in wrong {
        let output = inspect(asked);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{asked}: {said}");
        assert!(said.contains(says), "{asked}: {said}");
    }
}

/// Traces; the exit code and the lines.
fn traced(world: &World, words: &str) -> (i32, Vec<Value>) {
    let words = format!("inspect trace {words} --jsonl --run run");
    let output = world.crrl(&words.split_whitespace().collect::<Vec<_>>());
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let lines = text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!said.contains("panicked"), "{said}");
    (output.status.code().expect("no signal"), lines)
}

#[test]
fn messages_and_logs_of_a_run_that_goes_on_are_seen_within_bounds() {
    let world = endless();
    let mut training = world.train(&[]);
    training.until_all_work();
    world.succeeds(&["tls", "issue", "viewer", "--role", "viewer", "--run", "run"]);

    let (code, lines) =
        traced(&world, "rollout-0/rollout --filter assign --max-count 20 --as viewer");
    let (end, events) = lines.split_last().expect("lines");
    assert_eq!((code, &end["end"]["why"]), (0, &Value::from("count")), "{end}");
    assert_eq!(events.len(), 20);
    let events: Vec<&Value> = events.iter().map(|line| &line["event"]).collect();
    assert!(events.iter().all(|e| e["actor"] == "rollout" && e["node"] == "rollout-0"));
    let assigned = |e: &&&Value| e["message"] == "Assign" && e["from"] == "coordinator";
    let assigned: Vec<&&Value> = events.iter().filter(assigned).collect();
    assert!(assigned.iter().any(|e| e["handled_us"].is_null()), "none was received");
    assert!(assigned.iter().any(|e| e["handled_us"].is_u64()), "none was handled: {events:?}");

    let (code, lines) = traced(&world, "coordinator/coordinator --max-rate 2");
    let end = lines.last().expect("lines");
    assert_eq!((code, &end["end"]["why"]), (5, &Value::from("rate")), "{end}");
    assert!(lines.len() <= 3, "{lines:?}");
    let (code, lines) = traced(&world, "learner/learner --filter nothing --for 0.5");
    assert_eq!((code, lines[0]["end"]["why"].as_str()), (0, Some("time")), "{lines:?}");
    let (code, lines) = traced(&world, "rollout-0/nobody");
    assert_eq!((code, lines.len()), (2, 0), "{lines:?}");

    let log = || std::fs::read_to_string(world.run.log("rollout-0")).unwrap_or_default();
    assert!(!log().contains("an episode begins"), "written before it was asked for");
    done(&world, "log rollout-0 --filter info,crrl_actors=debug --for 20");
    training.until("more in the log", || log().contains("an episode begins").then_some(()));
    training
        .until("the end of that", || log().contains("the log's level, as it was").then_some(()));
    let written = log().matches("an episode begins").count();
    let reached = world.steps();
    training.until_step(reached + 3);
    assert_eq!(log().matches("an episode begins").count(), written, "still written");
    let (code, answer) = give(&world, "log rollout-0 --filter =====");
    assert_eq!((code, &answer["outcome"]), (1, &Value::from("unsupported")), "{answer}");
    ends_well(&world, training);
}
