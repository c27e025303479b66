//! What a person sees while it trains.

use std::io::{IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

use crrl_learner::{Accuracy, Report};

/// Time between two lines where nothing overwrites them.
const LINE_EVERY: Duration = Duration::from_secs(10);
/// Time between two looks at a terminal.
const DRAW_EVERY: Duration = Duration::from_millis(250);

/// Progress on stderr: one line that is drawn over on a terminal, lines now and then elsewhere.
#[derive(Debug)]
pub(crate) struct Meter {
    steps: u64,
    from: u64,
    started: Instant,
    shown: Option<Instant>,
    tokens: u64,
    terminal: bool,
    width: usize,
}

impl Meter {
    pub(crate) fn new(from: u64, steps: u64) -> Self {
        let terminal = std::io::stderr().is_terminal();
        let started = Instant::now();
        Self { steps, from, started, shown: None, tokens: 0, terminal, width: 0 }
    }

    /// After an update.
    pub(crate) fn step(&mut self, step: u64, report: &Report) {
        self.tokens += report.tokens as u64;
        let every = if self.terminal { DRAW_EVERY } else { LINE_EVERY };
        if step < self.steps && self.shown.is_some_and(|shown| shown.elapsed() < every) {
            return;
        }
        self.shown = Some(Instant::now());
        let elapsed = self.started.elapsed();
        let done = step.saturating_sub(self.from).max(1);
        let left = elapsed.mul_f64((self.steps.saturating_sub(step)) as f64 / done as f64);
        let line = format!(
            "{step}/{} updates  loss {:.4}  accuracy {:5.1} %  {:.0} tokens/s  {} left",
            self.steps,
            report.loss,
            100.0 * report.greedy,
            self.tokens as f64 / elapsed.as_secs_f64().max(1e-9),
            clock(left),
        );
        if self.terminal {
            let padding = self.width.saturating_sub(line.len());
            self.width = line.len();
            eprint!("\r{line}{:padding$}", "");
            let _ = std::io::stderr().flush();
        } else {
            eprintln!("{line}");
        }
    }

    /// A line that stays.
    pub(crate) fn note(&mut self, text: &str) {
        if self.terminal && self.width > 0 {
            eprintln!();
            self.width = 0;
        }
        eprintln!("{text}");
    }

    /// How held-out traces are predicted.
    pub(crate) fn held_out(&mut self, step: u64, accuracy: &Accuracy) {
        self.note(&format!(
            "held out after {step} updates: loss {:.4}, {:.2} % of tokens, {:.1} % of traces whole",
            accuracy.loss,
            100.0 * accuracy.tokens,
            100.0 * accuracy.examples,
        ));
    }

    /// Tokens a second so far.
    pub(crate) fn rate(&self) -> f64 {
        self.tokens as f64 / self.started.elapsed().as_secs_f64().max(1e-9)
    }
}

fn clock(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min {:02} s", seconds / 60, seconds % 60),
        _ => format!("{} h {:02} min", seconds / 3600, seconds / 60 % 60),
    }
}
