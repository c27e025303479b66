//! A real cluster of small processes: this program is the test, the host and the nodes.

use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use crrl_cluster::host::{self, Down, HostError, Up};
use crrl_cluster::{
    Inbound, Mesh, MeshEvent, MeshOptions, OperatorClient, Router, RunDir, Snapshot, StatusBoard,
};
use crrl_control::wire::{NodeReport, NodeRole, NodeState, Wire};
use crrl_types::{AdapterVersion, Digest, NodeName};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::sync::mpsc;

const DEADLINE: Duration = Duration::from_secs(30);

const CONFIG: &str = r#"
[run]
dir = "RUN"
[cluster]
backoff_min_ms = 20
backoff_max_ms = 100
keep_alive_ms = 200
idle_timeout_ms = 1500
restarts_max = 3
"#;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[1..] {
        ["up-tied", dir] => up_tied(dir),
        ["host", "--run-dir", dir, ref rest @ ..] => {
            match host::run(&RunDir::new(dir), rest.contains(&host::TIED)) {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => {
                    eprintln!("{error}");
                    ExitCode::FAILURE
                }
            }
        }
        ["node", "--run-dir", dir, "--name", name] => node(dir, name),
        ["remote", "--run-dir", dir, "--name", name] => remote(&RunDir::new(dir), name),
        // A listing, as test runners ask for it.
        [.., "--list"] | ["--list", ..] => ExitCode::SUCCESS,
        _ => {
            for (name, test) in TESTS {
                eprint!("test {name} ... ");
                test();
                eprintln!("ok");
            }
            ExitCode::SUCCESS
        }
    }
}

const TESTS: [(&str, fn()); 7] = [
    ("who_listens_on_every_address_is_reached_on_this_machine", on_every_address),
    ("a_killed_node_comes_back_and_down_leaves_nothing", a_killed_node_comes_back),
    ("nodes_die_with_a_host_that_is_killed", nodes_die_with_their_host),
    ("a_tied_host_goes_away_with_whoever_started_it", a_tied_host_goes_away),
    ("a_node_that_cannot_start_is_given_up_with_its_reason", a_broken_node_is_given_up),
    ("a_node_whose_machine_is_away_is_tried_until_it_is_back", a_machine_is_away),
    ("a_port_in_use_is_said_before_anything_starts", a_port_in_use),
];

fn prepared(more: &str) -> (tempfile::TempDir, RunDir) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let run = RunDir::new(folder.path().join("run"));
    std::fs::create_dir_all(run.path()).expect("can be made");
    let text = CONFIG.replace("RUN", &run.path().display().to_string()) + more;
    let text = format!("{text}\n[learner]\nmicro_batch_tokens = 20000\n");
    std::fs::write(run.config_path(), text).expect("can be written");
    (folder, run)
}

fn up(run: &RunDir) -> Result<Up, HostError> {
    host::up(run, &host::alone(run)?)
}

