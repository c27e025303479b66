//! A decoder small enough for finite differences, and sequences for it.
#![allow(dead_code, reason = "each test file uses its part")]

use crrl_learner::{AdamW, Episode, Example, Options, Schedule, Trainable};
use crrl_model::{Architecture, LoraConfig, ModelConfig, RopeScaling, Target};
use crrl_types::EpisodeId;
use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

/// Grouped-query attention, a head of its own or a tied one, sizes that fill no vector register.
pub(crate) fn model(architecture: Architecture, tied: bool) -> ModelConfig {
    ModelConfig {
        architecture,
        vocab_size: 23,
        hidden_size: 12,
        intermediate_size: 20,
        layers: 2,
        heads: 4,
        kv_heads: 2,
        head_dim: 6,
        max_positions: 128,
        norm_eps: 1e-5,
        rope_theta: 10_000.0,
        rope_scaling: RopeScaling::None,
        tied,
        qkv_bias: architecture == Architecture::Qwen2,
        o_bias: false,
        mlp_bias: false,
        bos: None,
        eos: vec![0],
    }
}

pub(crate) fn full(seed: u64) -> Options {
    Options {
        trainable: Trainable::Full,
        optimizer: AdamW {
            learning_rate: 5e-3,
            warmup_steps: 5,
            schedule: Schedule::Constant,
            ..AdamW::default()
        },
        seed,
        ..Options::default()
    }
}

pub(crate) fn lora(seed: u64) -> Options {
    let config =
        LoraConfig { rank: 4, alpha: 8.0, targets: Target::ALL.to_vec(), rank_stabilized: false };
    Options { trainable: Trainable::Lora(config), ..full(seed) }
}

/// A random word, a mark, and the word again: the second half can be learnt.
pub(crate) fn copying(count: usize, seed: u64, vocab: u32) -> Vec<Example> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let example = |_| {
        let length = rng.random_range(3..6);
        let word: Vec<u32> = (0..length).map(|_| rng.random_range(2..vocab)).collect();
        let tokens = [word.as_slice(), &[1], &word, &[0]].concat();
        let mask = (0..tokens.len()).map(|t| t > length).collect();
        Example { tokens, mask }
    };
    (0..count).map(example).collect()
}

/// Episodes over the same sequences, with invented log-probabilities and advantages.
pub(crate) fn episodes(count: usize, seed: u64, vocab: u32) -> Vec<Episode> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed ^ 77);
    let examples = copying(count, seed, vocab);
    let episode = |(index, example): (usize, Example)| Episode {
        id: EpisodeId(index as u64),
        sampled: example.tokens.iter().map(|_| rng.random_range(-4.0..-2.0)).collect(),
        generated: example.mask,
        tokens: example.tokens,
        temperature: 1.0,
        advantage: rng.random_range(-1.0..1.0),
        reward: rng.random_range(0.0..1.0),
        staleness: 0,
    };
    examples.into_iter().enumerate().map(episode).collect()
}
