//! What `crrl model check` reports: facts of a model folder, and logits for comparison with other
//! programs.

use std::path::Path;

use serde::Serialize;

use crate::decoder::Decoder;
use crate::infer::{Logits, StepBatch, StepError};
use crate::kv::KvStore;
use crate::ops::LlmOps;
use crate::tokenizer::{ChatTokenizer, TokenizerError};
use crate::weights::{ModelDir, ModelDirError, to_host};

/// Facts of a model folder.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// Family, as in `architectures`.
    pub architecture: String,
    /// Number of weights.
    pub parameters: u64,
    /// Type of the numbers in the files.
    pub dtype: String,
    /// Layers.
    pub layers: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads.
    pub kv_heads: usize,
    /// Width of a head.
    pub head_dim: usize,
    /// Rows of the embedding.
    pub vocab_size: usize,
    /// Longest sequence, tokens.
    pub max_positions: usize,
    /// Whether the head is the embedding.
    pub tied: bool,
    /// Identity of the weights.
    pub base_digest: String,
    /// `own`, or `built-in` where the model's template has no tools.
    pub chat_template: String,
    /// Logits after the last prompt token, where a prompt was given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub logits: Option<Vec<f32>>,
}

/// A model folder that did not pass.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// The weights or their configuration.
    #[error(transparent)]
    Model(#[from] ModelDirError),
    /// The tokenizer or the chat template.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// The prompt.
    #[error("prompt: {0}")]
    Prompt(#[from] StepError),
    /// The tokenizer knows tokens the embedding has no row for.
    #[error("the tokenizer has {tokens} tokens, the embedding only {rows} rows")]
    Vocabulary {
        /// Tokens of the tokenizer.
        tokens: usize,
        /// Rows of the embedding.
        rows: usize,
    },
    /// The model computed something that is no number.
    #[error("the model gives logits that are not finite")]
    NotFinite,
}

/// Checks a folder on a backend: every tensor is read; with a prompt, it is run.
///
/// # Errors
/// With the first thing that is wrong.
pub fn check<B: LlmOps>(path: &Path, prompt: Option<&[u32]>) -> Result<Report, CheckError> {
    let dir = ModelDir::open(path)?;
    let tokenizer = ChatTokenizer::open(path)?;
    let config = dir.config();
    if tokenizer.vocab_size() > config.vocab_size {
        return Err(CheckError::Vocabulary {
            tokens: tokenizer.vocab_size(),
            rows: config.vocab_size,
        });
    }
    let decoder = Decoder::<B>::load(&dir, &Default::default())?;
    let logits = prompt.map(|prompt| last_logits(&decoder, prompt)).transpose()?;
    Ok(Report {
        architecture: config.architecture.name().to_owned(),
        parameters: config.parameters(),
        dtype: dir.dtype().config_name().to_owned(),
        layers: config.layers,
        hidden_size: config.hidden_size,
        heads: config.heads,
        kv_heads: config.kv_heads,
        head_dim: config.head_dim,
        vocab_size: config.vocab_size,
        max_positions: config.max_positions,
        tied: config.tied,
        base_digest: decoder.base_digest().to_string(),
        chat_template: if tokenizer.template().is_built_in() { "built-in" } else { "own" }.into(),
        logits,
    })
}

fn last_logits<B: LlmOps>(decoder: &Decoder<B>, prompt: &[u32]) -> Result<Vec<f32>, CheckError> {
    let mut kv = KvStore::new(&decoder.config, 1, decoder.config.max_positions);
    let slot = kv.take().expect("a fresh store has a free slot");
    let mut step = StepBatch::default();
    step.push(slot, prompt, Logits::Last);
    let logits = to_host(&decoder.forward_cached(None, &step, &mut kv)?);
    if logits.iter().all(|value| value.is_finite()) {
        Ok(logits)
    } else {
        Err(CheckError::NotFinite)
    }
}
