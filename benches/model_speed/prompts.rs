//! Token ids to work on: arbitrary, the same in every run, no two prompts alike.

use std::path::Path;

use crrl_model::ModelDir;

use crate::options::Fault;

/// `tokens` ids of a vocabulary of `vocab`; `salt` makes another prompt from the first token on.
/// `scripts/bench/peer.py` makes the same.
pub(crate) fn prompt(tokens: usize, salt: usize, vocab: usize) -> Vec<u32> {
    // The first ids of a vocabulary are special tokens, more often than not.
    let (first, span) = (vocab / 8, vocab - vocab / 8);
    let id = |t: usize| first + (t * 7919 + salt * 104_729 + t * t * 31) % span;
    (0..tokens).map(|t| u32::try_from(id(t)).unwrap_or(0)).collect()
}

/// Size of a model's vocabulary.
pub(crate) fn vocabulary(model: &Path) -> Result<usize, Fault> {
    Ok(ModelDir::open(model)?.config().vocab_size)
}
