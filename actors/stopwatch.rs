//! Measures when an attempt does what. Whoever carries the attempt out and whoever reports it hold
//! the same watch, so that one that is cut off still tells how far it came.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crrl_machine::clock;
use crrl_types::{TimedWork, Timing, Work};
use tokio::time::Instant;

/// One attempt's watch. Cloning gives another handle to the same.
#[derive(Debug, Clone)]
pub struct Stopwatch {
    began: Instant,
    timing: Arc<Mutex<Timing>>,
}

impl Stopwatch {
    /// Begins now.
    #[must_use]
    pub fn start() -> Self {
        let timing = Timing { began_ms: clock::unix_ms(), ..Timing::default() };
        Self { began: Instant::now(), timing: Arc::new(Mutex::new(timing)) }
    }

    /// When it began.
    #[must_use]
    pub fn began(&self) -> Instant {
        self.began
    }

    /// A piece of work of a turn that began then and ends now.
    pub fn did(&self, turn: u32, since: Instant, work: Work) {
        let from_us = micros(since.saturating_duration_since(self.began));
        let took_us = micros(since.elapsed());
        self.timing().add(TimedWork { from_us, took_us, turn, work });
    }

    /// What was measured up to now.
    #[must_use]
    pub fn read(&self) -> Timing {
        Timing { took_us: micros(self.began.elapsed()), ..self.timing().clone() }
    }

    fn timing(&self) -> MutexGuard<'_, Timing> {
        self.timing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}
