//! Meshes of several nodes in one process, on loopback.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use crrl_cluster::token::Tokens;
use crrl_cluster::{
    CastError, Inbound, Mesh, MeshError, MeshEvent, MeshOptions, Router, RunDir, StatusBoard,
    admission, host, invitation,
};
use crrl_config::ClusterConfig;
use crrl_control::wire::{NodeRole, Wire};
use crrl_transport::{Authority, Door, Facts, NetThread, Pending, Protocols, Validity};
use crrl_types::actor::{ActorReport, ActorState};
use crrl_types::fault::{Fault, Injection};
use crrl_types::{AdapterManifest, Digest, EpisodeId, NodeName, Sampling};
use tokio::sync::{broadcast, mpsc};

const DEADLINE: Duration = Duration::from_secs(20);
/// Strangers that begin to ask at once: more than are served of one address.
const SLOW: usize = 40;
/// Handshakes that are begun at once and never ended: more than there are places.
const FLOOD: usize = 120;

/// Process groups are shared by every mesh of a process: each test has names of its own.
static WORLDS: AtomicU32 = AtomicU32::new(0);

struct World {
    folder: tempfile::TempDir,
    number: u32,
}

struct Member {
    mesh: Mesh,
    got: mpsc::UnboundedReceiver<Inbound>,
    events: broadcast::Receiver<MeshEvent>,
}

impl World {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        Self { folder, number: WORLDS.fetch_add(1, Ordering::Relaxed) }
    }

    fn name(&self, name: &str) -> NodeName {
        format!("{name}-{}", self.number).into()
    }

    fn run(&self) -> RunDir {
        RunDir::new(self.folder.path())
    }

    fn tls(&self) -> PathBuf {
        self.run().tls()
    }

    fn options(&self, name: &str, role: &str, life: u64) -> MeshOptions {
        let name = self.name(name);
        Authority::open_or_create(&self.tls())
            .and_then(|authority| authority.issue(&name, &[role.to_owned()]))
            .expect("certificates can be made");
        MeshOptions::new(name, life, self.tls())
    }

    async fn coordinator(&self) -> (Member, SocketAddr) {
        let mut options = self.options("coordinator", "coordinator", 1);
        options.listen = Some(SocketAddr::from(([127, 0, 0, 1], 0)));
        let member = start(options).await.expect("joins");
        let address = member.mesh.local_addr().expect("is bound");
        (member, address)
    }

    async fn worker(&self, name: &str, role: &str, life: u64, at: SocketAddr) -> Member {
        let mut options = self.options(name, role, life);
        options.dial = vec![(self.name("coordinator"), at.into())];
        start(options).await.expect("joins")
    }
}

async fn start(options: MeshOptions) -> Result<Member, MeshError> {
    let router = Router::new();
    let (sender, got) = mpsc::unbounded_channel();
    router.register_fn("test", |_| true, move |i| sender.send(i).map_err(|e| e.to_string()));
    let mesh = Mesh::start(options, router, StatusBoard::new()).await?;
    let events = mesh.events();
    Ok(Member { mesh, got, events })
}

impl Member {
    async fn event(&mut self) -> MeshEvent {
        within(self.events.recv()).await.expect("the mesh lives")
    }

    async fn is_up(&mut self) -> (NodeName, u64) {
        match self.event().await {
            MeshEvent::PeerUp { name, incarnation, .. } => (name, incarnation),
            other => panic!("{other:?} where a peer should come up"),
        }
    }

    async fn message(&mut self) -> Inbound {
        within(self.got.recv()).await.expect("the mesh lives")
    }
}

async fn within<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, what).await.expect("takes too long")
}

