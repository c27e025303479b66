//! Tokens a second of an engine: `cargo run --release -p crrl-engine --example throughput -- [BATCH]
//! [MODEL_DIR]`. Without a folder, a random decoder of about one million parameters. One JSON line.
//!
//! Every sequence has a prompt of its own of 200 tokens (so that none is shared) and samples 100.

use std::path::Path;
use std::time::Instant;

use crrl_engine::{Engine, Options, Vocabulary};
use crrl_model::{Decoder, ModelConfig};
use crrl_types::Sampling;
use serde_json::{Value, json};

const PROMPT: u32 = 200;
const SAMPLED: u32 = 100;

#[expect(clippy::print_stdout, reason = "its output is the point")]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let batch: usize = args.next().map_or(Ok(64), |text| text.parse())?;
    let options = Options {
        sequences_max: batch,
        context_max: (PROMPT + SAMPLED + 1) as usize,
        ..Options::default()
    };
    let (mut engine, vocab) = match args.next() {
        Some(dir) => {
            let vocab = crrl_model::ModelDir::open(&dir)?.config().vocab_size;
            (Engine::load(Path::new(&dir), options)?, vocab)
        }
        None => {
            let config = small()?;
            let decoder = Decoder::random(&config, 1, &Default::default());
            let vocabulary = Vocabulary::new(Vec::new(), |_| String::new());
            (Engine::of_decoder(decoder, vocabulary, options)?, config.vocab_size)
        }
    };
    let vocab = u32::try_from(vocab)?;
    for seed in 0..batch as u64 {
        let seq = engine.open()?;
        let first = u32::try_from(seed)? * 7;
        let prompt: Vec<u32> = (0..PROMPT).map(|i| (first + i * 13) % vocab).collect();
        engine.submit(
            seq,
            &prompt,
            Sampling { seed, max_tokens: SAMPLED, ..Sampling::default() },
        )?;
    }
    let started = Instant::now();
    while engine.has_work() {
        engine.step();
    }
    let wall = started.elapsed().as_secs_f64();
    let stats = engine.stats();
    let decoded = stats.sampled_tokens - batch as u64;
    let line = json!({
        "batch": batch,
        "wall_s": wall,
        "sampled_tokens": stats.sampled_tokens,
        "prefill_tokens": stats.prefill_tokens,
        "occupancy": stats.occupancy(),
        "decode_tokens_per_s": decoded as f64 / stats.decode_time.as_secs_f64(),
        "prefill_tokens_per_s": stats.prefill_tokens as f64 / stats.prefill_time.as_secs_f64(),
    });
    println!("{line}");
    Ok(())
}

/// About one million parameters.
fn small() -> Result<ModelConfig, Box<dyn std::error::Error>> {
    let config = json!({
        "architectures": ["LlamaForCausalLM"], "vocab_size": 1536, "hidden_size": 128,
        "intermediate_size": 384, "num_hidden_layers": 4, "num_attention_heads": 4,
        "num_key_value_heads": 2, "max_position_embeddings": 512, "rms_norm_eps": 1e-6,
        "rope_theta": 10000.0, "tie_word_embeddings": true, "hidden_act": "silu",
    });
    match config {
        Value::Object(object) => Ok(ModelConfig::parse(&object)?),
        _ => unreachable!("an object was written"),
    }
}
