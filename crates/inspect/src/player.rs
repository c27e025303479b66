//! A recording as time goes by: which frame is now, and what else was known by then. Time is passed in.

use std::collections::BTreeMap;

use crrl_store::{EpisodeRow, StepRow};

use crate::archive::{OVER_MAX, STEPS_MAX};
use crate::error::InspectError;
use crate::frame::Link;
use crate::kept::Kept;
use crate::recording::{Recording, What};
use crate::state::app::Opened;
use crate::state::history::EVENTS_MAX;
use crate::state::{App, World};

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
    /// Lines beside them up to now.
    told: usize,
    now_ms: u64,
    halted: bool,
    /// The last steps by now.
    steps: BTreeMap<u64, StepRow>,
    /// The last episodes that are over by now.
    over: BTreeMap<u64, EpisodeRow>,
    /// Whether either has changed since it was put where the screens look.
    has_news: bool,
    held: Option<Held>,
}

/// What the opened episode was told of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Held {
    episode: u64,
    /// Up to which line.
    told: usize,
    entries: u32,
    is_left: bool,
}

impl Player {
    /// At the first frame, playing.
    #[must_use]
    pub fn new(recording: Recording) -> Self {
        let now_ms = recording.times().next().unwrap_or(0);
        Self {
            recording,
            shown: 0,
            told: 0,
            now_ms,
            halted: false,
            steps: BTreeMap::new(),
            over: BTreeMap::new(),
            has_news: false,
            held: None,
        }
    }

    /// The run it is of.
    #[must_use]
    pub fn run(&self) -> &str {
        self.recording.run()
    }

    /// What of the recording is not shown, in words, if anything is not.
    #[must_use]
    pub fn left_out(&self) -> Option<String> {
        self.recording.left_out()
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
        match self.recording.next_ms(self.shown, self.told) {
            Some(next) if next > self.now_ms.saturating_add(GAP_MS_MAX) => self.now_ms = next,
            Some(_) => {}
            // It is over; time stands still at its end.
            None => {
                self.now_ms = self.recording.end_ms();
                self.halted = true;
            }
        }
        for at in self.told..self.recording.kept_until(self.now_ms) {
            if self.is_for_all(at) {
                let kept = self.recording.kept(at)?;
                self.add(kept, world);
            }
            self.told = at + 1;
        }
        let until = self.recording.until(self.now_ms);
        self.fold(self.shown, until, world)
    }

    /// Jumps, and halts there.
    ///
    /// # Errors
    /// The file cannot be read any more.
    pub fn seek(&mut self, by_ms: i64, world: &mut World) -> Result<(), InspectError> {
        let first = self.recording.times().next().unwrap_or(0);
        let last = self.recording.end_ms().max(first);
        self.halted = true;
        self.now_ms = self.now_ms.saturating_add_signed(by_ms).clamp(first, last);
        let until = self.recording.until(self.now_ms);
        let from = self.recording.until(self.now_ms.saturating_sub(LEAD_MS));
        let from = from.min(until - 1).max(until.saturating_sub(LEAD_FRAMES_MAX));
        *world = World::new();
        self.gather(self.recording.kept_until(self.now_ms), world)?;
        self.fold(from, until, world)
    }

    /// Plays, or halts; from the beginning if it is at its end.
    pub fn toggle(&mut self, world: &mut World) {
        self.halted = !self.halted;
        if !self.halted && self.recording.next_ms(self.shown, self.told).is_none() {
            *world = World::new();
            self.forget();
            (self.shown, self.told) = (0, 0);
            self.now_ms = self.recording.times().next().unwrap_or(0);
        }
    }

    /// The moment that is shown, milliseconds since the Unix epoch.
    #[must_use]
    pub fn now_ms(&self) -> u64 {
        self.now_ms
    }

    /// Where it is.
    #[must_use]
    pub fn link(&self) -> Link {
        Link::Replay { at: self.shown, of: self.recording.times().len(), halted: self.halted }
    }

    /// Puts what is known by now of steps, of episodes that are over and of the one that was opened where
    /// the screens look for it.
    pub fn tell(&mut self, app: &mut App) {
        if std::mem::take(&mut self.has_news) {
            app.archive.over = self.over.values().rev().cloned().collect();
            app.archive.steps = self.steps.values().cloned().collect();
        }
        self.held = app.opened.as_mut().map(|opened| self.tell_of(opened));
    }

