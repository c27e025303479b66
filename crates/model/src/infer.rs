//! The cached forward pass over a ragged batch: any mix of prefill chunks and single decode
//! tokens, one step for all.

use burn::tensor::Tensor;
use burn::tensor::backend::Backend;

use crate::config::ModelConfig;
use crate::decoder::Decoder;
use crate::kv::{KvStore, SlotId};
use crate::lora::Lora;
use crate::ops::LlmOps;

/// Which logits of a span are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Logits {
    /// None: a prefill chunk that is not the last.
    None,
    /// Those after its last token.
    Last,
    /// Those after every token of it.
    All,
}

/// New tokens of one sequence; they continue what its slot holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// The sequence.
    pub slot: SlotId,
    /// How many of the batch's tokens are its, at least 1.
    pub len: usize,
    /// Which logits are wanted.
    pub logits: Logits,
}

/// The new tokens of one step, sequence by sequence.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StepBatch {
    /// All new tokens, span by span.
    pub tokens: Vec<u32>,
    /// Whose they are. A slot appears at most once.
    pub spans: Vec<Span>,
}

/// A batch that does not fit the model or the store; nothing was changed.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum StepError {
    /// Lengths of the spans do not add up to the tokens.
    #[error("the spans cover {spans} tokens of {tokens}, or one is empty")]
    Spans {
        /// Sum of the spans' lengths.
        spans: usize,
        /// Tokens given.
        tokens: usize,
    },
    /// A span's slot is free or appears twice.
    #[error("slot {0} is free or appears twice")]
    Slot(usize),
    /// A token outside the vocabulary.
    #[error("token {id} is outside the vocabulary of {vocab}")]
    Token {
        /// The token.
        id: u32,
        /// Rows of the embedding.
        vocab: usize,
    },
    /// A sequence would outgrow its slot.
    #[error("sequence in slot {slot} would reach {len} tokens, the most is {max}")]
    TooLong {
        /// The slot.
        slot: usize,
        /// Length it would have.
        len: usize,
        /// Longest allowed.
        max: usize,
    },
}

impl StepBatch {
    /// Adds a span.
    pub fn push(&mut self, slot: SlotId, tokens: &[u32], logits: Logits) {
        self.tokens.extend_from_slice(tokens);
        self.spans.push(Span { slot, len: tokens.len(), logits });
    }

    /// Rows of logits the step gives, in the order of the spans.
    #[must_use]
    pub fn logit_rows(&self) -> usize {
        let rows = |span: &Span| match span.logits {
            Logits::None => 0,
            Logits::Last => 1,
            Logits::All => span.len,
        };
        self.spans.iter().map(rows).sum()
    }

    /// Index among the batch's tokens of every row of logits.
    pub(crate) fn logit_indices(&self) -> Vec<usize> {
        let mut begin = 0;
        let mut rows = Vec::with_capacity(self.logit_rows());
        for span in &self.spans {
            match span.logits {
                Logits::None => {}
                Logits::Last => rows.push(begin + span.len - 1),
                Logits::All => rows.extend(begin..begin + span.len),
            }
            begin += span.len;
        }
        rows
    }

    /// Position of every token in its sequence.
    pub(crate) fn positions<B: Backend>(&self, kv: &KvStore<B>) -> Vec<usize> {
        let mut positions = Vec::with_capacity(self.tokens.len());
        for span in &self.spans {
            let begin = kv.len(span.slot).expect("checked before");
            positions.extend(begin..begin + span.len);
        }
        positions
    }

    fn check<B: Backend>(&self, config: &ModelConfig, kv: &KvStore<B>) -> Result<(), StepError> {
        let covered: usize = self.spans.iter().map(|span| span.len).sum();
        if covered != self.tokens.len() || self.spans.iter().any(|span| span.len == 0) {
            return Err(StepError::Spans { spans: covered, tokens: self.tokens.len() });
        }
        let vocab = config.vocab_size;
        if let Some(&id) = self.tokens.iter().find(|&&id| id as usize >= vocab) {
            return Err(StepError::Token { id, vocab });
        }
        let mut seen = vec![false; kv.capacity()];
        for span in &self.spans {
            let slot = span.slot.0;
            let Some(len) = kv.len(span.slot) else { return Err(StepError::Slot(slot)) };
            if std::mem::replace(&mut seen[slot], true) {
                return Err(StepError::Slot(slot));
            }
            if len + span.len > kv.max_len() {
                return Err(StepError::TooLong { slot, len: len + span.len, max: kv.max_len() });
            }
        }
        Ok(())
    }
}

impl<B: LlmOps> Decoder<B> {
    /// One step: appends the batch's tokens to their slots and gives the logits asked for.
    ///
    /// # Shapes
    /// `[step.logit_rows(), vocab]`, rows in the order of the spans.
    ///
    /// # Errors
    /// When the batch does not fit the model or the store; nothing is changed then.
    pub fn forward_cached(
        &self,
        lora: Option<&Lora<B>>,
        step: &StepBatch,
        kv: &mut KvStore<B>,
    ) -> Result<Tensor<B, 2>, StepError> {
        step.check(&self.config, kv)?;
        if step.tokens.is_empty() {
            return Ok(Tensor::zeros([0, self.config.vocab_size], &self.device()));
        }
        Ok(B::forward_cached(self, lora, step, kv))
    }
}
