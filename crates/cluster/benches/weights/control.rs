//! How quick control messages stay while adapters of 100 MB are fetched between the same two nodes.

use std::time::{Duration, Instant};

use crrl_control::wire::Wire;
use crrl_types::AdapterVersion;

use crate::nodes::{Node, World, noise, offer, source};
use crate::{at, rounds};

const BYTES: usize = 100_000_000;
const ALONE: usize = 500;

pub(crate) async fn run() {
    let mut world = World::new(1 << 30).await;
    let mut nodes = world.rollout_nodes(1).await;
    let mut node = nodes.remove(0);
    let alone = round_trips(&mut world.server, &mut node, |n| n < ALONE).await;
    report("control alone", alone);
    let (weights, server) = (node.mesh.weights().clone(), world.server.mesh.clone());
    let fetching = tokio::spawn(async move {
        let sources = [source(&server)];
        for version in 1..=rounds() as u64 {
            let bytes = noise(BYTES, version);
            let offer = offer(version, &bytes);
            server.weights().depot().put(&offer.whole, &bytes);
            weights.fetch(&offer, &sources).await.1.expect("is fetched");
        }
    });
    let beside = round_trips(&mut world.server, &mut node, |_| !fetching.is_finished()).await;
    fetching.await.expect("no panic");
    report("control beside 100 MB adapters", beside);
    world.close(vec![node]).await;
}

/// A message there and one back, as often as `more` wants, in milliseconds.
async fn round_trips(
    server: &mut Node,
    node: &mut Node,
    mut more: impl FnMut(usize) -> bool,
) -> Vec<f64> {
    let mut times = Vec::new();
    while more(times.len()) {
        let started = Instant::now();
        let asked = Wire::AdapterWanted { have: AdapterVersion(1) };
        node.mesh.cast(server.mesh.name(), asked).expect("is up");
        server.got.recv().await.expect("is up");
        let refused = Wire::AdapterRefused {
            version: AdapterVersion(1),
            newest: AdapterVersion(1),
            reason: String::new(),
        };
        server.mesh.cast(node.mesh.name(), refused).expect("is up");
        node.got.recv().await.expect("is up");
        times.push(started.elapsed().as_secs_f64() * 1e3);
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    times
}

fn report(what: &str, mut times: Vec<f64>) {
    println!(
        "{what}: p50 {:.2} ms, p99 {:.2} ms, worst {:.2} ms, n {}",
        at(0.5, &mut times),
        at(0.99, &mut times),
        at(1.0, &mut times),
        times.len()
    );
}
