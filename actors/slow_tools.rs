//! Tool calls that take longer, on purpose: some a little, a few very much, as where commands build and
//! test.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crrl_types::fault::{Fault, FaultSeen, Injection};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

/// Faults that are told of at once.
const SLOW_MAX: usize = 16;
/// One that is over is told of for so long.
const TOLD_FOR: Duration = Duration::from_secs(60);

/// How slow the tools of one node are. Cloning gives another handle to the same.
#[derive(Debug, Clone, Default)]
pub struct SlowTools(Arc<Mutex<Vec<Slow>>>);

#[derive(Debug)]
struct Slow {
    id: u64,
    mean_ms: u32,
    until: Instant,
    draws: StdRng,
    fired: u64,
}

impl SlowTools {
    /// From now on, for as long as the injection says.
    pub fn begin(&self, injection: Injection) {
        let Injection { id, fault: Fault::SlowTools { ms }, duration_ms, seed } = injection else {
            return;
        };
        self.change(|all| {
            if all.len() == SLOW_MAX {
                all.remove(0);
            }
            all.push(Slow {
                id,
                mean_ms: ms,
                until: Instant::now() + Duration::from_millis(duration_ms),
                draws: StdRng::seed_from_u64(seed),
                fired: 0,
            });
        });
    }

    /// Ends the fault of this number before its time; whether there was one. Calls that are late already
    /// stay so.
    pub fn lift(&self, id: u64) -> bool {
        let now = Instant::now();
        self.change(|all| {
            let mut found = false;
            for slow in all.iter_mut().filter(|slow| slow.id == id && now < slow.until) {
                slow.until = now;
                found = true;
            }
            found
        })
    }

    /// How much longer the next call takes: exponentially distributed, drawn from the fault's seed.
    #[must_use]
    pub fn next(&self, now: Instant) -> Duration {
        self.change(|all| all.iter_mut().filter(|slow| now < slow.until).map(Slow::draw).sum())
    }

    /// What is known of each.
    #[must_use]
    pub fn seen(&self) -> Vec<FaultSeen> {
        let now = Instant::now();
        let seen = |slow: &Slow| FaultSeen {
            id: slow.id,
            fault: Fault::SlowTools { ms: slow.mean_ms },
            fired: slow.fired,
            active: now < slow.until,
        };
        self.change(|all| {
            all.retain(|slow| now < slow.until + TOLD_FOR);
            all.iter().map(seen).collect()
        })
    }

    fn change<T>(&self, change: impl FnOnce(&mut Vec<Slow>) -> T) -> T {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Slow {
    fn draw(&mut self) -> Duration {
        self.fired += 1;
        // The uniform draw is below 1, so the logarithm is finite: 37 times the mean at most.
        let share = -(1.0 - self.draws.random::<f64>()).ln();
        Duration::from_millis(self.mean_ms.into()).mul_f64(share)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_late_by_the_mean_until_it_is_over_or_lifted() {
        let slow = SlowTools::default();
        let began = Instant::now();
        assert_eq!(slow.next(began), Duration::ZERO);
        let fault = Fault::SlowTools { ms: 100 };
        slow.begin(Injection { id: 7, fault, duration_ms: 60_000, seed: 1 });
        let late: Vec<Duration> = (0..2000).map(|_| slow.next(began)).collect();
        let mean = late.iter().sum::<Duration>() / 2000;
        assert!((90..110).contains(&mean.as_millis()), "{mean:?}");
        assert!(late.iter().any(|late| *late > 4 * mean), "a few take very much longer");
        assert_eq!(slow.next(began + Duration::from_secs(61)), Duration::ZERO);
        assert_eq!(slow.seen(), [FaultSeen { id: 7, fault, fired: 2000, active: true }]);
        assert!(!slow.lift(8), "nobody has begun it");
        assert!(slow.lift(7));
        assert!(!slow.lift(7), "it is over");
        assert_eq!(slow.next(Instant::now()), Duration::ZERO);
        assert_eq!(slow.seen(), [FaultSeen { id: 7, fault, fired: 2000, active: false }]);
    }
}
