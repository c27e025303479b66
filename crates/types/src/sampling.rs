//! How tokens are drawn.

use serde::{Deserialize, Serialize};

/// Sampling parameters of one generation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Sampling {
    /// Softmax temperature; 0 takes the most likely token.
    pub temperature: f32,
    /// Nucleus: the smallest set of tokens whose probability reaches this; 1 keeps all.
    pub top_p: f32,
    /// The k most likely tokens only; 0 keeps all.
    pub top_k: u32,
    /// Tokens generated at most.
    pub max_tokens: u32,
    /// Texts that end the generation; the text itself stays out of the answer's content but its
    /// tokens stay in the transcript.
    pub stop: Vec<String>,
    /// Seed of this generation; the same seed, prompt and weights give the same tokens.
    pub seed: u64,
}

impl Default for Sampling {
    fn default() -> Self {
        Self { temperature: 1.0, top_p: 1.0, top_k: 0, max_tokens: 1024, stop: Vec::new(), seed: 0 }
    }
}
