//! An adapter of 10 MB on four nodes: from the moment the server has its bytes (hashing and cutting
//! included) until the last of four has fetched, verified and acknowledged it over control.

use std::net::IpAddr;
use std::time::Instant;

use crrl_control::wire::Wire;
use crrl_types::Digest;
use crrl_weights::Link;
use crrl_weights::tree::{self, Member, Shape, State};

use crate::nodes::{Node, World, noise, offer, source};
use crate::{at, rounds};

const NODES: usize = 4;
const BYTES: usize = 10_000_000;
/// For a 99th percentile.
const TIMES: usize = 20;

pub(crate) async fn run() {
    let mut world = World::new(1 << 30).await;
    let mut nodes = world.rollout_nodes(NODES).await;
    let members: Vec<Member> = nodes.iter().map(member).collect();
    for node in &mut nodes {
        let server = source(&world.server.mesh);
        let mesh = node.mesh.clone();
        let (_, none) = tokio::sync::mpsc::unbounded_channel();
        let mut got = std::mem::replace(&mut node.got, none);
        // What a rollout node does with an offer, without an engine.
        tokio::spawn(async move {
            while let Some(inbound) = got.recv().await {
                let Wire::AdapterOffer { offer, source, .. } = inbound.wire else { continue };
                let sources: Vec<_> = source.into_iter().chain([server.clone()]).collect();
                let (report, bytes) = mesh.weights().fetch(&offer, &sources).await;
                let digest = Digest::of(&bytes.expect("is fetched"));
                let version = offer.manifest.version;
                let arrived = Wire::AdapterArrived { version, digest, report, error: None };
                mesh.cast(&server.name, arrived).expect("is up");
            }
        });
    }
    let mut link = Link::default();
    let mut times = Vec::new();
    for version in 1..=(rounds() * TIMES + 1) as u64 {
        let bytes = noise(BYTES, version);
        let started = Instant::now();
        let offer = offer(version, &bytes);
        world.server.mesh.weights().depot().put(&offer.whole, &bytes);
        let shape = Shape::best(NODES, BYTES as u64, offer.whole.chunk_bytes, link);
        for (to, source) in tree::plan(&members, shape) {
            let wire =
                Wire::AdapterOffer { offer: Box::new(offer.clone()), source, published: true };
            world.server.mesh.cast(&to, wire).expect("is up");
        }
        let mut waiting = NODES;
        while waiting > 0 {
            let inbound = world.server.got.recv().await.expect("is up");
            let Wire::AdapterArrived { digest, report, .. } = inbound.wire else { continue };
            assert_eq!(digest, offer.manifest.digest, "what is acknowledged is what was offered");
            link.learn(&report, |_| 1);
            waiting -= 1;
        }
        // The first one opens connections.
        if version > 1 {
            times.push(started.elapsed().as_secs_f64() * 1e3);
        }
    }
    println!(
        "10 MB on {NODES} nodes, hashed, fetched, verified, acknowledged: p50 {:.0} ms, p99 {:.0} ms, n {}",
        at(0.5, &mut times),
        at(0.99, &mut times),
        times.len()
    );
    world.close(nodes).await;
}

fn member(node: &Node) -> Member {
    Member {
        name: node.mesh.name().clone(),
        host: Some(IpAddr::from([127, 0, 0, 1])),
        relay: Some(source(&node.mesh).address),
        state: State::Wants,
    }
}
