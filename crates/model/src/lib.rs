//! The policy: a decoder of the Llama, Qwen2 or Qwen3 family from a Hugging Face folder, its LoRA
//! adapters, its tokenizer and chat template.
//!
//! - [`config`], [`weights`]: `config.json` and safetensors, in and out
//! - [`decoder`]: the weights as plain tensors; [`rope`]: rotary tables
//! - [`lora`], [`adapter`], [`peft`]: adapters on a device, in host memory, and as PEFT folders
//! - [`kv`], [`infer`]: keys and values of running sequences, and the cached forward pass
//! - [`train`]: the differentiable forward pass over packed sequences
//! - [`ops`]: the fused operations under both
//! - [`tokenizer`], [`chat_template`]: text to tokens and back, conversations to text
//! - [`precision`]: the type a device computes in
//! - [`check`]: what `crrl model check` reports
//!
//! This crate never samples, schedules or optimizes.

pub mod adapter;
pub mod chat_template;
pub mod check;
pub mod config;
pub mod decoder;
pub mod infer;
mod init;
pub mod kv;
pub mod lora;
pub mod ops;
pub mod peft;
pub mod precision;
pub mod rope;
pub mod tokenizer;
pub mod train;
pub mod weights;

pub use adapter::{AdapterError, AdapterTensor, AdapterWeights};
pub use config::{Architecture, ModelConfig, RopeScaling};
pub use decoder::{Decoder, Layer, Linear, WeightMap};
pub use infer::{Logits, Span, StepBatch, StepError};
pub use kv::{KvStore, SlotId};
pub use lora::{Lora, LoraConfig, LoraLayer, LoraPair, Target};
pub use ops::LlmOps;
pub use precision::Precision;
pub use tokenizer::ChatTokenizer;
pub use weights::{FileDtype, ModelDir, ModelDirError};

/// The CPU backend: f32 in host memory.
pub type Cpu = burn_flex::Flex;

/// The NVIDIA backend: bf16 on the device.
#[cfg(feature = "cuda")]
pub type Cuda = burn_cuda::Cuda<half::bf16, i32>;
