//! Nodes on another machine, over the system's ssh: here an sshd of the test's own, on loopback.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crrl_cluster::host;
use crrl_types::EventKind;
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::skips::skipped;
use crate::world::{DEADLINE, World, end, until_gone};

const SSHD: &str = "/usr/sbin/sshd";

/// An sshd with keys of its own, and an ssh configuration that knows it as `box`.
struct Sshd {
    folder: tempfile::TempDir,
    child: Child,
}

impl Drop for Sshd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn keygen(path: &Path) -> Result<(), String> {
    let made = Command::new("ssh-keygen")
        .args(["-q", "-t", "ed25519", "-N", "", "-f"])
        .arg(path)
        .status()
        .map_err(|error| format!("ssh-keygen (package openssh-client): {error}"))?;
    if made.success() { Ok(()) } else { Err(format!("ssh-keygen: {made}")) }
}

impl Sshd {
    /// Why not, where it cannot be had.
    fn start() -> Result<Self, String> {
        Self::start_after("")
    }

    /// After commands of a shell, which may take things away from whoever is let in.
    fn start_after(commands: &str) -> Result<Self, String> {
        if !Path::new(SSHD).exists() {
            return Err(format!("there is no {SSHD} (package openssh-server)"));
        }
        let folder = tempfile::tempdir().expect("a temporary folder");
        let at = |name: &str| folder.path().join(name);
        keygen(&at("host_key"))?;
        keygen(&at("user_key"))?;
        std::fs::copy(at("user_key.pub"), at("authorized_keys")).expect("writable");
        let port = TcpListener::bind("127.0.0.1:0").and_then(|taken| taken.local_addr());
        let port = port.expect("a free port").port();
        let user = nix::unistd::User::from_uid(nix::unistd::getuid()).ok().flatten();
        let user = user.ok_or("this user has no name")?.name;
        let dir = folder.path().display();
        let config = format!(
            "Port {port}\nListenAddress 127.0.0.1\nHostKey {dir}/host_key\nPidFile none\n\
             AuthorizedKeysFile {dir}/authorized_keys\nStrictModes no\nUsePAM no\n\
             PasswordAuthentication no\nPermitRootLogin prohibit-password\nPrintMotd no\n"
        );
        std::fs::write(at("sshd_config"), config).expect("writable");
        let config = format!(
            "Host box\n HostName 127.0.0.1\n Port {port}\n User {user}\n IdentityFile \
             {dir}/user_key\n IdentitiesOnly yes\n UserKnownHostsFile {dir}/known_hosts\n \
             GlobalKnownHostsFile /dev/null\nHost dead\n HostName 127.0.0.1\n Port 9\n"
        );
        std::fs::write(at("ssh_config"), config).expect("writable");
        let log = std::fs::File::create(at("sshd.log")).expect("writable");
        let mut child = Command::new("sh")
            .args(["-c", &format!("{commands}\nexec \"$0\" \"$@\""), SSHD, "-D", "-e", "-f"])
            .arg(at("sshd_config"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .map_err(|error| format!("{SSHD}: {error}"))?;
        let late = Instant::now() + DEADLINE;
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            if child.try_wait().expect("is ours").is_some() || Instant::now() > late {
                let said = std::fs::read_to_string(at("sshd.log")).unwrap_or_default();
                let _ = child.kill();
                let _ = child.wait();
                return Err(format!("{SSHD} does not start: {}", said.trim()));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(Self { folder, child })
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Makes ssh know the machine's key.
    fn is_known(&self) {
        let key = std::fs::read_to_string(self.at("host_key.pub")).expect("was made");
        let config = std::fs::read_to_string(self.at("ssh_config")).expect("was written");
        let port = config.lines().find_map(|line| line.trim().strip_prefix("Port "));
        let line = format!("[127.0.0.1]:{} {key}", port.expect("was written"));
        std::fs::write(self.at("known_hosts"), line).expect("writable");
    }
}

/// A run with a rollout node on `host`, whose folder there is `there`.
fn world(sshd: &Sshd, host: &str) -> World {
    world_with(sshd, host, "rollout")
}

/// A run whose node `far` is on `host` and has this role; the others are here.
fn world_with(sshd: &Sshd, host: &str, role: &str) -> World {
    let world = World::new();
    world.configure("steps = 20", "steps = 100000");
    let config = sshd.at("ssh_config").display().to_string();
    let there = world.folder.path().join("there").display().to_string();
    world.configure("[cluster]\n", &format!("[cluster]\nssh_config = \"{config}\"\n"));
    let path = world.folder.path().join("cluster.toml");
    let mut text = std::fs::read_to_string(&path).expect("was written");
    for (name, roles) in [
        ("coordinator", r#"["coordinator", "parameter-server"]"#),
        ("learner", r#"["learner"]"#),
        ("rollout-0", r#"["rollout"]"#),
    ] {
        // There is one learner.
        if name != role {
            text += &format!("[[node]]\nname = \"{name}\"\nroles = {roles}\n");
        }
    }
    text += &format!(
        "[[node]]\nname = \"far\"\nroles = [\"{role}\"]\nhost = \"{host}\"\ndir = \"{there}\"\n"
    );
    std::fs::write(path, text).expect("writable");
    world
}

fn until<T>(world: &World, what: &str, look: impl Fn() -> Option<T>) -> T {
    let late = Instant::now() + DEADLINE;
    loop {
        if let Some(seen) = look() {
            return seen;
        }
        let log = std::fs::read_to_string(world.run.log("far")).unwrap_or_default();
        assert!(Instant::now() < late, "no {what}\n{log}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Processes that run the node in that folder, on whichever machine: here it is one.
fn processes(folder: &Path) -> Vec<u32> {
    let wanted = folder.display().to_string();
    let all = std::fs::read_dir("/proc").expect("Linux").flatten();
    let nodes: Vec<(u32, Option<u32>)> = all
        .filter_map(|entry| {
            let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
            let line = std::fs::read(entry.path().join("cmdline")).ok()?;
            let words: Vec<_> = line.split(|byte| *byte == 0).collect();
            let is_node =
                words.first()?.ends_with(b"bin/crrl") && words.get(1) == Some(&&b"node"[..]);
            let stat = std::fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
            let parent = stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().nth(1));
            let parent = parent.and_then(|pid| pid.parse().ok());
            (is_node && words.contains(&wanted.as_bytes())).then_some((pid, parent))
        })
        .collect();
    // A process a node has just begun looks like the node until it is another program.
    let is_nodes = |pid: &u32| nodes.iter().any(|(node, _)| node == pid);
    nodes.iter().filter(|(_, parent)| !parent.as_ref().is_some_and(is_nodes)).map(|n| n.0).collect()
}

fn line(world: &World, name: &str) -> Value {
    let output = world.crrl(&["cluster", "status", "--json"]);
    let status: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let nodes = status["nodes"].as_array().cloned().unwrap_or_default();
    nodes.into_iter().find(|node| node["name"] == name).unwrap_or_default()
}

#[test]
fn a_node_is_started_over_ssh_works_comes_back_and_goes_with_the_cluster() {
    let sshd = match Sshd::start() {
        Ok(sshd) => sshd,
        Err(why) => return skipped(&format!("no sshd of the test's own: {why}")),
    };
    let world = world(&sshd, "box");
    let there = world.folder.path().join("there");
    // Nobody vouches for the machine yet: that is for a person, and everybody else goes on.
    let (code, said) = world.refused(&["cluster", "up"]);
    assert_eq!(code, 5, "{said}");
    for part in ["far", "cannot go on", "the host key of box is not known", "ssh box"] {
        assert!(said.contains(part), "{part}: {said}");
    }
    let check = doctor(&world, "ssh");
    assert_eq!(check["verdict"], "bad", "{check}");
    assert!(check["fix"].as_str().is_some_and(|fix| fix.contains("ssh box")), "{check}");
    sshd.is_known();
    let said = world.succeeds(&["cluster", "up"]);
    assert!(said.contains("far") && said.contains("ready"), "{said}");
    let far = line(&world, "far");
    assert_eq!(
        (far["state"].as_str(), far["host"].as_str()),
        (Some("ready"), Some("box")),
        "{far}"
    );
    until(&world, "work for the node", || {
        let to = |kind: &EventKind| matches!(kind, EventKind::Dispatched { to, .. } if to.as_str() == "far");
        world.history().iter().any(|event| to(&event.kind)).then_some(())
    });
    let logs = world.crrl(&["cluster", "logs", "far"]);
    let logs = String::from_utf8_lossy(&logs.stdout).into_owned();
    for part in ["copying the program", "joining", "far joins from"] {
        assert!(logs.contains(part), "{part}: {logs}");
    }
    // No secret was on a command line, and no key has travelled.
    let pids = processes(&there);
    let [pid] = pids[..] else { panic!("{pids:?}") };
    let words = std::fs::read(format!("/proc/{pid}/cmdline")).expect("runs");
    assert!(!String::from_utf8_lossy(&words).contains("crrl1"), "a token on a command line");
    assert!(there.join("tls/far.key").exists() && !world.run.tls().join("far.key").exists());

    // The connection is lost: the node there ends, and is started again with the program it has.
    let copied = std::fs::metadata(there.join("bin/crrl")).expect("was copied").modified();
    let holder = world.pid("far").expect("runs");
    end(holder, Signal::SIGKILL);
    until_gone(&[pid]);
    until(&world, "the node again", || {
        let line = line(&world, "far");
        let back = line["state"] == "ready" && line["pid"] != holder && line["restarts"] == 1;
        (back && processes(&there).first().is_some_and(|new| *new != pid)).then_some(())
    });
    let still = std::fs::metadata(there.join("bin/crrl")).expect("is there").modified();
    assert_eq!(still.expect("a time"), copied.expect("a time"), "copied again");

    // A rolling restart of that one node.
    let before = processes(&there);
    let said = world.succeeds(&["cluster", "restart", "--rolling", "far"]);
    assert!(said.contains("drained and restarted"), "{said}");
    assert_ne!(processes(&there), before);

    // And it goes with the cluster.
    let pids = processes(&there);
    world.succeeds(&["cluster", "down"]);
    until_gone(&pids);
    assert_eq!(host::host_pid(&world.run).expect("can be looked at"), None);
    world.succeeds(&["audit", "run"]);
    for name in ["ssh", "model there", "program there", "clock there", "UDP both ways"] {
        assert_eq!(doctor(&world, name)["verdict"], "good", "{name}: {}", doctor(&world, name));
    }
}

#[test]
fn an_audit_holds_nothing_against_a_run_whose_learner_has_its_checkpoints_over_there() {
    let sshd = match Sshd::start() {
        Ok(sshd) => sshd,
        Err(why) => return skipped(&format!("no sshd of the test's own: {why}")),
    };
    sshd.is_known();
    let world = world_with(&sshd, "box", "learner");
    world.succeeds(&["cluster", "up"]);
    until(&world, "step", || (world.steps() > 0).then_some(()));
    world.succeeds(&["cluster", "down"]);
    assert!(!world.run.checkpoints().exists(), "they are here");
    let output = world.crrl(&["audit", "run"]);
    let out = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{out}");
    for part in ["not judged I6", "the checkpoints are with far", "that could be judged held"] {
        assert!(out.contains(part), "{part}: {out}");
    }
}

/// What the doctor finds.
fn doctor(world: &World, name: &str) -> Value {
    named(&checks(world), name)
}

fn checks(world: &World) -> Vec<Value> {
    let output = world.crrl(&["doctor", "--json"]);
    let value: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    value["checks"].as_array().cloned().unwrap_or_default()
}

fn named(checks: &[Value], name: &str) -> Value {
    checks.iter().find(|check| check["name"] == name).cloned().unwrap_or_default()
}

#[test]
fn the_doctor_looks_at_a_machine_over_ssh_as_at_this_one() {
    // Whoever is let in has fewer open files than a node may need: that is not so here.
    let sshd = match Sshd::start_after("ulimit -S -n 512") {
        Ok(sshd) => sshd,
        Err(why) => return skipped(&format!("no sshd of the test's own: {why}")),
    };
    sshd.is_known();
    let world = world(&sshd, "box");
    let there = world.folder.path().join("there");
    let same = ["git", "bash", "grep", "open files", "processes", "locked memory"];
    let more = ["isolation", "control group", "cores", "disk", "memory"];
    let look = || {
        let checks = checks(&world);
        for name in same.iter().chain(&more) {
            let far = named(&checks, &format!("{name} there"));
            assert_eq!(far["machine"], "box", "{name}: {checks:#?}");
            assert!(far["found"].as_str().is_some_and(|found| found.starts_with("box: ")), "{far}");
            assert_eq!(far["fix"].is_null(), far["verdict"] == "good", "{far}");
            assert!(named(&checks, name)["machine"].is_null(), "{name} of this machine");
        }
        let files = named(&checks, "open files there");
        assert_eq!(files["found"], "box: 512 allowed, 1024 may be needed");
        assert!(files["fix"].as_str().is_some_and(|fix| fix.contains("nofile")), "{files}");
        let path = there.display().to_string();
        let disk = named(&checks, "disk there");
        assert!(disk["found"].as_str().is_some_and(|found| found.contains(&path)), "{disk}");
        checks
    };
    // The program is not there yet: the machine's own shell is asked.
    let checks = look();
    assert_eq!(named(&checks, "program there")["verdict"], "warning");
    assert!(!there.exists(), "the doctor has left something behind");
    let printed = world.crrl(&["doctor"]);
    let printed = String::from_utf8_lossy(&printed.stdout).into_owned();
    assert!(printed.contains("WARN  open files there    box: 512 allowed"), "{printed}");

    // Once it is, it looks itself, and tries what a sandbox needs.
    std::fs::create_dir_all(there.join("bin")).expect("writable");
    std::fs::copy(env!("CARGO_BIN_EXE_crrl"), there.join("bin/crrl")).expect("writable");
    let checks = look();
    assert_eq!(named(&checks, "program there")["verdict"], "good");
    let (here, far) = (named(&checks, "isolation"), named(&checks, "isolation there"));
    assert_eq!(far["verdict"], here["verdict"], "{far}");
    let found = format!("box: {}", here["found"].as_str().expect("a text"));
    assert_eq!(far["found"], found);
}

#[test]
fn a_machine_that_does_not_answer_is_named_with_what_to_do() {
    let sshd = match Sshd::start() {
        Ok(sshd) => sshd,
        Err(why) => return skipped(&format!("no sshd of the test's own: {why}")),
    };
    let world = world(&sshd, "dead");
    world.configure("[cluster]\n", "[cluster]\nrestarts_max = 1\n");
    let output = world.crrl(&["cluster", "up", "--json"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(5), "{said}");
    for part in ["far", "dead cannot be reached by ssh", "Connection refused", "ssh dead true"] {
        assert!(said.contains(part), "{part}: {said}");
    }
    // A program is told as well.
    let told: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!((&told["did"], &told["ready"]), (&Value::from("started"), &Value::Bool(false)));
    assert!(
        told["error"]
            .as_str()
            .is_some_and(|error| error.contains("far was given up after 1 restart:"))
    );
    // The others do without it.
    until(&world, "the others", || (line(&world, "rollout-0")["state"] == "ready").then_some(()));
    world.succeeds(&["cluster", "down"]);
}
