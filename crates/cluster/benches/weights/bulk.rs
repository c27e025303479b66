//! 100 MB from one node to another, verified, beside the same over a plain TCP connection in the same
//! process. Rounds alternate.

use std::time::Instant;

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::nodes::{World, noise, offer, source};
use crate::{median, rounds};

const BYTES: usize = 100_000_000;
/// Written and read at once over TCP.
const PIECE_BYTES: usize = 256 * 1024;

pub(crate) async fn run() {
    let world = World::new(1 << 40).await;
    let nodes = world.rollout_nodes(1).await;
    let sources = [source(&world.server.mesh)];
    let (mut ours, mut plain, mut raw) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..=rounds() {
        let bytes = noise(BYTES, round as u64 + 1);
        let offer = offer(round as u64 + 1, &bytes);
        world.server.mesh.weights().depot().put(&offer.whole, &bytes);
        let started = Instant::now();
        let (report, fetched) = nodes[0].mesh.weights().fetch(&offer, &sources).await;
        let took = started.elapsed();
        assert_eq!(fetched.expect("is fetched").len(), BYTES);
        let tcp = over_tcp(bytes).await;
        if round > 0 {
            ours.push(rate(took.as_secs_f64()));
            raw.push(rate(report.legs[0].micros as f64 / 1e6));
            plain.push(rate(tcp));
        }
    }
    let (ours, raw, plain) = (median(ours), median(raw), median(plain));
    println!("100 MB on loopback, medians of {} alternating rounds", rounds());
    println!("| way | MB/s | of plain TCP |");
    println!("|---|---|---|");
    println!("| plain TCP, neither encrypted nor hashed | {plain:.0} | 1 |");
    println!("| fetched: encrypted, every chunk hashed | {raw:.0} | {:.2} |", raw / plain);
    println!("| the same, and in one piece | {ours:.0} | {:.2} |", ours / plain);
    world.close(nodes).await;
}

fn rate(seconds: f64) -> f64 {
    BYTES as f64 / seconds / 1e6
}

/// Seconds for all of it.
async fn over_tcp(bytes: Bytes) -> f64 {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let at = listener.local_addr().expect("is bound");
    let sending = tokio::spawn(async move {
        let mut stream = TcpStream::connect(at).await.expect("listens");
        for piece in bytes.chunks(PIECE_BYTES) {
            stream.write_all(piece).await.expect("is read");
        }
        stream.shutdown().await.expect("is read");
    });
    let (mut stream, _) = listener.accept().await.expect("is dialled");
    let started = Instant::now();
    let mut whole = Vec::with_capacity(BYTES);
    while stream.read_buf(&mut whole).await.expect("is written") > 0 {}
    let took = started.elapsed().as_secs_f64();
    sending.await.expect("no panic");
    assert_eq!(whole.len(), BYTES);
    took
}
