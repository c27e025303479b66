//! What has happened in an episode that is under way, turn by turn: enough to go on with it
//! elsewhere. The scaffold is deterministic, so its inputs are all there is to keep.

use serde::{Deserialize, Serialize};

use crate::id::{AdapterVersion, Digest};

/// Why a generation stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stop {
    /// The policy ended its turn; the end-of-turn id is the last of the tokens.
    EndOfTurn,
    /// A stop text is complete.
    Text,
    /// `max_tokens` were drawn, or the context is full.
    Length,
}

/// One sampled token, as the engine stamped it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Sampled {
    /// Token id.
    pub id: u32,
    /// Log-softmax of logits / temperature at `id`, of the distribution before top-k and top-p
    /// cut it (of the logits themselves where the temperature is 0).
    pub logprob: f32,
    /// Adapter version it was drawn under.
    pub version: AdapterVersion,
    /// Digest of that adapter; the base model's digest where there is none.
    pub digest: Digest,
}

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JournalEntry {
    /// The policy generated.
    Generated {
        /// In the order they were drawn.
        tokens: Vec<Sampled>,
        /// Why it stopped.
        stop: Stop,
    },
    /// A tool answered.
    Tool {
        /// Its output, uncut.
        output: String,
        /// Whether it did what it was meant to.
        ok: bool,
        /// Wall time.
        wall_ms: u64,
    },
    /// The diff was asked for, and the episode may have gone on all the same.
    Diff(String),
}

impl JournalEntry {
    /// The oldest adapter any token of it was drawn under.
    #[must_use]
    pub fn oldest(&self) -> Option<AdapterVersion> {
        match self {
            Self::Generated { tokens, .. } => tokens.iter().map(|token| token.version).min(),
            Self::Tool { .. } | Self::Diff(_) => None,
        }
    }
}
