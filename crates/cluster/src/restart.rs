//! Whether and when something that ended is started again: restart intensity in a window,
//! exponential backoff. Pure: time and jitter are passed in.

use std::collections::VecDeque;
use std::time::Duration;

/// Who is restarted with a child that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Strategy {
    /// The child alone.
    OneForOne,
    /// The child and all that were started after it, since they may hold on to it.
    RestForOne,
    /// Every child, since each may hold on to any other.
    OneForAll,
}

/// How often restarts are allowed: at most `restarts_max` within `window`, counted for each child.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Intensity {
    /// Restarts.
    pub restarts_max: u32,
    /// The window they are counted in.
    pub window: Duration,
}

/// How long to wait before a restart: doubles from `min` up to `max`, with jitter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// Before the first restart.
    pub min: Duration,
    /// At most.
    pub max: Duration,
}

impl Backoff {
    /// The wait after that many failures in a row (0 waits half of `min` to `min`). `jitter` is in
    /// 0..1 and takes off up to half, so that many do not restart in step.
    #[must_use]
    pub fn wait(&self, failures: u32, jitter: f64) -> Duration {
        let doubled = self.min.saturating_mul(1 << failures.saturating_sub(1).min(20));
        jittered(doubled.min(self.max), jitter)
    }

    /// The longest wait, whatever was before.
    #[must_use]
    pub fn longest(&self, jitter: f64) -> Duration {
        jittered(self.max, jitter)
    }
}

fn jittered(wait: Duration, jitter: f64) -> Duration {
    wait.mul_f64(1.0 - 0.5 * jitter.clamp(0.0, 1.0))
}

/// What to do about a child that ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Start these children again, in this order, after this long.
    Restart {
        /// Indices of children.
        children: Vec<usize>,
        /// How long to wait.
        after: Duration,
    },
    /// Too many restarts: give up, and let whoever is above decide.
    Escalate {
        /// The child that could not be kept up.
        child: usize,
        /// Restarts it had within the window.
        restarts: u32,
    },
}

/// Restarts of a group of children.
#[derive(Debug, Clone)]
pub struct Restarts {
    strategy: Strategy,
    intensity: Intensity,
    backoff: Backoff,
    history: Vec<VecDeque<Duration>>,
}

impl Restarts {
    /// No restart yet, of `children` children.
    #[must_use]
    pub fn new(
        strategy: Strategy,
        intensity: Intensity,
        backoff: Backoff,
        children: usize,
    ) -> Self {
        Self { strategy, intensity, backoff, history: vec![VecDeque::new(); children] }
    }

    /// One more child, after the last.
    pub fn add_child(&mut self) {
        self.history.push(VecDeque::new());
    }

    /// Who is restarted with a child, itself included, in the order they are started.
    #[must_use]
    pub fn with(&self, child: usize) -> std::ops::Range<usize> {
        match self.strategy {
            Strategy::OneForOne => child..child + 1,
            Strategy::RestForOne => child..self.history.len(),
            Strategy::OneForAll => 0..self.history.len(),
        }
    }

    /// Decides about a child that failed at `now` (time since any fixed moment). `jitter` is in
    /// 0..1.
    ///
    /// # Panics
    /// If there is no such child.
    pub fn failed(&mut self, child: usize, now: Duration, jitter: f64) -> Verdict {
        let window = self.intensity.window;
        let with = self.with(child);
        let history = &mut self.history[child];
        while history.front().is_some_and(|at| now.saturating_sub(*at) >= window) {
            history.pop_front();
        }
        let recent = u32::try_from(history.len()).unwrap_or(u32::MAX);
        if recent >= self.intensity.restarts_max {
            return Verdict::Escalate { child, restarts: recent };
        }
        history.push_back(now);
        let after = self.backoff.wait(recent + 1, jitter);
        Verdict::Restart { children: with.collect(), after }
    }

