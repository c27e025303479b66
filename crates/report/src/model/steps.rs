//! Curves by optimizer step, from the metrics the run stored.

use std::collections::BTreeMap;

use crrl_eval::{Cluster, clustered_error, half_width95};
use crrl_store::StepRow;
use crrl_types::GroupId;

use super::curve::{
    Band, Chart, Keep, Point, SMOOTH_STEPS, Series, Unit, Weighted, sample, smooth, thin,
};
use super::tally::{Bar, Stack};
use crate::facts::Facts;

/// Bars of a stack by step; more steps share one.
const BARS_MAX: usize = 60;

/// Groups a band needs: of fewer, its width says more about chance than about the curve.
const GROUPS_MIN: usize = 5;

/// What the x axis of all of these counts.
pub const STEP_AXIS: &str = "optimizer step";

/// A chart of stored metrics: name and label of each line.
struct Plan {
    id: &'static str,
    title: &'static str,
    unit: Unit,
    keep: Keep,
    about: &'static str,
    lines: &'static [(&'static str, &'static str)],
}

const fn one(
    id: &'static str,
    title: &'static str,
    unit: Unit,
    keep: Keep,
    about: &'static str,
    lines: &'static [(&'static str, &'static str)],
) -> Plan {
    Plan { id, title, unit, keep, about, lines }
}

const PLANS: &[Plan] = &[
    one(
        "reward-std",
        "Spread of rewards",
        Unit::Plain,
        Keep::Mean,
        "Standard deviation of the rewards of a step's batch (reward_std).",
        &[("reward_std", "standard deviation")],
    ),
    one(
        "kl",
        "KL divergence to the reference policy, nats",
        Unit::Plain,
        Keep::Mean,
        "Estimators k1 and k3, mean over generated tokens. 0 where no reference is read \
         (kl_beta = 0).",
        &[("kl_k3", "k3"), ("kl_k1", "k1")],
    ),
    one(
        "entropy",
        "Entropy, nats",
        Unit::Plain,
        Keep::Mean,
        "Of the next-token distribution, mean over generated tokens.",
        &[("entropy", "entropy")],
    ),
    one(
        "clip",
        "Clipped tokens",
        Unit::Share,
        Keep::Mean,
        "Share of generated tokens whose ratio was clipped at the lower and at the upper bound.",
        &[("clip_high", "upper bound"), ("clip_low", "lower bound")],
    ),
    one(
        "loss",
        "Loss",
        Unit::Plain,
        Keep::Mean,
        "The policy-gradient objective; its level says little, jumps do.",
        &[("loss", "loss")],
    ),
    one(
        "grad-norm",
        "Gradient norm",
        Unit::Plain,
        Keep::Mean,
        "Before it is clipped.",
        &[("grad_norm", "gradient norm")],
    ),
    one(
        "learning-rate",
        "Learning rate",
        Unit::Plain,
        Keep::Mean,
        "As scheduled.",
        &[("learning_rate", "learning rate")],
    ),
    one(
        "gap-mean",
        "Sampler and learner disagree: mean, nats",
        Unit::Plain,
        Keep::Mean,
        "Mean distance between the log-probability the engine sampled under and the learner's own \
         of the same token. Staleness and rounding show here.",
        &[("gap_mean", "mean gap")],
    ),
    one(
        "gap-max",
        "Sampler and learner disagree: worst token, nats",
        Unit::Plain,
        Keep::Max,
        "The largest such distance of a step.",
        &[("gap_max", "largest gap")],
    ),
    one(
        "staleness",
        "Staleness, versions",
        Unit::Plain,
        Keep::Max,
        "How many versions behind an episode's oldest token was when its batch was made up.",
        &[("staleness_mean", "mean"), ("staleness_max", "largest")],
    ),
    one(
        "tokens",
        "Learner's pace, tokens/s",
        Unit::Plain,
        Keep::Mean,
        "Over the time the learner worked on a step, waiting not counted.",
        &[("tokens_per_s", "tokens/s")],
    ),
];

fn metric(row: &StepRow, name: &str) -> Option<f64> {
    let found = row.metrics.iter().find(|(metric, _)| metric == name)?;
    Some(found.1).filter(|value| value.is_finite())
}

fn points(facts: &Facts, name: &str) -> Vec<Point> {
    let point = |row: &StepRow| Some(Point { x: row.step.0 as f64, y: metric(row, name)? });
    facts.steps.iter().filter_map(point).collect()
}

/// The charts that have something to show, and the titles of those that were 0 throughout.
#[must_use]
pub fn charts(facts: &Facts) -> (Vec<Chart>, Vec<String>) {
    let (mut charts, mut all_zero) = (attempts(facts), Vec::new());
    for plan in PLANS {
        let series: Vec<Series> = plan
            .lines
            .iter()
            .map(|(name, label)| Series {
                label: (*label).to_owned(),
                raw: Vec::new(),
                line: thin(&points(facts, name), plan.keep),
                band: Vec::new(),
            })
            .filter(|series| !series.line.is_empty())
            .collect();
        if series.is_empty() {
            continue;
        }
        if series.iter().flat_map(|series| &series.line).all(|point| point.y == 0.0) {
            all_zero.push(plan.title.to_owned());
            continue;
        }
        charts.push(Chart {
            id: plan.id.to_owned(),
            title: plan.title.to_owned(),
            x_name: STEP_AXIS.to_owned(),
            unit: plan.unit,
            about: plan.about.to_owned(),
            series,
        });
    }
    (charts, all_zero)
}

