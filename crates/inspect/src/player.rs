//! A recording as time goes by: which frame is now. Time is passed in.

use crate::error::InspectError;
use crate::frame::Link;
use crate::recording::Recording;
use crate::state::World;

/// After a jump the cluster is folded from so much before, for its rates and ages, milliseconds.
const LEAD_MS: u64 = 10_000;
/// Frames one jump folds at most.
const LEAD_FRAMES_MAX: usize = 100;
/// A gap longer than this is jumped over when it is played, milliseconds.
const GAP_MS_MAX: u64 = 5_000;

/// A recording being played.
#[derive(Debug)]
pub struct Player {
    recording: Recording,
    /// Frames up to now.
    shown: usize,
    now_ms: u64,
    halted: bool,
}

impl Player {
    /// At the first frame, playing.
    #[must_use]
    pub fn new(recording: Recording) -> Self {
        let now_ms = recording.times().next().unwrap_or(0);
        Self { recording, shown: 0, now_ms, halted: false }
    }

    /// The run it is of.
    #[must_use]
    pub fn run(&self) -> &str {
        self.recording.run()
    }

    /// Lets this much time go by, and folds what happened in it.
    ///
    /// # Errors
    /// The file cannot be read any more.
    pub fn pass(&mut self, ms: u64, world: &mut World) -> Result<(), InspectError> {
        if self.halted && self.shown > 0 {
            return Ok(());
        }
        self.now_ms = self.now_ms.saturating_add(ms);
        let next = self.recording.times().nth(self.shown);
        match next {
            Some(next) if next > self.now_ms + GAP_MS_MAX => self.now_ms = next,
            Some(_) => {}
            // It is over; time stands still at its end.
            None => {
                self.now_ms = self.recording.times().next_back().unwrap_or(0);
                self.halted = true;
            }
        }
        let until = self.recording.until(self.now_ms);
        self.fold(self.shown, until, world)
    }

    /// Jumps, and halts there.
    ///
    /// # Errors
    /// The file cannot be read any more.
    pub fn seek(&mut self, by_ms: i64, world: &mut World) -> Result<(), InspectError> {
        let mut times = self.recording.times();
        let (first, last) = (times.next().unwrap_or(0), times.next_back());
        let last = last.unwrap_or(first);
        drop(times);
        self.halted = true;
        self.now_ms = self.now_ms.saturating_add_signed(by_ms).clamp(first, last);
        let until = self.recording.until(self.now_ms);
        let from = self.recording.until(self.now_ms.saturating_sub(LEAD_MS));
        let from = from.min(until - 1).max(until.saturating_sub(LEAD_FRAMES_MAX));
        *world = World::new();
        self.fold(from, until, world)
    }

    /// Plays, or halts; from the beginning if it is at its end.
    pub fn toggle(&mut self, world: &mut World) {
        self.halted = !self.halted;
        if !self.halted && self.shown >= self.recording.times().len() {
            *world = World::new();
            self.shown = 0;
            self.now_ms = self.recording.times().next().unwrap_or(0);
        }
    }

    /// Where it is.
    #[must_use]
    pub fn link(&self) -> Link {
        Link::Replay { at: self.shown, of: self.recording.times().len(), halted: self.halted }
    }

    fn fold(&mut self, from: usize, until: usize, world: &mut World) -> Result<(), InspectError> {
        for at in from..until {
            world.fold(self.recording.frame(at)?);
        }
        self.shown = until;
        world.tick(self.now_ms);
        Ok(())
    }
}
