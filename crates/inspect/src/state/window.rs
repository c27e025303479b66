//! Counters of one actor over the last minute, and the rates between them.
//!
//! Times are the actor's own (since it was started), so that a late report bends no rate.

use std::collections::VecDeque;

use crrl_types::actor::ActorReport;

/// Samples that are kept: a minute at a report a second.
pub const SAMPLES_MAX: usize = 61;
/// Rates are means over so much, milliseconds.
pub const SPAN_MS: u64 = 5_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Sample {
    up_ms: u64,
    handled: u64,
    busy_ms: u64,
    waiting: u32,
}

/// The last minute of an actor.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Window(VecDeque<Sample>);

impl Window {
    /// Adds a report. The same report twice counts once; an actor that was started again begins
    /// anew.
    pub fn push(&mut self, report: &ActorReport) {
        let at_it = report.handling.as_ref().map_or(0, |(_, ms)| *ms);
        let sample = Sample {
            up_ms: report.up_ms,
            handled: report.handled,
            // What it is at now counts, or one that hangs would look idle.
            busy_ms: report.busy_ms.saturating_add(at_it),
            waiting: report.waiting,
        };
        match self.0.back() {
            Some(last) if last.up_ms == sample.up_ms => return,
            Some(last) if last.up_ms > sample.up_ms || last.handled > sample.handled => {
                self.0.clear();
            }
            _ => {}
        }
        self.0.push_back(sample);
        while self.0.len() > SAMPLES_MAX {
            self.0.pop_front();
        }
    }

    /// Messages a second over the last [`SPAN_MS`]; `None` before there are two reports.
    #[must_use]
    pub fn rate(&self) -> Option<f64> {
        let (first, last) = self.ends()?;
        Some((last.handled - first.handled) as f64 * 1000.0 / (last.up_ms - first.up_ms) as f64)
    }

    /// By how many a second the messages that wait became more over the last [`SPAN_MS`], less than 0 where
    /// they became fewer; `None` before there are two reports.
    #[must_use]
    pub fn growth(&self) -> Option<f64> {
        let (first, last) = self.ends()?;
        let more = f64::from(last.waiting) - f64::from(first.waiting);
        Some(more * 1000.0 / (last.up_ms - first.up_ms) as f64)
    }

    /// Share of the time it was at a message, 0 to 1.
    #[must_use]
    pub fn busy(&self) -> Option<f64> {
        let (first, last) = self.ends()?;
        let busy = last.busy_ms.saturating_sub(first.busy_ms) as f64;
        Some((busy / (last.up_ms - first.up_ms) as f64).min(1.0))
    }

    /// Messages a second between each two reports, oldest first.
    #[must_use]
    pub fn rates(&self) -> Vec<f64> {
        let pairs = self.0.iter().zip(self.0.iter().skip(1));
        pairs
            .map(|(a, b)| (b.handled - a.handled) as f64 * 1000.0 / (b.up_ms - a.up_ms) as f64)
            .collect()
    }

    fn ends(&self) -> Option<(Sample, Sample)> {
        let last = *self.0.back()?;
        let first = *self.0.iter().find(|s| last.up_ms - s.up_ms <= SPAN_MS)?;
        let before = || self.0.iter().rev().nth(1).copied();
        // Reports further apart than the span: the last two.
        let first = if first.up_ms == last.up_ms { before()? } else { first };
        Some((first, last))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(up_ms: u64, handled: u64, busy_ms: u64) -> ActorReport {
        ActorReport { up_ms, handled, busy_ms, ..ActorReport::default() }
    }

    fn window(reports: &[ActorReport]) -> Window {
        let mut window = Window::default();
        reports.iter().for_each(|report| window.push(report));
        window
    }

    #[test]
    fn rates_are_means_over_five_seconds() {
        let reports: Vec<_> = (0..10).map(|s| report(s * 1000, s * 20, s * 250)).collect();
        let window = window(&reports);
        assert_eq!(window.rate(), Some(20.0));
        assert_eq!(window.busy(), Some(0.25));
        assert_eq!(window.rates(), [20.0; 9]);
    }

    #[test]
    fn a_mailbox_that_fills_grows_and_one_that_empties_shrinks() {
        let filled = |waiting: [u32; 3]| {
            let seconds = waiting.into_iter().zip(1..);
            let reports: Vec<_> = seconds
                .map(|(waiting, s)| ActorReport { waiting, ..report(s * 1000, 9, 0) })
                .collect();
            window(&reports).growth()
        };
        assert_eq!(filled([0, 10, 30]), Some(15.0));
        assert_eq!(filled([30, 10, 0]), Some(-15.0));
        assert_eq!(filled([7, 900, 7]), Some(0.0));
        assert_eq!(window(&[report(1000, 1, 0)]).growth(), None);
    }

    #[test]
    fn one_report_says_nothing_of_rates_and_the_same_twice_is_one() {
        let window = window(&[report(1000, 5, 0), report(1000, 5, 0)]);
        assert_eq!((window.rate(), window.busy()), (None, None));
    }

    #[test]
    fn an_actor_that_was_started_again_begins_anew() {
        let window = window(&[report(9000, 500, 0), report(1000, 4, 0), report(2000, 6, 0)]);
        assert_eq!((window.rate(), window.rates().len()), (Some(2.0), 1));
        // One that had nothing to do, and has nothing to do.
        let idle = self::window(&[report(9000, 0, 0), report(1000, 0, 0), report(2000, 0, 0)]);
        assert_eq!((idle.rate(), idle.rates().len()), (Some(0.0), 1));
    }

    #[test]
    fn an_actor_that_hangs_is_busy() {
        let hung = |up_ms, at| ActorReport {
            handling: Some(("Batch".into(), at)),
            ..report(up_ms, 3, 100)
        };
        assert_eq!(window(&[hung(5000, 4000), hung(7000, 6000)]).busy(), Some(1.0));
    }

    #[test]
    fn it_is_bounded_and_survives_gaps() {
        let reports: Vec<_> = (0..500).map(|s| report(s * 60_000, s, 0)).collect();
        let window = window(&reports);
        assert_eq!(window.0.len(), SAMPLES_MAX);
        assert!(window.rate().is_some_and(|rate| (rate - 1.0 / 60.0).abs() < 1e-9));
    }
}
