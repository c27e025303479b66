//! How token losses become one number.

use serde::{Deserialize, Serialize};

/// What the token losses are divided by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Aggregation {
    /// Mean over episodes of the mean over their tokens (GRPO, GSPO).
    EpisodeMean,
    /// Sum over all tokens by the number of active tokens of the whole step (BNPO, DAPO, CISPO).
    TokenMean,
    /// Sum over all tokens by episodes times a constant length (Dr. GRPO).
    Constant {
        /// Tokens a completion may have.
        completion_len_max: u32,
    },
}

/// What an optimizer step counts, over all its micro-batches. Losses and gradients of micro-batches
/// that were given the same totals add up to those of the whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Totals {
    /// Episodes, those with advantage 0 included if they are to dilute the mean.
    pub episodes: usize,
    /// Generated tokens of those episodes.
    pub active_tokens: usize,
}

impl Totals {
    /// Totals of masks, one a sequence.
    pub fn of<'a>(masks: impl IntoIterator<Item = &'a [bool]>) -> Self {
        let mut totals = Self { episodes: 0, active_tokens: 0 };
        for mask in masks {
            totals.episodes += 1;
            totals.active_tokens += mask.iter().filter(|m| **m).count();
        }
        totals
    }
}

impl Aggregation {
    /// Weight of a token's loss in the total; `active` is the number of generated tokens of its
    /// sequence.
    pub(super) fn weight(self, active: usize, totals: Totals) -> f64 {
        let episodes = totals.episodes.max(1) as f64;
        match self {
            Self::EpisodeMean => 1.0 / (episodes * active.max(1) as f64),
            Self::TokenMean => 1.0 / totals.active_tokens.max(1) as f64,
            Self::Constant { completion_len_max } => {
                1.0 / (episodes * f64::from(completion_len_max.max(1)))
            }
        }
    }
}
