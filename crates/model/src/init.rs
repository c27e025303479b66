//! Weights of a decoder that is made from nothing.
//!
//! Most are normal, with the deviation of their fan-in. Attention starts near what copying needs,
//! because a small model finds that only after millions of tokens, and then all at once (induction
//! heads: Olsson et al. 2022, arXiv:2209.11895): heads of the first layer look at the token just
//! before, heads further up at earlier tokens that are alike, and every head passes on what it sees
//! as it is (mimetic initialization: Trockman and Kolter 2023, arXiv:2305.09828). Training is free
//! to change all of it.

use rand::SeedableRng as _;
use rand::distr::{Distribution as _, StandardUniform};
use rand_chacha::ChaCha8Rng;

use crate::config::ModelConfig;
use crate::decoder::parameter_shapes;
use crate::rope::frequencies;
use crate::weights::HostTensor;

/// How far back the heads of the first layer look, in turn.
const LOOK_BACK: [f32; 4] = [1.0, 2.0, 1.0, 3.0];
/// What a positional head weighs the constant feature with: its first choice gets about fifteen
/// times the weight of the places beside it.
const POSITION_GAIN: f32 = 0.6;
/// What is left of a positional head's interest in content.
const POSITION_CONTENT: f32 = 0.3;
/// Share of a key that is the query's own map, above the first layer.
const ALIKE: f32 = 0.8;
/// What a head passes on of what it sees.
const PASSED_ON: f32 = 0.5;

/// All weights of a seed, in the order of [`parameter_shapes`].
pub(crate) fn weights(config: &ModelConfig, seed: u64) -> Vec<HostTensor> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let residual = 1.0 / (2.0 * config.layers as f32).sqrt();
    let draw = |(name, shape): (String, Vec<usize>)| {
        let count = shape.iter().product();
        let deviation = 1.0 / (shape[shape.len() - 1] as f32).sqrt();
        let values = if name.ends_with("norm.weight") {
            vec![1.0; count]
        } else if name.ends_with("bias") {
            vec![0.0; count]
        } else if name.ends_with("o_proj.weight") || name.ends_with("down_proj.weight") {
            normal(&mut rng, count, residual * deviation)
        } else {
            normal(&mut rng, count, deviation)
        };
        HostTensor { name, shape, values }
    };
    let mut weights: Vec<HostTensor> = parameter_shapes(config).into_iter().map(draw).collect();
    // A feature that every token has alike: what looks at positions alone needs one. A tied head
    // adds it to every logit, where it changes nothing.
    for row in weights[0].values.chunks_exact_mut(config.hidden_size) {
        row[0] = 1.0;
    }
    for layer in 0..config.layers {
        let find = |part: &str| {
            let name = format!("model.layers.{layer}.self_attn.{part}_proj.weight");
            weights.iter().position(|tensor| tensor.name == name).expect("every layer has it")
        };
        let [q, k, v, o] = ["q", "k", "v", "o"].map(find);
        let passed = passed_on(config, &weights[v].values);
        weights[o].values = passed;
        if layer == 0 {
            look_back(config, &mut weights, q, k);
        } else {
            look_alike(config, &mut weights, q, k);
        }
    }
    weights
}

/// The output map `[hidden, heads * dim]` that undoes the value map `[kv_heads * dim, hidden]`.
fn passed_on(config: &ModelConfig, value: &[f32]) -> Vec<f32> {
    let (hidden, width) = (config.hidden_size, config.q_width());
    let mut output = vec![0.0; hidden * width];
    for column in 0..width {
        let row = shared_row(config, column);
        for feature in 0..hidden {
            output[feature * width + column] = PASSED_ON * value[row * hidden + feature];
        }
    }
    output
}

/// The row of a key or value map that goes with a row of the query map.
fn shared_row(config: &ModelConfig, row: usize) -> usize {
    let (head, lane) = (row / config.head_dim, row % config.head_dim);
    let group = config.heads / config.kv_heads;
    head / group * config.head_dim + lane
}

/// Scores that are highest at a fixed distance: the constant feature as a key turned by none of
/// the rotary angles, as a query turned back by that distance.
fn look_back(config: &ModelConfig, weights: &mut [HostTensor], q: usize, k: usize) {
    let (hidden, dim) = (config.hidden_size, config.head_dim);
    for map in [q, k] {
        weights[map].values.iter_mut().for_each(|w| *w *= POSITION_CONTENT);
    }
    let group = config.heads / config.kv_heads;
    let (angles, _) = frequencies(config);
    for head in 0..config.heads {
        // Heads that share their keys may still differ in how far they look.
        let distance = LOOK_BACK[head % LOOK_BACK.len()];
        for (lane, angle) in angles.iter().enumerate() {
            let turn = -angle * distance;
            let query = (head * dim + lane) * hidden;
            weights[q].values[query] = POSITION_GAIN * turn.cos();
            weights[q].values[query + dim / 2 * hidden] = POSITION_GAIN * turn.sin();
            let key = (head / group * dim + lane) * hidden;
            weights[k].values[key] = POSITION_GAIN;
            weights[k].values[key + dim / 2 * hidden] = 0.0;
        }
    }
}

/// Scores that are highest between tokens that are alike: queries and keys by nearly one map.
fn look_alike(config: &ModelConfig, weights: &mut [HostTensor], q: usize, k: usize) {
    let hidden = config.hidden_size;
    weights[q].values.iter_mut().for_each(|w| *w *= ALIKE);
    for row in 0..config.q_width() {
        let shared = shared_row(config, row);
        for feature in 0..hidden {
            let query = weights[q].values[row * hidden + feature];
            let key = &mut weights[k].values[shared * hidden + feature];
            *key = ALIKE * query + (1.0 - ALIKE) * *key;
        }
    }
}

/// Normal values by Box and Muller, so that a seed means the same on every machine.
pub(crate) fn normal(rng: &mut ChaCha8Rng, count: usize, deviation: f32) -> Vec<f32> {
    let mut uniform = || -> f32 { StandardUniform.sample(rng) };
    (0..count)
        .map(|_| {
            let radius = (-2.0 * (1.0 - uniform()).ln()).sqrt();
            radius * (std::f32::consts::TAU * uniform()).cos() * deviation
        })
        .collect()
}
