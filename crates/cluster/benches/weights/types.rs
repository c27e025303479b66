//! An adapter in f32 and the same one rounded to bf16: bytes, time until one node has it, and what its
//! difference from the adapter before it comes to. Made-up weights: uniform, and a step that moves each
//! by up to 1e-4. Rounds alternate.

use std::time::Instant;

use bytes::Bytes;
use crrl_weights::delta::{self, Word};

use crate::nodes::{World, noise, offer, source};
use crate::{median, rounds};

const NUMBERS: usize = 2_500_000;
/// What the server may send: as over a network of 1 Gbit/s.
const PACE: u64 = 125_000_000;
const TYPES: [(&str, Word); 2] = [("f32", Word::Four), ("bf16", Word::Two)];

#[derive(Default)]
struct Measured {
    bytes: usize,
    fetch_ms: Vec<f64>,
    make_ms: Vec<f64>,
    apply_ms: Vec<f64>,
    share: Vec<f64>,
}

pub(crate) async fn run() {
    let world = World::new(PACE).await;
    let nodes = world.rollout_nodes(1).await;
    let sources = [source(&world.server.mesh)];
    let mut results = TYPES.map(|_| Measured::default());
    let mut version = 0;
    for round in 0..=rounds() {
        let [before, after] = pair(round as u64 + 1);
        for ((_, word), measured) in TYPES.iter().zip(&mut results) {
            let (base, new) = (packed(&before, *word), packed(&after, *word));
            version += 1;
            let offer = offer(version, &new);
            world.server.mesh.weights().depot().put(&offer.whole, &new);
            let started = Instant::now();
            let (_, fetched) = nodes[0].mesh.weights().fetch(&offer, &sources).await;
            let fetch_ms = ms(started);
            assert!(fetched.expect("is fetched") == new);
            let started = Instant::now();
            let difference = delta::encode(&base, &new, *word).expect("one length");
            let make_ms = ms(started);
            let started = Instant::now();
            let applied = delta::decode(&base, &difference).expect("just made");
            let apply_ms = ms(started);
            assert!(applied[..] == new[..]);
            measured.bytes = new.len();
            if round > 0 {
                measured.fetch_ms.push(fetch_ms);
                measured.make_ms.push(make_ms);
                measured.apply_ms.push(apply_ms);
                measured.share.push(100.0 * difference.len() as f64 / new.len() as f64);
            }
        }
    }
    println!("{NUMBERS} numbers to one node at 125 MB/s; medians of {} rounds", rounds());
    println!("| type | MB | fetched, ms | difference, % | made in, ms | applied in, ms |");
    println!("|---|---|---|---|---|---|");
    for ((name, _), measured) in TYPES.iter().zip(results) {
        println!(
            "| {name} | {:.1} | {:.0} | {:.0} | {:.0} | {:.0} |",
            measured.bytes as f64 / 1e6,
            median(measured.fetch_ms),
            median(measured.share),
            median(measured.make_ms),
            median(measured.apply_ms)
        );
    }
    world.close(nodes).await;
}

fn ms(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1e3
}

/// Weights, and those after a step.
fn pair(seed: u64) -> [Vec<f32>; 2] {
    // From -1 to 1.
    let uniform = |seed: u64| -> Vec<f32> {
        let bytes = noise(4 * NUMBERS, seed);
        let words = bytes.as_chunks::<4>().0.iter();
        words.map(|word| u32::from_le_bytes(*word) as f32 / 2_147_483_648.0 - 1.0).collect()
    };
    let before: Vec<f32> = uniform(2 * seed).iter().map(|value| value * 0.04).collect();
    let step = uniform(2 * seed + 1);
    let after = before.iter().zip(&step).map(|(value, step)| value + step * 1e-4).collect();
    [before, after]
}

/// The numbers in a type; in bf16 rounded to the nearest, ties to even.
fn packed(values: &[f32], word: Word) -> Bytes {
    let bytes: Vec<u8> = match word {
        Word::Four => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
        Word::Two => {
            let round = |bits: u32| ((bits + 0x7fff + ((bits >> 16) & 1)) >> 16) as u16;
            values.iter().flat_map(|value| round(value.to_bits()).to_le_bytes()).collect()
        }
    };
    bytes.into()
}
