//! Adapters between nodes, on loopback: chunks, sources that fail, differences, tools that follow.

#[path = "../../../tests/support/until_async.rs"]
mod until_async;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bytes::Bytes;
use crrl_cluster::run_dir::OPERATOR;
use crrl_cluster::{AdapterFeed, FetchError, Mesh, MeshOptions, Router, RunDir, StatusBoard};
use crrl_transport::Authority;
use crrl_types::fault::{Fault, Injection};
use crrl_types::{AdapterManifest, AdapterVersion, Digest, NodeName};
use crrl_weights::delta::{self, Word};
use crrl_weights::{DeltaOffer, Offer, Payload, Report, Source};
use until_async::until;

const DEADLINE: Duration = Duration::from_secs(20);
/// Eight chunks of 256 KiB, the last one short.
const BYTES: usize = 2_000_000;

/// A run whose parameter server is called so.
const FOLLOWED: &str = r#"
[learner]
micro_batch_tokens = 20000
[[node]]
name = "SERVER"
roles = ["coordinator", "parameter-server"]
[[node]]
name = "learner"
roles = ["learner"]
[[node]]
name = "rollout"
roles = ["rollout"]
"#;

/// Process groups are shared by every mesh of a process: each test has names of its own.
static WORLDS: AtomicU32 = AtomicU32::new(0);

struct World {
    folder: tempfile::TempDir,
    number: u32,
}

impl World {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        Self { folder, number: WORLDS.fetch_add(1, Ordering::Relaxed) }
    }

    fn certified(&self, name: &str, role: &str) -> NodeName {
        let name = NodeName::from(name);
        Authority::open_or_create(&self.folder.path().join("tls"))
            .and_then(|authority| authority.issue(&name, &[role.to_owned()]))
            .expect("certificates can be made");
        name
    }

    async fn node(&self, name: &str, role: &str, change: impl FnOnce(&mut MeshOptions)) -> Mesh {
        let name = self.certified(&format!("{name}-{}", self.number), role);
        let mut options = MeshOptions::new(name, 1, self.folder.path().join("tls"));
        // Nobody is left for being slow: who gave how much is told to the byte.
        options.source_patience = DEADLINE;
        change(&mut options);
        Mesh::start(options, Router::new(), StatusBoard::new()).await.expect("joins")
    }

    async fn server(&self) -> Mesh {
        self.node("server", "parameter-server", |options| options.listen = Some(any())).await
    }

    async fn relay(&self) -> Mesh {
        self.node("relay", "rollout", |options| options.relay = Some(any())).await
    }

    async fn leaf(&self) -> Mesh {
        self.node("leaf", "rollout", |_| {}).await
    }
}

fn any() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

fn source(mesh: &Mesh) -> Source {
    Source { name: mesh.name().clone(), address: mesh.local_addr().expect("is bound") }
}

fn adapter(version: u64) -> (Offer, Bytes) {
    let salt = version as u32;
    let words =
        (0..BYTES as u32 / 4).map(|n| (n.wrapping_mul(2_654_435_761) >> 9) + salt * (n % 7));
    let bytes: Bytes = words.flat_map(u32::to_le_bytes).collect::<Vec<u8>>().into();
    let manifest = AdapterManifest {
        version: AdapterVersion(version),
        digest: Digest::of(&bytes),
        base_digest: Digest::default(),
        bytes: bytes.len() as u64,
        rank: 1,
        alpha_milli: 1000,
        tensors: Vec::new(),
        finite: true,
    };
    (Offer::whole(manifest, &bytes), bytes)
}

fn slice(payload: &Payload, bytes: &Bytes, index: usize) -> Bytes {
    bytes.slice(payload.range(index))
}

/// Gives a node some of the chunks.
fn hold(mesh: &Mesh, payload: &Payload, bytes: &Bytes, chunks: std::ops::Range<usize>) {
    for index in chunks {
        assert!(mesh.weights().depot().add(payload, index, &slice(payload, bytes, index)));
    }
}

async fn fetch(
    mesh: &Mesh,
    offer: &Offer,
    sources: &[&Mesh],
) -> (Report, Result<Bytes, FetchError>) {
    let sources: Vec<Source> = sources.iter().map(|mesh| source(mesh)).collect();
    let fetching = mesh.weights().fetch(offer, &sources);
    tokio::time::timeout(DEADLINE, fetching).await.expect("takes too long")
}

/// Waits until a node lacks no more than that many chunks.
async fn lacks(mesh: &Mesh, payload: &Payload, chunks: usize) {
    let lacking = || mesh.weights().depot().missing(payload).len();
    until("chunks that come", || (lacking() <= chunks).then_some(())).await;
}

