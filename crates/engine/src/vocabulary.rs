//! What the engine knows of a tokenizer: which ids end a turn, and how to write ids as text.
//!
//! Text is made for stop texts only; sampled ids are never made of text here.

use std::fmt;
use std::sync::Arc;

use crrl_model::ChatTokenizer;

type Decode = dyn Fn(&[u32]) -> String + Send + Sync;

/// Ends of turn, and text of ids. Cheap to clone.
#[derive(Clone)]
pub struct Vocabulary {
    ends: Vec<u32>,
    decode: Arc<Decode>,
}

impl Vocabulary {
    /// Ids that end a turn, and a function that writes ids as text; bytes that are no UTF-8
    /// together become replacement characters.
    pub fn new(ends: Vec<u32>, decode: impl Fn(&[u32]) -> String + Send + Sync + 'static) -> Self {
        Self { ends, decode: Arc::new(decode) }
    }

    /// A model's tokenizer.
    #[must_use]
    pub fn of(tokenizer: ChatTokenizer) -> Self {
        Self::new(tokenizer.eos_ids().to_vec(), move |ids| tokenizer.decode(ids))
    }

    /// Whether an id ends a turn.
    #[must_use]
    pub fn is_end(&self, id: u32) -> bool {
        self.ends.contains(&id)
    }

    /// Text of some ids.
    #[must_use]
    pub fn decode(&self, ids: &[u32]) -> String {
        (self.decode)(ids)
    }
}

impl fmt::Debug for Vocabulary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Vocabulary").field("ends", &self.ends).finish_non_exhaustive()
    }
}
