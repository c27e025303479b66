//! Which source file or repository is on which side of the split. A side is a function of a seed
//! and a key (a relative path, a repository's name), so adding files moves no other file.

use crrl_types::Split;
use serde::{Deserialize, Serialize};

/// Shares of the sides. They add up to 1.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SplitOptions {
    /// Another seed, another split.
    pub seed: u64,
    /// Share of files for supervised fine-tuning.
    pub sft: f64,
    /// Share of files for reinforcement learning.
    pub train: f64,
    /// Share of files no training sees.
    pub held_out: f64,
}

impl Default for SplitOptions {
    fn default() -> Self {
        Self { seed: 0, sft: 0.6, train: 0.2, held_out: 0.2 }
    }
}

/// Shares that make no split.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error(
    "split shares {sft} (sft), {train} (train), {held_out} (held out) must each be in 0..=1 and add up to 1"
)]
pub struct InvalidSplit {
    sft: f64,
    train: f64,
    held_out: f64,
}

impl SplitOptions {
    /// Checks the shares.
    ///
    /// # Errors
    /// When a share is outside 0..=1 or they do not add up to 1.
    pub fn validate(&self) -> Result<(), InvalidSplit> {
        let Self { sft, train, held_out, .. } = *self;
        let shares = [sft, train, held_out];
        let good = shares.iter().all(|share| (0.0..=1.0).contains(share))
            && (shares.iter().sum::<f64>() - 1.0).abs() < 1e-6;
        if good { Ok(()) } else { Err(InvalidSplit { sft, train, held_out }) }
    }

    /// The side of a key.
    #[must_use]
    pub fn side(&self, key: &str) -> Split {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.seed.to_le_bytes());
        hasher.update(key.as_bytes());
        let hash = hasher.finalize();
        let mut first = [0; 8];
        first.copy_from_slice(&hash.as_bytes()[..8]);
        // 53 bits make an exact fraction.
        let at = (u64::from_le_bytes(first) >> 11) as f64 / (1_u64 << 53) as f64;
        if at < self.held_out {
            Split::HeldOut
        } else if at < self.held_out + self.train {
            Split::Train
        } else {
            Split::Sft
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sides_get_their_share_and_stay_put() {
        let options = SplitOptions::default();
        let count = |side| {
            (0..4000).filter(|i| options.side(&format!("pkg/m{i}.py")) == side).count() as f64
                / 4000.0
        };
        assert!((count(Split::Sft) - 0.6).abs() < 0.03, "{}", count(Split::Sft));
        assert!((count(Split::HeldOut) - 0.2).abs() < 0.03, "{}", count(Split::HeldOut));
        let other = SplitOptions { seed: 1, ..options.clone() };
        assert!((0..100).any(|i| options.side(&i.to_string()) != other.side(&i.to_string())));
    }

    #[test]
    fn shares_that_make_no_split_are_refused() {
        let bad = SplitOptions { sft: 0.9, ..SplitOptions::default() };
        assert!(bad.validate().expect_err("taken").to_string().contains("add up to 1"));
        let negative = SplitOptions { sft: -0.2, train: 0.6, held_out: 0.6, seed: 0 };
        assert!(negative.validate().is_err());
    }
}