/// From whom how many bytes came.
fn legs(report: &Report) -> Vec<(&str, u64)> {
    report.legs.iter().map(|leg| (leg.from.as_str(), leg.bytes)).collect()
}

fn damages_adapters(mesh: &Mesh) {
    mesh.faults().begin(Injection {
        id: 1,
        fault: Fault::CorruptAdapter,
        duration_ms: 60_000,
        seed: 1,
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_chunk_of_a_relay_is_refused_and_fetched_elsewhere_alone() {
    let world = World::new();
    let (server, relay, leaf) = (world.server().await, world.relay().await, world.leaf().await);
    let (offer, bytes) = adapter(1);
    for mesh in [&server, &relay] {
        mesh.weights().depot().put(&offer.whole, &bytes);
    }
    damages_adapters(&relay);
    let (report, fetched) = fetch(&leaf, &offer, &[&relay, &server]).await;
    assert_eq!(fetched, Ok(bytes.clone()));
    let chunk = u64::from(offer.whole.chunk_bytes);
    let rest = bytes.len() as u64 - chunk;
    assert_eq!(legs(&report), [(relay.name().as_str(), rest), (server.name().as_str(), chunk)]);
    assert_eq!(report.blamed.len(), 1);
    assert_eq!(report.blamed[0].node, *relay.name());
    assert!(report.blamed[0].reason.contains("hash"), "{report:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_passes_on_what_it_is_still_getting_and_may_be_killed_meanwhile() {
    let world = World::new();
    let (server, relay, leaf) = (world.server().await, world.relay().await, world.leaf().await);
    let (offer, bytes) = adapter(1);
    server.weights().depot().put(&offer.whole, &bytes);
    hold(&relay, &offer.whole, &bytes, 0..3);
    let (reader, wanted) = (leaf.clone(), offer.clone());
    let sources = [source(&relay), source(&server)];
    let fetching = tokio::spawn(async move { reader.weights().fetch(&wanted, &sources).await });
    lacks(&leaf, &offer.whole, 5).await;
    hold(&relay, &offer.whole, &bytes, 3..4);
    lacks(&leaf, &offer.whole, 4).await;
    relay.stop("killed").await;
    let ended = tokio::time::timeout(DEADLINE, fetching).await.expect("takes too long");
    let (report, fetched) = ended.expect("no panic");
    assert_eq!(fetched, Ok(bytes.clone()));
    let first = 4 * u64::from(offer.whole.chunk_bytes);
    let wanted =
        [(relay.name().as_str(), first), (server.name().as_str(), bytes.len() as u64 - first)];
    assert_eq!(legs(&report), wanted, "what the relay had given was sent again");
    assert_eq!(report.blamed[0].node, *relay.name());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transfer_that_was_cut_off_goes_on_where_it_ended() {
    let world = World::new();
    let (server, leaf) = (world.server().await, world.leaf().await);
    let (offer, bytes) = adapter(1);
    hold(&server, &offer.whole, &bytes, 0..5);
    let (reader, wanted, sources) = (leaf.clone(), offer.clone(), [source(&server)]);
    let fetching = tokio::spawn(async move { reader.weights().fetch(&wanted, &sources).await });
    lacks(&leaf, &offer.whole, 3).await;
    fetching.abort();
    let _ = fetching.await;
    server.weights().depot().put(&offer.whole, &bytes);
    let (report, fetched) = fetch(&leaf, &offer, &[&server]).await;
    assert_eq!(fetched, Ok(bytes.clone()));
    let rest = bytes.len() as u64 - 5 * u64::from(offer.whole.chunk_bytes);
    assert_eq!(legs(&report), [(server.name().as_str(), rest)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_has_the_base_fetches_the_difference_and_the_others_the_whole() {
    let world = World::new();
    let (server, leaf, other) = (world.server().await, world.leaf().await, world.relay().await);
    let ((first, base), (mut second, bytes)) = (adapter(1), adapter(2));
    let difference = Bytes::from(delta::encode(&base, &bytes, Word::Four).expect("one length"));
    let payload = Payload::of(&difference);
    server.weights().depot().put(&payload, &difference);
    server.weights().depot().put(&second.whole, &bytes);
    second.delta = Some(DeltaOffer { base: first.whole.digest, payload });
    leaf.weights().depot().put(&first.whole, &base);
    let (report, fetched) = fetch(&leaf, &second, &[&server]).await;
    assert_eq!(fetched, Ok(bytes.clone()));
    assert_eq!(report.bytes(), difference.len() as u64);
    assert!(difference.len() < bytes.len());
    let (report, fetched) = fetch(&other, &second, &[&server]).await;
    assert_eq!(fetched, Ok(bytes.clone()));
    assert_eq!(report.bytes(), bytes.len() as u64);

    // A difference that gives something else is no harm.
    let (mut third, newest) = adapter(3);
    let wrong = Bytes::from(delta::encode(&bytes, &base, Word::Four).expect("one length"));
    let payload = Payload::of(&wrong);
    server.weights().depot().put(&payload, &wrong);
    server.weights().depot().put(&third.whole, &newest);
    third.delta = Some(DeltaOffer { base: second.whole.digest, payload });
    let (_, fetched) = fetch(&leaf, &third, &[&server]).await;
    assert_eq!(fetched, Ok(newest));
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_without_the_role_gets_a_byte_and_a_relay_takes_no_peers() {
    let world = World::new();
    let (server, relay) = (world.server().await, world.relay().await);
    let learner = world.node("learner", "learner", |_| {}).await;
    let (offer, bytes) = adapter(1);
    server.weights().depot().put(&offer.whole, &bytes);
    let (report, fetched) = fetch(&learner, &offer, &[&server]).await;
    assert!(fetched.is_err() && report.bytes() == 0);
    assert!(report.blamed[0].reason.contains("does not allow"), "{report:?}");
    let at = relay.local_addr().expect("is bound");
    let to = relay.name().clone();
    let intruder = world.node("intruder", "coordinator", |o| o.dial = vec![(to, at.into())]).await;
    let mut events = relay.events();
    // Something that is let in, for comparison.
    relay.weights().depot().put(&offer.whole, &bytes);
    let leaf = world.leaf().await;
    assert_eq!(fetch(&leaf, &offer, &[&relay]).await.1, Ok(bytes));
    until("an intruder that is turned away", || intruder.unreached().pop()).await;
    assert!(events.try_recv().is_err() && relay.peers().is_empty());
    drop(intruder);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_offer_that_contradicts_itself_is_not_fetched() {
    let world = World::new();
    let (server, leaf) = (world.server().await, world.leaf().await);
    let (mut offer, bytes) = adapter(1);
    server.weights().depot().put(&offer.whole, &bytes);
    offer.manifest.digest = Digest::of(b"another");
    let (report, fetched) = fetch(&leaf, &offer, &[&server]).await;
    assert_eq!(fetched, Err(FetchError::Offer(AdapterVersion(1))));
    assert_eq!(report, Report::default());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tool_follows_what_is_published() {
    let world = World::new();
    let run = RunDir::new(world.folder.path());
    let name = world.certified("coordinator", "parameter-server");
    let mut options = MeshOptions::new(name.clone(), 1, run.tls());
    options.listen = Some(any());
    let server = Mesh::start(options, Router::new(), StatusBoard::new()).await.expect("joins");
    world.certified(OPERATOR, "operator");
    std::fs::write(run.config_path(), "").expect("writable");
    let addresses = format!(r#"{{"{name}": "{}"}}"#, server.local_addr().expect("is bound"));
    std::fs::write(run.addresses_path(), addresses).expect("writable");
    let (first, bytes) = adapter(1);
    server.weights().depot().put(&first.whole, &bytes);
    server.weights().depot().announce(first.clone());
    let mut feed = AdapterFeed::connect(&run).await.expect("a run");
    assert_eq!(feed.next().await.expect("is published"), first);
    assert_eq!(feed.fetch(&first).await.expect("is there"), bytes);
    let (second, bytes) = adapter(2);
    server.weights().depot().put(&second.whole, &bytes);
    server.weights().depot().announce(second.clone());
    assert_eq!(feed.next().await.expect("is published"), second);
    assert_eq!(feed.fetch(&second).await.expect("is there"), bytes);
    server.stop("the run is over").await;
    assert!(feed.next().await.is_err(), "the end is not noticed");
    feed.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tool_that_follows_and_is_revoked_is_cut_off() {
    let world = World::new();
    let (run, server) = (RunDir::new(world.folder.path()), world.server().await);
    world.certified(OPERATOR, "operator");
    let name = server.name();
    let config = FOLLOWED.replace("SERVER", name.as_str());
    std::fs::write(run.config_path(), config).expect("writable");
    let addresses = format!(r#"{{"{name}": "{}"}}"#, server.local_addr().expect("is bound"));
    std::fs::write(run.addresses_path(), addresses).expect("writable");
    let (first, bytes) = adapter(1);
    server.weights().depot().put(&first.whole, &bytes);
    server.weights().depot().announce(first.clone());
    let mut feed = AdapterFeed::connect(&run).await.expect("a run");
    assert_eq!(feed.next().await.expect("is published"), first);
    crrl_transport::revoke_all(&run.tls(), &OPERATOR.into(), 0).expect("writable");
    // It opens nothing more: it only waits for what is published next.
    let cut = tokio::time::timeout(2 * DEADLINE, feed.next()).await.expect("it is not cut off");
    cut.expect_err("was revoked");
    feed.close().await;
}
