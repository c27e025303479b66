//! The manifest of one version of the policy's LoRA weights.

use serde::{Deserialize, Serialize};

use crate::id::{AdapterVersion, Digest};

/// What an adapter is, without its bytes. The bytes are one `adapter_model.safetensors`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AdapterManifest {
    /// Strictly increasing in a run.
    pub version: AdapterVersion,
    /// BLAKE3 of the safetensors bytes.
    pub digest: Digest,
    /// BLAKE3 identity of the base model it belongs to.
    pub base_digest: Digest,
    /// Length of the safetensors bytes.
    pub bytes: u64,
    /// LoRA rank.
    pub rank: u32,
    /// LoRA alpha times 1000 (an integer, so that manifests compare exactly).
    pub alpha_milli: u32,
    /// Every tensor of it, in file order.
    pub tensors: Vec<TensorEntry>,
    /// Whether every value was finite when it was published. Never published otherwise.
    pub finite: bool,
}

/// Name, shape and type of one tensor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TensorEntry {
    /// PEFT's name of it.
    pub name: String,
    /// Its shape.
    pub shape: Vec<u64>,
    /// `F32` or `BF16`.
    pub dtype: String,
}
