//! An adapter from the server to eight nodes: one after the other, all at once from the server,
//! along the tree. Rounds alternate.

use std::net::IpAddr;
use std::time::Instant;

use bytes::Bytes;
use crrl_types::NodeName;
use crrl_weights::tree::{self, Member, Shape, State};
use crrl_weights::{Link, Offer, Report, Source};

use crate::nodes::{Node, World, noise, offer, source};
use crate::{median, rounds};

const RECEIVERS: usize = 8;
/// What each node may send: as over a network of 1 Gbit/s, and as fast as this machine can.
const LINKS: [(&str, u64); 2] = [("125 MB/s a node", 125_000_000), ("unlimited", 1 << 40)];

#[derive(Clone, Copy, PartialEq)]
enum Way {
    Sequential,
    Direct,
    Tree,
}

pub(crate) async fn run() {
    println!("fan-out to {RECEIVERS} nodes; medians of {} alternating rounds", rounds());
    println!("| link | adapter | way | all have it, ms | copies the server sent |");
    println!("|---|---|---|---|---|");
    for (link, pace) in LINKS {
        for megabytes in [10, 100] {
            measure(link, pace, megabytes).await;
        }
    }
}

async fn measure(link: &str, pace: u64, megabytes: usize) {
    let world = World::new(pace).await;
    let nodes = world.rollout_nodes(RECEIVERS).await;
    let ways = [
        (Way::Sequential, "one after the other"),
        (Way::Direct, "at once from the server"),
        (Way::Tree, "tree"),
    ];
    let mut results = vec![(Vec::new(), Vec::new()); ways.len()];
    let mut learned = Link::default();
    let mut version = 0;
    // One round first, for connections and caches.
    for round in 0..=rounds() {
        for ((way, _), (times, copies)) in ways.iter().zip(&mut results) {
            version += 1;
            let bytes = noise(megabytes * 1_000_000, version);
            let (ms, sent) =
                once(&world, &nodes, &offer(version, &bytes), &bytes, *way, &mut learned).await;
            if round > 0 {
                times.push(ms);
                copies.push(sent);
            }
        }
    }
    for ((_, name), (times, copies)) in ways.iter().zip(results) {
        println!(
            "| {link} | {megabytes} MB | {name} | {:.0} | {:.2} |",
            median(times),
            median(copies)
        );
    }
    world.close(nodes).await;
}

/// Milliseconds until everyone has it, and how often the server sent it.
async fn once(
    world: &World,
    nodes: &[Node],
    offer: &Offer,
    bytes: &Bytes,
    way: Way,
    link: &mut Link,
) -> (f64, f64) {
    let server = source(&world.server.mesh);
    world.server.mesh.weights().depot().put(&offer.whole, bytes);
    let plan = match way {
        Way::Tree => planned(nodes, offer, *link),
        Way::Sequential | Way::Direct => Vec::new(),
    };
    let started = Instant::now();
    let mut under_way = Vec::new();
    let mut ended = Vec::new();
    for node in nodes {
        let parent = plan.iter().find(|(name, _)| name == node.mesh.name());
        let mut sources: Vec<Source> = parent.and_then(|(_, s)| s.clone()).into_iter().collect();
        sources.push(server.clone());
        let (weights, offer) = (node.mesh.weights().clone(), offer.clone());
        let fetching = tokio::spawn(async move { weights.fetch(&offer, &sources).await });
        if way == Way::Sequential {
            ended.push(fetching.await);
        } else {
            under_way.push(fetching);
        }
    }
    for fetching in under_way {
        ended.push(fetching.await);
    }
    finish(ended, started, &server, offer, &plan, link)
}

type Ended = Result<(Report, Result<Bytes, crrl_cluster::FetchError>), tokio::task::JoinError>;

fn finish(
    ended: Vec<Ended>,
    started: Instant,
    server: &Source,
    offer: &Offer,
    plan: &[(NodeName, Option<Source>)],
    link: &mut Link,
) -> (f64, f64) {
    let ms = started.elapsed().as_secs_f64() * 1e3;
    let mut sent = 0;
    for ended in ended {
        let (report, bytes) = ended.expect("no panic");
        bytes.expect("is fetched");
        sent += report
            .legs
            .iter()
            .filter(|leg| leg.from == server.name)
            .map(|leg| leg.bytes)
            .sum::<u64>();
        if !plan.is_empty() {
            let of = |node: &NodeName| {
                let same = |source: &Option<Source>| match source {
                    Some(source) => source.name == *node,
                    None => server.name == *node,
                };
                plan.iter().filter(|(_, source)| same(source)).count()
            };
            link.learn(&report, of);
        }
    }
    (ms, sent as f64 / offer.whole.bytes as f64)
}

fn planned(nodes: &[Node], offer: &Offer, link: Link) -> Vec<(NodeName, Option<Source>)> {
    let members: Vec<Member> = nodes
        .iter()
        .map(|node| Member {
            name: node.mesh.name().clone(),
            host: Some(IpAddr::from([127, 0, 0, 1])),
            relay: Some(source(&node.mesh).address),
            state: State::Wants,
        })
        .collect();
    let shape = Shape::best(members.len(), offer.whole.bytes, offer.whole.chunk_bytes, link);
    tree::plan(&members, shape)
}
