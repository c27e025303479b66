//! What a step is given.

use crrl_types::{EpisodeId, Trajectory};

use crate::error::LearnerError;

/// A sequence to imitate.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Example {
    /// The transcript. `[len]`
    pub tokens: Vec<u32>,
    /// Whether a token is trained on; the first never is, nothing predicts it. `[len]`
    pub mask: Vec<bool>,
}

/// A sampled sequence and what came of it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Episode {
    /// Which one.
    pub id: EpisodeId,
    /// The transcript. `[len]`
    pub tokens: Vec<u32>,
    /// Whether the policy generated the token. `[len]`
    pub generated: Vec<bool>,
    /// Log-probability under the sampler, logits divided by `temperature`; read where generated.
    /// `[len]`
    pub sampled: Vec<f32>,
    /// Sampling temperature.
    pub temperature: f32,
    /// Against the others of its group.
    pub advantage: f64,
    /// What it earned.
    pub reward: f64,
    /// Versions between the oldest token's adapter and the learner's.
    pub staleness: u64,
}

impl Episode {
    /// A trajectory with its advantage; `version` is the learner's.
    #[must_use]
    pub fn new(
        trajectory: &Trajectory,
        advantage: f64,
        version: crrl_types::AdapterVersion,
    ) -> Self {
        let oldest = trajectory.oldest_version().unwrap_or(version);
        Self {
            id: trajectory.episode,
            tokens: trajectory.tokens.clone(),
            generated: trajectory.generated.clone(),
            sampled: trajectory.logprobs.clone(),
            temperature: trajectory.temperature,
            advantage,
            reward: trajectory.reward.total,
            staleness: version.0.saturating_sub(oldest.0),
        }
    }
}

/// Checks one sequence against the model.
pub(crate) fn check(
    index: usize,
    tokens: &[u32],
    mask: &[bool],
    vocab: usize,
) -> Result<(), LearnerError> {
    let fault = |problem: String| Err(LearnerError::Example { index, problem });
    if tokens.len() != mask.len() {
        return fault(format!("{} tokens and a mask of {}", tokens.len(), mask.len()));
    }
    match tokens.iter().find(|&&id| id as usize >= vocab) {
        Some(id) => fault(format!("token {id} is outside the model's vocabulary of {vocab}")),
        None => Ok(()),
    }
}

/// Indices of the tokens trained on: where the mask is set, the first token left out.
pub(crate) fn targets(mask: &[bool]) -> impl Iterator<Item = usize> + '_ {
    (1..mask.len()).filter(|&t| mask[t])
}
