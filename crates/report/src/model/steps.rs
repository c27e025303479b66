//! Curves by optimizer step, from the metrics the run stored.

use crrl_store::StepRow;

use super::attempts;
use super::curve::{Chart, Keep, Point, Series, Unit, Weighted, sample, smooth, thin, window};
use super::tally::{Bar, Stack};
use crate::facts::Facts;

/// Steps past which a curve is smoothed: the zigzag of more is a smear.
pub(crate) const SMOOTHED_MIN: usize = 120;

/// Bars of a stack by step; more steps share one.
const BARS_MAX: usize = 60;

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
        Keep::Last,
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

/// A number of a step; `None` where it was not stored, or is none.
pub(crate) fn metric(row: &StepRow, name: &str) -> Option<f64> {
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
    charts_over(facts, None)
}

/// As [`charts`], the lines being means of so many steps; where none are said, of as many as suit the
/// length of the run.
#[must_use]
pub fn charts_over(facts: &Facts, steps: Option<usize>) -> (Vec<Chart>, Vec<String>) {
    let attempts =
        steps.map_or_else(|| attempts::charts(facts), |n| attempts::charts_over(facts, n));
    let (mut charts, mut all_zero) = (attempts, Vec::new());
    for plan in PLANS {
        let series: Vec<Series> = plan
            .lines
            .iter()
            .map(|(name, label)| series(label, &points(facts, name), plan.keep, steps))
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
            about: match smoothed_over(facts.steps.len(), plan.keep, steps) {
                Some(window) => {
                    format!("{}{AS_STORED} Line: mean of the last {window} steps.", plan.about)
                }
                None => plan.about.to_owned(),
            },
            series,
        });
    }
    (charts, all_zero)
}

/// What is said of the dots beside a smoothed line.
pub(crate) const AS_STORED: &str = " Dots: as stored.";

/// Whether a curve of so many steps is smoothed.
/// Steps that a line is the mean of; `None` where it is what was stored.
fn smoothed_over(steps: usize, keep: Keep, chosen: Option<usize>) -> Option<usize> {
    match chosen {
        _ if keep == Keep::Last => None,
        Some(chosen) => (chosen > 1).then_some(chosen),
        None => (steps > SMOOTHED_MIN).then(|| window(steps)),
    }
}

/// A line through what was stored; of a long run, a smoothed line and what was stored as dots.
fn series(label: &str, points: &[Point], keep: Keep, chosen: Option<usize>) -> Series {
    let (label, band) = (label.to_owned(), Vec::new());
    let stored = thin(points, keep);
    let Some(window) = smoothed_over(points.len(), keep, chosen) else {
        return Series { label, raw: Vec::new(), line: stored, band };
    };
    let alike = |point: &Point| Weighted { x: point.x, y: point.y, weight: 1.0 };
    let alike: Vec<Weighted> = points.iter().map(alike).collect();
    let line = sample(&smooth(&alike, window));
    Series { label, raw: stored, line, band }
}

/// Parts of a step's wall time, and their labels.
const TIME_PARTS: [(&str, &str); 4] = [
    ("pass_s", "forward and backward"),
    ("score_s", "scoring"),
    ("update_s", "optimizer"),
    ("learner_waited_s", "waiting for episodes"),
];

/// Where the wall time of a step went, seconds.
#[must_use]
pub fn time(facts: &Facts) -> Option<Stack> {
    let each = facts.steps.len().div_ceil(BARS_MAX).max(1);
    let bar = |rows: &[StepRow]| {
        let part = |(name, _): &(&str, &str)| {
            let sum: f64 = rows.iter().filter_map(|row| metric(row, name)).sum();
            sum / rows.len() as f64
        };
        let last = rows[rows.len() - 1].step.0 as f64;
        Bar {
            from: rows[0].step.0 as f64 - 1.0,
            to: last,
            parts: TIME_PARTS.iter().map(part).collect(),
        }
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
        names: TIME_PARTS.iter().map(|(_, label)| (*label).to_owned()).collect(),
        bars,
        areas: false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_curve_is_smoothed_and_keeps_what_was_stored_as_dots() {
        let points = |n: u32| -> Vec<Point> {
            (1..=n).map(|x| Point { x: f64::from(x), y: f64::from(x % 2) }).collect()
        };
        let series = |name, points: &[Point], keep| series(name, points, keep, None);
        let short = series("a", &points(30), Keep::Mean);
        assert!(short.raw.is_empty() && short.line[1].y == 0.0);
        let long = series("a", &points(200), Keep::Mean);
        assert_eq!((long.raw.len(), long.raw[1].y), (200, 0.0));
        assert!(
            series("a", &points(200), Keep::Last).raw.is_empty(),
            "a schedule is no measurement"
        );
        assert!(long.line[100..].iter().all(|point| (point.y - 0.5).abs() < 0.11));
    }

    #[test]
    fn what_is_drawn_is_what_a_step_tells() {
        for (name, _) in PLANS.iter().flat_map(|plan| plan.lines).chain(&TIME_PARTS) {
            assert!(crrl_types::step_metric::named(name).is_some(), "no step tells {name}");
        }
    }

    #[test]
    fn a_chosen_window_beats_the_length_of_the_run() {
        let points: Vec<Point> =
            (1..=30_u32).map(|x| Point { x: f64::from(x), y: f64::from(x % 2) }).collect();
        let smoothed = series("a", &points, Keep::Mean, Some(10));
        assert_eq!((smoothed.raw.len(), smoothed.line[29].y), (30, 0.5));
        let stored = series("a", &points, Keep::Mean, Some(1));
        assert!(stored.raw.is_empty() && stored.line == points);
    }
}
