//! Rollout nodes come and go while the others run; a plan says so beforehand.

use std::time::Instant;

use crrl_cluster::host;
use crrl_types::EventKind;
use serde_json::Value;

use crate::world::{DEADLINE, World, until_gone};

fn until(what: &str, look: impl Fn() -> bool) {
    let late = Instant::now() + DEADLINE;
    while !look() {
        assert!(Instant::now() < late, "no {what}");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}

#[test]
fn rollout_nodes_are_added_and_taken_away_while_the_others_run() {
    let world = World::new();
    world.configure("steps = 20", "steps = 100000");
    world.succeeds(&["cluster", "up"]);
    let plan = || -> (Option<i32>, Value) {
        let output = world.crrl(&["cluster", "plan", "--json"]);
        (output.status.code(), serde_json::from_slice(&output.stdout).expect("JSON"))
    };
    let (code, nothing) = plan();
    assert_eq!((code, &nothing["changes"]), (Some(0), &Value::Bool(false)), "{nothing:#}");
    let others = ["coordinator", "learner", "rollout-0", "rollout-1"];
    let pids: Vec<_> = others.iter().map(|name| world.pid(name)).collect();

    world.succeeds(&["cluster", "scale", "rollout=3"]);
    let guest = world.pid("rollout-2").expect("was started");
    until("work for the new node", || {
        let to = |kind: &EventKind| matches!(kind, EventKind::Dispatched { to, .. } if to.as_str() == "rollout-2");
        world.history().iter().any(|event| to(&event.kind))
    });

    // The file says two: the plan is to stop the third, and an older plan is not carried out.
    let (code, changes) = plan();
    assert_eq!(code, Some(3), "{changes:#}");
    let stops: Vec<&str> = changes["nodes"]
        .as_array()
        .expect("a list")
        .iter()
        .filter(|node| node["action"] == "stop")
        .filter_map(|node| node["name"].as_str())
        .collect();
    assert_eq!(stops, ["rollout-2"]);
    let stale = nothing["id"].as_str().expect("an id");
    let (code, said) = world.refused(&["cluster", "up", "--plan", stale]);
    assert_eq!(code, 2, "{said}");
    assert!(said.contains("is stale"), "{said}");
    let id = changes["id"].as_str().expect("an id");
    world.succeeds(&["cluster", "up", "--plan", id]);
    until_gone(&[guest]);
    assert_eq!(others.iter().map(|name| world.pid(name)).collect::<Vec<_>>(), pids);
    assert_eq!(plan().0, Some(0));

    // A rollout node that is to have something else of its machine is started again with that.
    let node = |name: &str, roles: &str, more: &str| {
        format!("[[node]]\nname = {name:?}\nroles = [{roles}]\n{more}\n")
    };
    let nodes = [
        node("coordinator", "\"coordinator\", \"parameter-server\"", ""),
        node("learner", "\"learner\"", "threads = 0"),
        node("rollout-0", "\"rollout\"", ""),
        node("rollout-1", "\"rollout\"", "memory_mib = 8192"),
    ];
    world.configure("[cluster]", &format!("{}[cluster]", nodes.concat()));
    let (code, changes) = plan();
    assert_eq!(code, Some(3), "{changes:#}");
    let action = |name: &str| {
        let nodes = changes["nodes"].as_array().expect("a list");
        nodes.iter().find(|node| node["name"] == name).expect("is named")["action"].clone()
    };
    assert_eq!(others.map(action), ["keep", "keep", "keep", "restart"].map(Value::from));
    world.succeeds(&["cluster", "up"]);
    until("memory for the node", || {
        let limits = world.pid("rollout-1").map(|pid| format!("/proc/{pid}/limits"));
        let limits = limits.and_then(|path| std::fs::read_to_string(path).ok()).unwrap_or_default();
        let data = limits.lines().find(|line| line.starts_with("Max data size"));
        data.is_some_and(|line| line.split_whitespace().nth(3) == Some("8589934592"))
    });
    let now: Vec<_> = others.iter().map(|name| world.pid(name)).collect();
    assert_eq!((&now[..3], now[3] == pids[3]), (&pids[..3], false));
    assert_eq!(plan().0, Some(0));

    // Anything else wants the cluster down.
    let other = ["--set", "rollout.temperature=0.5"];
    let output = world.crrl(&[&["cluster", "plan"][..], &other[..]].concat());
    let out = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(3), "{out}");
    assert_eq!(out.matches("blocked ").count(), others.len(), "{out}");
    let (code, said) = world.refused(&[&["cluster", "up"][..], &other[..]].concat());
    assert_eq!(code, 2, "{said}");
    for told in [&*out, &*said] {
        assert!(told.contains("rollout.temperature is 1.0 in the run and 0.5 now"), "{told}");
        assert!(told.contains("take it down first"), "{told}");
    }
    world.succeeds(&["cluster", "down"]);
    assert_eq!(host::host_pid(&world.run).expect("can be looked at"), None);
    world.succeeds(&["audit", "run"]);
    let (code, said) = world.refused(&["cluster", "scale", "rollout=3"]);
    assert_eq!(code, 6, "{said}");
}

