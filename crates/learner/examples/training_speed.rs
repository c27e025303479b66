//! Tokens a second of training a decoder of about a million weights, every weight and an adapter.
//!
//!     cargo run --release -p crrl-learner --example training_speed

use std::error::Error;

use crrl_learner::{Example, Learner, Options, Trainable};
use crrl_model::{Architecture, LoraConfig, ModelConfig, RopeScaling};

/// Updates measured, after one that is not.
const UPDATES: u64 = 8;
/// Tokens of a sequence, and sequences of an update.
const SHAPE: (u64, u64) = (300, 14);

fn main() -> Result<(), Box<dyn Error>> {
    let config = ModelConfig {
        architecture: Architecture::Llama,
        vocab_size: 1024,
        hidden_size: 128,
        intermediate_size: 352,
        layers: 4,
        heads: 4,
        kv_heads: 4,
        head_dim: 32,
        max_positions: 512,
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
    let batch: Vec<Example> = (0..SHAPE.1)
        .map(|s| {
            let id = |t| u32::try_from((t * 31 + s * 17) % 1024).unwrap_or(0);
            let tokens: Vec<u32> = (0..SHAPE.0).map(id).collect();
            Example { mask: (0..SHAPE.0).map(|t| t % 3 == 0).collect(), tokens }
        })
        .collect();
    for (name, trainable) in
        [("every weight", Trainable::Full), ("adapter", Trainable::Lora(LoraConfig::default()))]
    {
        let options = Options { trainable, ..Options::default() };
        let mut learner = Learner::random(&config, options)?;
        learner.imitate(&batch)?;
        let mut rates = Vec::new();
        for _ in 0..UPDATES {
            rates.push(learner.imitate(&batch)?.tokens_per_s());
        }
        rates.sort_by(f64::total_cmp);
        let median = rates[rates.len() / 2];
        eprintln!("{name}: median {median:.0} tokens/s, best {:.0}", rates[rates.len() - 1]);
    }
    Ok(())
}
