//! Sequences that decode side by side.

use std::time::Instant;

use crrl_engine::{Engine, Output, Stop};
use crrl_types::Sampling;

use crate::options::{Fault, Options};
use crate::prompts::{prompt, vocabulary};
use crate::result::{Outcome, median};

/// Greedy decoding of `--sequences` prompts, each to exactly `--new-tokens` tokens. The first step
/// reads every prompt and gives the first tokens; the rate is that of the steps after it.
pub(crate) fn run(options: &Options) -> Result<Outcome, Fault> {
    let (count, tokens) = (options.sequences.unwrap_or(16), options.tokens.unwrap_or(128));
    let vocab = vocabulary(&options.model)?;
    let mut engine = Engine::load(
        &options.model,
        crrl_engine::Options {
            device: options.device.engine(),
            sequences_max: count,
            context_max: tokens + options.new_tokens + 1,
            prefill_tokens_max: count * tokens,
            prefixes_max: 0,
            ..crrl_engine::Options::default()
        },
    )?;
    let mut rates = Vec::new();
    let mut walls = Vec::new();
    for repeat in 0..=options.repeats {
        let prompts = (0..count).map(|salt| prompt(tokens, repeat * count + salt, vocab));
        let (decode_s, wall_s) = generate(&mut engine, prompts, options.new_tokens)?;
        if repeat > 0 {
            rates.push((count * (options.new_tokens - 1)) as f64 / decode_s);
            walls.push(wall_s);
        }
    }
    Ok(Outcome::new("decode", options)
        .with("sequences", count)
        .with("prompt_tokens", tokens)
        .with("new_tokens", options.new_tokens)
        .with("decode_tokens_per_s", median(rates))
        .with("wall_s", median(walls)))
}

/// Seconds of the steps after the first, and of all.
fn generate(
    engine: &mut Engine,
    prompts: impl Iterator<Item = Vec<u32>>,
    new_tokens: usize,
) -> Result<(f64, f64), Fault> {
    let greedy = |left: usize| Sampling {
        temperature: 0.0,
        max_tokens: u32::try_from(left).unwrap_or(u32::MAX),
        ..Sampling::default()
    };
    let mut open = Vec::new();
    for prompt in prompts {
        let seq = engine.open()?;
        engine.submit(seq, &prompt, greedy(new_tokens))?;
        open.push((seq, new_tokens));
    }
    let started = Instant::now();
    let mut decoding = None;
    while engine.has_work() {
        for output in engine.step() {
            let (seq, stop) = match output {
                Output::Token { seq, stop, .. } => (seq, stop),
                Output::Broken { reason, .. } => return Err(reason.into()),
            };
            let Some((_, left)) = open.iter_mut().find(|(of, _)| *of == seq) else { continue };
            *left -= 1;
            // An end of turn is a token like others here: everyone samples as many.
            if stop == Some(Stop::EndOfTurn) && *left > 0 {
                engine.submit(seq, &[], greedy(*left))?;
            }
        }
        decoding.get_or_insert_with(Instant::now);
    }
    let decode_s = decoding.map_or(f64::NAN, |begin| begin.elapsed().as_secs_f64());
    let wall_s = started.elapsed().as_secs_f64();
    if let Some((_, left)) = open.iter().find(|(_, left)| *left > 0) {
        return Err(format!("a sequence ended {left} tokens early").into());
    }
    open.into_iter().for_each(|(seq, _)| engine.close(seq));
    Ok((decode_s, wall_s))
}
