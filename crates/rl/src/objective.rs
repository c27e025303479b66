//! The policy-gradient objectives in f64, with their gradient with respect to the log-probability
//! of every taken token.
//!
//! The tensor code calls this with the log-probabilities it computed, and back-propagates the
//! gradient it gets; there is no second copy of the mathematics. Symbols: `lp` current policy,
//! `old` proximal policy, `sampled` behaviour policy (recorded while sampling), `reference` the
//! adapter switched off; rho = exp(lp - old); A advantage of the episode; m the mask of generated
//! tokens.

mod aggregation;
mod importance;
mod loss;

use serde::{Deserialize, Serialize};

pub use aggregation::{Aggregation, Totals};
pub use importance::{Importance, Level, Truncation};
pub use loss::{Metrics, Outcome, objective};

use crate::kl::Estimator;

/// The loss of a token.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Surrogate {
    /// -min(rho A, clip(rho, 1 - low, 1 + high) A) token by token (PPO, Schulman et al. 2017, eq. 7).
    Clipped {
        /// Lower clip.
        low: f64,
        /// Upper clip.
        high: f64,
    },
    /// The same with one rho a sequence, the geometric mean of its tokens' (GSPO, Zheng et al.
    /// 2025, eq. 5 to 7).
    SequenceClipped {
        /// Lower clip.
        low: f64,
        /// Upper clip.
        high: f64,
    },
    /// -stopgrad(min(rho, cap)) A lp (CISPO, MiniMax-M1 2025, eq. 4 and 5).
    Cispo {
        /// Absolute cap of the ratio.
        cap: f64,
    },
}

/// An objective, every choice made.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Objective {
    /// The loss of a token.
    pub surrogate: Surrogate,
    /// How token losses become one number.
    pub aggregation: Aggregation,
    /// Cap of rho before clipping: bounds the loss of tokens with a negative advantage.
    pub delta: Option<f64>,
    /// Weight of the KL estimate; 0 needs no reference.
    pub beta: f64,
    /// The KL estimate.
    pub kl: Estimator,
    /// Correction for tokens the proximal policy did not draw.
    pub importance: Option<Importance>,
}

/// An objective that cannot be.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ObjectiveError {
    /// A parameter has a value that makes no sense.
    #[error("objective: {name} is {value}; {expected}")]
    Parameter {
        /// The parameter.
        name: &'static str,
        /// Its value.
        value: f64,
        /// What it may be.
        expected: &'static str,
    },
    /// A slice has another length than the batch.
    #[error("objective: {name} has {got} entries for {expected} {of}")]
    Shape {
        /// The slice.
        name: &'static str,
        /// Its length.
        got: usize,
        /// The length expected.
        expected: usize,
        /// `tokens` or `sequences`.
        of: &'static str,
    },
    /// `cu_seqlens` does not cut the tokens up.
    #[error("objective: cu_seqlens must rise from 0 to the number of tokens, {tokens}")]
    Bounds {
        /// Tokens of the batch.
        tokens: usize,
    },
    /// `beta` is set but the batch has no reference log-probabilities.
    #[error("objective: the KL term needs the reference's log-probabilities")]
    NoReference,
    /// A log-probability or advantage is NaN or infinite.
    #[error("objective: {name}[{index}] is {value}")]
    NotFinite {
        /// The slice.
        name: &'static str,
        /// Where in it.
        index: usize,
        /// What stands there.
        value: f64,
    },
}

/// Packed sequences: sequence i has the tokens `cu_seqlens[i]..cu_seqlens[i + 1]`.
#[derive(Debug, Clone, Copy)]
pub struct Batch<'a> {
    /// Where sequences begin and the last ends. `[sequences + 1]`
    pub cu_seqlens: &'a [usize],
    /// Log-probabilities under the current policy. `[tokens]`
    pub lp: &'a [f64],
    /// Under the proximal policy, before the first step on this batch. `[tokens]`
    pub old: &'a [f64],
    /// Under the sampler, recorded while sampling. `[tokens]`
    pub sampled: &'a [f64],
    /// Under the reference policy. `[tokens]`
    pub reference: Option<&'a [f64]>,
    /// Whether the policy generated the token. `[tokens]`
    pub mask: &'a [bool],
    /// Advantage of each sequence. `[sequences]`
    pub advantages: &'a [f64],
}

