//! One optimizer step of an adapter.

use std::time::Instant;

use crrl_learner::{Example, Learner, Trainable};
use crrl_model::LoraConfig;

use crate::options::{Fault, Options};
use crate::prompts::{prompt, vocabulary};
use crate::result::{Outcome, median};

/// A learner of a fresh adapter on the model.
pub(crate) fn learner(options: &Options) -> Result<Learner, Fault> {
    let adapter = LoraConfig { rank: options.rank, ..LoraConfig::default() };
    let learning = crrl_learner::Options {
        trainable: Trainable::Lora(adapter),
        checkpoint_activations: options.checkpoint,
        ..crrl_learner::Options::default()
    };
    Ok(Learner::load(&options.model, options.device.name(), learning)?)
}

/// Sequences to train on, every token.
pub(crate) fn batch(count: usize, tokens: usize, first: usize, vocab: usize) -> Vec<Example> {
    (first..first + count)
        .map(|salt| Example {
            tokens: prompt(tokens, salt, vocab),
            mask: (0..tokens).map(|t| t > 0).collect(),
        })
        .collect()
}

/// Forward, backward and AdamW over `--sequences` of `--tokens`.
pub(crate) fn run(options: &Options) -> Result<Outcome, Fault> {
    let (count, tokens) = (options.sequences.unwrap_or(4), options.tokens.unwrap_or(256));
    let vocab = vocabulary(&options.model)?;
    let mut learner = learner(options)?;
    let mut seconds = Vec::new();
    let mut losses = Vec::new();
    for repeat in 0..=options.repeats {
        let examples = batch(count, tokens, repeat * count, vocab);
        let started = Instant::now();
        let report = learner.imitate(&examples)?;
        if repeat > 0 {
            seconds.push(started.elapsed().as_secs_f64());
        }
        losses.push(report.loss);
    }
    let step_s = median(seconds);
    Ok(Outcome::new("lora-step", options)
        .with("sequences", count)
        .with("sequence_tokens", tokens)
        .with("rank", options.rank)
        .with("checkpoint", options.checkpoint)
        .with("step_s", step_s)
        .with("train_tokens_per_s", (count * tokens) as f64 / step_s)
        .with("losses", losses))
}
