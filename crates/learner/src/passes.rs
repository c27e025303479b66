//! Cutting a batch into micro-batches and taking each through a pass.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};

use crrl_model::train::Packed;
use crrl_rl::packing;
use rayon::prelude::*;

use crate::error::LearnerError;
use crate::example::{Episode, Example, targets};
use crate::learner::Learner;
use crate::network::Reading;

/// Width of the residual stream up to which micro-batches pass side by side, one a thread: the
/// operations of a small model are too short to be worth cutting up between threads.
const SIDE_BY_SIDE_WIDTH: usize = 256;
/// Tokens of such a micro-batch: its activations stay in the cache.
const SIDE_BY_SIDE_TOKENS: usize = 1024;

/// What is done with one micro-batch: its sequences by index, and what of them is read.
pub(crate) type Pass<'a, T> =
    dyn Fn(&Learner, &[usize], &Reading) -> Result<T, LearnerError> + Sync + 'a;

/// Tokens of a sequence and which of them are trained on.
#[derive(Debug, Clone)]
pub(crate) struct Sequence<'a> {
    pub(crate) tokens: &'a [u32],
    pub(crate) positions: Vec<usize>,
}

impl<'a> Sequence<'a> {
    /// The tokens trained on, or all but the first.
    pub(crate) fn of_example(example: &'a Example, all: bool) -> Self {
        let positions = if all {
            (1..example.tokens.len()).collect()
        } else {
            targets(&example.mask).collect()
        };
        Self { tokens: &example.tokens, positions }
    }

    pub(crate) fn of_episode(episode: &'a Episode) -> Self {
        Self { tokens: &episode.tokens, positions: targets(&episode.generated).collect() }
    }
}

impl Learner {
    /// Runs `pass` over micro-batches, longest sequences first, and `fold` over what comes of them,
    /// always in the same order. A micro-batch that fails (memory, most of the time) is halved, and
    /// so is the budget of later ones. Between two waves a wish to stop is heard.
    pub(crate) fn passes<T: Send>(
        &mut self,
        sequences: &[Sequence<'_>],
        temperature: f32,
        pass: &Pass<'_, T>,
        fold: &mut dyn FnMut(&[usize], &Reading, T),
    ) -> Result<(), LearnerError> {
        let lengths: Vec<usize> = sequences.iter().map(|s| s.tokens.len()).collect();
        let side_by_side = self.model().hidden_size <= SIDE_BY_SIDE_WIDTH;
        let (lanes, tokens) = if side_by_side {
            (rayon::current_num_threads(), self.budget.min(SIDE_BY_SIDE_TOKENS))
        } else {
            (1, self.budget)
        };
        // What is under way at once stays within the budget.
        let lanes = lanes.min(self.budget / tokens.max(1)).max(1);
        let mut bins: VecDeque<Vec<usize>> = packing::plan(&lengths, tokens).into();
        bins.retain_mut(|bin| {
            bin.retain(|&index| !sequences[index].positions.is_empty());
            !bin.is_empty()
        });
        while !bins.is_empty() {
            LearnerError::stopped_by(&self.stop)?;
            let wave: Vec<Vec<usize>> = bins.drain(..lanes.min(bins.len())).collect();
            let this = &*self;
            let attempt = |bin: &Vec<usize>| {
                let reading = reading(sequences, bin, temperature);
                let done = catch_unwind(AssertUnwindSafe(|| pass(this, bin, &reading)));
                (reading, done)
            };
            let done: Vec<_> = if wave.len() == 1 {
                wave.iter().map(attempt).collect()
            } else {
                wave.par_iter().map(attempt).collect()
            };
            let mut again = Vec::new();
            for (mut bin, (reading, result)) in wave.into_iter().zip(done) {
                let failed = match result {
                    Ok(result) => {
                        fold(&bin, &reading, result?);
                        continue;
                    }
                    Err(panic) => panic_text(&*panic),
                };
                let tokens = reading.packed.tokens.len();
                if bin.len() == 1 {
                    return Err(LearnerError::Pass { tokens, reason: failed });
                }
                self.budget = self.budget.min(tokens).div_ceil(2);
                tracing::warn!(
                    tokens,
                    budget = self.budget,
                    reason = failed,
                    "pass failed; halved"
                );
                let rest = bin.split_off(bin.len() / 2);
                again.extend([bin, rest]);
            }
            for bin in again.into_iter().rev() {
                bins.push_front(bin);
            }
        }
        Ok(())
    }
}

/// Packs the sequences of a bin and says what is read of them.
fn reading(sequences: &[Sequence<'_>], bin: &[usize], temperature: f32) -> Reading {
    let packed = Packed::new(bin.iter().map(|&index| sequences[index].tokens));
    let mut reading = Reading { packed, temperature, ..Reading::default() };
    for (place, &index) in bin.iter().enumerate() {
        let start = reading.packed.cu_seqlens[place];
        for &t in &sequences[index].positions {
            reading.rows.push(start + t - 1);
            reading.targets.push(sequences[index].tokens[t]);
        }
    }
    reading
}

/// What a panic said.
fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no reason given").to_owned()
}

#[cfg(test)]
mod tests {
    use crrl_model::{Architecture, ModelConfig, RopeScaling};

    use super::*;
    use crate::options::Options;

    fn learner() -> Learner {
        let config = ModelConfig {
            architecture: Architecture::Llama,
            vocab_size: 23,
            hidden_size: 12,
            intermediate_size: 20,
            layers: 1,
            heads: 2,
            kv_heads: 2,
            head_dim: 6,
            max_positions: 128,
            norm_eps: 1e-5,
            rope_theta: 10_000.0,
            rope_scaling: RopeScaling::None,
            tied: true,
            qkv_bias: false,
            o_bias: false,
            mlp_bias: false,
            bos: None,
            eos: vec![0],
        };
        Learner::random(&config, Options::default()).expect("a tiny model")
    }

    /// A device with room for so many tokens at once.
    fn passed(room: usize) -> (Result<(), LearnerError>, Vec<usize>) {
        let tokens: Vec<Vec<u32>> = (0..8).map(|seed| vec![seed; 10]).collect();
        let sequences: Vec<Sequence<'_>> =
            tokens.iter().map(|tokens| Sequence { tokens, positions: (1..10).collect() }).collect();
        let mut seen = Vec::new();
        let pass = |_: &Learner, _: &[usize], reading: &Reading| {
            let tokens = reading.packed.tokens.len();
            assert!(tokens <= room, "out of memory");
            Ok(())
        };
        let mut fold = |bin: &[usize], _: &Reading, ()| seen.extend_from_slice(bin);
        let done = learner().passes(&sequences, 1.0, &pass, &mut fold);
        seen.sort_unstable();
        (done, seen)
    }

    #[test]
    fn a_micro_batch_that_finds_no_memory_is_halved_until_it_fits_and_none_is_left_out() {
        let (done, seen) = passed(25);
        done.expect("halves fit");
        assert_eq!(seen, [0, 1, 2, 3, 4, 5, 6, 7]);
    }

    #[test]
    fn a_sequence_that_never_fits_is_an_error_that_says_what_to_do() {
        let error = passed(5).0.expect_err("does not fit").to_string();
        assert!(error.contains("out of memory") && error.contains("micro_batch_tokens"), "{error}");
    }
}