#[test]
fn what_was_done_is_told_as_json_and_nothing_else_on_stdout() {
    let world = World::new();
    world.configure("steps = 20", "steps = 100000");
    let told = |arguments: &[&str]| -> Value {
        let output = world.crrl(arguments);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {said}");
        serde_json::from_slice(&output.stdout).expect("one object of JSON and nothing else")
    };
    // Every node by name, with one thing that is said of it.
    let each = |list: &Value, key: &str| -> Vec<(String, Value)> {
        let list = list.as_array().expect("a list").iter();
        list.map(|node| (node["name"].as_str().expect("a name").to_owned(), node[key].clone()))
            .collect()
    };
    let all = |names: &[&str], value: &str| -> Vec<(String, Value)> {
        names.iter().map(|name| ((*name).to_owned(), value.into())).collect()
    };
    let nodes = ["coordinator", "learner", "rollout-0", "rollout-1"];
    let up = told(&["cluster", "up", "--json"]);
    assert_eq!(up["did"], "started", "{up:#}");
    assert_eq!((&up["ready"], &up["error"]), (&Value::Bool(true), &Value::Null));
    assert_eq!(each(&up["nodes"], "state"), all(&nodes, "ready"));
    assert_eq!(each(&up["changes"], "action"), all(&nodes, "start"));
    let pids: Vec<Value> = nodes.iter().map(|name| world.pid(name).into()).collect();
    let told_pids: Vec<Value> = each(&up["nodes"], "pid").into_iter().map(|(_, pid)| pid).collect();
    assert_eq!(told_pids, pids);

    let again = told(&["cluster", "up", "--json"]);
    assert_eq!(again["did"], "nothing", "{again:#}");
    assert_eq!(again["nodes"][0]["pid"], pids[0]);
    assert_eq!(each(&again["changes"], "action"), all(&nodes, "keep"));
    assert_eq!(again["plan"], told(&["cluster", "plan", "--json"])["id"]);

    let scaled = told(&["cluster", "scale", "rollout=3", "--json"]);
    assert_eq!(scaled["did"], "changed", "{scaled:#}");
    assert!(each(&scaled["changes"], "action").contains(&("rollout-2".into(), "start".into())));
    assert!(each(&scaled["nodes"], "state").contains(&("rollout-2".into(), "ready".into())));

    let before = world.pid("rollout-2");
    let restarted = told(&["cluster", "restart", "--rolling", "--json", "rollout-2"]);
    assert_eq!(each(&restarted["restarted"], "did"), all(&["rollout-2"], "drained"));
    assert_eq!(restarted["left"], Value::Array(Vec::new()));
    assert_ne!(world.pid("rollout-2"), before);

    // Where nothing was begun nothing is told but the reason.
    let refused = |arguments: &[&str]| {
        let output = world.crrl(arguments);
        (output.status.code(), output.stdout.len(), output.stderr.is_empty())
    };
    let nobody = refused(&["cluster", "restart", "--rolling", "--json", "rollout-9"]);
    assert_eq!(nobody, (Some(2), 0, false));
    assert_eq!(told(&["cluster", "down", "--json"])["did"], "asked");
    assert_eq!(told(&["cluster", "down", "--json"])["did"], "nothing");
    assert_eq!(refused(&["cluster", "scale", "rollout=3", "--json"]), (Some(6), 0, false));
}

#[test]
fn a_second_up_of_one_run_is_told_of_the_first() {
    let world = World::new();
    world.configure("steps = 20", "steps = 100000");
    std::fs::create_dir_all(world.run.path()).expect("writable");
    // Held as by an `up` that is under way.
    let file = std::fs::File::create(world.run.path().join("up.lock")).expect("writable");
    let lock = nix::fcntl::Flock::lock(file, nix::fcntl::FlockArg::LockExclusiveNonblock);
    let lock = lock.map_err(|(_, error)| error).expect("nobody has it");
    let (code, said) = world.refused(&["cluster", "up"]);
    assert_eq!(code, 4, "{said}");
    assert!(said.contains("another `up` of") && said.contains("wait for it"), "{said}");
    // The run folder is as it was.
    let files = || std::fs::read_dir(world.run.path()).expect("is there").count();
    assert_eq!(files(), 1, "the second one has written into it");
    let (code, said) = world.refused(&["train"]);
    assert_eq!((code, files()), (4, 1), "{said}");
    drop(lock);
    world.succeeds(&["cluster", "up"]);
    world.succeeds(&["cluster", "down"]);
}

