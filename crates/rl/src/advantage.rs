//! How much better an episode did than the others of its group (GRPO, Shao et al. 2024, eq. 3).

use serde::{Deserialize, Serialize};

/// Added to the standard deviation, so that a group of near-equal rewards does not explode.
pub const STD_EPSILON: f64 = 1e-4;

/// What the centred rewards are divided by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scale {
    /// The group's standard deviation.
    #[default]
    Group,
    /// The standard deviation over the whole batch.
    Batch,
    /// Nothing (Dr. GRPO).
    None,
}

/// The advantages of one group.
#[derive(Debug, Clone, PartialEq)]
pub struct GroupAdvantages {
    /// One an episode, in the order of the rewards; 0 where the episode could not be scored.
    pub values: Vec<f64>,
    /// Whether all scored rewards were equal: the group teaches nothing and is to be left out.
    pub skipped: bool,
}

/// Advantages of every group of a batch. `None` is an episode that could not be scored: it counts
/// in no mean and gets 0.
#[must_use]
pub fn advantages(groups: &[Vec<Option<f64>>], scale: Scale) -> Vec<GroupAdvantages> {
    let all: Vec<f64> = groups.iter().flatten().copied().flatten().collect();
    let batch_std = std(&all);
    groups
        .iter()
        .map(|group| {
            let scored: Vec<f64> = group.iter().copied().flatten().collect();
            let equal = scored.iter().all(|r| *r == scored[0]);
            let mean = mean(&scored);
            let divisor = match scale {
                Scale::Group => std(&scored) + STD_EPSILON,
                Scale::Batch => batch_std + STD_EPSILON,
                Scale::None => 1.0,
            };
            let value = |r: &Option<f64>| match r {
                Some(r) if !equal => (r - mean) / divisor,
                _ => 0.0,
            };
            GroupAdvantages { values: group.iter().map(value).collect(), skipped: equal }
        })
        .collect()
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / (values.len().max(1) as f64)
}

/// Standard deviation with one degree of freedom taken off; 0 of fewer than two values.
fn std(values: &[f64]) -> f64 {
    if values.len() < 2 {
        return 0.0;
    }
    let mean = mean(values);
    let squares: f64 = values.iter().map(|v| (v - mean).powi(2)).sum();
    (squares / (values.len() - 1) as f64).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(rewards: &[f64], scale: Scale) -> GroupAdvantages {
        let group = rewards.iter().map(|r| Some(*r)).collect();
        advantages(&[group], scale).remove(0)
    }

    #[test]
    fn the_golden_group() {
        let golden = [1.3053097494, -0.7831858496, 0.2610619499, -0.7831858496];
        let got = one(&[1.0, 0.0, 0.5, 0.0], Scale::Group);
        assert!(!got.skipped);
        for (got, golden) in got.values.iter().zip(golden) {
            assert!((got - golden).abs() < 1e-9, "{got} {golden}");
        }
    }

    #[test]
    fn unscaled_is_centred_only() {
        assert_eq!(one(&[1.0, 0.0, 0.5, 0.5], Scale::None).values, [0.5, -0.5, 0.0, 0.0]);
    }

    #[test]
    fn batch_scale_divides_by_the_spread_of_all() {
        let groups = [vec![Some(1.0), Some(0.0)], vec![Some(3.0), Some(3.0)]];
        let got = advantages(&groups, Scale::Batch);
        let std = (6.75f64 / 3.0).sqrt(); // of 1, 0, 3, 3 about 1.75
        assert!((got[0].values[0] - 0.5 / (std + STD_EPSILON)).abs() < 1e-12);
        assert_eq!(got[1], GroupAdvantages { values: vec![0.0, 0.0], skipped: true });
    }

    #[test]
    fn groups_that_teach_nothing_are_skipped() {
        assert!(one(&[0.3, 0.3, 0.3], Scale::Group).skipped);
        assert!(one(&[0.3], Scale::Group).skipped);
        assert!(one(&[], Scale::Group).skipped);
    }

    #[test]
    fn an_unscorable_episode_gets_nothing_and_shifts_nothing() {
        let groups = [vec![Some(1.0), None, Some(0.0)]];
        let got = advantages(&groups, Scale::None).remove(0);
        assert_eq!(got.values, [0.5, 0.0, -0.5]);
    }
}