impl Objective {
    /// GRPO (Shao et al. 2024): mean over episodes of the mean over their tokens, clip 0.2.
    #[must_use]
    pub fn grpo() -> Self {
        Self {
            surrogate: Surrogate::Clipped { low: 0.2, high: 0.2 },
            aggregation: Aggregation::EpisodeMean,
            delta: None,
            beta: 0.0,
            kl: Estimator::K3,
            importance: None,
        }
    }

    /// BNPO: mean over all tokens of the batch.
    #[must_use]
    pub fn bnpo() -> Self {
        Self { aggregation: Aggregation::TokenMean, ..Self::grpo() }
    }

    /// Dr. GRPO (Liu et al. 2025): sum over tokens by a constant length. Advantages are not scaled.
    #[must_use]
    pub fn dr_grpo(completion_len_max: u32) -> Self {
        Self { aggregation: Aggregation::Constant { completion_len_max }, ..Self::grpo() }
    }

    /// DAPO (Yu et al. 2025): mean over all tokens, clip 0.2 below and 0.28 above.
    #[must_use]
    pub fn dapo() -> Self {
        Self { surrogate: Surrogate::Clipped { low: 0.2, high: 0.28 }, ..Self::bnpo() }
    }

    /// GSPO (Zheng et al. 2025): one ratio a sequence, clip 3e-4 below and 4e-4 above.
    #[must_use]
    pub fn gspo() -> Self {
        Self { surrogate: Surrogate::SequenceClipped { low: 3e-4, high: 4e-4 }, ..Self::grpo() }
    }

    /// CISPO (MiniMax-M1 2025) with an absolute cap of 5.
    #[must_use]
    pub fn cispo() -> Self {
        Self { surrogate: Surrogate::Cispo { cap: 5.0 }, ..Self::bnpo() }
    }

    /// Decoupled PPO (AReaL, Fu et al. 2025, eq. 5): clip around the proximal policy, weighted by
    /// proximal / behaviour, tokens over 5 left out.
    #[must_use]
    pub fn decoupled_ppo() -> Self {
        let importance = Importance { level: Level::Token, truncation: Truncation::Mask, cap: 5.0 };
        Self { importance: Some(importance), ..Self::bnpo() }
    }

    /// Checks every parameter.
    ///
    /// # Errors
    /// Names the first one that makes no sense.
    pub fn validate(&self) -> Result<(), ObjectiveError> {
        let check = |ok: bool, name, value, expected| {
            if ok { Ok(()) } else { Err(ObjectiveError::Parameter { name, value, expected }) }
        };
        match self.surrogate {
            Surrogate::Clipped { low, high } | Surrogate::SequenceClipped { low, high } => {
                check((0.0..=1.0).contains(&low), "the lower clip", low, "give 0 to 1")?;
                check(high.is_finite() && high >= 0.0, "the upper clip", high, "give 0 or more")?;
            }
            Surrogate::Cispo { cap } => {
                check(cap.is_finite() && cap > 0.0, "the ratio's cap", cap, "give more than 0")?;
            }
        }
        if let Some(delta) = self.delta {
            check(delta.is_finite() && delta > 1.0, "delta", delta, "give more than 1")?;
        }
        if let Some(importance) = self.importance {
            let cap = importance.cap;
            check(cap.is_finite() && cap > 0.0, "the importance cap", cap, "give more than 0")?;
        }
        if let Aggregation::Constant { completion_len_max: 0 } = self.aggregation {
            return check(false, "the completion length", 0.0, "give 1 or more");
        }
        check(self.beta.is_finite() && self.beta >= 0.0, "beta", self.beta, "give 0 or more")
    }
}

#[cfg(test)]
mod tests;
