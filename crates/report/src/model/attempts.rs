//! Reward and success of all attempts by optimizer step, and how sure their means are.

use std::collections::BTreeMap;

use crrl_eval::{Cluster, clustered_error, half_width95};
use crrl_store::StepRow;
use crrl_types::GroupId;

use super::curve::{Band, Chart, Point, Series, Unit, Weighted, sample, smooth, window};
use super::steps::{STEP_AXIS, metric};
use crate::facts::Facts;

/// Groups a band needs: of fewer, its width says more about chance than about the curve.
const GROUPS_MIN: usize = 5;

/// Reward and success of every attempt, whether it was trained on or not.
#[must_use]
pub fn charts(facts: &Facts) -> Vec<Chart> {
    charts_over(facts, window(facts.steps.len()))
}

/// As [`charts`], the lines being means of so many steps.
#[must_use]
pub fn charts_over(facts: &Facts, window: usize) -> Vec<Chart> {
    let window = window.max(1);
    let about = format!(
        "Dots: mean of all attempts that came back between two steps, those in groups without signal \
         included. Line: mean of the attempts of the last {window} steps. Band: 95 % interval of the \
         line by its standard error over groups of attempts (Student's t); none where fewer than \
         {GROUPS_MIN} groups came back, or all earned the same."
    );
    let chart = |id: &str, title: &str, unit, name: &str, label: &str, value: Value| {
        let weigh = |row: &StepRow| {
            // A run of before attempts were counted weighs every step alike.
            let weight = metric(row, "attempts").unwrap_or(1.0);
            Some(Weighted { x: row.step.0 as f64, y: metric(row, name)?, weight })
        };
        let measured: Vec<Weighted> = facts.steps.iter().filter_map(weigh).collect();
        let whole = smooth(&measured, window);
        let line = sample(&whole);
        let mut band = bands(&whole, &clusters(facts, value), unit, window);
        // A band belongs to a point that is drawn.
        band.retain(|band| line.binary_search_by(|point| point.x.total_cmp(&band.x)).is_ok());
        let raw: Vec<Point> = measured
            .iter()
            .filter(|point| point.weight > 0.0)
            .map(|point| Point { x: point.x, y: point.y })
            .collect();
        let series = Series { label: label.to_owned(), raw: sample(&raw), line, band };
        (!measured.is_empty()).then(|| Chart {
            id: id.to_owned(),
            title: title.to_owned(),
            x_name: STEP_AXIS.to_owned(),
            unit,
            about: about.clone(),
            series: vec![series],
        })
    };
    let reward = chart(
        "reward",
        "Reward of all attempts",
        Unit::Plain,
        "attempt_reward_mean",
        "mean reward",
        |episode| episode.reward,
    );
    let success = chart(
        "success",
        "Attempts that repaired their task",
        Unit::Share,
        "attempt_success_rate",
        "repaired",
        |episode| episode.success.map(|success| f64::from(u8::from(success))),
    );
    [reward, success].into_iter().flatten().collect()
}

type Value = fn(&crate::facts::EpisodeFact) -> Option<f64>;

/// Attempts of each group that came back before each step.
fn clusters(facts: &Facts, value: Value) -> BTreeMap<u64, BTreeMap<GroupId, Cluster>> {
    let mut steps: BTreeMap<u64, BTreeMap<GroupId, Cluster>> = BTreeMap::new();
    for episode in facts.episodes.iter().filter(|episode| !episode.evaluation) {
        let (Some(returned), Some(value)) =
            (facts.history.returned.get(&episode.id), value(episode))
        else {
            continue;
        };
        let cluster = steps.entry(returned.step).or_default().entry(episode.group).or_default();
        cluster.sum += value;
        cluster.n += 1.0;
    }
    steps
}

/// 95 % bands around a smoothed line.
fn bands(
    line: &[Point],
    steps: &BTreeMap<u64, BTreeMap<GroupId, Cluster>>,
    unit: Unit,
    window: usize,
) -> Vec<Band> {
    let band = |(at, point): (usize, &Point)| {
        let first = line[(at + 1).saturating_sub(window)].x as u64;
        let mut groups: BTreeMap<GroupId, Cluster> = BTreeMap::new();
        for (group, cluster) in steps.range(first..=point.x as u64).flat_map(|(_, groups)| groups) {
            let sum = groups.entry(*group).or_default();
            sum.sum += cluster.sum;
            sum.n += cluster.n;
        }
        let clusters: Vec<Cluster> = groups.into_values().collect();
        let enough = clusters.len() >= GROUPS_MIN;
        // Groups that all earned the same have no error, which does not make them sure.
        let error = clustered_error(&clusters).filter(|error| enough && *error > 0.0)?;
        let half = half_width95(error, clusters.len());
        let (low, high) = (point.y - half, point.y + half);
        let bounded = if unit == Unit::Share { (low.max(0.0), high.min(1.0)) } else { (low, high) };
        Some(Band { x: point.x, low: bounded.0, high: bounded.1 })
    };
    line.iter().enumerate().filter_map(band).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn groups(from: u64, sums: &[f64]) -> BTreeMap<GroupId, Cluster> {
        let cluster = |sum: &f64| Cluster { sum: *sum, n: 4.0 };
        (from..).map(GroupId).zip(sums.iter().map(cluster)).collect()
    }

    #[test]
    fn a_band_needs_groups_widens_with_disagreement_and_stays_a_share() {
        let line = [Point { x: 1.0, y: 0.0 }, Point { x: 2.0, y: 0.5 }];
        let steps =
            BTreeMap::from([(1, groups(0, &[0.0])), (2, groups(1, &[4.0, 4.0, 4.0, 0.0, 0.0]))]);
        let share = bands(&line, &steps, Unit::Share, 5);
        assert_eq!(share.len(), 1, "one group alone says nothing of its error");
        assert_eq!((share[0].x, share[0].low, share[0].high), (2.0, 0.0, 1.0));
        let free = bands(&line, &steps, Unit::Plain, 5);
        assert!(free[0].low < 0.0 && free[0].high > 1.0);
        let agree = BTreeMap::from([(2, groups(1, &[2.0; 6]))]);
        assert!(bands(&line, &agree, Unit::Plain, 5).is_empty(), "agreement is no certainty");
    }
}
