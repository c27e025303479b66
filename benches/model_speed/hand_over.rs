//! An adapter on its way from the learner to the first token sampled under it, in one process:
//! what the network adds is not in it.

use std::time::Instant;

use crrl_engine::{Engine, Output};
use crrl_learner::Learner;
use crrl_model::{AdapterWeights, FileDtype};
use crrl_types::{AdapterVersion, Sampling};

use crate::lora_step::{batch, learner};
use crate::options::{Fault, Options};
use crate::prompts::{prompt, vocabulary};
use crate::result::{Outcome, median};

/// Milliseconds of each leg.
#[derive(Debug, Default)]
struct Legs {
    publish: Vec<f64>,
    verify: Vec<f64>,
    token: Vec<f64>,
    total: Vec<f64>,
}

/// Publishes (to bytes of `--adapter-dtype` and their digest), verifies and stages, and steps until a
/// token carries the version, while `--sequences` generate.
pub(crate) fn run(options: &Options) -> Result<Outcome, Fault> {
    let (count, tokens) = (options.sequences.unwrap_or(4), options.tokens.unwrap_or(128));
    let vocab = vocabulary(&options.model)?;
    let mut learner = learner(options)?;
    // Off its start, where one factor of every pair is zero.
    learner.imitate(&batch(1, 16, 0, vocab))?;
    let rounds = options.repeats + 1;
    // A step before each hand-over, one after, and one to spare.
    let sampled = 3 * rounds;
    let mut engine = Engine::load(
        &options.model,
        crrl_engine::Options {
            device: options.device.engine(),
            sequences_max: count,
            context_max: tokens + sampled + 1,
            prefill_tokens_max: count * tokens,
            ..crrl_engine::Options::default()
        },
    )?;
    let dtype = options.adapter_dtype.of_file();
    let mut legs = Legs::default();
    let mut bytes = 0;
    let mut open = Vec::new();
    for round in 0..rounds {
        if !engine.has_work() {
            open.drain(..).for_each(|seq| engine.close(seq));
            for salt in 0..count {
                let seq = engine.open()?;
                let sampling = Sampling {
                    seed: salt as u64,
                    max_tokens: u32::try_from(sampled)?,
                    ..Sampling::default()
                };
                engine.submit(seq, &prompt(tokens, salt, vocab), sampling)?;
                open.push(seq);
            }
        }
        engine.step();
        if !engine.has_work() {
            continue;
        }
        let version = AdapterVersion(round as u64 + 1);
        bytes = hand_over(&learner, dtype, &mut engine, version, &mut legs)?;
    }
    if legs.total.len() < 2 {
        return Err("every sequence ended its turn at once; nothing was measured".into());
    }
    for leg in [&mut legs.publish, &mut legs.verify, &mut legs.token, &mut legs.total] {
        leg.remove(0);
    }
    Ok(Outcome::new("hand-over", options)
        .with("sequences", count)
        .with("rank", options.rank)
        .with("adapter_dtype", dtype.file_name())
        .with("adapter_bytes", bytes)
        .with("rounding", rounding(&learner, dtype)?)
        .with("publish_ms", median(legs.publish))
        .with("verify_and_stage_ms", median(legs.verify))
        .with("first_token_ms", median(legs.token))
        .with("hand_over_p50_ms", median(legs.total)))
}

/// How far the published adapter is from the learner's, over the learner's (Euclidean norms).
fn rounding(learner: &Learner, dtype: FileDtype) -> Result<f64, Fault> {
    let exact = learner.adapter().ok_or("nothing is published where every weight is trained")?;
    let published = AdapterWeights::from_bytes(&learner.publish(AdapterVersion(1), dtype)?.bytes)?;
    let of = |weights: &AdapterWeights| -> Vec<f64> {
        let values = weights.tensors.iter().flat_map(|tensor| &tensor.values);
        values.map(|&value| f64::from(value)).collect()
    };
    let (exact, published) = (of(&exact), of(&published));
    let off = norm(exact.iter().zip(&published).map(|(a, b)| a - b));
    Ok(off / norm(exact.iter().copied()))
}

fn norm(values: impl Iterator<Item = f64>) -> f64 {
    values.map(|value| value * value).sum::<f64>().sqrt()
}

/// One hand-over; the adapter's size.
fn hand_over(
    learner: &Learner,
    dtype: FileDtype,
    engine: &mut Engine,
    version: AdapterVersion,
    legs: &mut Legs,
) -> Result<usize, Fault> {
    let loader = engine.adapter_loader();
    let started = Instant::now();
    let ms = |since: Instant| since.elapsed().as_secs_f64() * 1e3;
    let published = learner.publish(version, dtype)?;
    legs.publish.push(ms(started));
    let arrived = Instant::now();
    engine.stage_verified(loader.load(&published.manifest, &published.bytes)?)?;
    legs.verify.push(ms(arrived));
    let staged = Instant::now();
    let outputs = engine.step();
    legs.token.push(ms(staged));
    legs.total.push(ms(started));
    let under_it =
        |output: &Output| matches!(output, Output::Token { token, .. } if token.version == version);
    if !outputs.iter().any(under_it) {
        return Err("no token was sampled under the adapter that was staged".into());
    }
    Ok(published.bytes.len())
}