#[test]
fn a_run_that_has_begun_keeps_its_plan_and_one_that_is_over_is_let_be() {
    let world = World::new();
    world.configure("steps = 20", "steps = 2");
    world.train(&[]).completes();
    let held = |name: &str| std::fs::read(world.run.path().join(name)).expect("was written");
    let (config, plan) = (held("cluster.toml"), held("plan.json"));
    // There is nothing left to do, whichever file says so.
    for file in ["cluster.toml", "run/cluster.toml"] {
        let said = world.succeeds(&["cluster", "up", "-f", file]);
        assert!(said.contains("is complete"), "{said}");
        assert_eq!(host::host_pid(&world.run).expect("can be looked at"), None);
    }
    // Nor where the build before has written it, which had 0 for 1.
    let text = String::from_utf8(config.clone()).expect("text");
    let older = text.replace("held_out_samples = 1", "held_out_samples = 0");
    assert_ne!(older, text);
    std::fs::write(world.run.config_path(), older).expect("writable");
    let said = world.succeeds(&["cluster", "up", "-f", "run/cluster.toml"]);
    assert!(said.contains("is complete"), "{said}");
    std::fs::write(world.run.config_path(), text).expect("writable");
    let output = world.crrl(&["cluster", "up", "--json"]);
    let told: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(
        (output.status.code(), &told["did"]),
        (Some(0), &Value::from("complete")),
        "{told:#}"
    );
    assert_eq!(told["changes"], Value::Array(Vec::new()), "nothing is started");
    // More steps are another run, and so it is not half of one.
    let more = ["--set", "run.steps=3", "--set", "learner.learning_rate=0.5"];
    assert_eq!(world.crrl(&["cluster", "plan"]).status.code(), Some(0), "nothing is to be done");
    for command in [&["cluster", "up"][..], &["cluster", "plan"][..], &["train", "--resume"][..]] {
        let (code, said) = world.refused(&[command, &more[..]].concat());
        assert_eq!(code, 2, "{said}");
        assert!(said.contains("(run.steps is 2 in the run and 3 now)"), "{said}");
        assert!(said.contains("put it back") && said.contains("run.dir=OTHER"), "{said}");
    }
    assert_eq!((held("cluster.toml"), held("plan.json")), (config, plan));
}

#[test]
fn tasks_that_cannot_be_trained_on_are_refused_before_anything_is_written() {
    let world = World::new();
    for command in [&["train"][..], &["cluster", "up"][..], &["doctor"][..]] {
        let told = |set: &[&str]| {
            let output = world.crrl(&[command, set].concat());
            assert!(!output.status.success(), "{command:?} {set:?}");
            let parts = [output.stdout, output.stderr].concat();
            String::from_utf8_lossy(&parts).into_owned()
        };
        for (set, part) in [
            (&["--set", "tasks.train="][..], "tasks.train names no task file"),
            (&["--set", "tasks.train=no-such.jsonl"][..], "no-such.jsonl"),
            (
                &["--set", "tasks.held_out=tasks.jsonl"][..],
                "is in tasks.train and in tasks.held_out",
            ),
            (&["--set", "model.path="][..], "model.path names no model"),
            (&["--set", "agent.prompt=full"][..], "agent.tokens_max is 200: there is no room"),
        ] {
            let said = told(set);
            assert!(said.contains(part), "{command:?} {set:?}: {said}");
        }
        assert!(!world.run.path().join("plan.json").exists(), "{command:?} has written a plan");
    }
    // Whoever mends that has a run.
    world.configure("steps = 20", "steps = 100000");
    world.succeeds(&["cluster", "up"]);
    world.succeeds(&["cluster", "down"]);
}

#[test]
fn the_doctor_names_what_is_missing_and_what_to_do() {
    let world = World::new();
    let output = world.crrl(&["doctor", "--json"]);
    let value: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(value["ok"], true, "{value:#}");
    assert_eq!(output.status.code(), Some(0));
    let named = |name: &str| {
        let checks = value["checks"].as_array().expect("a list");
        checks.iter().find(|check| check["name"] == name).cloned().unwrap_or_default()
    };
    assert_eq!(named("opening prompt")["verdict"], "good", "{value:#}");
    // Some of the tasks are of the held-out side, and nobody asked to leave them out.
    let side = named("held-out side");
    assert_eq!(side["verdict"], "warning", "{value:#}");
    assert!(side["fix"].as_str().is_some_and(|fix| fix.contains("--split train")), "{side}");
    world.configure("path = \"", "path = \"/no/such");
    let output = world.crrl(&["doctor"]);
    let out = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(4), "{out}");
    assert!(out.contains("BAD   model") && out.contains("model.path names"), "{out}");
}
