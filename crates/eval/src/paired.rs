//! Paired tests: the same tasks, before and after.

use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

use crate::interval::RESAMPLES_MAX;

/// Up to this many tasks that differ, every sign is tried instead of drawn.
const EXACT_MAX: usize = 16;

/// Two-sided paired permutation test of the mean difference: the share of sign flips whose mean is
/// at least as far from 0. Exact for up to 16 tasks that differ; above, drawn, with the observed
/// one counted in (Phipson and Smyth 2010), so that it is never 0. `None` of no pairs, or of one
/// that is not finite.
#[must_use]
pub fn paired_permutation(pairs: &[(f64, f64)], resamples: u32, seed: u64) -> Option<f64> {
    if pairs.is_empty() || pairs.iter().any(|(a, b)| !a.is_finite() || !b.is_finite()) {
        return None;
    }
    let differences: Vec<f64> = pairs.iter().map(|(a, b)| b - a).filter(|d| *d != 0.0).collect();
    // Sums of the same numbers in another order differ in their last bits.
    let slack = 1e-12 * differences.iter().map(|d| d.abs()).sum::<f64>();
    let observed = differences.iter().sum::<f64>().abs() - slack;
    if differences.len() <= EXACT_MAX {
        let flips = 1_u32 << differences.len();
        let flipped = |signs: u32| -> f64 {
            let signed = differences.iter().enumerate();
            signed.map(|(i, d)| if signs >> i & 1 == 1 { -d } else { *d }).sum()
        };
        let far = (0..flips).filter(|signs| flipped(*signs).abs() >= observed).count();
        return Some(far as f64 / f64::from(flips));
    }
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let resamples = resamples.clamp(1, RESAMPLES_MAX);
    let far = (0..resamples)
        .filter(|_| {
            let sum: f64 = differences.iter().map(|d| if rng.random() { *d } else { -d }).sum();
            sum.abs() >= observed
        })
        .count();
    Some((far + 1) as f64 / (f64::from(resamples) + 1.0))
}

/// Exact two-sided McNemar test of pairs (solved before, solved after): a binomial test of the
/// tasks whose outcome changed. 1 where none did.
#[must_use]
pub fn mcnemar_exact(pairs: &[(bool, bool)]) -> f64 {
    let lost = pairs.iter().filter(|pair| **pair == (true, false)).count();
    let won = pairs.iter().filter(|pair| **pair == (false, true)).count();
    let n = lost + won;
    // Terms of Binomial(n, 1/2) by their logarithm: 2^-n alone underflows from n = 1075 on.
    let mut log_term = -(n as f64) * std::f64::consts::LN_2;
    let mut tail = 0.0;
    for k in 0..=lost.min(won) {
        tail += log_term.exp();
        log_term += ((n - k) as f64 / (k + 1) as f64).ln();
    }
    (2.0 * tail).min(1.0)
}

/// Cohen's d of paired differences (d_z): their mean by their standard deviation, one degree of
/// freedom taken off. `None` of fewer than two pairs, or where all differences are equal.
#[must_use]
pub fn cohens_d(pairs: &[(f64, f64)]) -> Option<f64> {
    if pairs.len() < 2 {
        return None;
    }
    let n = pairs.len() as f64;
    let mean = pairs.iter().map(|(a, b)| b - a).sum::<f64>() / n;
    let squares: f64 = pairs.iter().map(|(a, b)| (b - a - mean).powi(2)).sum();
    let std = (squares / (n - 1.0)).sqrt();
    (std.is_finite() && std > 1e-12 * mean.abs().max(1e-300)).then(|| mean / std)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rises(rises: &[f64]) -> Vec<(f64, f64)> {
        rises.iter().map(|rise| (1.0, 1.0 + rise)).collect()
    }

    fn near(got: f64, expected: f64) {
        assert!((got - expected).abs() < 1e-9, "{got} for {expected}");
    }

    #[test]
    fn permutation_is_exact_for_few_tasks() {
        // All five rise: of 32 sign patterns only all-plus and all-minus are as far.
        near(paired_permutation(&rises(&[1.0, 2.0, 3.0, 4.0, 5.0]), 9, 0).expect("p"), 2.0 / 32.0);
        // 1, 1, -1: |sum| >= 1 always.
        near(paired_permutation(&rises(&[1.0, 1.0, -1.0]), 9, 0).expect("p"), 1.0);
        near(paired_permutation(&rises(&[0.0, 0.0]), 9, 0).expect("p"), 1.0);
        // Tasks that do not differ change nothing.
        let padded = [1.0, 2.0, 3.0, 4.0, 5.0, 0.0, 0.0];
        near(paired_permutation(&rises(&padded), 9, 0).expect("p"), 2.0 / 32.0);
        assert_eq!(paired_permutation(&[], 9, 0), None);
    }

    #[test]
    fn drawn_permutations_agree_with_the_binomial() {
        // 30 ones, 20 of them positive: p is the two-sided sign test, 0.0987371.
        let rise: Vec<f64> = (0..30).map(|i| if i < 20 { 1.0 } else { -1.0 }).collect();
        let p = paired_permutation(&rises(&rise), 50_000, 5).expect("p");
        assert!((p - 0.0987371).abs() < 0.006, "{p}");
        let sure = paired_permutation(&rises(&[1.0; 100]), 1_000, 5).expect("p");
        near(sure, 1.0 / 1001.0);
    }

    #[test]
    fn mcnemar_known_values() {
        let pairs = |lost: usize, won: usize| {
            let mut pairs = vec![(true, false); lost];
            pairs.extend(vec![(false, true); won]);
            pairs.extend([(true, true), (false, false)]);
            pairs
        };
        near(mcnemar_exact(&pairs(0, 0)), 1.0);
        near(mcnemar_exact(&pairs(5, 5)), 1.0);
        near(mcnemar_exact(&pairs(1, 9)), 22.0 / 1024.0);
        near(mcnemar_exact(&pairs(9, 1)), 22.0 / 1024.0);
        near(mcnemar_exact(&pairs(0, 5)), 2.0 / 32.0);
        near(mcnemar_exact(&pairs(10, 20)), 0.09873714670538902);
        assert!(mcnemar_exact(&pairs(1_000, 1_500)) < 1e-20, "no underflow to a wrong answer");
        assert!(mcnemar_exact(&pairs(1_000, 1_010)) > 0.8);
    }

    #[test]
    fn cohens_d_known_values() {
        near(cohens_d(&rises(&[1.0, 2.0, 3.0])).expect("spread"), 2.0);
        near(cohens_d(&rises(&[-1.0, 1.0])).expect("spread"), 0.0);
        assert_eq!(cohens_d(&rises(&[1.0])), None);
        assert_eq!(cohens_d(&rises(&[0.5, 0.5])), None);
    }
}
