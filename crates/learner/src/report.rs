//! What a step says of itself.

use std::time::Duration;

use crrl_model::train::HeadOut;
use crrl_rl::objective::Metrics;

use crate::example::Episode;

/// One step, or a part of one.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Report {
    /// Optimizer updates so far.
    pub updates: u64,
    /// Loss.
    pub loss: f64,
    /// Mean entropy of the distributions read, nats.
    pub entropy: f64,
    /// Share of tokens read that are the most likely ones.
    pub greedy: f64,
    /// Global norm of the gradient before clipping, of the last update.
    pub grad_norm: f64,
    /// Learning rate of the last update.
    pub learning_rate: f64,
    /// Updates left out because the loss or a gradient was not finite.
    pub skipped: u64,
    /// Tokens passed forward and backward, those not trained on included.
    pub tokens: usize,
    /// Tokens trained on.
    pub targets: usize,
    /// Forward and backward passes.
    pub passes: usize,
    /// Sequences.
    pub sequences: usize,
    /// What the objective says; `None` of a supervised step.
    pub objective: Option<Metrics>,
    /// Whether clipping could not fire, because every update saw a fresh batch.
    pub clip_idle: bool,
    /// Mean reward of the episodes.
    pub reward_mean: f64,
    /// Standard deviation of the rewards.
    pub reward_std: f64,
    /// Mean staleness, versions.
    pub staleness_mean: f64,
    /// Largest staleness, versions.
    pub staleness_max: u64,
    /// Reading the proximal and the reference policy.
    pub score_time: Duration,
    /// Forward and backward passes.
    pub pass_time: Duration,
    /// The optimizer, and bringing weights to the device.
    pub update_time: Duration,
}

impl Report {
    /// Tokens a second over the whole step.
    #[must_use]
    pub fn tokens_per_s(&self) -> f64 {
        let time = self.score_time + self.pass_time + self.update_time;
        self.tokens as f64 / time.as_secs_f64().max(1e-9)
    }

    /// Names and values for curves.
    #[must_use]
    pub fn named(&self) -> Vec<(String, f64)> {
        let mut list: Vec<(String, f64)> = [
            ("loss", self.loss),
            ("entropy", self.entropy),
            ("grad_norm", self.grad_norm),
            ("learning_rate", self.learning_rate),
            ("skipped_updates", self.skipped as f64),
            ("tokens", self.tokens as f64),
            ("tokens_per_s", self.tokens_per_s()),
            ("score_s", self.score_time.as_secs_f64()),
            ("pass_s", self.pass_time.as_secs_f64()),
            ("update_s", self.update_time.as_secs_f64()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .to_vec();
        if let Some(objective) = &self.objective {
            list.extend(objective.named());
            // Means of reward and staleness are the coordinator's to tell: it has the ledger.
            list.push(("reward_std".to_owned(), self.reward_std));
        }
        list
    }
}

/// How well examples are predicted.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Accuracy {
    /// Mean negative log-probability of the tokens trained on, nats.
    pub loss: f64,
    /// Share of them that are the most likely token.
    pub tokens: f64,
    /// Share of examples all of whose tokens are.
    pub examples: f64,
    /// Number of tokens.
    pub count: usize,
}

impl Report {
    /// Counts a pass.
    pub(crate) fn read(&mut self, tokens: usize, out: &HeadOut) {
        self.passes += 1;
        self.tokens += tokens;
        self.targets += out.logprobs.len();
        self.entropy += out.entropy.iter().map(|&h| f64::from(h)).sum::<f64>();
        self.greedy += out.greedy.iter().filter(|g| **g).count() as f64;
    }

    /// Turns sums over tokens into means.
    pub(crate) fn close(&mut self) {
        let count = self.targets.max(1) as f64;
        self.entropy /= count;
        self.greedy /= count;
    }

    pub(crate) fn rewards(&mut self, episodes: &[Episode]) {
        let n = episodes.len().max(1) as f64;
        self.reward_mean = episodes.iter().map(|e| e.reward).sum::<f64>() / n;
        let squares = episodes.iter().map(|e| (e.reward - self.reward_mean).powi(2)).sum::<f64>();
        self.reward_std = (squares / n).sqrt();
        self.staleness_mean = episodes.iter().map(|e| e.staleness as f64).sum::<f64>() / n;
        self.staleness_max = episodes.iter().map(|e| e.staleness).max().unwrap_or(0);
    }
}
