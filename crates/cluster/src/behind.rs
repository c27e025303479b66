//! How long messages have waited that are too many to be timed one by one.

use std::collections::VecDeque;
use std::time::Instant;

/// Runs that are kept: 24 KiB for each actor with so long a mailbox. Where there would be more, every
/// two neighbours become one, so a run is about a 512th of the most that waited behind those, or less.
const RUNS_MAX: usize = 1024;

/// Messages too many to be timed one by one, in the order they came: how long a run of them is, and
/// when its first came. What is told of the others of a run is that time, so that none is taken for
/// younger than it is.
#[derive(Debug)]
pub(crate) struct Behind {
    runs: VecDeque<(Instant, u32)>,
    /// Messages of a run that is full.
    run_max: u32,
    pub(crate) messages: u32,
}

impl Default for Behind {
    fn default() -> Self {
        Self { runs: VecDeque::new(), run_max: 1, messages: 0 }
    }
}

impl Behind {
    /// One more came.
    pub(crate) fn push(&mut self, at: Instant) {
        self.messages = self.messages.saturating_add(1);
        if let Some((_, count)) = self.runs.back_mut()
            && *count < self.run_max
        {
            *count += 1;
            return;
        }
        if self.runs.len() == RUNS_MAX {
            self.merge();
        }
        self.runs.push_back((at, 1));
    }

    /// When the first of them came, or the first of its run.
    pub(crate) fn pop(&mut self) -> Option<Instant> {
        let (at, count) = self.runs.front_mut()?;
        let at = *at;
        *count -= 1;
        if *count == 0 {
            self.runs.pop_front();
        }
        self.messages = self.messages.saturating_sub(1);
        if self.runs.is_empty() {
            self.run_max = 1;
        }
        Some(at)
    }

    /// The last of them is none after all; whether there was one.
    pub(crate) fn take_back(&mut self) -> bool {
        let Some((_, count)) = self.runs.back_mut() else { return false };
        *count -= 1;
        if *count == 0 {
            self.runs.pop_back();
        }
        self.messages = self.messages.saturating_sub(1);
        if self.runs.is_empty() {
            self.run_max = 1;
        }
        true
    }

    fn merge(&mut self) {
        self.run_max = self.run_max.saturating_mul(2);
        let mut runs = std::mem::take(&mut self.runs).into_iter();
        while let Some((at, count)) = runs.next() {
            let more = runs.next().map_or(0, |(_, more)| more);
            self.runs.push_back((at, count.saturating_add(more)));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn of_a_long_mailbox_the_age_is_known_to_a_small_share_of_it() {
        const MESSAGES: u32 = 100_000;
        let (began, mut behind) = (Instant::now(), Behind::default());
        let came = |nth: u32| began + Duration::from_millis(u64::from(nth));
        for nth in 0..MESSAGES {
            behind.push(came(nth));
            assert!(behind.runs.len() <= RUNS_MAX && behind.messages == nth + 1);
        }
        // Half of them go; others come all the while.
        for nth in 0..MESSAGES {
            let at = behind.pop().expect("it waits");
            let older = came(nth).checked_duration_since(at).expect("none is taken for younger");
            assert!(older < Duration::from_millis(u64::from(MESSAGES / 512)), "{nth}: {older:?}");
            if nth.is_multiple_of(2) {
                behind.push(came(MESSAGES + nth / 2));
            }
        }
        assert_eq!(behind.messages, MESSAGES / 2);
        for left in (0..MESSAGES / 2).rev() {
            assert!(behind.pop().is_some() && behind.messages == left);
        }
        assert!(behind.pop().is_none());
        // One that did not come after all is the last.
        (0..3).for_each(|nth| behind.push(came(nth)));
        assert!(behind.take_back() && behind.messages == 2);
        assert!((0..2).all(|nth| behind.pop() == Some(came(nth))));
        assert!(!behind.take_back() && behind.pop().is_none());
        // It is exact again once it was empty.
        (0..3).for_each(|nth| behind.push(came(nth)));
        assert!((0..3).all(|nth| behind.pop() == Some(came(nth))));
    }
}
