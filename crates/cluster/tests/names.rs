//! Names: of hosts, which stand for addresses that change, and of nodes, which belong to one at a time.

#[path = "../../../tests/support/skips.rs"]
mod skips;
#[path = "../../../tests/support/until_async.rs"]
mod until_async;

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crrl_cluster::{Inbound, Mesh, MeshEvent, MeshOptions, Router, RunDir, StatusBoard};
use crrl_control::wire::Wire;
use crrl_transport::{Authority, HostName, Lookup, NetThread, Sockets};
use crrl_types::fault::{Direction, Fault, Injection};
use crrl_types::{EpisodeId, HostPort, NodeName};
use quinn::{AsyncUdpSocket, Runtime as _, TokioRuntime};
use skips::skipped;
use tokio::sync::broadcast::{self, error::TryRecvError};
use tokio::sync::mpsc;
use until_async::until;

const DEADLINE: Duration = Duration::from_secs(20);
const TRAINER: &str = "trainer.lan";

/// Process groups are shared by every mesh of a process: each test has names of its own.
static WORLDS: AtomicU32 = AtomicU32::new(0);

/// The system's sockets, and names that stand for what a test says.
#[derive(Debug, Default)]
struct Names {
    known: Mutex<HashMap<String, Vec<IpAddr>>>,
    asked: AtomicU32,
}

impl Names {
    fn say(&self, host: &str, addresses: &[&str]) {
        let addresses = addresses.iter().map(|text| text.parse().expect("an address")).collect();
        self.known.lock().expect("no panic").insert(host.to_owned(), addresses);
    }
}

impl Sockets for Names {
    fn bind(&self, address: SocketAddr) -> io::Result<Arc<dyn AsyncUdpSocket>> {
        TokioRuntime.wrap_udp_socket(UdpSocket::bind(address)?)
    }

    fn look_up<'a>(&'a self, host: &'a HostName, port: u16) -> Lookup<'a> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        let known = self.known.lock().expect("no panic").get(host.as_str()).cloned();
        let found = known.ok_or_else(|| io::Error::other("name or service not known"));
        let at = |ip: IpAddr| SocketAddr::new(ip, port);
        let found = found.map(|ips| ips.into_iter().map(at).collect::<Vec<_>>());
        Box::pin(std::future::ready(found))
    }
}

struct World {
    folder: tempfile::TempDir,
    number: u32,
    names: Arc<Names>,
}

struct Member {
    mesh: Mesh,
    got: mpsc::UnboundedReceiver<Inbound>,
    events: broadcast::Receiver<MeshEvent>,
}

impl World {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let number = WORLDS.fetch_add(1, Ordering::Relaxed);
        Self { folder, number, names: Arc::default() }
    }

    fn name(&self, name: &str) -> NodeName {
        format!("{name}-{}", self.number).into()
    }

    fn options(&self, name: &str, role: &str, life: u64) -> MeshOptions {
        let (name, tls) = (self.name(name), RunDir::new(self.folder.path()).tls());
        Authority::open_or_create(&tls)
            .and_then(|authority| authority.issue(&name, &[role.to_owned()]))
            .expect("certificates can be made");
        MeshOptions::new(name, life, tls)
    }

    async fn coordinator(&self, at: &str, life: u64) -> (Member, SocketAddr) {
        let mut options = self.options("coordinator", "coordinator", life);
        options.listen = Some(at.parse().expect("an address"));
        let member = start(options).await;
        let at = member.mesh.local_addr().expect("is bound");
        (member, at)
    }

    /// The options of a node that dials the coordinator.
    fn worker(&self, life: u64, at: impl Into<HostPort>) -> MeshOptions {
        let mut options = self.options("rollout", "rollout", life);
        options.dial = vec![(self.name("coordinator"), at.into())];
        options
    }

    /// One that dials it by a name, and looks that up here.
    async fn by_name(&self, port: u16, change: impl FnOnce(&mut MeshOptions)) -> Member {
        let at: HostPort = format!("{TRAINER}:{port}").parse().expect("an address");
        let mut options = self.worker(1, at);
        options.net = Some(NetThread::here(self.names.clone()));
        change(&mut options);
        start(options).await
    }
}

async fn start(options: MeshOptions) -> Member {
    let router = Router::new();
    let (sender, got) = mpsc::unbounded_channel();
    router.register_fn("test", |_| true, move |i| sender.send(i).map_err(|e| e.to_string()));
    let mesh = Mesh::start(options, router, StatusBoard::new()).await.expect("joins");
    let events = mesh.events();
    Member { mesh, got, events }
}

