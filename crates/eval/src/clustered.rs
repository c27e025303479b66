//! The mean of attempts that come in groups, and how sure it is.
//!
//! Attempts at one task are alike, so an error that took each for itself would be too small. Here
//! whole groups are the units: the mean is a ratio of two sums over groups, and its standard error
//! is the linearized one of Cochran, Sampling Techniques (1977), eq. 6.13 without the finite
//! population.

use serde::{Deserialize, Serialize};

/// Standard errors on each side of a mean in a 95 % interval of the normal distribution.
const Z95: f64 = 1.959_963_984_540_054;

/// The attempts of one group.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Cluster {
    /// Sum of their values.
    pub sum: f64,
    /// How many they are.
    pub n: f64,
}

/// Standard error of sum(sums) / sum(ns). `None` of fewer than two groups, of no attempts, or where
/// a number is not finite.
#[must_use]
pub fn clustered_error(clusters: &[Cluster]) -> Option<f64> {
    let groups = clusters.len() as f64;
    let n: f64 = clusters.iter().map(|cluster| cluster.n).sum();
    if clusters.len() < 2 || n <= 0.0 {
        return None;
    }
    let mean = clusters.iter().map(|cluster| cluster.sum).sum::<f64>() / n;
    // var = G / (G - 1) * sum((y_g - R n_g)^2) / n^2
    let squares: f64 = clusters.iter().map(|c| (c.sum - mean * c.n).powi(2)).sum();
    let error = (groups / (groups - 1.0) * squares).sqrt() / n;
    error.is_finite().then_some(error)
}

/// Half the width of the 95 % interval of a [`clustered_error`].
#[must_use]
pub fn half_width95(error: f64) -> f64 {
    Z95 * error
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clusters(list: &[(f64, f64)]) -> Vec<Cluster> {
        list.iter().map(|(sum, n)| Cluster { sum: *sum, n: *n }).collect()
    }

    #[test]
    fn groups_of_one_have_the_usual_error_of_a_mean() {
        // 0, 0, 1, 1: deviation sqrt(1/3), error sqrt(1/3)/2.
        let error = clustered_error(&clusters(&[(0.0, 1.0), (0.0, 1.0), (1.0, 1.0), (1.0, 1.0)]));
        assert!((error.expect("groups") - (1.0_f64 / 3.0).sqrt() / 2.0).abs() < 1e-12);
    }

    #[test]
    fn attempts_that_agree_within_a_group_count_once() {
        let alone = clusters(&[(0.0, 1.0), (1.0, 1.0), (0.0, 1.0), (1.0, 1.0)]);
        let eightfold = clusters(&[(0.0, 8.0), (8.0, 8.0), (0.0, 8.0), (8.0, 8.0)]);
        let (a, b) = (clustered_error(&alone), clustered_error(&eightfold));
        assert!((a.expect("groups") - b.expect("groups")).abs() < 1e-12);
    }

    #[test]
    fn too_little_has_no_error() {
        assert_eq!(clustered_error(&[]), None);
        assert_eq!(clustered_error(&clusters(&[(3.0, 4.0)])), None);
        assert_eq!(clustered_error(&clusters(&[(0.0, 0.0), (0.0, 0.0)])), None);
        assert_eq!(clustered_error(&clusters(&[(f64::NAN, 1.0), (0.0, 1.0)])), None);
    }
}