fn ack(n: u64) -> Wire {
    Wire::Ack { episode: EpisodeId(n), attempt: 1 }
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_arrive_in_order_and_say_who_they_are_from() {
    let world = World::new();
    let (mut coordinator, at) = world.coordinator().await;
    let mut worker = world.worker("rollout", "rollout", 3, at).await;
    assert_eq!(coordinator.is_up().await, (world.name("rollout"), 3));
    assert_eq!(worker.is_up().await, (world.name("coordinator"), 1));
    for n in 0..50 {
        coordinator.mesh.cast(&world.name("rollout"), ack(n)).expect("connected");
    }
    for n in 0..50 {
        let got = worker.message().await;
        assert_eq!((got.from, got.wire), (world.name("coordinator"), ack(n)));
    }
    worker.mesh.cast(&world.name("coordinator"), Wire::Credit { episodes: 2 }).expect("connected");
    let got = coordinator.message().await;
    assert_eq!((got.from, got.roles), (world.name("rollout"), vec![NodeRole::Rollout]));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_certificate_does_not_allow_is_dropped() {
    let world = World::new();
    let (mut coordinator, at) = world.coordinator().await;
    let mut worker = world.worker("rollout", "rollout", 1, at).await;
    worker.is_up().await;
    coordinator.is_up().await;
    let name = world.name("coordinator");
    worker.mesh.cast(&name, ack(1)).expect("sending is not what is refused");
    let adapter = Wire::Adapter { manifest: manifest(b"weights"), payload: b"weights".to_vec() };
    let refused = within(worker.mesh.deliver(&name, adapter)).await.expect_err("not a learner");
    assert!(refused.to_string().contains("may not send adapters"), "{refused}");
    worker.mesh.cast(&name, Wire::Credit { episodes: 1 }).expect("connected");
    assert_eq!(coordinator.message().await.wire, Wire::Credit { episodes: 1 });
    assert_eq!(coordinator.mesh.router().refused(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_message_and_an_adapter_travel_as_blobs() {
    let world = World::new();
    let (mut coordinator, at) = world.coordinator().await;
    let mut worker = world.worker("learner", "learner", 1, at).await;
    coordinator.is_up().await;
    worker.is_up().await;
    let large = Wire::Assign(Box::new(crrl_control::wire::Assignment {
        episode: EpisodeId(1),
        group: crrl_types::GroupId(1),
        task_json: "x".repeat(1 << 20),
        sampling: Sampling::default(),
        lease_ms: 1,
        evaluation: false,
        past: Vec::new(),
        attempt: 1,
    }));
    coordinator.mesh.cast(&world.name("learner"), large.clone()).expect("connected");
    assert_eq!(worker.message().await.wire, large);
    let payload: Vec<u8> = (0..5_000_000u32).map(|i| (i % 251) as u8).collect();
    let adapter = Wire::Adapter { manifest: manifest(&payload), payload };
    let send = || {
        let (mesh, to, adapter) = (worker.mesh.clone(), world.name("coordinator"), adapter.clone());
        tokio::spawn(async move { mesh.deliver(&to, adapter).await })
    };
    // What whoever handles it says is what its sender hears: it was not acknowledged before.
    let sending = send();
    let got = coordinator.message().await;
    assert_eq!(got.wire, adapter);
    got.receipt.refuse("not today");
    let refused = within(sending).await.expect("no panic").expect_err("was refused").to_string();
    assert_eq!(refused, format!("{}: refused: not today", world.name("coordinator")));
    let sending = send();
    coordinator.message().await.receipt.accept();
    within(sending).await.expect("no panic").expect("handled");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_peer_has_not_handled_is_bounded() {
    let world = World::new();
    let (mut coordinator, at) = world.coordinator().await;
    let mut worker = world.worker("rollout", "rollout", 1, at).await;
    coordinator.is_up().await;
    worker.is_up().await;
    let big = |n| Wire::Cancel { episode: EpisodeId(n), attempt: 1, reason: "r".repeat(100_000) };
    let mut sent = 0;
    let refused = loop {
        match coordinator.mesh.cast(&world.name("rollout"), big(sent)) {
            Ok(()) => sent += 1,
            Err(error) => break error,
        }
        assert!(sent < 1000, "the sender is not bounded");
    };
    assert!(refused.to_string().contains("too much unhandled"), "{refused}");
    for _ in 0..sent {
        drop(worker.message().await);
    }
    let deadline = std::time::Instant::now() + DEADLINE;
    while coordinator.mesh.cast(&world.name("rollout"), big(0)).is_err() {
        assert!(std::time::Instant::now() < deadline, "room does not come back");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_in_use_is_said_so() {
    let world = World::new();
    let (_coordinator, at) = world.coordinator().await;
    let mut options = world.options("other", "coordinator", 1);
    options.listen = Some(at);
    let error = start(options).await.err().expect("the port is taken").to_string();
    assert!(error.contains(&format!("port {} of 127.0.0.1 is in use", at.port())), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_newest_waiting_adapter_is_sent() {
    let world = World::new();
    let (mut coordinator, at) = world.coordinator().await;
    let mut worker = world.worker("learner", "learner", 1, at).await;
    coordinator.is_up().await;
    worker.is_up().await;
    let payload = bytes::Bytes::from(vec![7; 1 << 20]);
    let mut newest = manifest(&payload);
    for version in 1..=40 {
        newest.version.0 = version;
        let to = world.name("coordinator");
        worker.mesh.cast_adapter(&to, &newest, &payload).expect("never too many adapters");
    }
    let mut received = 0;
    loop {
        let got = coordinator.message().await;
        received += 1;
        if matches!(&got.wire, Wire::Adapter { manifest, .. } if *manifest == newest) {
            break;
        }
    }
    assert!(received < 40, "every one of them was sent");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_of_the_build_before_takes_part_and_is_sent_only_what_it_knows() {
    let world = World::new();
    let (mut coordinator, at) = world.coordinator().await;
    let mut options = world.options("rollout", "rollout", 1);
    options.transport.protocols = Protocols { newest: 3, oldest: 3 };
    options.dial = vec![(world.name("coordinator"), at.into())];
    let mut old = start(options).await.expect("joins");
    let mut new = world.worker("learner", "learner", 1, at).await;
    for _ in 0..2 {
        coordinator.is_up().await;
    }
    old.is_up().await;
    new.is_up().await;
    let fault = Fault::SlowTools { ms: 1 };
    let unknown = || Wire::Inject(Injection { id: 7, fault, duration_ms: 1, seed: 0 });
    let refused =
        coordinator.mesh.cast(&world.name("rollout"), unknown()).expect_err("newer than it");
    assert!(matches!(refused, CastError::TooOld(_)), "{refused}");
    let lift = coordinator.mesh.cast(&world.name("rollout"), Wire::Lift { id: 7 });
    assert!(matches!(lift, Err(CastError::TooOld(_))), "{lift:?}");
    let wanted = Wire::SnapshotWanted { id: 8, actor: "rollout".into() };
    let wanted = coordinator.mesh.cast(&world.name("rollout"), wanted);
    assert!(matches!(wanted, Err(CastError::TooOld(_))), "{wanted:?}");
    coordinator.mesh.cast(&world.name("learner"), unknown()).expect("known");
    assert_eq!(new.message().await.wire, unknown());
    // What both know goes both ways, small and large.
    coordinator.mesh.cast(&world.name("rollout"), ack(1)).expect("known");
    assert_eq!(old.message().await.wire, ack(1));
    let large = Wire::Cancel { episode: EpisodeId(1), attempt: 1, reason: "r".repeat(3 << 20) };
    coordinator.mesh.cast(&world.name("rollout"), large.clone()).expect("known");
    assert_eq!(old.message().await.wire, large);
    old.mesh.cast(&world.name("coordinator"), Wire::Credit { episodes: 3 }).expect("known");
    assert_eq!(coordinator.message().await.wire, Wire::Credit { episodes: 3 });
}

#[tokio::test(flavor = "multi_thread")]
async fn the_actors_of_the_mesh_itself_are_seen_at_work_and_when_they_have_ended() {
    let world = World::new();
    let (mut coordinator, at) = world.coordinator().await;
    let mut options = world.options("rollout", "rollout", 1);
    options.dial = vec![(world.name("coordinator"), at.into())];
    let probes = options.probes.clone();
    let mut worker = start(options).await.expect("joins");
    coordinator.is_up().await;
    worker.is_up().await;
    for n in 0..20 {
        coordinator.mesh.cast(&world.name("rollout"), ack(n)).expect("connected");
    }
    for _ in 0..20 {
        worker.message().await;
    }
    let until = async |name: &str, what: fn(&ActorReport) -> bool| {
        let seen = async {
            while !probes.report().iter().any(|seen| seen.name == name && what(seen)) {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        let seen = tokio::time::timeout(DEADLINE, seen).await;
        assert!(seen.is_ok(), "{name}: {:?}", probes.report());
    };
    until("inbox", |seen| seen.handled >= 20 && seen.state == ActorState::Idle).await;
    until("sessions", |seen| seen.handled > 0 && seen.state == ActorState::Idle).await;
    let inbox = probes.report().into_iter().find(|seen| seen.name == "inbox").expect("is there");
    assert_eq!((inbox.kind.as_str(), inbox.parent), ("Inbox", None));
    worker.mesh.stop("enough").await;
    until("inbox", |seen| seen.state == ActorState::Stopped).await;
    until("sessions", |seen| seen.state == ActorState::Stopped).await;
}

#[test]
fn messages_of_the_version_before_are_written_as_that_wrote_them() {
    // A message that was put in between, or given another field, would change these.
    let bytes = |wire: &Wire| crrl_transport::encode_as(3, wire).expect("own type");
    assert_eq!(bytes(&ack(7)), [b'c', b'r', 3, 11, 7, 1]);
    assert_eq!(bytes(&Wire::Credit { episodes: 3 }), [b'c', b'r', 3, 1, 3]);
    assert_eq!(bytes(&Wire::Drain), [b'c', b'r', 3, 13]);
    let have = crrl_types::AdapterVersion(9);
    assert_eq!(bytes(&Wire::AdapterWanted { have }), [b'c', b'r', 3, 18, 9]);
    assert_eq!(ack(7).since(), 1);
    let renew = Wire::Renew { request: "r".into() };
    assert_eq!(bytes(&renew), [b'c', b'r', 3, 27, 1, b'r']);
    let trace_off = Wire::TraceOff { id: 7 };
    assert_eq!(bytes(&trace_off), [b'c', b'r', 3, 32, 7]);
    assert_eq!((renew.since(), trace_off.since()), (2, 3));
    let fault = Fault::Hang;
    let inject = Wire::Inject(Injection { id: 1, fault, duration_ms: 2, seed: 3 });
    assert_eq!(bytes(&inject), [b'c', b'r', 3, 15, 1, 14, 2, 3]);
}

fn valid_until(options: &MeshOptions) -> i64 {
    let pem = std::fs::read(options.tls.join(format!("{}.pem", options.name)));
    Facts::from_pem(&pem.expect("was issued")).expect("a certificate").valid_until_s
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_are_renewed_again_and_again_and_nobody_is_dropped_for_it() {
    let world = World::new();
    let short = Validity::of(Duration::from_secs(9));
    let issue = |options: &mut MeshOptions, role: &str| {
        Authority::open_or_create(&world.tls())
            .and_then(|authority| authority.issue_for(&options.name, &[role.to_owned()], short))
            .expect("can be issued");
        options.certificate = short;
    };
    let mut options = world.options("coordinator", "coordinator", 1);
    issue(&mut options, "coordinator");
    options.listen = Some(SocketAddr::from(([127, 0, 0, 1], 0)));
    options.signs = Some(world.run());
    let ours = options.clone();
    let mut coordinator = start(options).await.expect("joins");
    let at = coordinator.mesh.local_addr().expect("is bound");
    let mut options = world.options("rollout", "rollout", 1);
    issue(&mut options, "rollout");
    options.dial = vec![(world.name("coordinator"), at.into())];
    let theirs = options.clone();
    let mut worker = start(options).await.expect("joins");
    coordinator.is_up().await;
    worker.is_up().await;
    // Twice over: what was renewed is renewed again.
    let wanted = valid_until(&ours).max(valid_until(&theirs)) + 10;
    let late = std::time::Instant::now() + 3 * DEADLINE;
    while valid_until(&ours).min(valid_until(&theirs)) < wanted {
        assert!(std::time::Instant::now() < late, "a certificate was not renewed");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let quiet = coordinator.events.try_recv();
    assert!(matches!(quiet, Err(broadcast::error::TryRecvError::Empty)), "{quiet:?}");
    // What is opened now is opened with the new one: the first have expired.
    worker.mesh.stop("comes back").await;
    assert!(matches!(coordinator.event().await, MeshEvent::PeerDown { .. }));
    let mut again =
        start(MeshOptions { incarnation: 2, ..theirs.clone() }).await.expect("is valid");
    again.is_up().await;
    coordinator.is_up().await;
    // Whoever is revoked is cut off, whichever of its certificates it came with, and gets no other.
    let count = crrl_transport::revoke_all(&world.tls(), &theirs.name, 0).expect("writable");
    assert!(count >= 3, "{count}");
    assert!(matches!(coordinator.event().await, MeshEvent::PeerDown { .. }));
    let list = crrl_transport::revoked(&world.tls()).expect("readable");
    let issued = crrl_transport::issued(&world.tls(), &theirs.name, 0).expect("readable");
    assert!(issued.iter().all(|fingerprint| list.contains_key(&fingerprint.to_string())));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_whose_certificate_ran_out_while_nobody_could_renew_it_says_so() {
    let world = World::new();
    let mut options = world.options("rollout", "rollout", 1);
    options.certificate = Validity::of(Duration::from_secs(10));
    Authority::open_or_create(&world.tls())
        .and_then(|a| a.issue_for(&options.name, &["rollout".to_owned()], options.certificate))
        .expect("can be issued");
    options.dial = vec![(world.name("coordinator"), SocketAddr::from(([127, 0, 0, 1], 9)).into())];
    let worker = start(options.clone()).await.expect("is valid still");
    within(worker.mesh.expired()).await;
    let refused = start(options).await.err().expect("has expired").to_string();
    assert!(refused.contains("has expired") && refused.contains("--token"), "{refused}");
}

/// A run whose coordinator is up and lets nodes in with a token.
async fn open_run(number: u32) -> (tempfile::TempDir, RunDir, Member) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let run = RunDir::new(folder.path().join("run"));
    std::fs::create_dir_all(run.path()).expect("can be made");
    let mut config = ClusterConfig { node: ClusterConfig::default_nodes(), ..Default::default() };
    config.learner.micro_batch_tokens = 20_000;
    config.node[0].name = format!("coordinator-{number}");
    let text = toml::to_string(&config).expect("plain");
    std::fs::write(run.config_path(), text).expect("writable");
    host::prepare::prepare(&run, &config).expect("a free port");
    let name = NodeName::from(config.node[0].name.as_str());
    let coordinator = start(MeshOptions::for_node(&run, &name).expect("prepared")).await;
    (folder, run, coordinator.expect("joins"))
}

#[test]
fn a_node_of_a_run_is_given_the_longer_to_answer_the_longer_it_may_be_silent() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let run = RunDir::new(folder.path());
    let mut config = ClusterConfig { node: ClusterConfig::default_nodes(), ..Default::default() };
    config.learner.micro_batch_tokens = 20_000;
    config.cluster.idle_timeout_ms = 20_000;
    let text = toml::to_string(&config).expect("plain");
    std::fs::write(run.config_path(), text).expect("writable");
    host::prepare::prepare(&run, &config).expect("a free port");
    let name = NodeName::from(config.node[0].name.as_str());
    let options = MeshOptions::for_node(&run, &name).expect("prepared");
    assert_eq!(options.answers_within, Duration::from_secs(5));
}

fn pending(run: &RunDir, name: &str) -> Pending {
    invitation::make_tls(run).expect("writable");
    Pending::open(&run.tls(), &name.into()).expect("can be made")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_lets_one_node_in_once() {
    let number = WORLDS.fetch_add(1, Ordering::Relaxed);
    let (folder, run, mut coordinator) = open_run(number).await;
    let guest = format!("guest-{number}");
    let name = NodeName::from(guest.as_str());
    let hour = Duration::from_secs(3600);
    let here = "localhost".parse().expect("a name");
    let token = admission::token(&run, &name, Some(&here), 1, hour).expect("the run is up");
    let token = token.to_string().parse().expect("reads back");
    let theirs = RunDir::new(folder.path().join("elsewhere"));
    admission::knock(&token, &pending(&theirs, &guest)).await.expect("is let in");
    // The answer was lost: the same key may ask again.
    let granted = admission::knock(&token, &pending(&theirs, &guest)).await.expect("is let in");
    granted.take_up(&theirs, pending(&theirs, &guest), |_| {}).expect("is whole");
    let again = Pending::open(&theirs.tls(), &name).expect("another key");
    let refused = admission::knock(&token, &again).await.expect_err("another key").to_string();
    assert!(refused.contains("was used already"), "{refused}");
    assert!(refused.contains(&format!("crrl cluster invite {guest} --token")), "{refused}");
    // The key was made there and is nowhere else; the certificate is known here.
    assert!(!run.tls().join(format!("{guest}.key")).exists());
    assert!(run.tls().join(format!("{guest}.pem")).exists());
    let options = MeshOptions::for_node(&theirs, &name).expect("was taken up");
    let mut member = start(options).await.expect("joins");
    assert_eq!(coordinator.is_up().await.0, name);
    member.is_up().await;

    let minted = |name: &str| admission::token(&run, &name.into(), None, 1, hour);
    let file = |token: &crrl_cluster::token::Token| {
        run.tls().join("tokens").join(format!("{}.json", token.id()))
    };
    let key = pending(&theirs, "other");
    let token = minted("other").expect("the run is up");
    let text = std::fs::read_to_string(file(&token)).expect("was written");
    let mut kept: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    kept["ticket"]["good_until_s"] = 1.into();
    std::fs::write(file(&token), kept.to_string()).expect("writable");
    let refused = admission::knock(&token, &key).await.expect_err("too late").to_string();
    assert!(refused.contains("has expired"), "{refused}");
    std::fs::remove_file(file(&token)).expect("is there");
    let refused = admission::knock(&token, &key).await.expect_err("newer than it").to_string();
    assert!(refused.contains("is not known here"), "{refused}");
    let refused = minted("learner").expect_err("is started here").to_string();
    assert!(refused.contains("external = true"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_door_is_narrow() {
    let number = WORLDS.fetch_add(1, Ordering::Relaxed);
    let (folder, run, _coordinator) = open_run(number).await;
    let token = admission::token(&run, &"guest".into(), None, 1, Duration::from_secs(60));
    let token = token.expect("the run is up");
    let net = NetThread::start("test").expect("a thread");
    let knock = || Door::knock_host(&net, &token.at, token.pin, Duration::from_secs(10));
    // Whoever talks too much is shown out.
    let door = knock().await.expect("the right pin");
    let (mut send, mut recv) = door.quic.open_bi().await.expect("one stream is allowed");
    let _ = send.write_all(&(1_u32 << 20).to_be_bytes()).await;
    let _ = send.write_all(&vec![7; 1 << 20]).await;
    let told = within(recv.read_to_end(1 << 20)).await;
    assert!(
        told.is_ok_and(|told| told.is_empty()) || door.quic.close_reason().is_some(),
        "answered"
    );
    let closed = within(door.quic.closed()).await.to_string();
    assert!(closed.contains("1048576 bytes where 8192 are allowed"), "{closed}");
    // Whoever says nothing is not waited for.
    let silent = knock().await.expect("the right pin");
    let closed = within(silent.quic.closed()).await.to_string();
    assert!(closed.contains("nothing was asked in time"), "{closed}");
    // Whoever begins and does not end holds a place for a while; no more than some of an address may.
    let mut slow = tokio::task::JoinSet::new();
    for _ in 0..SLOW {
        let (net, token) = (net.clone(), token.clone());
        slow.spawn(async move {
            let door = Door::knock_host(&net, &token.at, token.pin, DEADLINE).await;
            let door = door.expect("the right pin");
            // Whoever is turned away may have been so already.
            let mut stream = door.quic.open_bi().await;
            if let Ok((send, _)) = &mut stream {
                let _ = send.write_all(&[0]).await;
            }
            door.quic.closed().await.to_string()
        });
    }
    let first = within(slow.join_next()).await.expect("somebody is turned away");
    let first = first.expect("no panic");
    assert!(first.contains("too many are asking at once"), "{first}");
    let theirs = RunDir::new(folder.path().join("elsewhere"));
    let key = pending(&theirs, "guest");
    let refused = admission::knock(&token, &key).await.expect_err("full").to_string();
    assert!(refused.contains("too many are asking at once"), "{refused}");
    slow.shutdown().await;
    let late = std::time::Instant::now() + DEADLINE;
    while let Err(error) = admission::knock(&token, &key).await {
        assert!(std::time::Instant::now() < late, "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_was_revoked_gets_in_with_no_token_until_it_is_invited_again() {
    let number = WORLDS.fetch_add(1, Ordering::Relaxed);
    let (folder, run, _coordinator) = open_run(number).await;
    let name = NodeName::from(format!("guest-{number}"));
    let hour = Duration::from_secs(3600);
    // As the host does for nodes it starts on other machines and in containers.
    let minted = || admission::token(&run, &name, None, 1, hour);
    let (used, unused) = (minted().expect("the run is up"), minted().expect("the run is up"));
    let theirs = RunDir::new(folder.path().join("elsewhere"));
    let key = pending(&theirs, name.as_str());
    admission::knock(&used, &key).await.expect("is let in");
    assert_eq!(crrl_transport::revoke_all(&run.tls(), &name, 0).expect("writable"), 1);
    // Were its tokens not taken back with it, nothing would be signed for them all the same.
    for token in [&used, &unused] {
        let refused = admission::knock(token, &key).await.expect_err("was revoked").to_string();
        assert!(refused.contains(&format!("{name} was revoked")), "{refused}");
    }
    let refused = minted().expect_err("was revoked").to_string();
    assert!(refused.contains(&format!("crrl tls issue {name} --role ROLE")), "{refused}");
    assert!(!Tokens::of(&run.tls()).has(&name).expect("readable"), "one was left");
    // Whoever invites it lets it in again, with what it is invited with.
    let invited = admission::invite(&run, &name, None, 1, hour).expect("the run is up");
    let refused = admission::knock(&used, &key).await.expect_err("was taken back").to_string();
    assert!(refused.contains("is not known here"), "{refused}");
    admission::knock(&invited, &key).await.expect("is let in");
    let list = crrl_transport::revoked(&run.tls()).expect("readable");
    let issued = crrl_transport::issued(&run.tls(), &name, 0).expect("readable");
    let good = issued.iter().filter(|print| !list.contains_key(&print.to_string())).count();
    assert_eq!((issued.len(), good), (2, 1), "what it had before counts again");
}

/// First packets of handshakes with somebody who does not answer.
async fn first_packets(count: usize) -> Vec<Vec<u8>> {
    let caught = std::net::UdpSocket::bind("127.0.0.1:0").expect("a free port");
    caught.set_read_timeout(Some(DEADLINE)).expect("a socket");
    let at = caught.local_addr().expect("is bound");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("the provider has TLS 1.3")
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    tls.alpn_protocols = vec![format!("crrl/{} control", crrl_transport::codec::VERSION).into()];
    let crypto = quinn::crypto::rustls::QuicClientConfig::try_from(tls).expect("has TLS 1.3");
    let nobody = quinn::Endpoint::client(SocketAddr::from(([127, 0, 0, 1], 0))).expect("a port");
    let config = quinn::ClientConfig::new(Arc::new(crypto));
    let dial = |_| nobody.connect_with(config.clone(), at, "coordinator").expect("can be dialled");
    let _dialling: Vec<_> = (0..count).map(dial).collect();
    let catching = tokio::task::spawn_blocking(move || {
        let mut packets = HashMap::new();
        while packets.len() < count {
            let mut packet = vec![0; 2048];
            let len = caught.recv(&mut packet).expect("they are sent again and again");
            packet.truncate(len);
            // After a byte and the version comes the connection's id, its length first (RFC 9000, 17.2).
            let id = packet[6..6 + usize::from(packet[5])].to_vec();
            packets.entry(id).or_insert(packet);
        }
        packets.into_values().collect::<Vec<_>>()
    });
    catching.await.expect("no panic")
}

#[tokio::test(flavor = "multi_thread")]
async fn first_packets_that_nobody_stands_behind_keep_no_node_out() {
    let world = World::new();
    let (mut coordinator, at) = world.coordinator().await;
    let packets = first_packets(FLOOD).await;
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").expect("a free port");
    // It sends and hears nothing, as from an address that is made up.
    let flood = move || {
        for packet in &packets {
            let _ = socket.send_to(packet, at);
        }
    };
    flood();
    let flooding = tokio::spawn(async move {
        loop {
            tokio::time::sleep(Duration::from_millis(500)).await;
            flood();
        }
    });
    let mut worker = world.worker("rollout", "rollout", 1, at).await;
    assert_eq!(worker.is_up().await, (world.name("coordinator"), 1));
    assert_eq!(coordinator.is_up().await, (world.name("rollout"), 1));
    flooding.abort();
}

fn manifest(payload: &[u8]) -> AdapterManifest {
    AdapterManifest {
        version: crrl_types::AdapterVersion(1),
        digest: Digest::of(payload),
        base_digest: Digest::default(),
        bytes: payload.len() as u64,
        rank: 1,
        alpha_milli: 1000,
        tensors: Vec::new(),
        finite: true,
    }
}

#[expect(dead_code, reason = "the compiler checks that a mesh can be shared between tasks")]
fn a_mesh_is_shared(mesh: Mesh) -> Arc<dyn Send + Sync> {
    Arc::new(mesh)
}
