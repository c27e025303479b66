//! What an engine has done so far, in counts; rates come from two readings.

use std::time::Duration;

/// Counts since the engine was loaded.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Stats {
    /// Forward passes.
    pub steps: u64,
    /// Prompt and tool tokens computed.
    pub prefill_tokens: u64,
    /// Prompt tokens copied from another sequence instead of computed.
    pub shared_tokens: u64,
    /// Tokens sampled.
    pub sampled_tokens: u64,
    /// Sum over steps of the sequences in the batch; divided by `steps`, the mean occupancy.
    pub sequences_stepped: u64,
    /// Time of steps that only decoded.
    pub decode_time: Duration,
    /// Time of steps that had prompt tokens in them.
    pub prefill_time: Duration,
    /// Adapters swapped in.
    pub swaps: u64,
    /// Time of the last swap, the recomputation it may cause not included.
    pub last_swap_time: Duration,
}

impl Stats {
    /// Mean number of sequences in a step.
    #[must_use]
    pub fn occupancy(&self) -> f64 {
        if self.steps == 0 { 0.0 } else { self.sequences_stepped as f64 / self.steps as f64 }
    }

    /// Time spent in forward passes and sampling.
    #[must_use]
    pub fn busy(&self) -> Duration {
        self.decode_time + self.prefill_time
    }
}
