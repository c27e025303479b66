//! Tokens a second of the cached forward pass on the CPU, with random weights.
//!
//! `cargo run --release -p crrl-model --example inference_speed -- tiny|smollm2 [repeats]`
//! (`RAYON_NUM_THREADS` sets the threads). Prints medians of prefill and of decode; on one thread
//! by the processor time it had, so that a busy machine does not matter.
#![expect(clippy::print_stdout, reason = "a benchmark prints")]

use std::sync::LazyLock;
use std::time::Instant;

use crrl_model::{
    Architecture, Cpu, Decoder, KvStore, Logits, ModelConfig, RopeScaling, StepBatch,
};

fn config(tiny: bool) -> ModelConfig {
    let llama = ModelConfig {
        architecture: Architecture::Llama,
        vocab_size: 49152,
        hidden_size: 576,
        intermediate_size: 1536,
        layers: 30,
        heads: 9,
        kv_heads: 3,
        head_dim: 64,
        max_positions: 2048,
        norm_eps: 1e-5,
        rope_theta: 100_000.0,
        rope_scaling: RopeScaling::None,
        tied: true,
        qkv_bias: false,
        o_bias: false,
        mlp_bias: false,
        bos: None,
        eos: vec![2],
    };
    if !tiny {
        return llama;
    }
    ModelConfig {
        vocab_size: 1536,
        hidden_size: 128,
        intermediate_size: 352,
        layers: 5,
        heads: 4,
        kv_heads: 2,
        head_dim: 32,
        max_positions: 512,
        ..llama
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Seconds, of this thread's processor time where it does all the work.
fn now() -> f64 {
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    if rayon::current_num_threads() == 1
        && let Ok(text) = std::fs::read_to_string("/proc/thread-self/schedstat")
        && let Some(Ok(nanoseconds)) = text.split(' ').next().map(str::parse::<f64>)
    {
        return nanoseconds / 1e9;
    }
    START.elapsed().as_secs_f64()
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let tiny = arguments.next().is_none_or(|name| name == "tiny");
    let repeats =
        arguments.next().and_then(|n| n.parse().ok()).unwrap_or(if tiny { 100 } else { 8 });
    let config = config(tiny);
    let mut decoder = Decoder::<Cpu>::random(&config, 1, &Default::default());
    if !tiny {
        // As a bf16 file would have them.
        decoder = decoder.map(&mut Round);
    }
    decoder.prepare();
    println!("parameters {} threads {}", config.parameters(), rayon::current_num_threads());
    let prefill = if tiny { 256 } else { 512 };
    for batch in if tiny { vec![1, 16, 64] } else { vec![1, 16] } {
        let mut kv = KvStore::<Cpu>::new(&config, batch, config.max_positions);
        let slots: Vec<_> = (0..batch).filter_map(|_| kv.take()).collect();
        let prompt: Vec<u32> = (0..prefill).map(|i| (i * 37 % 1000) as u32).collect();
        let mut times = Vec::new();
        for &slot in &slots {
            let mut step = StepBatch::default();
            let length = if tiny || batch == 1 { prefill } else { 128 };
            step.push(slot, &prompt[..length], Logits::Last);
            let begin = now();
            decoder.forward_cached(None, &step, &mut kv).expect("fits");
            times.push(length as f64 / (now() - begin));
        }
        println!("batch {batch}: prefill {:.0} tokens/s", median(times));
        let mut times = Vec::new();
        for _ in 0..repeats {
            let mut step = StepBatch::default();
            for &slot in &slots {
                step.push(slot, &[7], Logits::Last);
            }
            let begin = now();
            decoder.forward_cached(None, &step, &mut kv).expect("fits");
            times.push(batch as f64 / (now() - begin));
        }
        println!("batch {batch}: decode {:.0} tokens/s", median(times));
    }
}

/// Rounds weights to bf16.
struct Round;

impl crrl_model::WeightMap<Cpu, Cpu> for Round {
    fn matrix(&mut self, _: &str, w: burn::Tensor<Cpu, 2>) -> burn::Tensor<Cpu, 2> {
        w.cast(burn::tensor::DType::BF16).cast(burn::tensor::DType::F32)
    }

    fn vector(&mut self, _: &str, w: burn::Tensor<Cpu, 1>) -> burn::Tensor<Cpu, 1> {
        w.cast(burn::tensor::DType::BF16).cast(burn::tensor::DType::F32)
    }
}
