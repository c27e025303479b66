//! The decoder against transformers, and adapters against PEFT, on tiny random models
//! (`tests/parity/make_fixtures.py` writes them).

use std::path::{Path, PathBuf};

use crrl_model::weights::to_host;
use crrl_model::{Cpu, Decoder, KvStore, LlmOps as _, Logits, Lora, ModelDir, StepBatch, peft};
use serde_json::Value;

const MODELS: [&str; 6] = ["llama", "llama-llama3", "llama-linear", "qwen2", "qwen2-yarn", "qwen3"];

/// Most a logit may differ from transformers' in f32.
const TOLERANCE: f32 = 1e-4;

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

fn expected(name: &str) -> Value {
    let text = std::fs::read_to_string(folder(name).join("expected.json")).expect("a fixture");
    serde_json::from_str(&text).expect("JSON")
}

fn load(name: &str) -> Decoder<Cpu> {
    let dir = ModelDir::open(folder(name)).expect("opens");
    Decoder::load(&dir, &Default::default()).expect("loads")
}

fn ids(value: &Value) -> Vec<u32> {
    serde_json::from_value(value.clone()).expect("token ids")
}

fn rows(value: &Value) -> Vec<Vec<f32>> {
    serde_json::from_value(value.clone()).expect("logits")
}

/// Feeds the prompt in chunks and compares every row of logits.
fn compare(decoder: &Decoder<Cpu>, lora: Option<&Lora<Cpu>>, want: &Value, prompt: &[u32]) {
    let want = rows(&want["logits"]);
    for chunk in [prompt.len(), 5, 1] {
        let mut kv = KvStore::new(&decoder.config, 2, 64);
        let slot = kv.take().expect("free");
        let mut got = Vec::new();
        for part in prompt.chunks(chunk) {
            let mut step = StepBatch::default();
            step.push(slot, part, Logits::All);
            let logits = decoder.forward_cached(lora, &step, &mut kv).expect("runs");
            got.extend(to_host(&logits));
        }
        let vocab = decoder.config.vocab_size;
        assert_eq!(got.len(), want.len() * vocab);
        for (row, (got, want)) in got.chunks(vocab).zip(&want).enumerate() {
            for (got, want) in got.iter().zip(want) {
                assert!(
                    (got - want).abs() <= TOLERANCE,
                    "chunks of {chunk}, position {row}: {got} for {want}"
                );
            }
        }
    }
}

fn greedy(
    decoder: &Decoder<Cpu>,
    lora: Option<&Lora<Cpu>>,
    prompt: &[u32],
    count: usize,
) -> Vec<u32> {
    let mut kv = KvStore::new(&decoder.config, 1, 64);
    let slot = kv.take().expect("free");
    let mut next = prompt.to_vec();
    let mut out = Vec::new();
    while out.len() < count {
        let mut step = StepBatch::default();
        step.push(slot, &next, Logits::Last);
        let logits = to_host(&decoder.forward_cached(lora, &step, &mut kv).expect("runs"));
        let best = logits.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1)).expect("logits").0;
        out.push(best as u32);
        next = vec![best as u32];
    }
    out
}

#[test]
fn logits_are_those_of_transformers() {
    for name in MODELS {
        println!("{name}");
        let want = expected(name);
        let prompt = ids(&want["prompt"]);
        compare(&load(name), None, &want, &prompt);
        compare(&Cpu::for_inference(load(name)), None, &want, &prompt);
    }
}

#[test]
fn greedy_tokens_are_those_of_transformers() {
    for name in MODELS {
        let want = expected(name);
        let tokens = ids(&want["greedy"]);
        assert_eq!(
            greedy(&load(name), None, &ids(&want["prompt"]), tokens.len()),
            tokens,
            "{name}"
        );
    }
}

#[test]
fn adapters_compute_what_peft_computes() {
    for name in ["llama", "qwen3"] {
        println!("{name}");
        let (decoder, want) = (load(name), expected(name));
        let weights = peft::load(&folder(name).join("adapter")).expect("loads");
        weights.check_shapes(&decoder.config).expect("fits");
        let lora = Lora::from_weights(&weights, &Default::default());
        let prompt = ids(&want["prompt"]);
        compare(&decoder, Some(&lora), &want["adapted"], &prompt);
        compare(&decoder.merged(&lora), None, &want["adapted"], &prompt);
        let tokens = ids(&want["adapted"]["greedy"]);
        assert_eq!(greedy(&decoder, Some(&lora), &prompt, tokens.len()), tokens, "{name}");
    }
}

#[test]
fn sequences_that_share_steps_do_not_touch_each_other() {
    for name in ["llama", "qwen3"] {
        let (decoder, want) = (load(name), expected(name));
        let (prompt, tokens) = (ids(&want["prompt"]), ids(&want["greedy"]));
        let all = [prompt.clone(), tokens.clone()].concat();
        let mut kv = KvStore::new(&decoder.config, 3, 64);
        let (first, other) = (kv.take().expect("free"), kv.take().expect("free"));
        let mut fed = 0;
        let mut got = Vec::new();
        // The first sequence in uneven chunks, beside another of other lengths.
        for (len, beside) in [(7, 1), (1, 9), (prompt.len() - 8, 2)] {
            let mut step = StepBatch::default();
            step.push(other, &vec![5; beside], Logits::Last);
            step.push(first, &all[fed..fed + len], Logits::All);
            fed += len;
            let logits = to_host(&decoder.forward_cached(None, &step, &mut kv).expect("runs"));
            got.extend(logits[decoder.config.vocab_size..].to_vec());
        }
        let flat = rows(&want["logits"]).concat();
        for (got, want) in got.iter().zip(&flat) {
            assert!((got - want).abs() <= TOLERANCE, "{name}: {got} for {want}");
        }
        // A copy of the prefix continues like the original, and so does a rewound one.
        let copy = kv.take().expect("free");
        assert!(kv.copy_prefix(first, copy, prompt.len() - 1));
        kv.truncate(first, prompt.len() - 1);
        for slot in [first, copy] {
            let mut step = StepBatch::default();
            step.push(slot, &prompt[prompt.len() - 1..], Logits::Last);
            let logits = to_host(&decoder.forward_cached(None, &step, &mut kv).expect("runs"));
            let last = &flat[flat.len() - logits.len()..];
            for (got, want) in logits.iter().zip(last) {
                assert!((got - want).abs() <= TOLERANCE, "{name}: {got} for {want}");
            }
        }
    }
}
