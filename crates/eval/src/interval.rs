//! Percentile bootstrap (Efron and Tibshirani 1993, ch. 13), 95 %.

use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

/// Resamples taken at most; more only cost time.
pub const RESAMPLES_MAX: u32 = 1_000_000;

/// A value with its 95 % confidence interval.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    /// The value itself.
    pub value: f64,
    /// 2.5th percentile.
    pub low: f64,
    /// 97.5th percentile.
    pub high: f64,
}

impl Interval {
    /// Whether 0 lies outside.
    #[must_use]
    pub fn excludes_zero(&self) -> bool {
        self.low > 0.0 || self.high < 0.0
    }
}

/// Mean of some values, one a task. `None` of no values, or of one that is not finite.
#[must_use]
pub fn mean_bootstrap(values: &[f64], resamples: u32, seed: u64) -> Option<Interval> {
    if values.is_empty() || values.iter().any(|v| !v.is_finite()) {
        return None;
    }
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let n = values.len();
    let mut means: Vec<f64> = (0..resamples.clamp(1, RESAMPLES_MAX))
        .map(|_| (0..n).map(|_| values[rng.random_range(0..n)]).sum::<f64>() / n as f64)
        .collect();
    means.sort_unstable_by(f64::total_cmp);
    let value = values.iter().sum::<f64>() / n as f64;
    Some(Interval { value, low: percentile(&means, 0.025), high: percentile(&means, 0.975) })
}

/// Mean of after - before over pairs (before, after), one a task: tasks are drawn, each with both
/// its values.
#[must_use]
pub fn paired_bootstrap(pairs: &[(f64, f64)], resamples: u32, seed: u64) -> Option<Interval> {
    let differences: Vec<f64> = pairs.iter().map(|(before, after)| after - before).collect();
    mean_bootstrap(&differences, resamples, seed)
}

/// Linear between the closest ranks; `sorted` is not empty.
fn percentile(sorted: &[f64], share: f64) -> f64 {
    let at = share * (sorted.len() - 1) as f64;
    let (below, above) = (at.floor() as usize, at.ceil() as usize);
    sorted[below] + (sorted[above] - sorted[below]) * (at - below as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_lie_between_ranks() {
        assert_eq!(percentile(&[1.0, 2.0, 3.0, 4.0, 5.0], 0.5), 3.0);
        assert_eq!(percentile(&[0.0, 10.0], 0.025), 0.25);
        assert_eq!(percentile(&[7.0], 0.975), 7.0);
    }

    #[test]
    fn the_interval_of_a_coin_is_the_binomials() {
        // 100 tasks, half solved: the mean of a resample is Binomial(100, 0.5) / 100, whose
        // 2.5th and 97.5th percentiles are 0.40 and 0.60.
        let values: Vec<f64> = (0..100).map(|i| f64::from(i % 2)).collect();
        let interval = mean_bootstrap(&values, 20_000, 1).expect("values");
        assert_eq!(interval.value, 0.5);
        assert!((interval.low - 0.40).abs() <= 0.01 && (interval.high - 0.60).abs() <= 0.01);
    }

    #[test]
    fn a_sure_difference_has_no_width_and_the_sign_is_after_minus_before() {
        let pairs = [(0.1, 0.3), (0.4, 0.6), (0.0, 0.2)];
        let interval = paired_bootstrap(&pairs, 1_000, 3).expect("pairs");
        assert!((interval.low - 0.2).abs() < 1e-12 && (interval.high - 0.2).abs() < 1e-12);
        assert!(interval.excludes_zero());
    }

    #[test]
    fn pairing_takes_the_spread_of_tasks_out() {
        // Tasks differ by 10, policies by 1: unpaired, nothing could be said.
        let pairs: Vec<(f64, f64)> =
            (0..20).map(|i| (f64::from(i) * 10.0, f64::from(i) * 10.0 + 1.0)).collect();
        assert!(paired_bootstrap(&pairs, 1_000, 0).expect("pairs").excludes_zero());
    }

    #[test]
    fn the_same_seed_gives_the_same_interval() {
        let values: Vec<f64> = (0..30).map(|i| f64::from(i * i % 17)).collect();
        assert_eq!(mean_bootstrap(&values, 500, 9), mean_bootstrap(&values, 500, 9));
        assert_ne!(mean_bootstrap(&values, 500, 9), mean_bootstrap(&values, 500, 10));
    }

    #[test]
    fn nothing_has_no_interval() {
        assert_eq!(mean_bootstrap(&[], 100, 0), None);
        assert_eq!(mean_bootstrap(&[1.0, f64::NAN], 100, 0), None);
    }
}
