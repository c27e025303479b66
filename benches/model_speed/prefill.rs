//! One long prompt.

use std::time::Instant;

use crrl_engine::{Engine, Output};
use crrl_types::Sampling;

use crate::options::{Fault, Options};
use crate::prompts::{prompt, vocabulary};
use crate::result::{Outcome, median};

/// Reads a prompt of `--tokens` in one step that ends with a greedy token.
pub(crate) fn run(options: &Options) -> Result<Outcome, Fault> {
    let tokens = options.tokens.unwrap_or(512);
    let vocab = vocabulary(&options.model)?;
    let mut engine = Engine::load(
        &options.model,
        crrl_engine::Options {
            device: options.device.engine(),
            sequences_max: 1,
            context_max: tokens + 2,
            prefill_tokens_max: tokens,
            prefixes_max: 0,
            ..crrl_engine::Options::default()
        },
    )?;
    let greedy = Sampling { temperature: 0.0, max_tokens: 1, ..Sampling::default() };
    let mut rates = Vec::new();
    for repeat in 0..=options.repeats {
        let seq = engine.open()?;
        engine.submit(seq, &prompt(tokens, repeat, vocab), greedy.clone())?;
        let started = Instant::now();
        let outputs = engine.step();
        let wall_s = started.elapsed().as_secs_f64();
        if !matches!(outputs.as_slice(), [Output::Token { .. }]) {
            return Err("one step gives one token".into());
        }
        if repeat > 0 {
            rates.push(tokens as f64 / wall_s);
        }
        engine.close(seq);
    }
    Ok(Outcome::new("prefill", options)
        .with("prompt_tokens", tokens)
        .with("prefill_tokens_per_s", median(rates)))
}