fn until<T>(what: &str, run: &RunDir, look: impl Fn() -> Option<T>) -> T {
    let deadline = Instant::now() + DEADLINE;
    loop {
        if let Some(seen) = look() {
            return seen;
        }
        assert!(
            Instant::now() < deadline,
            "{what} did not come about\n{:?}\n{}",
            host::state(run),
            std::fs::read_to_string(run.log("coordinator")).unwrap_or_default()
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn snapshot(run: &RunDir) -> Option<Snapshot> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().ok()?;
    runtime.block_on(async {
        let client = OperatorClient::connect(run).await.ok()?;
        let mut snapshots = client.subscribe().await.ok()?;
        let snapshot = snapshots.next().await.ok();
        client.close().await;
        snapshot
    })
}

fn ready(run: &RunDir) -> Option<Snapshot> {
    snapshot(run).filter(|s| s.nodes.len() == 4)
}

fn pids(run: &RunDir) -> Vec<u32> {
    host::state(run).expect("was started").nodes.iter().filter_map(|node| node.pid).collect()
}

fn is_alive(pid: u32) -> bool {
    // A zombie is dead, whoever has not asked for its status yet.
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| !stat.rsplit(')').next().unwrap_or_default().starts_with(" Z"))
}

fn end(pid: u32, signal: Signal) {
    kill(Pid::from_raw(i32::try_from(pid).expect("a pid")), signal).expect("is ours");
}

fn a_killed_node_comes_back() {
    let (_folder, run) = prepared("");
    let Up::Started { pid: host } = up(&run).expect("comes up") else {
        panic!("nothing ran before")
    };
    let before = until("a ready cluster", &run, || ready(&run));
    assert_eq!(up(&run).expect("no error"), Up::Already { pid: host });
    let old = before.nodes.iter().find(|n| n.node.as_str() == "rollout-1").expect("reports");
    end(old.pid, Signal::SIGKILL);
    let new = until("a restarted node", &run, || {
        let found = snapshot(&run)?.nodes.into_iter().find(|n| n.node.as_str() == "rollout-1")?;
        (found.incarnation > old.incarnation).then_some(found)
    });
    assert_ne!(new.pid, old.pid);
    let of = |name: &str| host::state(&run).ok()?.nodes.into_iter().find(|node| node.name == name);
    let node =
        until("a word of its restart", &run, || of("rollout-1").filter(|node| node.restarts == 1));
    assert!(node.last_exit.as_deref().is_some_and(|e| e.contains("SIGKILL")), "{node:?}");
    // The coordinator too: its peers dial it again at its old port.
    let coordinator = of("coordinator").expect("is there");
    end(coordinator.pid.expect("runs"), Signal::SIGKILL);
    until("a cluster that is whole again", &run, || {
        let again = ready(&run)?;
        let found = again.nodes.iter().find(|n| n.node.as_str() == "coordinator")?;
        (Some(found.pid) != coordinator.pid).then_some(())
    });
    let pids = pids(&run);
    assert_eq!(host::down(&run).expect("goes down"), Down::Asked);
    let nodes = host::state(&run).expect("is there").nodes;
    assert!(nodes.iter().all(|n| n.last_exit.as_deref() == Some("exit code 0")), "{nodes:?}");
    assert!(!pids.iter().any(|pid| is_alive(*pid)), "left something behind");
    assert_eq!(host::down(&run).expect("no error"), Down::NotRunning);
}

fn nodes_die_with_their_host() {
    let (_folder, run) = prepared("");
    let Up::Started { pid: host } = up(&run).expect("comes up") else {
        panic!("nothing ran before")
    };
    let pids = pids(&run);
    assert_eq!(pids.len(), 4);
    end(host, Signal::SIGKILL);
    until("the end of every node", &run, || (!pids.iter().any(|pid| is_alive(*pid))).then_some(()));
    assert_eq!(host::down(&run).expect("no error"), Down::NotRunning);
    assert!(matches!(up(&run).expect("comes up again"), Up::Started { .. }));
    until("a ready cluster", &run, || ready(&run));
    host::down(&run).expect("goes down");
}

fn a_tied_host_goes_away() {
    let (_folder, run) = prepared("");
    let mut starter = std::process::Command::new(std::env::current_exe().expect("this program"))
        .arg("up-tied")
        .arg(run.path())
        .stdin(std::process::Stdio::piped())
        .spawn()
        .expect("starts");
    until("a ready cluster", &run, || ready(&run));
    let host = host::host_pid(&run).expect("can be looked at").expect("runs");
    let pids = pids(&run);
    assert_eq!(pids.len(), 4);
    end(starter.id(), Signal::SIGKILL);
    starter.wait().expect("is ours");
    until("the end of the host", &run, || (!is_alive(host)).then_some(()));
    assert!(!pids.iter().any(|pid| is_alive(*pid)), "left something behind");
    assert!(!host::state(&run).expect("is there").nodes.iter().any(|node| node.given_up));
}

/// Brings a tied cluster up and waits for its own end.
fn up_tied(dir: &str) -> ExitCode {
    let run = RunDir::new(dir);
    let alone = host::alone(&run).expect("nobody else brings it up");
    let (_, tie) = host::up_tied(&run, &alone).expect("comes up");
    drop(alone);
    assert!(tie.is_some());
    let mut line = String::new();
    let _ = std::io::stdin().read_line(&mut line);
    ExitCode::SUCCESS
}

fn a_broken_node_is_given_up() {
    let node =
        |name: &str, roles: &str| format!("[[node]]\nname = \"{name}\"\nroles = [{roles}]\n");
    let more = node("coordinator", "\"coordinator\", \"parameter-server\"")
        + &node("learner", "\"learner\"")
        + &node("crashes", "\"rollout\"")
        + &node("hopeless", "\"rollout\"");
    let (_folder, run) = prepared(&more);
    up(&run).expect("comes up");
    let state = until("two nodes that are given up", &run, || {
        let state = host::state(&run).ok()?;
        (state.nodes.iter().filter(|n| n.given_up).count() == 2).then_some(state)
    });
    let [_, _, crashes, hopeless] = &state.nodes[..] else { panic!("{state:?}") };
    assert_eq!((crashes.restarts, hopeless.restarts), (3, 0));
    let why = hopeless.last_exit.as_deref().unwrap_or_default();
    assert_eq!(why, "exit code 2; last line: there is no such model");
    assert_eq!(pids(&run).len(), 2, "the others go on");
    host::down(&run).expect("goes down");
}

/// More than the restarts a node is allowed.
const TRIES: usize = 8;

fn a_machine_is_away() {
    let node = |name: &str, roles: &str, more: &str| {
        format!("[[node]]\nname = \"{name}\"\nroles = [{roles}]\n{more}")
    };
    let more = node("coordinator", "\"coordinator\", \"parameter-server\"", "")
        + &node("learner", "\"learner\"", "host = \"box\"\n")
        + &node("never-there", "\"rollout\"", "host = \"nowhere\"\n");
    let (_folder, run) = prepared(&more);
    up(&run).expect("comes up");
    let of = |name: &str| host::state(&run).ok()?.nodes.into_iter().find(|node| node.name == name);
    until("more tries than restarts", &run, || (tries(&run, "learner") >= TRIES).then_some(()));
    let away = until("a row that says so", &run, || {
        let row = of("learner")?;
        row.last_exit.as_ref().is_some_and(|exit| exit.contains("trying again")).then_some(row)
    });
    assert!(!away.given_up && away.restarts == 1, "{away:?}");
    let says = away.last_exit.unwrap_or_default();
    let parts = ["unreachable for ", "exit code 6", "last line: nobody answers"];
    assert!(parts.iter().all(|part| says.contains(part)), "{says}");
    // One that has never run there may be configured wrongly.
    let never = until("the other is given up", &run, || of("never-there").filter(|n| n.given_up));
    assert_eq!(never.restarts, 3);

    std::fs::write(run.path().join("back"), b"").expect("can be written");
    let back = until("the node again", &run, || {
        of("learner").filter(|node| run.path().join("runs").exists() && node.pid.is_some())
    });
    assert!(!back.given_up && back.restarts == 1, "{back:?}");
    host::down(&run).expect("goes down");
}

/// How often the machine of a node was dialled.
fn tries(run: &RunDir, name: &str) -> usize {
    std::fs::read(run.path().join(format!("{name}.tries"))).map_or(0, |tries| tries.len())
}

/// Holds a node elsewhere. The learner runs the first time, and again once its machine is back.
fn remote(run: &RunDir, name: &str) -> ExitCode {
    let before = tries(run, name);
    std::fs::write(run.path().join(format!("{name}.tries")), vec![b'.'; before + 1])
        .expect("can be written");
    if name == "learner" && before == 0 {
        // As the connection to a node that runs breaks.
        let phase = r#"{"host": "box", "what": "running", "since_ms": 0, "ran": true}"#;
        std::fs::create_dir_all(run.path().join("nodes")).expect("can be made");
        std::fs::write(run.phase(name), phase).expect("can be written");
        return ExitCode::FAILURE;
    }
    if name == "learner" && run.path().join("back").exists() {
        std::fs::write(run.path().join("runs"), b"").expect("can be written");
        // Until the host ends it.
        loop {
            std::thread::park();
        }
    }
    eprintln!("nobody answers");
    ExitCode::from(6)
}

fn on_every_address() {
    let (_folder, run) = prepared("");
    let text = std::fs::read_to_string(run.config_path()).expect("is there");
    let text = text.replace("[cluster]", "[cluster]\nlisten = \"0.0.0.0:0\"");
    std::fs::write(run.config_path(), text).expect("can be written");
    up(&run).expect("comes up");
    until("a ready cluster", &run, || ready(&run));
    assert_eq!(host::down(&run).expect("goes down"), Down::Asked);
}

fn a_port_in_use() {
    let (_folder, run) = prepared("");
    let taken = std::net::UdpSocket::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("is bound");
    let text = std::fs::read_to_string(run.config_path()).expect("is there");
    let text = text.replace("[cluster]", &format!("[cluster]\nlisten = \"{address}\""));
    std::fs::write(run.config_path(), text).expect("can be written");
    let error = up(&run).expect_err("the port is taken").to_string();
    assert!(error.contains(&format!("UDP port {}", address.port())), "{error}");
}

/// A node that does nothing but report, and leave when it is told to.
fn node(dir: &str, name: &str) -> ExitCode {
    match name {
        "hopeless" => {
            eprintln!("there is no such model");
            return ExitCode::from(2);
        }
        "crashes" => return ExitCode::from(1),
        _ => {}
    }
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(serve(Path::new(dir), &name.into()));
    ExitCode::SUCCESS
}

async fn serve(dir: &Path, name: &NodeName) {
    let options = MeshOptions::for_node(&RunDir::new(dir), name).expect("prepared");
    let (sender, mut got) = mpsc::unbounded_channel::<Inbound>();
    let router = Router::new();
    router.register_fn("node", |_| true, move |i| sender.send(i).map_err(|e| e.to_string()));
    let mesh = Mesh::start(options, router, StatusBoard::new()).await.expect("joins");
    let mut events = mesh.events();
    let mut beat = tokio::time::interval(Duration::from_millis(50));
    loop {
        tokio::select! {
            _ = beat.tick() => {
                if let Some(coordinator) = mesh.of_role(NodeRole::Coordinator) {
                    let _ = mesh.cast(&coordinator, Wire::Report(report(&mesh)));
                }
            }
            event = events.recv() => if let Ok(MeshEvent::PeerDown { name, reason }) = event {
                eprintln!("lost {name}: {reason}");
            },
            message = got.recv() => match message.map(|inbound| inbound.wire) {
                Some(Wire::Report(report)) => mesh.board().report(report),
                Some(Wire::Stop { reason }) => return leave(&mesh, &reason).await,
                _ => {}
            },
        }
    }
}

/// Leaves. The coordinator tells everybody to, and is the last.
async fn leave(mesh: &Mesh, reason: &str) {
    if mesh.roles().contains(&NodeRole::Coordinator) {
        for peer in mesh.peers() {
            let _ = mesh.cast(&peer.name, Wire::Stop { reason: reason.to_owned() });
        }
        let late = Instant::now() + Duration::from_secs(10);
        while !mesh.peers().is_empty() && Instant::now() < late {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    mesh.stop(reason).await;
}

fn report(mesh: &Mesh) -> NodeReport {
    NodeReport {
        node: mesh.name().clone(),
        roles: mesh.roles().to_vec(),
        pid: std::process::id(),
        incarnation: mesh.incarnation(),
        state: NodeState::Ready,
        adapter_version: AdapterVersion(0),
        adapter_digest: Digest::default(),
        tokens_per_s: 0.0,
        episodes: 0,
        rss_bytes: 0,
        activity: String::new(),
        faults: Vec::new(),
        actors: Vec::new(),
        live: Vec::new(),
    }
}
