//! Options of a learner: what is trained, how, and how fast.

use crrl_model::LoraConfig;
use crrl_rl::objective::{Importance, Objective};
use serde::{Deserialize, Serialize};

use crate::error::LearnerError;

/// Which weights move.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Trainable {
    /// An adapter on the base model, which stays as it is.
    Lora(LoraConfig),
    /// Every weight of the base model.
    Full,
}

/// How the learning rate goes after warm-up.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Schedule {
    /// It stays.
    Constant,
    /// It falls along a half cosine, from the end of warm-up to `steps`.
    Cosine {
        /// Steps of the whole run; later ones keep the floor.
        steps: u64,
        /// Share of the peak it falls to.
        floor: f64,
    },
}

/// AdamW (Loshchilov and Hutter 2019, arXiv:1711.05101, algorithm 2).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AdamW {
    /// Peak learning rate.
    pub learning_rate: f64,
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Added to the root of the second moment.
    pub eps: f64,
    /// Decoupled weight decay of matrices, as a share of the learning rate. Norms and biases never
    /// decay.
    pub weight_decay: f64,
    /// Steps of linear warm-up.
    pub warmup_steps: u64,
    /// After warm-up.
    pub schedule: Schedule,
    /// Global gradient norm above which gradients are scaled down to it; 0 never clips.
    pub grad_norm_max: f64,
}

impl Default for AdamW {
    fn default() -> Self {
        Self {
            learning_rate: 1e-4,
            beta1: 0.9,
            beta2: 0.95,
            eps: 1e-8,
            weight_decay: 0.0,
            warmup_steps: 5,
            schedule: Schedule::Constant,
            grad_norm_max: 1.0,
        }
    }
}

/// Options of a learner.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Options {
    /// Which weights move.
    pub trainable: Trainable,
    /// Step size and its schedule.
    pub optimizer: AdamW,
    /// The policy-gradient objective; supervised steps do not read it.
    pub objective: Objective,
    /// Passes over each batch of episodes.
    pub epochs: u32,
    /// Optimizer steps each pass is cut into.
    pub minibatches: u32,
    /// Tokens of one forward and backward pass: what bounds memory. Halved when a pass fails.
    pub micro_batch_tokens: usize,
    /// Keep only each layer's input and compute the rest again in the backward pass: about a third
    /// more work for a fraction of the memory.
    pub checkpoint_activations: bool,
    /// Weight of tokens that are only read (prompts and tool output) beside 1 for those trained on,
    /// in supervised steps alone. A policy made from nothing learns to read with it.
    pub prompt_loss: f64,
    /// Seed of fresh adapters and of the order of minibatches.
    pub seed: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            trainable: Trainable::Lora(LoraConfig::default()),
            optimizer: AdamW::default(),
            objective: Objective { importance: Some(Importance::default()), ..Objective::grpo() },
            epochs: 1,
            minibatches: 1,
            micro_batch_tokens: 8192,
            checkpoint_activations: false,
            prompt_loss: 0.0,
            seed: 0,
        }
    }
}

impl Options {
    /// Checks every option, alone and against the others.
    ///
    /// # Errors
    /// Names the first that makes no sense.
    pub fn validate(&self) -> Result<(), LearnerError> {
        let check = |ok: bool, name: &'static str, value: f64, expected: &'static str| {
            if ok { Ok(()) } else { Err(LearnerError::Option { name, value, expected }) }
        };
        let o = &self.optimizer;
        let positive = |x: f64| x.is_finite() && x > 0.0;
        check(positive(o.learning_rate), "learning_rate", o.learning_rate, "give more than 0")?;
        check((0.0..1.0).contains(&o.beta1), "beta1", o.beta1, "give 0 up to 1, without 1")?;
        check((0.0..1.0).contains(&o.beta2), "beta2", o.beta2, "give 0 up to 1, without 1")?;
        check(positive(o.eps), "eps", o.eps, "give more than 0")?;
        let decay = o.weight_decay;
        check(decay.is_finite() && decay >= 0.0, "weight_decay", decay, "give 0 or more")?;
        let norm = o.grad_norm_max;
        check(norm.is_finite() && norm >= 0.0, "grad_norm_max", norm, "give 0 or more")?;
        if let Schedule::Cosine { steps, floor } = o.schedule {
            check(steps > 0, "schedule.steps", 0.0, "give 1 or more")?;
            check((0.0..=1.0).contains(&floor), "schedule.floor", floor, "give 0 to 1")?;
        }
        check(self.epochs > 0, "epochs", 0.0, "give 1 or more")?;
        check(self.minibatches > 0, "minibatches", 0.0, "give 1 or more")?;
        check(self.micro_batch_tokens > 0, "micro_batch_tokens", 0.0, "give 1 or more")?;
        let prompt = self.prompt_loss;
        check((0.0..=1.0).contains(&prompt), "prompt_loss", prompt, "give 0 to 1")?;
        if let Trainable::Lora(lora) = &self.trainable {
            check(lora.rank > 0, "lora.rank", 0.0, "give 1 or more")?;
            check(!lora.targets.is_empty(), "lora.targets", 0.0, "name at least one")?;
            let alpha = f64::from(lora.alpha);
            check(alpha.is_finite() && alpha != 0.0, "lora.alpha", alpha, "give another number")?;
        }
        Ok(self.objective.validate()?)
    }
}
