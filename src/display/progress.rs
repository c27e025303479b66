//! State of the display, folded from the cluster's snapshots.

use std::time::Duration;

/// Points of a curve that are kept; a longer one is thinned by half.
const CURVE_POINTS_MAX: usize = 512;

/// Steps a point of a curve averages over.
const CURVE_WINDOW: usize = 5;

/// Lines of the current episodes that are kept.
const EPISODE_LINES_MAX: usize = 12;

/// One node, as a line of the display.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct NodeLine {
    pub(crate) name: String,
    pub(crate) role: String,
    pub(crate) state: String,
    pub(crate) adapter_version: u64,
    pub(crate) tokens_per_s: f64,
    pub(crate) restarts: u32,
    pub(crate) activity: String,
}

/// Everything the display shows.
#[derive(Debug, Clone, Default)]
pub(crate) struct Progress {
    /// What the run is called on the screen.
    pub(crate) title: String,
    /// Where everything is written.
    pub(crate) run_dir: String,
    /// `evaluate before`, `train`, ...
    pub(crate) phase: String,
    /// Since the run began.
    pub(crate) elapsed: Duration,
    /// When training began, since the run began.
    pub(crate) training_since: Option<Duration>,
    /// Optimizer steps done.
    pub(crate) step: u64,
    /// Optimizer steps asked for.
    pub(crate) steps: u64,
    /// Episodes of this phase that came back, and that are wanted in all (0: not known).
    pub(crate) episodes: (u64, u64),
    /// Mean reward by step, over a few steps.
    pub(crate) reward: Vec<(f64, f64)>,
    /// Share of solved episodes by step, over a few steps.
    pub(crate) success: Vec<(f64, f64)>,
    /// Numbers of the newest step, by name.
    pub(crate) metrics: Vec<(String, f64)>,
    /// The nodes.
    pub(crate) nodes: Vec<NodeLine>,
    /// What the policy does right now, newest last.
    pub(crate) episode: Vec<String>,
    /// Who waits on whom, or what went wrong, in plain words.
    pub(crate) notice: String,
}

impl Progress {
    /// A curve from steps, their means and the number of attempts behind each: every point is the
    /// mean over the attempts of the last [`CURVE_WINDOW`] steps, since steps that follow each
    /// other fast have few attempts between them. Thinned to what a terminal can show.
    #[expect(clippy::cast_precision_loss, reason = "steps and attempts are far below 2^52")]
    pub(crate) fn curve(points: impl IntoIterator<Item = (u64, f64, u64)>) -> Vec<(f64, f64)> {
        let points: Vec<_> = points.into_iter().collect();
        let smooth = |end: usize| {
            let window = &points[(end + 1).saturating_sub(CURVE_WINDOW)..=end];
            let attempts: u64 = window.iter().map(|(_, _, attempts)| attempts).sum();
            let earned: f64 =
                window.iter().map(|(_, mean, attempts)| mean * *attempts as f64).sum();
            let mean = if attempts == 0 { points[end].1 } else { earned / attempts as f64 };
            (points[end].0 as f64, mean)
        };
        let mut curve: Vec<_> = (0..points.len()).map(smooth).collect();
        while curve.len() > CURVE_POINTS_MAX {
            curve = curve.into_iter().step_by(2).collect();
        }
        curve
    }

    /// Sets the lines of the current episode, the newest kept.
    pub(crate) fn set_episode(&mut self, lines: &[String]) {
        let from = lines.len().saturating_sub(EPISODE_LINES_MAX);
        self.episode = lines[from..].iter().map(|line| plain(line)).collect();
    }

    /// Moving average of the reward over the last few steps.
    pub(crate) fn recent_reward(&self) -> Option<f64> {
        self.reward.last().map(|(_, reward)| *reward)
    }

    /// Time left of the training, from the pace since it began.
    pub(crate) fn time_left(&self) -> Option<Duration> {
        let began = self.training_since?;
        if self.step == 0 || self.steps <= self.step {
            return None;
        }
        #[expect(clippy::cast_precision_loss, reason = "steps are far below 2^52")]
        let factor = (self.steps - self.step) as f64 / self.step as f64;
        Some(self.elapsed.saturating_sub(began).mul_f64(factor))
    }
}

/// Text of a model or a tool without anything a terminal would act on.
pub(crate) fn plain(text: &str) -> String {
    text.chars()
        .map(|c| match c {
            '\n' => '⏎',
            '\t' => ' ',
            c if c.is_control() => '·',
            c => c,
        })
        .collect()
}

/// `1m 05s`, `42s`.
pub(crate) fn clock(time: Duration) -> String {
    let seconds = time.as_secs();
    if seconds >= 60 {
        format!("{}m {:02}s", seconds / 60, seconds % 60)
    } else {
        format!("{seconds}s")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_of_a_model_never_reach_the_terminal() {
        assert_eq!(plain("a\x1b[2Jb\nc"), "a·[2Jb⏎c");
    }

    #[test]
    fn a_long_curve_keeps_its_ends_of_time() {
        let curve = Progress::curve((0..5_000).map(|i| (i, 0.5, 3)));
        assert!(curve.len() <= CURVE_POINTS_MAX && curve[0].0 == 0.0);
    }

    #[test]
    fn a_step_with_few_attempts_does_not_shake_the_curve() {
        let curve = Progress::curve([(1, 0.5, 90), (2, 0.0, 0), (3, 1.0, 10), (4, 0.5, 0)]);
        let heights: Vec<f64> = curve.into_iter().map(|(_, y)| y).collect();
        assert_eq!(heights, [0.5, 0.5, 0.55, 0.55]);
    }

    #[test]
    fn time_left_follows_the_pace() {
        let progress = Progress {
            step: 10,
            steps: 40,
            elapsed: Duration::from_secs(50),
            training_since: Some(Duration::from_secs(30)),
            ..Progress::default()
        };
        assert_eq!(progress.time_left(), Some(Duration::from_secs(60)));
    }
}