    /// Tells an episode what is known of it by now and was not before.
    fn tell_of(&mut self, opened: &mut Opened) -> Held {
        let episode = opened.episode;
        let is_as_left = |held: &Held| {
            let (entries, is_left) = (opened.journal.entries, opened.left.is_some());
            (held.episode, held.entries, held.is_left) == (episode, entries, is_left)
        };
        // Opened anew, or time was turned back.
        let known = self.held.filter(|held| is_as_left(held) && held.told <= self.told);
        if known.is_none() {
            *opened = Opened { episode, ..Opened::default() };
        }
        let (mut journals, mut left) = (Vec::new(), None);
        for at in known.map_or(0, |held| held.told)..self.told {
            match self.recording.what(at) {
                Some(What::Journal(of)) if of == episode => journals.push(at),
                Some(What::Left(of)) if of == episode => left = Some(at),
                _ => {}
            }
        }
        if let Some(at) = left {
            opened.left = match self.recording.kept(at) {
                Ok(Kept::Left { left, .. }) => Some(Ok(Some(Box::new(left.restore())))),
                Ok(_) => None,
                Err(error) => Some(Err(error.to_string())),
            };
        } else if opened.left.is_none() {
            for at in journals {
                match self.recording.kept(at) {
                    Ok(Kept::Journal { attempt, first, entries, .. }) => {
                        opened.journal.add(attempt, first, entries);
                    }
                    Ok(_) => {}
                    Err(error) => opened.unreadable = Some(error.to_string()),
                }
            }
        }
        let (entries, is_left) = (opened.journal.entries, opened.left.is_some());
        Held { episode, told: self.told, entries, is_left }
    }

    /// Whether a line beside the frames is about more than one episode.
    fn is_for_all(&self, at: usize) -> bool {
        let what = self.recording.what(at);
        matches!(what, Some(What::Events | What::Steps | What::Over { .. }))
    }

    fn forget(&mut self) {
        self.steps.clear();
        self.over.clear();
        self.has_news = true;
    }

    fn add(&mut self, kept: Kept, world: &mut World) {
        match kept {
            Kept::Events { events, .. } => {
                events.iter().for_each(|event| world.history.push(event));
                return;
            }
            Kept::Steps { steps, .. } => {
                self.steps.extend(steps.into_iter().map(|row| (row.step.0, row)));
                while self.steps.len() > STEPS_MAX {
                    self.steps.pop_first();
                }
            }
            Kept::Over { is_all, rows, .. } => {
                if is_all {
                    self.over.clear();
                }
                self.over.extend(rows.into_iter().map(|row| (row.episode.0, row)));
                while self.over.len() as u64 > OVER_MAX {
                    self.over.pop_first();
                }
            }
            Kept::Journal { .. } | Kept::Left { .. } => return,
        }
        self.has_news = true;
    }

    /// What was known after so many lines beside the frames, gathered from the last of them on, and only
    /// as much as is shown.
    fn gather(&mut self, until: usize, world: &mut World) -> Result<(), InspectError> {
        self.forget();
        let (mut events, mut steps, mut has_all) = (0, 0, false);
        let mut found = Vec::new();
        for at in (0..until).rev() {
            let is_wanted = match self.recording.what(at) {
                Some(What::Events) => events < EVENTS_MAX,
                Some(What::Steps) => steps < STEPS_MAX,
                Some(What::Over { .. }) => !has_all,
                Some(What::Journal(_) | What::Left(_)) | None => false,
            };
            if !is_wanted {
                continue;
            }
            let kept = self.recording.kept(at)?;
            match &kept {
                Kept::Events { events: more, .. } => events += more.len(),
                Kept::Steps { steps: more, .. } => steps += more.len(),
                Kept::Over { is_all, .. } => has_all = *is_all,
                Kept::Journal { .. } | Kept::Left { .. } => {}
            }
            found.push(kept);
        }
        for kept in found.into_iter().rev() {
            self.add(kept, world);
        }
        self.told = until;
        Ok(())
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
