//! How quick control messages stay while blobs of 100 MB are on their way between the same two
//! nodes. Prints medians and 99th percentiles; judges nothing.
//!
//! `cargo bench --bench blob_and_control`; `BULK_MIB_PER_S` in the environment is another pace of
//! blobs than the default.

use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use bytes::Bytes;
use crrl_cluster::{Inbound, Mesh, MeshOptions, Router, StatusBoard};
use crrl_control::wire::Wire;
use crrl_transport::Authority;
use crrl_types::{AdapterManifest, AdapterVersion, Digest, NodeName};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

const BLOB_BYTES: usize = 100_000_000;
const BLOBS: u32 = 5;
const IDLE_ROUNDS: usize = 500;

struct Node {
    mesh: Mesh,
    control: UnboundedReceiver<Inbound>,
}

async fn node(dir: &Path, name: &str, role: &str, hub: Option<SocketAddr>) -> Node {
    let name = NodeName::from(name);
    Authority::open_or_create(dir)
        .and_then(|authority| authority.issue(&name, &[role.to_owned()]))
        .expect("certificates can be made");
    let mut options = MeshOptions::new(name, 1, dir.to_owned());
    if let Some(pace) = std::env::var("BULK_MIB_PER_S").ok().and_then(|text| text.parse().ok()) {
        let mib_per_s: u64 = pace;
        options.transport.bulk_bytes_per_s = mib_per_s << 20;
    }
    match hub {
        Some(address) => options.dial = vec![("hub".into(), address.into())],
        None => options.listen = Some(SocketAddr::from(([127, 0, 0, 1], 0))),
    }
    let router = Router::new();
    let (sender, control) = unbounded_channel();
    router.register_fn(
        "control",
        |wire| !matches!(wire, Wire::Adapter { .. }),
        move |inbound| sender.send(inbound).map_err(|error| error.to_string()),
    );
    // An adapter counts as handled as soon as it has arrived.
    router.register_fn("adapters", |wire| matches!(wire, Wire::Adapter { .. }), |_| Ok(()));
    let mesh = Mesh::start(options, router, StatusBoard::new()).await.expect("joins");
    Node { mesh, control }
}

/// A message there and one back, as often as `more` wants.
async fn rounds(
    hub: &mut Node,
    worker: &mut Node,
    mut more: impl FnMut(usize) -> bool,
) -> Vec<Duration> {
    let mut times = Vec::new();
    while more(times.len()) {
        let start = Instant::now();
        worker
            .mesh
            .cast(&"hub".into(), Wire::AdapterWanted { have: AdapterVersion(1) })
            .expect("up");
        hub.control.recv().await.expect("up");
        hub.mesh.cast(&"worker".into(), Wire::Drain).expect("up");
        worker.control.recv().await.expect("up");
        times.push(start.elapsed());
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    times.sort();
    times
}

fn report(what: &str, times: &[Duration]) {
    let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e3;
    eprintln!(
        "{what:<24} p50 {:6.2} ms   p99 {:6.2} ms   worst {:6.2} ms   n {}",
        at(0.5),
        at(0.99),
        at(1.0),
        times.len()
    );
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut hub = node(folder.path(), "hub", "coordinator", None).await;
    let address = hub.mesh.local_addr().expect("is bound");
    let mut worker = node(folder.path(), "worker", "learner", Some(address)).await;
    while worker.mesh.peers().is_empty() || hub.mesh.peers().is_empty() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    report("control alone", &rounds(&mut hub, &mut worker, |n| n < IDLE_ROUNDS).await);

    let payload = Bytes::from(vec![42; BLOB_BYTES]);
    let manifest = AdapterManifest {
        version: AdapterVersion(1),
        digest: Digest::of(&payload),
        base_digest: Digest::default(),
        bytes: BLOB_BYTES as u64,
        rank: 16,
        alpha_milli: 32_000,
        tensors: Vec::new(),
        finite: true,
    };
    let mesh = worker.mesh.clone();
    let sending = tokio::spawn(async move {
        let start = Instant::now();
        for _ in 0..BLOBS {
            let wire = Wire::Adapter { manifest: manifest.clone(), payload: payload.to_vec() };
            mesh.deliver(&"hub".into(), wire).await.expect("handled");
        }
        start.elapsed() / BLOBS
    });
    let beside = rounds(&mut hub, &mut worker, |_| !sending.is_finished()).await;
    let each = sending.await.expect("no panic");
    report("control beside blobs", &beside);
    let rate = BLOB_BYTES as f64 / each.as_secs_f64() / 1e6;
    eprintln!(
        "blob of 100 MB           {:.0} ms, hashed and acknowledged ({rate:.0} MB/s)",
        each.as_secs_f64() * 1e3
    );
}
