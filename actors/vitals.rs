//! What a node measures of itself once a second, beside its actors: none of them is asked, and nothing
//! is waited for.

use std::collections::VecDeque;
use std::time::{Duration, Instant, UNIX_EPOCH};

use crrl_control::wire::Wire;
use crrl_types::{RoundTrip, Vitals};
use nix::sys::resource::{UsageWho, getrusage};

use crate::gpus::Gpus;

/// Round trips that are kept: two minutes at one a second.
const TRIPS_MAX: usize = 120;
/// CPU time over less than this says little.
const SPAN_MIN: Duration = Duration::from_millis(100);

/// Measures. What it keeps is bounded.
#[derive(Debug)]
pub(crate) struct Meter {
    gpus: Option<Gpus>,
    trips: VecDeque<Duration>,
    /// CPU time of the process so far, and when that was.
    cpu: Option<(Duration, Instant)>,
    /// What the node says it is doing, and since when.
    activity: (String, Instant),
}

impl Meter {
    pub(crate) fn new(gpus: Option<Gpus>, now: Instant) -> Self {
        let activity = (String::new(), now);
        Self { gpus, trips: VecDeque::new(), cpu: None, activity }
    }

    /// What is told with a report in which the node says that it is doing this, if the coordinator is so
    /// far away; `None` in the coordinator itself, and where it is not connected.
    pub(crate) fn measure(
        &mut self,
        activity: &str,
        round_trip: Option<Duration>,
        now: Instant,
    ) -> Wire {
        if self.activity.0 != activity {
            self.activity = (activity.to_owned(), now);
        }
        let doing = now.saturating_duration_since(self.activity.1);
        if let Some(round_trip) = round_trip {
            self.trips.push_back(round_trip);
            while self.trips.len() > TRIPS_MAX {
                self.trips.pop_front();
            }
        }
        let vitals = Vitals {
            build: env!("CARGO_PKG_VERSION").to_owned(),
            cpu_percent: cpu_time().and_then(|used| self.cpu_percent(used, now)),
            gpus: self.gpus.as_ref().map(Gpus::seen).unwrap_or_default(),
            round_trip: quantiles(&self.trips),
        };
        let sent = crrl_machine::clock::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Wire::Vitals {
            sent_us: u64::try_from(sent.as_micros()).unwrap_or(u64::MAX),
            activity_ms: u64::try_from(doing.as_millis()).unwrap_or(u64::MAX),
            vitals,
        }
    }

    /// Percent of one core since the measurement before, if the process has used so much by now.
    fn cpu_percent(&mut self, used: Duration, now: Instant) -> Option<f64> {
        let (before, at) = self.cpu.replace((used, now))?;
        let span = now.saturating_duration_since(at);
        if span < SPAN_MIN {
            return None;
        }
        let percent = 100.0 * used.saturating_sub(before).div_duration_f64(span);
        Some((percent * 10.0).round() / 10.0)
    }
}

/// CPU time of this process so far, all threads.
fn cpu_time() -> Option<Duration> {
    let usage = getrusage(UsageWho::RUSAGE_SELF).ok()?;
    let time = |s: i64, us: i64| {
        Some(Duration::from_secs(s.try_into().ok()?) + Duration::from_micros(us.try_into().ok()?))
    };
    let (user, system) = (usage.user_time(), usage.system_time());
    Some(time(user.tv_sec(), user.tv_usec())? + time(system.tv_sec(), system.tv_usec())?)
}

/// By nearest rank.
fn quantiles(trips: &VecDeque<Duration>) -> Option<RoundTrip> {
    let mut sorted: Vec<Duration> = trips.iter().copied().collect();
    sorted.sort_unstable();
    let us = |percent: usize| {
        let rank = (sorted.len() * percent).div_ceil(100).max(1);
        let trip = sorted.get(rank - 1)?;
        Some(u64::try_from(trip.as_micros()).unwrap_or(u64::MAX))
    };
    let samples = u32::try_from(sorted.len()).unwrap_or(u32::MAX);
    Some(RoundTrip { p50_us: us(50)?, p99_us: us(99)?, samples })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(meter: &mut Meter, says: &str, trip: Option<u64>, now: Instant) -> (u64, Vitals) {
        match meter.measure(says, trip.map(Duration::from_millis), now) {
            Wire::Vitals { activity_ms, vitals, .. } => (activity_ms, vitals),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_time_a_node_has_been_at_something_counts_from_when_it_said_so() {
        let begin = Instant::now();
        let after = |s| begin + Duration::from_secs(s);
        let mut meter = Meter::new(None, begin);
        assert_eq!(measured(&mut meter, "starting", None, after(2)).0, 0);
        assert_eq!(measured(&mut meter, "waiting for a batch", None, after(3)).0, 0);
        let (activity_ms, vitals) = measured(&mut meter, "waiting for a batch", None, after(44));
        assert_eq!(activity_ms, 41_000);
        assert_eq!(vitals.build, env!("CARGO_PKG_VERSION"));
        assert_eq!((vitals.gpus, vitals.round_trip), (Vec::new(), None), "absent, and not 0");
    }

    #[test]
    fn round_trips_are_told_by_their_quantiles_over_the_last_two_minutes() {
        let begin = Instant::now();
        let mut meter = Meter::new(None, begin);
        // A slow minute, which is forgotten, and two in which one trip of a hundred is slow.
        for _ in 0..60 {
            measured(&mut meter, "", Some(500), begin);
        }
        for n in 0..TRIPS_MAX as u64 {
            measured(&mut meter, "", Some(if n < 2 { 90 } else { 4 }), begin);
        }
        let told = measured(&mut meter, "", None, begin).1.round_trip;
        assert_eq!(told, Some(RoundTrip { p50_us: 4_000, p99_us: 90_000, samples: 120 }));
    }

    #[test]
    fn cpu_time_is_told_of_the_time_between_two_measurements() {
        let begin = Instant::now();
        let mut meter = Meter::new(None, begin);
        let s = Duration::from_secs_f64;
        assert_eq!(meter.cpu_percent(s(10.0), begin), None, "there is nothing to compare with");
        assert_eq!(meter.cpu_percent(s(12.5), begin + s(1.0)), Some(250.0));
        assert_eq!(meter.cpu_percent(s(12.5), begin + s(1.05)), None, "too soon to say");
        assert_eq!(meter.cpu_percent(s(12.5), begin + s(2.05)), Some(0.0));
        assert!(cpu_time().is_some_and(|used| used > Duration::ZERO));
    }
}
