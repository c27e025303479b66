//! The mean of attempts that come in groups, and how sure it is.
//!
//! Attempts at one task are alike, so an error that took each for itself would be too small. Here
//! whole groups are the units: the mean is a ratio of two sums over groups, and its standard error
//! is the linearized one of Cochran, Sampling Techniques (1977), eq. 6.13 without the finite
//! population.

use serde::{Deserialize, Serialize};

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

/// Half the width of the 95 % interval of a [`clustered_error`] over so many groups, by Student's t
/// with one degree of freedom less: of few groups the error itself is not sure. Infinite of fewer
/// than two.
#[must_use]
pub fn half_width95(error: f64, groups: usize) -> f64 {
    error * t975(groups.saturating_sub(1))
}

/// The 97.5th percentile of Student's t: a table, then the expansion of Abramowitz and Stegun 26.7.5.
fn t975(freedom: usize) -> f64 {
    const TABLE: [f64; 9] = [12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262];
    const Z: f64 = 1.959_963_984_540_054;
    match freedom {
        0 => f64::INFINITY,
        1..=9 => TABLE[freedom - 1],
        _ => {
            let n = freedom as f64;
            let (z3, z5, z7) = (Z.powi(3), Z.powi(5), Z.powi(7));
            let first = (z3 + Z) / 4.0;
            let second = (5.0 * z5 + 16.0 * z3 + 3.0 * Z) / 96.0;
            let third = (3.0 * z7 + 19.0 * z5 + 17.0 * z3 - 15.0 * Z) / 384.0;
            Z + first / n + second / n.powi(2) + third / n.powi(3)
        }
    }
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
    fn few_groups_make_wide_intervals() {
        for (groups, t) in [(2, 12.706), (5, 2.776), (11, 2.228), (31, 2.042), (10_001, 1.960)] {
            assert!((half_width95(1.0, groups) - t).abs() < 6e-4, "{groups} groups");
        }
        assert!(half_width95(1.0, 1).is_infinite());
    }

    #[test]
    fn too_little_has_no_error() {
        assert_eq!(clustered_error(&[]), None);
        assert_eq!(clustered_error(&clusters(&[(3.0, 4.0)])), None);
        assert_eq!(clustered_error(&clusters(&[(0.0, 0.0), (0.0, 0.0)])), None);
        assert_eq!(clustered_error(&clusters(&[(f64::NAN, 1.0), (0.0, 1.0)])), None);
    }
}
