//! Meshes of several nodes in one process, on loopback.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use crrl_cluster::{Inbound, Mesh, MeshError, MeshEvent, MeshOptions, Router, StatusBoard};
use crrl_control::wire::{NodeRole, Wire};
use crrl_transport::Authority;
use crrl_types::{AdapterManifest, Digest, EpisodeId, NodeName, Sampling};
use tokio::sync::{broadcast, mpsc};

const DEADLINE: Duration = Duration::from_secs(20);

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

    fn tls(&self) -> &Path {
        self.folder.path()
    }

    fn options(&self, name: &str, role: &str, life: u64) -> MeshOptions {
        let name = self.name(name);
        Authority::open_or_create(self.tls())
            .and_then(|authority| authority.issue(&name, &[role.to_owned()]))
            .expect("certificates can be made");
        MeshOptions::new(name, life, self.tls().to_owned())
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
        options.dial = vec![(self.name("coordinator"), at)];
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
async fn a_node_of_the_same_name_takes_over_if_its_life_is_newer() {
    let world = World::new();
    let (mut coordinator, at) = world.coordinator().await;
    let first = world.worker("rollout", "rollout", 1, at).await;
    assert_eq!(coordinator.is_up().await.1, 1);
    let mut second = world.worker("rollout", "rollout", 2, at).await;
    assert!(matches!(coordinator.event().await, MeshEvent::PeerDown { .. }));
    assert_eq!(coordinator.is_up().await.1, 2);
    // The first dials again, many times, and is told that it is an older life: the second stays.
    let until = std::time::Instant::now() + Duration::from_secs(1);
    let mut n = 0;
    while std::time::Instant::now() < until {
        coordinator.mesh.cast(&world.name("rollout"), ack(n)).expect("connected");
        assert_eq!(second.message().await.wire, ack(n));
        n += 1;
    }
    let changed = coordinator.events.try_recv();
    assert!(matches!(changed, Err(broadcast::error::TryRecvError::Empty)), "{changed:?}");
    first.mesh.stop("the test is over").await;
    second.mesh.stop("the test is over").await;
    assert!(matches!(coordinator.event().await, MeshEvent::PeerDown { .. }));
    assert!(coordinator.mesh.cast(&world.name("rollout"), ack(0)).is_err());
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
    let sending = {
        let (mesh, to, adapter) = (worker.mesh.clone(), world.name("coordinator"), adapter.clone());
        tokio::spawn(async move { mesh.deliver(&to, adapter).await })
    };
    let got = coordinator.message().await;
    assert_eq!(got.wire, adapter);
    assert!(!sending.is_finished(), "acknowledged before it was handled");
    got.receipt.accept();
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
