//! The corpus of the fuzzer, replayed without it: what was found once is found again, and what the
//! program itself writes is read.
//!
//! `cargo test -p crrl-untrusted --test corpus -- --ignored write_the_seeds` writes the seeds anew.

mod seeds;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crrl_untrusted::memory::Counting;
use crrl_untrusted::{DECODERS, check, decoder};
use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Damaged copies made of each seed.
const DAMAGED_EACH: u64 = 300;
/// Bytes of the whole corpus: it is part of the source.
const CORPUS_BYTES_MAX: u64 = 600 << 10;

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(name)
}

/// Files of a decoder's corpus, by name.
fn corpus(name: &str) -> BTreeMap<String, Vec<u8>> {
    let files = std::fs::read_dir(folder(name)).unwrap_or_else(|e| panic!("{name}: {e}"));
    files
        .map(|file| {
            let path = file.expect("readable").path();
            let name = path.file_name().expect("a name").to_string_lossy().into_owned();
            (name, std::fs::read(&path).expect("readable"))
        })
        .collect()
}

#[test]
fn every_file_of_the_corpus_is_read_or_refused_and_nothing_else() {
    let mut bytes_of_all = 0;
    for decoder in DECODERS {
        let mut read = 0;
        for (file, bytes) in corpus(decoder.name) {
            println!("{}/{file}", decoder.name);
            read += usize::from(check(decoder, &bytes));
            bytes_of_all += bytes.len() as u64;
        }
        // A format that has changed refuses old seeds; with all refused there is nothing to begin with.
        assert!(read > 0, "{}: write the seeds anew", decoder.name);
    }
    assert!(bytes_of_all < CORPUS_BYTES_MAX, "{bytes_of_all} bytes");
}

#[test]
fn what_the_program_writes_now_is_read() {
    for (name, seeds) in seeds::all() {
        let decoder = decoder(name).expect("is in the list");
        for (bytes, number) in seeds.iter().zip(1..) {
            assert!(check(decoder, bytes), "{name}, seed {number}");
        }
    }
}

#[test]
fn damaged_copies_are_read_or_refused_and_nothing_else() {
    for (name, seeds) in seeds::all() {
        let decoder = decoder(name).expect("is in the list");
        for (bytes, number) in seeds.iter().zip(1..) {
            for seed in 0..DAMAGED_EACH {
                let mut rng = ChaCha8Rng::seed_from_u64(seed);
                println!("{name}, seed {number}, damaged by {seed}");
                check(decoder, &damaged(bytes, &mut rng));
            }
        }
    }
}

fn damaged(bytes: &[u8], rng: &mut ChaCha8Rng) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for _ in 0..rng.random_range(1..5) {
        let len = bytes.len();
        if len == 0 {
            break;
        }
        let at = rng.random_range(0..len);
        match rng.random_range(0..6) {
            0 => bytes[at] ^= 1 << rng.random_range(0..8),
            1 => bytes[at] = [0, 1, 0x7f, 0x80, 0xfc, 0xfd, 0xff][rng.random_range(0..7)],
            2 => bytes.truncate(at),
            3 => drop(bytes.remove(at)),
            4 => bytes.insert(at, rng.random()),
            _ => {
                let to = rng.random_range(at..len);
                let piece = bytes[at..to].to_vec();
                bytes.splice(at..at, piece);
            }
        }
    }
    bytes
}

/// A packet of a few bytes may not claim a text of a gigabyte: room for it was made once.
#[test]
fn a_text_that_is_only_claimed_takes_no_room() {
    let packet = decoder("packet").expect("is in the list");
    // Envelope, token, bytes handled, a message that is there, `Stop`, and its length.
    let mut bytes = crrl_cluster::untrusted::packet(crrl_control::wire::Wire::Drain);
    let drain = bytes.pop().expect("the variant is the last byte");
    bytes.push(drain + 1);
    bytes.push(252);
    bytes.extend_from_slice(&(900_u32 << 20).to_le_bytes());
    assert!(!check(packet, &bytes));
}

#[test]
#[ignore = "writes fuzz/corpus anew"]
fn write_the_seeds() {
    for (name, seeds) in seeds::all() {
        let folder = folder(name);
        std::fs::create_dir_all(&folder).expect("writable");
        for (bytes, number) in seeds.iter().zip(1..) {
            std::fs::write(folder.join(format!("seed-{number:02}")), bytes).expect("writable");
        }
    }
}