impl Member {
    async fn event(&mut self) -> MeshEvent {
        within(self.events.recv()).await.expect("the mesh lives")
    }

    /// The life of the peer that comes up next.
    async fn is_up(&mut self) -> u64 {
        match self.event().await {
            MeshEvent::PeerUp { incarnation, .. } => incarnation,
            other => panic!("{other:?} where a peer should come up"),
        }
    }

    async fn message(&mut self) -> Wire {
        within(self.got.recv()).await.expect("the mesh lives").wire
    }

    /// Waits until a peer of this life can be reached.
    async fn reaches(&self, life: u64) {
        until("a connection", || {
            self.mesh.peers().iter().any(|peer| peer.incarnation == life).then_some(())
        })
        .await;
    }

    /// Waits until the one peer that is dialled was not reached; gives the reason.
    async fn misses(&self) -> String {
        until("a failure", || self.mesh.unreached().pop().map(|(_, why)| why)).await
    }

    async fn leaves(self) {
        self.mesh.stop("the test is over").await;
    }
}

async fn within<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, what).await.expect("takes too long")
}

fn ack(n: u64) -> Wire {
    Wire::Ack { episode: EpisodeId(n), attempt: 1 }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_coordinator_that_has_another_address_after_a_restart_is_found_by_its_name() {
    let world = World::new();
    let (first, at) = world.coordinator("127.0.0.1:0", 1).await;
    // Its next life, on another machine, at the same port.
    let (second, moved) = world.coordinator(&format!("127.0.0.2:{}", at.port()), 2).await;
    world.names.say(TRAINER, &["127.0.0.1"]);
    let worker = world.by_name(at.port(), |_| {}).await;
    worker.reaches(1).await;
    assert_eq!(worker.mesh.dialled(&world.name("coordinator")), Some(at));
    world.names.say(TRAINER, &["127.0.0.2"]);
    first.leaves().await;
    worker.reaches(2).await;
    assert_eq!(worker.mesh.dialled(&world.name("coordinator")), Some(moved));
    second.leaves().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_address_of_a_name_is_tried() {
    let world = World::new();
    let (_coordinator, at) = world.coordinator("127.0.0.1:0", 1).await;
    // Nobody answers at the first; one that waited for it to fail would come too late.
    world.names.say(TRAINER, &["127.0.0.9", "127.0.0.1"]);
    let patient = |options: &mut MeshOptions| {
        options.transport.handshake_timeout = 10 * DEADLINE;
        options.transport.idle_timeout = 10 * DEADLINE;
    };
    let worker = world.by_name(at.port(), patient).await;
    worker.reaches(1).await;
    assert_eq!(worker.mesh.dialled(&world.name("coordinator")), Some(at));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_may_stand_for_an_ipv6_address() {
    let world = World::new();
    if let Err(error) = UdpSocket::bind("[::1]:0") {
        return skipped(&format!("no IPv6 (sysctl -w net.ipv6.conf.lo.disable_ipv6=0): {error}"));
    }
    let (_coordinator, at) = world.coordinator("[::1]:0", 1).await;
    world.names.say(TRAINER, &["::1"]);
    let worker = world.by_name(at.port(), |_| {}).await;
    worker.reaches(1).await;
    assert_eq!(worker.mesh.dialled(&world.name("coordinator")), Some(at));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_system_is_asked_for_a_name() {
    let world = World::new();
    let (_coordinator, at) = world.coordinator("127.0.0.1:0", 1).await;
    let here: HostPort = format!("localhost:{}", at.port()).parse().expect("an address");
    let worker = start(world.worker(1, here)).await;
    worker.reaches(1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_nobody_knows_is_said_and_looked_up_again_until_somebody_does() {
    let world = World::new();
    let (_coordinator, at) = world.coordinator("127.0.0.1:0", 1).await;
    let worker = world.by_name(at.port(), |_| {}).await;
    let why = worker.misses().await;
    for part in ["the host name trainer.lan cannot be resolved", "name or service not known", "DNS"]
    {
        assert!(why.contains(part), "{part}: {why}");
    }
    let asked = || world.names.asked.load(Ordering::Relaxed);
    let before = asked();
    until("another look", || (asked() > before).then_some(())).await;
    world.names.say(TRAINER, &[]);
    until("word of it", || {
        let (_, why) = worker.mesh.unreached().pop()?;
        why.contains("it has no address").then_some(())
    })
    .await;
    world.names.say(TRAINER, &["127.0.0.1"]);
    worker.reaches(1).await;
    assert_eq!(worker.mesh.unreached(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_node_of_a_name_is_refused_while_the_first_answers_whatever_its_life() {
    let world = World::new();
    // On a machine that is busy it may take long until the first has said anything.
    let (mut coordinator, at) = world.patient_coordinator(Duration::from_secs(5)).await;
    let (name, mut first) = (world.name("rollout"), start(world.worker(2, at)).await);
    assert_eq!(coordinator.is_up().await, 2);
    first.reaches(1).await;
    let mut others = Vec::new();
    for life in [3, 1] {
        let other = start(world.worker(life, at)).await;
        let why = other.misses().await;
        for part in [
            format!("another {name} is connected, from 127.0.0.1"),
            format!("in its life 2 (this is life {life})"),
            "end one of them, or invite this one under another name".into(),
        ] {
            assert!(why.contains(&part), "{part}: {why}");
        }
        others.push(other);
    }
    // They dial on and on, and the first works on.
    let until = Instant::now() + Duration::from_secs(1);
    let mut n = 0;
    while Instant::now() < until {
        coordinator.mesh.cast(&name, ack(n)).expect("connected");
        assert_eq!(first.message().await, ack(n));
        n += 1;
    }
    let changed = coordinator.events.try_recv();
    assert!(matches!(changed, Err(TryRecvError::Empty)), "{changed:?}");
    // Once it has left, the one that waits is let in.
    let (older, newer) = (others.pop().expect("two"), others.pop().expect("two"));
    older.leaves().await;
    first.leaves().await;
    assert!(matches!(coordinator.event().await, MeshEvent::PeerDown { .. }));
    assert_eq!(coordinator.is_up().await, 3);
    newer.leaves().await;
    assert!(matches!(coordinator.event().await, MeshEvent::PeerDown { .. }));
    assert!(coordinator.mesh.cast(&name, ack(0)).is_err());
}

/// Misses nobody by itself for as long as any test takes.
fn patient(mut options: MeshOptions) -> MeshOptions {
    options.transport.idle_timeout = Duration::from_secs(600);
    options.heartbeat_timeout = Duration::from_secs(600);
    options
}

impl World {
    async fn patient_coordinator(&self, answers_within: Duration) -> (Member, SocketAddr) {
        let mut options = patient(self.options("coordinator", "coordinator", 1));
        options.listen = Some(SocketAddr::from(([127, 0, 0, 1], 0)));
        options.answers_within = answers_within;
        let member = start(options).await;
        let at = member.mesh.local_addr().expect("is bound");
        (member, at)
    }
}

impl Member {
    /// As after a power failure: it says nothing any more, not even that it leaves.
    fn falls_silent(&self) {
        let fault = Fault::Drop { direction: Direction::Both, share: 1.0 };
        self.mesh.faults().begin(Injection { id: 1, fault, duration_ms: 600_000, seed: 0 });
    }

    /// A peer is let go of since another came in its place.
    async fn replaces(&mut self) {
        match self.event().await {
            MeshEvent::PeerDown { reason, .. } => {
                assert!(reason.contains("took its place"), "{reason}");
            }
            other => panic!("{other:?} where the first should be let go of"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_was_killed_gets_its_name_back_before_anybody_has_missed_it() {
    // One that has lost its folder begins to count its lives anew.
    for (before, after) in [(1, 2), (3, 1)] {
        let world = World::new();
        let (mut coordinator, at) = world.patient_coordinator(Duration::from_millis(500)).await;
        let first = start(patient(world.worker(before, at))).await;
        assert_eq!(coordinator.is_up().await, before);
        first.falls_silent();
        let _second = start(world.worker(after, at)).await;
        coordinator.replaces().await;
        assert_eq!(coordinator.is_up().await, after);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_that_come_for_the_name_of_a_dead_node_one_gets_it_and_keeps_it() {
    let world = World::new();
    // Both come while it is looked whether the first still answers.
    let (mut coordinator, at) = world.patient_coordinator(Duration::from_secs(2)).await;
    let name = world.name("rollout");
    let first = start(patient(world.worker(1, at))).await;
    assert_eq!(coordinator.is_up().await, 1);
    first.falls_silent();
    let (second, third) = (start(world.worker(2, at)).await, start(world.worker(3, at)).await);
    coordinator.replaces().await;
    let (mut one, other) = match coordinator.is_up().await {
        2 => (second, third),
        _ => (third, second),
    };
    let taken = format!("another {name} is connected");
    until("a refusal", || other.mesh.unreached().pop().filter(|(_, why)| why.contains(&taken)))
        .await;
    coordinator.mesh.cast(&name, ack(1)).expect("connected");
    assert_eq!(one.message().await, ack(1));
    let changed = coordinator.events.try_recv();
    assert!(matches!(changed, Err(TryRecvError::Empty)), "{changed:?}");
}
