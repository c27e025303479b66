//! Limits of an engine.

use crrl_model::ModelConfig;
use serde::{Deserialize, Serialize};

/// What happens to the keys and values of sequences under way when an adapter is swapped in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnSwap {
    /// They stay: tokens drawn from now on attend to keys and values of the older adapter, as in
    /// PipelineRL (Piché et al. 2025, section 3). Nobody waits; the importance weight corrects for
    /// the difference.
    #[default]
    Keep,
    /// They are computed again under the new adapter, in the ordinary prefill chunks. Exact, and
    /// costs one prefill of every sequence under way for each swap.
    Recompute,
}

/// Where tensors live.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Device {
    /// The processor, f32.
    #[default]
    Cpu,
    /// The first NVIDIA GPU, bf16; needs a build with the feature `cuda`.
    Cuda,
}

/// Limits of an engine. Memory for keys and values is bounded by
/// `(sequences_max + prefixes_max) * context_max` positions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Options {
    /// Where tensors live.
    pub device: Device,
    /// Sequences open at once, the ones that wait for a tool included.
    pub sequences_max: usize,
    /// Tokens of one sequence; never more than the model's own context. 0 takes the model's.
    pub context_max: usize,
    /// Prompt tokens computed in one step beside the sequences that decode. More fills prompts
    /// sooner, fewer keeps the time between two tokens even.
    pub prefill_tokens_max: usize,
    /// Prompts of closed sequences kept for later ones; 0 keeps none. Open sequences share their
    /// prompts in any case.
    pub prefixes_max: usize,
    /// Shortest shared prefix worth copying, in tokens.
    pub prefix_tokens_min: usize,
    /// Keys and values of sequences under way when an adapter is swapped.
    pub on_swap: OnSwap,
    /// Bytes of keys and values at most; an engine that could need more is refused when it loads.
    pub kv_bytes_max: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            device: Device::Cpu,
            sequences_max: 16,
            context_max: 0,
            prefill_tokens_max: 512,
            prefixes_max: 4,
            prefix_tokens_min: 8,
            on_swap: OnSwap::Keep,
            kv_bytes_max: 8 << 30,
        }
    }
}

/// An option with a value that makes no sense.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("engine option {name}: {reason}")]
pub struct InvalidOptions {
    /// The option.
    pub name: &'static str,
    /// What is wrong with it.
    pub reason: String,
}

impl Options {
    /// Sequences the store of keys and values must hold: the open ones, the kept prompts, and one
    /// for scoring.
    pub(crate) fn slots(&self) -> usize {
        self.sequences_max + self.prefixes_max + 1
    }

    /// Tokens of one sequence.
    pub(crate) fn context(&self, model: &ModelConfig) -> usize {
        match self.context_max {
            0 => model.max_positions,
            max => max.min(model.max_positions),
        }
    }

    /// Checks the options.
    ///
    /// # Errors
    /// Names the first option that cannot be.
    pub fn validate(&self) -> Result<(), InvalidOptions> {
        let refuse = |name, reason: &str| Err(InvalidOptions { name, reason: reason.to_owned() });
        if self.sequences_max == 0 {
            return refuse(
                "sequences_max",
                "an engine without sequences does nothing; give 1 or more",
            );
        }
        if self.prefill_tokens_max == 0 {
            return refuse("prefill_tokens_max", "no prompt would ever be read; give 1 or more");
        }
        if self.context_max == 1 {
            return refuse("context_max", "there is no room for a token after the prompt");
        }
        Ok(())
    }
}