    /// How long to wait before a child is tried again that has not failed itself: the longest wait, and
    /// nothing is counted. `jitter` is in 0..1.
    #[must_use]
    pub fn uncounted(&self, jitter: f64) -> Duration {
        self.backoff.longest(jitter)
    }

    /// Restarts of a child within the window that ends at `now`.
    #[must_use]
    pub fn recent(&self, child: usize, now: Duration) -> usize {
        let within = |at: &&Duration| now.saturating_sub(**at) < self.intensity.window;
        self.history.get(child).map_or(0, |history| history.iter().filter(within).count())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn restarts(strategy: Strategy) -> Restarts {
        let intensity = Intensity { restarts_max: 3, window: SECOND * 10 };
        let backoff = Backoff { min: Duration::from_millis(100), max: SECOND };
        Restarts::new(strategy, intensity, backoff, 3)
    }

    fn after(verdict: &Verdict) -> Duration {
        match verdict {
            Verdict::Restart { after, .. } => *after,
            Verdict::Escalate { .. } => panic!("gave up: {verdict:?}"),
        }
    }

    #[test]
    fn waits_double_and_stay_below_the_longest() {
        let mut group = restarts(Strategy::OneForOne);
        let waits = [0, 1, 2].map(|at| after(&group.failed(0, SECOND * at, 0.0)).as_millis());
        assert_eq!(waits, [100, 200, 400]);
        let backoff = Backoff { min: Duration::from_millis(100), max: SECOND };
        assert_eq!(backoff.wait(60, 0.0), SECOND);
        assert_eq!(backoff.wait(60, 1.0), SECOND / 2);
    }

    #[test]
    fn too_many_restarts_in_the_window_escalate_and_older_ones_are_forgotten() {
        let mut group = restarts(Strategy::OneForOne);
        for at in 0..3 {
            after(&group.failed(1, SECOND * at, 0.5));
        }
        assert_eq!(group.failed(1, SECOND * 9, 0.5), Verdict::Escalate { child: 1, restarts: 3 });
        after(&group.failed(0, SECOND * 9, 0.5));
        after(&group.failed(1, SECOND * 10, 0.5));
    }

    #[test]
    fn a_child_that_has_not_failed_itself_is_tried_for_ever_at_the_longest_wait() {
        let mut group = restarts(Strategy::OneForOne);
        after(&group.failed(1, SECOND, 0.0));
        for _ in 0..20 {
            assert_eq!(group.uncounted(0.0), SECOND);
            assert_eq!(group.uncounted(1.0), SECOND / 2);
        }
        assert_eq!(group.recent(1, SECOND * 2), 1);
        after(&group.failed(1, SECOND * 2, 0.0));
    }

    #[test]
    fn who_is_restarted_with_a_child_depends_on_who_may_rely_on_it() {
        for (strategy, taken_along) in [
            (Strategy::OneForOne, vec![1]),
            (Strategy::RestForOne, vec![1, 2]),
            (Strategy::OneForAll, vec![0, 1, 2]),
        ] {
            let mut group = restarts(strategy);
            let Verdict::Restart { children, .. } = group.failed(1, SECOND, 0.0) else {
                panic!("the first failure is no reason to give up");
            };
            assert_eq!(children, taken_along, "{strategy:?}");
            assert_eq!(group.with(1).collect::<Vec<_>>(), taken_along, "{strategy:?}");
        }
    }

    #[test]
    fn those_that_are_taken_along_have_not_failed_themselves() {
        let mut group = restarts(Strategy::OneForAll);
        for at in 0..3 {
            after(&group.failed(1, SECOND * at, 0.5));
        }
        assert_eq!(group.recent(0, SECOND * 3), 0);
        after(&group.failed(0, SECOND * 3, 0.5));
        assert_eq!(group.failed(1, SECOND * 3, 0.5), Verdict::Escalate { child: 1, restarts: 3 });
    }
}
