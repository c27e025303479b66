//! A node in a container: `host = "docker://IMAGE"`.

use std::process::Command;
use std::time::{Duration, Instant};

use crrl_types::EventKind;

use crate::skips::skipped;
use crate::world::{DEADLINE, World};

/// Any image with git, bash and grep; `scripts/base-image.sh` makes it where none can be pulled.
const IMAGE: &str = "debian:bookworm-slim";

fn docker(arguments: &[&str]) -> Result<String, String> {
    let output = Command::new("docker").args(arguments).output().map_err(|e| e.to_string())?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned());
    }
    Err(String::from_utf8_lossy(&output.stderr).trim().to_owned())
}

/// The node's container, if it runs.
fn container(world: &World) -> Option<String> {
    let digest = crrl_types::Digest::of(world.run.path().as_os_str().as_encoded_bytes());
    let name = format!("name=crrl-{}-boxed", &digest.to_string()[..8]);
    let found = docker(&["ps", "-q", "--filter", &name]).expect("the engine answered before");
    found.lines().next().map(str::to_owned)
}

fn until<T>(world: &World, what: &str, look: impl Fn() -> Option<T>) -> T {
    let late = Instant::now() + DEADLINE;
    loop {
        if let Some(seen) = look() {
            return seen;
        }
        let log = std::fs::read_to_string(world.run.log("boxed")).unwrap_or_default();
        assert!(Instant::now() < late, "no {what}\n{log}");
        std::thread::sleep(Duration::from_millis(30));
    }
}

/// Episodes handed to the node so far.
fn handed(world: &World) -> usize {
    let to_it = |kind: &EventKind| matches!(kind, EventKind::Dispatched { to, .. } if to.as_str() == "boxed");
    world.history().iter().filter(|event| to_it(&event.kind)).count()
}

#[test]
fn a_node_in_a_container_works_comes_back_and_goes_with_the_cluster() {
    if let Err(why) = docker(&["image", "inspect", IMAGE]) {
        let image = format!("{IMAGE} (`docker pull`, or scripts/base-image.sh)");
        return skipped(&format!("no Docker engine (package docker.io) with {image}: {why}"));
    }
    let world = World::new();
    world.configure("steps = 20", "steps = 100000");
    // A container may make no namespaces of its own: it is the wall.
    world.configure("[reward]", "[sandbox]\nrun_without_isolation = true\n[reward]");
    let mut nodes = String::new();
    for (name, roles, more) in [
        ("coordinator", r#"["coordinator", "parameter-server"]"#, String::new()),
        ("learner", r#"["learner"]"#, String::new()),
        ("rollout-0", r#"["rollout"]"#, String::new()),
        ("boxed", r#"["rollout"]"#, format!("host = \"docker://{IMAGE}\"\n")),
    ] {
        nodes += &format!("[[node]]\nname = \"{name}\"\nroles = {roles}\n{more}");
    }
    world.configure("[cluster]", &format!("{nodes}[cluster]"));
    world.succeeds(&["cluster", "up"]);
    until(&world, "work for the container", || (handed(&world) > 0).then_some(()));

    // It is killed, and started again.
    let first = container(&world).expect("it runs");
    docker(&["kill", &first]).expect("it ran");
    let before = handed(&world);
    let second = until(&world, "another container", || container(&world).filter(|c| *c != first));
    until(&world, "work for the new container", || (handed(&world) > before).then_some(()));
    let shown = docker(&["inspect", &second]).expect("it runs");
    assert!(!shown.contains("crrl1"), "a token is shown to whoever asks the engine");

    world.succeeds(&["cluster", "down"]);
    assert_eq!(container(&world), None, "a container is left");
    world.succeeds(&["audit", "run"]);
}