/// Reward and success of every attempt, whether it was trained on or not.
fn attempts(facts: &Facts) -> Vec<Chart> {
    let about = "Dots: mean of all attempts that came back between two steps, those in groups \
                 without signal included. Line: mean of the attempts of the last 5 steps. Band: 95 % \
                 interval of the line by its standard error over groups of attempts (Student's t); none \
                 where fewer than 5 groups came back.";
    let chart = |id: &str, title: &str, unit, name: &str, label: &str, value: Value| {
        let weigh = |row: &StepRow| {
            // A run of before attempts were counted weighs every step alike.
            let weight = metric(row, "attempts").unwrap_or(1.0);
            Some(Weighted { x: row.step.0 as f64, y: metric(row, name)?, weight })
        };
        let measured: Vec<Weighted> = facts.steps.iter().filter_map(weigh).collect();
        let line = smooth(&measured);
        let band = bands(&line, &clusters(facts, value), unit);
        let raw: Vec<Point> = measured
            .iter()
            .filter(|point| point.weight > 0.0)
            .map(|point| Point { x: point.x, y: point.y })
            .collect();
        let series = Series {
            label: label.to_owned(),
            raw: sample(&raw),
            line: sample(&line),
            band: sample(&band),
        };
        (!measured.is_empty()).then(|| Chart {
            id: id.to_owned(),
            title: title.to_owned(),
            x_name: STEP_AXIS.to_owned(),
            unit,
            about: about.to_owned(),
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
) -> Vec<Band> {
    let band = |(at, point): (usize, &Point)| {
        let first = line[(at + 1).saturating_sub(SMOOTH_STEPS)].x as u64;
        let mut groups: BTreeMap<GroupId, Cluster> = BTreeMap::new();
        for (group, cluster) in steps.range(first..=point.x as u64).flat_map(|(_, groups)| groups) {
            let sum = groups.entry(*group).or_default();
            sum.sum += cluster.sum;
            sum.n += cluster.n;
        }
        let clusters: Vec<Cluster> = groups.into_values().collect();
        let enough = clusters.len() >= GROUPS_MIN;
        let half = half_width95(clustered_error(&clusters).filter(|_| enough)?, clusters.len());
        let (low, high) = (point.y - half, point.y + half);
        let bounded = if unit == Unit::Share { (low.max(0.0), high.min(1.0)) } else { (low, high) };
        Some(Band { x: point.x, low: bounded.0, high: bounded.1 })
    };
    line.iter().enumerate().filter_map(band).collect()
}

/// Where the wall time of a step went, seconds.
#[must_use]
pub fn time(facts: &Facts) -> Option<Stack> {
    const PARTS: [(&str, &str); 4] = [
        ("pass_s", "forward and backward"),
        ("score_s", "scoring"),
        ("update_s", "optimizer"),
        ("learner_waited_s", "waiting for episodes"),
    ];
    let each = facts.steps.len().div_ceil(BARS_MAX).max(1);
    let bar = |rows: &[StepRow]| {
        let part = |(name, _): &(&str, &str)| {
            let sum: f64 = rows.iter().filter_map(|row| metric(row, name)).sum();
            sum / rows.len() as f64
        };
        let last = rows[rows.len() - 1].step.0 as f64;
        Bar { from: rows[0].step.0 as f64 - 1.0, to: last, parts: PARTS.iter().map(part).collect() }
    };
    let bars: Vec<Bar> = facts.steps.chunks(each).map(bar).collect();
    let any = bars.iter().any(|bar| bar.parts.iter().any(|part| *part > 0.0));
    any.then(|| Stack {
        id: "step-time".to_owned(),
        title: "Where the learner's time went, seconds a step".to_owned(),
        x_name: STEP_AXIS.to_owned(),
        unit: Unit::Seconds,
        about: if each > 1 {
            format!("A bar is the mean of {each} steps.")
        } else {
            "A bar a step.".to_owned()
        },
        names: PARTS.iter().map(|(_, label)| (*label).to_owned()).collect(),
        bars,
        areas: false,
    })
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
        let share = bands(&line, &steps, Unit::Share);
        assert_eq!(share.len(), 1, "one group alone says nothing of its error");
        assert_eq!((share[0].x, share[0].low, share[0].high), (2.0, 0.0, 1.0));
        let free = bands(&line, &steps, Unit::Plain);
        assert!(free[0].low < 0.0 && free[0].high > 1.0);
        let agree = BTreeMap::from([(2, groups(1, &[2.0; 6]))]);
        let agree = bands(&line, &agree, Unit::Plain);
        assert_eq!((agree[0].low, agree[0].high), (0.5, 0.5));
    }
}
