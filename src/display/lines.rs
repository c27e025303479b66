//! The display where there is no terminal: one plain line when something changed.

use std::time::{Duration, Instant};

use super::progress::{Progress, clock};

/// A line at least this often while a run goes on.
const QUIET_MAX: Duration = Duration::from_secs(15);

/// Prints a line a phase, a line a step, and a sign of life in between.
#[derive(Debug)]
pub(crate) struct Lines {
    phase: String,
    step: u64,
    last: Instant,
}

impl Lines {
    pub(crate) fn new() -> Self {
        Self { phase: String::new(), step: 0, last: Instant::now() }
    }

    /// Prints what is new in `progress`.
    pub(crate) fn show(&mut self, progress: &Progress) {
        if progress.phase != self.phase {
            self.phase.clone_from(&progress.phase);
            self.print(&format!("{:>7}  {}", clock(progress.elapsed), progress.phase));
        }
        if progress.step != self.step {
            self.step = progress.step;
            self.print(&step_line(progress));
        } else if self.last.elapsed() >= QUIET_MAX {
            self.print(&format!(
                "{:>7}  {}: {} episodes{}  {}",
                clock(progress.elapsed),
                progress.phase,
                progress.episodes.0,
                of(progress.episodes.1),
                progress.notice
            ));
        }
    }

    fn print(&mut self, line: &str) {
        crate::commands::failure::say(line.trim_end());
        self.last = Instant::now();
    }
}

fn of(total: u64) -> String {
    if total == 0 { String::new() } else { format!(" of {total}") }
}

fn step_line(progress: &Progress) -> String {
    let newest = |curve: &[(f64, f64)]| curve.last().map_or(f64::NAN, |point| point.1);
    format!(
        "{:>7}  step {:>3}/{}  reward {:.3}  solved {:>5.1} %  tokens/s {:.0}",
        clock(progress.elapsed),
        progress.step,
        progress.steps,
        newest(&progress.reward),
        100.0 * newest(&progress.success),
        progress.nodes.iter().map(|node| node.tokens_per_s).sum::<f64>(),
    )
}
