//! Copying drills: a short run of tokens, and pieces of it again. What a policy needs most is to
//! copy what it has read; attention learns that sooner where nothing else is asked and little is
//! in the way (induction heads: Olsson et al. 2022, arXiv:2209.11895).

use std::ops::RangeInclusive;

use crrl_learner::Example;
use rand::seq::SliceRandom as _;
use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

/// Tokens of the run that is copied from.
const RUN: RangeInclusive<usize> = 16..=80;
/// Pieces that are copied.
const PIECES: usize = 3;
/// Shortest piece, tokens.
const PIECE_MIN: usize = 6;
/// Different tokens of a run that has few.
const FEW: RangeInclusive<usize> = 8..=24;
/// Keeps drills and traces from drawing the same numbers.
const STREAM: u64 = 0x6472_696c_6c73;

/// The example, or a drill made of its tokens: always at index 0, never from `until` on, and ever
/// less often in between.
pub(crate) fn instead(example: Example, seed: u64, index: u64, until: u64) -> Example {
    if index >= until {
        return example;
    }
    let mut rng = ChaCha8Rng::seed_from_u64(seed ^ STREAM);
    rng.set_stream(index);
    if rng.random_range(0..until) < index || example.tokens.len() < *RUN.end() {
        return example;
    }
    drill(&example.tokens, &mut rng)
}

/// A third of the drills copy what stands in a row in a trace; a third the same tokens shuffled,
/// where no habit of the language helps; a third so few different tokens that the one before does
/// not tell which comes next.
fn drill(tokens: &[u32], rng: &mut ChaCha8Rng) -> Example {
    let len = rng.random_range(RUN);
    let shuffled = |count: usize, rng: &mut ChaCha8Rng| -> Vec<u32> {
        let mut all = tokens.to_vec();
        all.partial_shuffle(rng, count).0.to_vec()
    };
    let run: Vec<u32> = match rng.random_range(0..3) {
        0 => {
            let from = rng.random_range(0..=tokens.len() - len);
            tokens[from..from + len].to_vec()
        }
        1 => shuffled(len, rng),
        _ => {
            let few = shuffled(rng.random_range(FEW), rng);
            (0..len).map(|_| few[rng.random_range(0..few.len())]).collect()
        }
    };
    let mut drill = Example { tokens: run.clone(), mask: vec![false; len] };
    for _ in 0..PIECES {
        let size = rng.random_range(PIECE_MIN..=len);
        let from = rng.random_range(0..=len - size);
        drill.tokens.extend_from_slice(&run[from..from + size]);
        // Nothing says which piece comes next: its first token cannot be known.
        drill.mask.push(false);
        drill.mask.resize(drill.tokens.len(), true);
    }
    drill
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> Example {
        Example { tokens: (0..200).collect(), mask: vec![true; 200] }
    }

    #[test]
    fn a_drill_repeats_pieces_of_its_run() {
        for seed in 0..100 {
            let drill = drill(&example().tokens, &mut ChaCha8Rng::seed_from_u64(seed));
            assert_eq!(drill.tokens.len(), drill.mask.len());
            let run = drill.mask.iter().position(|learnt| *learnt).expect("pieces are learnt") - 1;
            for (at, _) in drill.mask.iter().enumerate().filter(|(_, learnt)| **learnt) {
                let pair = &drill.tokens[at - 1..=at];
                let known = drill.tokens[..run].windows(2).any(|two| two == pair);
                assert!(known, "seed {seed}: token {at} is no copy");
            }
        }
    }

    #[test]
    fn drills_come_first_and_end() {
        let is_drill = |index| instead(example(), 7, index, 1000) != example();
        assert!(is_drill(0));
        let early = (0..300).filter(|&i| is_drill(i)).count();
        let late = (700..1000).filter(|&i| is_drill(i)).count();
        assert!(early > 200 && late < 100, "{early} early, {late} late");
        assert!((1000..1100).all(|index| !is_drill(index)));
    }
}
