//! Points of a curve: smoothing, thinning, and what a chart holds.

use serde::Serialize;

/// Steps a point of a smoothed curve averages over at least: as many as in the display of a running
/// run.
const WINDOW_MIN: usize = 5;

/// Steps that a window is one of: a long run's curve would be all noise otherwise.
const WINDOW_SHARE: usize = 40;

/// How many steps a point of a smoothed curve averages over.
#[must_use]
pub fn window(steps: usize) -> usize {
    (steps / WINDOW_SHARE).max(WINDOW_MIN)
}

/// Points of a curve that are drawn; a longer one is thinned.
pub const POINTS_MAX: usize = 400;

/// One point.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Point {
    /// Optimizer step, mostly.
    pub x: f64,
    /// Its value.
    pub y: f64,
}

/// How sure a point is.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Band {
    /// As the point's.
    pub x: f64,
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

/// What the values of an axis are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    /// As they are.
    Plain,
    /// Whole numbers.
    Count,
    /// Between 0 and 1, shown in per cent.
    Share,
    /// Seconds.
    Seconds,
}

/// One line of a chart.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Series {
    /// Its name in the legend.
    pub label: String,
    /// What was measured, drawn as faint dots; empty where the line itself is that.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub raw: Vec<Point>,
    /// The line.
    pub line: Vec<Point>,
    /// How sure it is; empty where that was not computed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub band: Vec<Band>,
}

/// One plot of lines.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Chart {
    /// Unique on the page.
    pub id: String,
    /// What is shown.
    pub title: String,
    /// What the x axis counts.
    pub x_name: String,
    /// What the values are.
    pub unit: Unit,
    /// How to read it: where the numbers are from.
    pub about: String,
    /// The lines.
    pub series: Vec<Series>,
}

/// A value and how many attempts are behind it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Weighted {
    /// Optimizer step.
    pub x: f64,
    /// Mean of the step.
    pub y: f64,
    /// Attempts behind it.
    pub weight: f64,
}

/// Every point is the mean over the attempts of the last so many steps: steps that follow each
/// other fast have few attempts between them.
#[must_use]
pub fn smooth(points: &[Weighted], window: usize) -> Vec<Point> {
    let at = |end: usize| {
        let window = &points[(end + 1).saturating_sub(window)..=end];
        let weight: f64 = window.iter().map(|point| point.weight).sum();
        let sum: f64 = window.iter().map(|point| point.y * point.weight).sum();
        let y = if weight > 0.0 { sum / weight } else { points[end].y };
        Point { x: points[end].x, y }
    };
    (0..points.len()).map(at).collect()
}

/// What a thinned point keeps of those it stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    /// Their mean.
    Mean,
    /// The largest.
    Max,
    /// The last: of what is set and not measured.
    Last,
}

/// At most [`POINTS_MAX`] points, each standing for as many neighbours, at the last one's x.
#[must_use]
pub fn thin(points: &[Point], keep: Keep) -> Vec<Point> {
    let each = points.len().div_ceil(POINTS_MAX).max(1);
    let stand_for = |chunk: &[Point]| Point {
        x: chunk[chunk.len() - 1].x,
        y: match keep {
            Keep::Mean => chunk.iter().map(|point| point.y).sum::<f64>() / chunk.len() as f64,
            Keep::Last => chunk[chunk.len() - 1].y,
            Keep::Max => chunk.iter().map(|point| point.y).fold(f64::NEG_INFINITY, f64::max),
        },
    };
    points.chunks(each).map(stand_for).collect()
}

/// Every so many items that at most [`POINTS_MAX`] are left; the last always is.
#[must_use]
pub fn sample<T: Copy>(items: &[T]) -> Vec<T> {
    let each = items.len().div_ceil(POINTS_MAX).max(1);
    let last = items.len().saturating_sub(1) % each;
    items.iter().copied().skip(last).step_by(each).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn weighted(list: &[(f64, f64)]) -> Vec<Weighted> {
        list.iter()
            .zip(1..)
            .map(|((y, weight), x)| Weighted { x: f64::from(x), y: *y, weight: *weight })
            .collect()
    }

    #[test]
    fn smoothing_weighs_by_attempts_and_looks_back_only() {
        let got = smooth(&weighted(&[(0.0, 30.0), (1.0, 10.0), (0.5, 0.0)]), 5);
        assert_eq!(got[0], Point { x: 1.0, y: 0.0 });
        assert_eq!(got[1].y, 0.25);
        assert_eq!(got[2].y, 0.25, "a step without attempts adds nothing");
        let far = smooth(
            &weighted(&[(1.0, 1.0), (0.0, 1.0), (0.0, 1.0), (0.0, 1.0), (0.0, 1.0), (0.0, 1.0)]),
            5,
        );
        assert_eq!((far[4].y, far[5].y), (0.2, 0.0), "the window is five steps");
        assert_eq!(smooth(&weighted(&[(0.7, 0.0)]), 5)[0].y, 0.7, "old runs count no attempts");
        assert!(smooth(&[], 5).is_empty());
    }

    #[test]
    fn a_window_grows_with_the_run() {
        assert_eq!((window(0), window(30), window(900)), (5, 5, 22));
    }

    #[test]
    fn a_long_curve_is_thinned_and_keeps_its_end_and_its_peaks() {
        let points: Vec<Point> = (1..=5_000)
            .map(|x| Point { x: f64::from(x), y: f64::from(u8::from(x == 77)) })
            .collect();
        for keep in [Keep::Mean, Keep::Max] {
            let thin = thin(&points, keep);
            assert!(thin.len() <= POINTS_MAX && thin[thin.len() - 1].x == 5_000.0);
        }
        assert!(thin(&points, Keep::Max).iter().any(|point| point.y == 1.0));
        let sampled = sample(&points);
        assert!(sampled.len() <= POINTS_MAX && sampled[sampled.len() - 1].x == 5_000.0);
        assert_eq!(sample(&points[..3]), points[..3]);
    }
}
