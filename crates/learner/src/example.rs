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

    /// Why a model of this vocabulary cannot be trained on it; none where it can.
    pub(crate) fn problem(&self, vocab: usize) -> Option<String> {
        let Self { tokens, generated, sampled, temperature, .. } = self;
        unusable(tokens, generated, sampled, *temperature, vocab)
    }
}

/// Checks one sequence against the model.
pub(crate) fn check(
    index: usize,
    tokens: &[u32],
    mask: &[bool],
    vocab: usize,
) -> Result<(), LearnerError> {
    match misfit(tokens, mask, vocab) {
        Some(problem) => Err(LearnerError::Example { index, problem }),
        None => Ok(()),
    }
}

fn misfit(tokens: &[u32], mask: &[bool], vocab: usize) -> Option<String> {
    if tokens.len() != mask.len() {
        return Some(format!("{} tokens and a mask of {}", tokens.len(), mask.len()));
    }
    let foreign = tokens.iter().find(|&&id| id as usize >= vocab)?;
    Some(format!("token {foreign} is outside the model's vocabulary of {vocab}"))
}

/// Why what was sampled cannot be trained on; none where it can.
fn unusable(
    tokens: &[u32],
    generated: &[bool],
    sampled: &[f32],
    temperature: f32,
    vocab: usize,
) -> Option<String> {
    if let Some(problem) = misfit(tokens, generated, vocab) {
        return Some(problem);
    }
    if sampled.len() != tokens.len() {
        return Some("log-probabilities and tokens differ in number".to_owned());
    }
    // Log-probabilities under greedy sampling are 0: there is nothing to weigh.
    let is_weighed = temperature.is_finite() && temperature > 0.0;
    (!is_weighed).then(|| format!("sampled at temperature {temperature}, which is not above 0"))
}

/// Why something sampled at `temperature` cannot be in a batch of another.
pub(crate) fn unlike(temperature: f32, usual: f32) -> Option<String> {
    let differs = temperature != usual;
    differs.then(|| format!("sampled at temperature {temperature}; its batch has one, {usual}"))
}

/// What of a batch can be trained on together, in its order, and why each of the others cannot: one bad
/// trajectory costs itself and not the batch.
#[must_use]
pub fn fit(batch: &[Trajectory], vocab: usize) -> (Vec<&Trajectory>, Vec<(EpisodeId, String)>) {
    let (mut fit, mut left_out) = (Vec::new(), Vec::new());
    for trajectory in batch {
        let Trajectory { tokens, generated, logprobs, temperature, .. } = trajectory;
        match unusable(tokens, generated, logprobs, *temperature, vocab) {
            Some(problem) => left_out.push((trajectory.episode, problem)),
            None => fit.push(trajectory),
        }
    }
    let Some(usual) = usual_temperature(&fit) else { return (fit, left_out) };
    fit.retain(|trajectory| match unlike(trajectory.temperature, usual) {
        Some(problem) => {
            left_out.push((trajectory.episode, problem));
            false
        }
        None => true,
    });
    (fit, left_out)
}

/// The temperature of most; of two of as many, the one that comes first.
fn usual_temperature(batch: &[&Trajectory]) -> Option<f32> {
    let mut counts: Vec<(f32, usize)> = Vec::new();
    for trajectory in batch {
        match counts.iter_mut().find(|(temperature, _)| *temperature == trajectory.temperature) {
            Some((_, count)) => *count += 1,
            None => counts.push((trajectory.temperature, 1)),
        }
    }
    // The last of the greatest is taken, so the first comes last.
    let usual = counts.into_iter().rev().max_by_key(|(_, count)| *count);
    usual.map(|(temperature, _)| temperature)
}

/// Indices of the tokens trained on: where the mask is set, the first token left out.
pub(crate) fn targets(mask: &[bool]) -> impl Iterator<Item = usize> + '_ {
    (1..mask.len()).filter(|&t| mask[t])
}

#[cfg(test)]
mod tests {
    use crrl_types::{Finish, GroupId, Reward};

    use super::*;

    fn trajectory(episode: u64, temperature: f32) -> Trajectory {
        Trajectory {
            episode: EpisodeId(episode),
            group: GroupId(1),
            task: "t".into(),
            node: "rollout-0".into(),
            tokens: vec![1, 2],
            generated: vec![false, true],
            logprobs: vec![0.0, -0.5],
            adapters: Vec::new(),
            turns: Vec::new(),
            finish: Finish::Done,
            diff: String::new(),
            reward: Reward { total: 0.0, success: false, components: Vec::new() },
            temperature,
            wall_ms: 1,
        }
    }

    #[test]
    fn a_bad_trajectory_costs_itself_and_not_its_batch() {
        let batch = [
            trajectory(1, 0.7),
            trajectory(2, 1.0),
            Trajectory { tokens: vec![1, 8], ..trajectory(3, 1.0) },
            Trajectory { generated: vec![true], ..trajectory(4, 1.0) },
            Trajectory { logprobs: Vec::new(), ..trajectory(5, 1.0) },
            trajectory(6, 0.0),
            trajectory(7, f32::NAN),
            trajectory(8, 1.0),
        ];
        let (whole, left_out) = fit(&batch, 8);
        assert_eq!(whole.iter().map(|t| t.episode.0).collect::<Vec<_>>(), [2, 8]);
        let why: Vec<(u64, &str)> =
            left_out.iter().map(|(id, problem)| (id.0, problem.as_str())).collect();
        let parts = [
            (3, "token 8 is outside the model's vocabulary of 8"),
            (4, "a mask of 1"),
            (5, "log-probabilities"),
            (6, "temperature 0"),
            (7, "temperature NaN"),
            (1, "temperature 0.7; its batch has one, 1"),
        ];
        assert_eq!(why.len(), parts.len(), "{why:?}");
        for ((id, problem), (expected, part)) in why.into_iter().zip(parts) {
            assert!(id == expected && problem.contains(part), "{id}: {problem}");
        }
        assert!(fit(&[], 8).0.is_empty());
    }
}
