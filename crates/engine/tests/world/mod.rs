//! A tiny random model and the verbs the tests are written in.
#![allow(dead_code, reason = "each test binary uses a part of it")]

use crrl_engine::{Engine, Options, Output, Sampled, SeqId, Stop, Vocabulary};
use crrl_model::{AdapterWeights, Cpu, Decoder, FileDtype, Lora, LoraConfig, ModelConfig};
use crrl_types::{AdapterManifest, AdapterVersion, Digest, Sampling};
use serde_json::{Value, json};

pub(crate) const VOCAB: u32 = 96;
pub(crate) const END: u32 = 0;
const MODEL_SEED: u64 = 11;

pub(crate) fn config() -> ModelConfig {
    let Value::Object(object) = json!({
        "architectures": ["Qwen2ForCausalLM"], "vocab_size": VOCAB, "hidden_size": 32,
        "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "max_position_embeddings": 128, "rms_norm_eps": 1e-6,
        "rope_theta": 10000.0, "tie_word_embeddings": true, "hidden_act": "silu",
    }) else {
        unreachable!("an object was written")
    };
    ModelConfig::parse(&object).expect("a good configuration")
}

/// Every id is one letter; [`END`] ends a turn.
pub(crate) fn vocabulary() -> Vocabulary {
    Vocabulary::new(vec![END], |ids| {
        ids.iter().filter_map(|id| char::from_u32(' ' as u32 + id)).collect()
    })
}

pub(crate) fn decoder() -> Decoder<Cpu> {
    Decoder::random(&config(), MODEL_SEED, &Default::default())
}

pub(crate) fn engine(options: Options) -> Engine {
    Engine::of_decoder(decoder(), vocabulary(), options).expect("good options")
}

/// An adapter that changes the logits a good deal.
pub(crate) fn adapter(version: u64, seed: u64) -> (AdapterManifest, Vec<u8>) {
    adapter_with(version, seed, |_| {})
}

pub(crate) fn adapter_with(
    version: u64,
    seed: u64,
    change: impl FnOnce(&mut AdapterWeights),
) -> (AdapterManifest, Vec<u8>) {
    adapter_as(FileDtype::F32, version, seed, change)
}

/// As [`adapter_with`], in another type.
pub(crate) fn adapter_as(
    dtype: FileDtype,
    version: u64,
    seed: u64,
    change: impl FnOnce(&mut AdapterWeights),
) -> (AdapterManifest, Vec<u8>) {
    let lora = LoraConfig { rank: 4, ..LoraConfig::default() };
    let mut weights = Lora::<Cpu>::init(&lora, &config(), seed, &Default::default()).to_weights();
    for (n, tensor) in weights.tensors.iter_mut().enumerate() {
        for (i, value) in tensor.values.iter_mut().enumerate() {
            *value += 0.2 * ((n * 31 + i * 7 + seed as usize) as f32).sin();
        }
    }
    change(&mut weights);
    let bytes = weights.to_bytes(dtype);
    let base = engine(Options::default()).base_digest();
    let manifest = weights.manifest(&bytes, dtype, AdapterVersion(version), base);
    (manifest, bytes)
}

pub(crate) fn sampling(seed: u64, max_tokens: u32) -> Sampling {
    Sampling { seed, max_tokens, ..Sampling::default() }
}

/// Some prompt; `salt` makes another.
pub(crate) fn prompt(len: usize, salt: u32) -> Vec<u32> {
    (0..len as u32).map(|i| 1 + (i * 17 + salt * 29 + i * i * 3) % (VOCAB - 1)).collect()
}

/// What one sequence generated.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Run {
    pub(crate) tokens: Vec<Sampled>,
    pub(crate) stop: Stop,
}

impl Run {
    pub(crate) fn ids(&self) -> Vec<u32> {
        self.tokens.iter().map(|t| t.id).collect()
    }

    pub(crate) fn digests(&self) -> Vec<Digest> {
        self.tokens.iter().map(|t| t.digest).collect()
    }
}

/// Steps until nothing is to be done; gathers the tokens of `seq`. Other sequences go on too.
pub(crate) fn finish(engine: &mut Engine, seq: SeqId) -> Run {
    let mut tokens = Vec::new();
    for _ in 0..10_000 {
        for output in engine.step() {
            match output {
                Output::Token { seq: of, token, stop } if of == seq => {
                    tokens.push(token);
                    if let Some(stop) = stop {
                        return Run { tokens, stop };
                    }
                }
                Output::Token { .. } => {}
                Output::Broken { reason, .. } => panic!("{reason}"),
            }
        }
    }
    panic!("it never ended");
}

/// One generation in an engine of its own.
pub(crate) fn alone(options: Options, prompt: &[u32], sampling: Sampling) -> Run {
    let mut engine = engine(options);
    let seq = engine.open().expect("room");
    engine.submit(seq, prompt, sampling).expect("good");
    finish(&mut engine, seq)
}
