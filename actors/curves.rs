//! A run's curves for other people's tools, written beside it while it trains.
//!
//! A disk that refuses them costs the curves and nothing else: the run store has every number.

use std::fs::{File, OpenOptions};
use std::io;
use std::time::{SystemTime, UNIX_EPOCH};

use crrl_cluster::RunDir;
use crrl_config::sections::TelemetrySection;
use crrl_telemetry::{EventFile, Lines};
use crrl_types::Step;

/// The files that are written.
#[derive(Debug, Default)]
pub struct Curves {
    events: Option<EventFile>,
    lines: Option<Lines<File>>,
}

impl Curves {
    /// Begins what a configuration asks for.
    #[must_use]
    pub fn begin(section: &TelemetrySection, run: &RunDir) -> Self {
        let folder = run.path().join("tensorboard");
        let events = section.tensorboard.then(|| EventFile::create(&folder, now().as_secs()));
        let path = run.path().join("metrics.jsonl");
        let append = || OpenOptions::new().create(true).append(true).open(&path).map(Lines::new);
        Self { events: opened(events), lines: opened(section.jsonl.then(append)) }
    }

    /// The numbers of a step.
    pub fn step(&mut self, step: Step, values: &[(String, f64)]) {
        let at = now();
        let to_events = |file: &mut EventFile| {
            file.scalars(step.0, at.as_secs_f64(), values)?;
            file.flush()
        };
        keep(&mut self.events, to_events);
        let at_ms = u64::try_from(at.as_millis()).ok();
        keep(&mut self.lines, |lines| lines.step(step.0, at_ms, values));
    }
}

fn now() -> std::time::Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

fn opened<T>(file: Option<io::Result<T>>) -> Option<T> {
    file?.inspect_err(|error| tracing::warn!(%error, "curves are not written")).ok()
}

/// Writes, or gives the file up.
fn keep<T>(file: &mut Option<T>, write: impl FnOnce(&mut T) -> io::Result<()>) {
    if let Some(open) = file
        && let Err(error) = write(open)
    {
        tracing::warn!(%error, "curves are written no more");
        *file = None;
    }
}
