//! Truncated importance sampling: tokens were drawn by a policy (an older adapter, another kernel)
//! that is not the proximal one.

use serde::{Deserialize, Serialize};

/// Over what the ratio is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// Each token by itself.
    #[default]
    Token,
    /// The product over a sequence; on long episodes nearly all products pass any cap.
    Sequence,
}

/// What happens past the cap.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Truncation {
    /// The weight stays at the cap.
    #[default]
    Truncate,
    /// The weight is 0.
    Mask,
}

/// w = exp(old - sampled), bounded.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Importance {
    /// Over what the ratio is taken.
    pub level: Level,
    /// What happens past the cap.
    pub truncation: Truncation,
    /// The cap C.
    pub cap: f64,
}

impl Default for Importance {
    /// Token by token, truncated at 2: what long agent episodes bear.
    fn default() -> Self {
        Self { level: Level::Token, truncation: Truncation::Truncate, cap: 2.0 }
    }
}

/// The weight of one token.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Weight {
    pub(super) value: f64,
    /// Whether the cap was at work.
    pub(super) bounded: bool,
}

impl Weight {
    pub(super) const ONE: Self = Self { value: 1.0, bounded: false };
}

impl Importance {
    /// Weights of one sequence's tokens; only those of generated ones mean anything. `[len]`
    pub(super) fn weights(self, old: &[f64], sampled: &[f64], mask: &[bool]) -> Vec<Weight> {
        let log_ratio = |t: usize| if mask[t] { old[t] - sampled[t] } else { 0.0 };
        match self.level {
            Level::Token => (0..mask.len()).map(|t| self.bound(log_ratio(t))).collect(),
            Level::Sequence => {
                let sum: f64 = (0..mask.len()).map(log_ratio).sum();
                vec![self.bound(sum); mask.len()]
            }
        }
    }

    fn bound(self, log_ratio: f64) -> Weight {
        let ratio = log_ratio.exp();
        if ratio <= self.cap {
            return Weight { value: ratio, bounded: false };
        }
        let value = match self.truncation {
            Truncation::Truncate => self.cap,
            Truncation::Mask => 0.0,
        };
        Weight { value, bounded: true }
    }
}
