//! What can go wrong, one enum an operation.

use crrl_model::tokenizer::TokenizerError;
use crrl_model::{AdapterError, ModelDirError};
use crrl_types::AdapterVersion;

use crate::options::InvalidOptions;
use crate::sequence::SeqId;

/// A sequence could not be opened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// As many are open as the options allow.
    #[error("all {max} sequences are open: close one, or raise the engine's sequences_max")]
    Full {
        /// The limit.
        max: usize,
    },
}

/// Tokens were not accepted.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum SubmitError {
    /// Never opened, or closed.
    #[error("sequence {0:?} is not open")]
    Unknown(SeqId),
    /// The previous submission still generates.
    #[error("sequence {0:?} is generating: wait for its end or abort it")]
    Busy(SeqId),
    /// No room for one more token after them.
    #[error(
        "the sequence holds {have} tokens and {adding} more leave no room in a context of {max}: \
         shorten the prompt, or raise the engine's context_max where the model allows it"
    )]
    ContextFull {
        /// Tokens in the sequence.
        have: usize,
        /// Tokens submitted.
        adding: usize,
        /// The context.
        max: usize,
    },
    /// Nothing to sample from.
    #[error("the sequence is empty: submit at least one token")]
    Empty,
    /// An id outside the vocabulary.
    #[error("token {id} is outside the vocabulary of {vocab}: the tokenizer is another model's")]
    Vocabulary {
        /// The id.
        id: u32,
        /// Size of the vocabulary.
        vocab: usize,
    },
    /// Sampling parameters that make no sense.
    #[error("sampling {name}: {reason}")]
    Sampling {
        /// The parameter.
        name: &'static str,
        /// What is wrong with it.
        reason: String,
    },
}

/// An adapter was not taken. The one in use goes on serving.
#[derive(Debug, thiserror::Error)]
pub enum StageError {
    /// Not what its manifest says, not for this model, or not finite.
    #[error("adapter {version} is refused: {source}")]
    Refused {
        /// Version of the manifest.
        version: AdapterVersion,
        /// What is wrong with it.
        source: AdapterError,
    },
    /// Versions only grow.
    #[error("adapter {version} is not newer than {active}, which is in use")]
    Stale {
        /// Version of the manifest.
        version: AdapterVersion,
        /// Version in use, or staged already.
        active: AdapterVersion,
    },
}

/// Log-probabilities could not be computed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ScoreError {
    /// Longer than the context.
    #[error("{len} tokens do not fit in a context of {max}")]
    ContextFull {
        /// Tokens to score.
        len: usize,
        /// The context.
        max: usize,
    },
    /// An id outside the vocabulary.
    #[error("token {id} is outside the vocabulary of {vocab}: the tokenizer is another model's")]
    Vocabulary {
        /// The id.
        id: u32,
        /// Size of the vocabulary.
        vocab: usize,
    },
    /// The weights are broken.
    #[error("the model's logits are not finite at position {0}")]
    NotFinite(usize),
}

/// An engine could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// An option.
    #[error(transparent)]
    Options(#[from] InvalidOptions),
    /// The model folder.
    #[error(transparent)]
    Model(#[from] ModelDirError),
    /// The tokenizer.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// Keys and values could take more than the options allow.
    #[error(
        "keys and values could take {needed} bytes ({slots} sequences of {context} tokens) and \
         kv_bytes_max is {max}: lower sequences_max or context_max, or raise kv_bytes_max"
    )]
    Memory {
        /// Bytes at most.
        needed: u64,
        /// Slots of the store.
        slots: usize,
        /// Tokens of each.
        context: usize,
        /// The limit.
        max: u64,
    },
    /// The build has no GPU support.
    #[error(
        "device \"cuda\" needs a build with the feature `cuda`: cargo build --release --features cuda"
    )]
    NoCuda,
}
