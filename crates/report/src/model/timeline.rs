//! Episodes and faults over wall time.

use crrl_types::Deed;
use serde::Serialize;

use super::curve::Unit;
use super::tally::{Bar, Stack};
use crate::facts::{Facts, Mark, MarkKind};

/// Bars of the throughput plot at most.
const BARS_MAX: u64 = 60;
/// Widths of a bar, seconds: the shortest is taken that gives few enough bars.
const WIDTHS_S: [u64; 16] =
    [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1_800, 3_600, 7_200, 21_600, 86_400];

/// Faults that are listed; the rest is counted.
pub const LISTED_MAX: usize = 100;

/// Episodes and faults over wall time.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Timeline {
    /// Episodes that came back, per minute; `None` where none did.
    pub throughput: Option<Stack>,
    /// Faults, seconds since the run began.
    pub marks: Vec<(f64, Mark)>,
    /// How many there were of each kind, lost leases each counted.
    pub counts: Vec<(MarkKind, u64)>,
    /// Faults past those that were kept.
    pub left_out: u64,
    /// Faults that were injected and orders that were given, seconds since the run began.
    pub deeds: Vec<(f64, Deed)>,
}

impl Timeline {
    pub(crate) fn of(facts: &Facts) -> Self {
        let history = &facts.history;
        let began = history.began_ms.or(facts.deeds.first().map(|deed| deed.at_ms)).unwrap_or(0);
        let since = |at_ms: u64| at_ms.saturating_sub(began) as f64 / 1_000.0;
        let times = |kind: MarkKind| {
            let of_kind = history.marks.iter().filter(move |mark| mark.kind == kind);
            of_kind.map(|mark| u64::from(mark.times)).sum()
        };
        Self {
            throughput: throughput(facts),
            marks: history.marks.iter().map(|mark| (since(mark.at_ms), mark.clone())).collect(),
            counts: MarkKind::ALL.map(|kind| (kind, times(kind))).to_vec(),
            left_out: history.marks_left_out,
            deeds: facts.deeds.iter().map(|deed| (since(deed.at_ms), deed.clone())).collect(),
        }
    }
}

fn width_s(span_s: u64) -> u64 {
    let fits = |width: &u64| span_s / width < BARS_MAX;
    // Months: as many days as it takes.
    WIDTHS_S
        .into_iter()
        .find(fits)
        .unwrap_or_else(|| (span_s / BARS_MAX + 1).div_ceil(86_400) * 86_400)
}

fn throughput(facts: &Facts) -> Option<Stack> {
    let history = &facts.history;
    let (began, ended) = (history.began_ms?, history.ended_ms?);
    if history.returned.is_empty() {
        return None;
    }
    let span_s = ended.saturating_sub(began).div_ceil(1_000).max(1);
    let width = width_s(span_s);
    let n = (span_s / width + 1) as usize;
    let mut counts = vec![[0.0, 0.0]; n];
    for episode in &facts.episodes {
        if let Some(returned) = history.returned.get(&episode.id) {
            let at = (returned.at_ms.saturating_sub(began) / 1_000 / width) as usize;
            counts[at.min(n - 1)][usize::from(episode.evaluation)] += 1.0;
        }
    }
    let evaluated = counts.iter().any(|counts| counts[1] > 0.0);
    let parts = if evaluated { 2 } else { 1 };
    // The last stretch is shorter: its pace counts for the time it has.
    let bars: Vec<Bar> = counts
        .iter()
        .zip(0_u64..)
        .map(|(counts, at)| {
            let (from, to) = (at * width, ((at + 1) * width).min(span_s));
            let minutes = (to.saturating_sub(from).max(1)) as f64 / 60.0;
            Bar {
                from: from as f64,
                to: to as f64,
                parts: counts[..parts].iter().map(|n| n / minutes).collect(),
            }
        })
        .filter(|bar| bar.to > bar.from)
        .collect();
    Some(Stack {
        id: "throughput".to_owned(),
        title: "Episodes that came back, per minute".to_owned(),
        x_name: "time since the run began".to_owned(),
        unit: Unit::Plain,
        about: format!("Counted in stretches of {} each.", crate::number::moment(width as f64)),
        names: ["training", "evaluation"][..parts].iter().map(|&name| name.to_owned()).collect(),
        bars,
        areas: false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_are_few_and_of_round_width() {
        for (span, width) in [(0, 1), (59, 1), (60, 2), (3_600, 120), (86_400, 1_800)] {
            assert_eq!(width_s(span), width, "{span} s");
        }
        let year = 365 * 86_400;
        assert!(year / width_s(year) < BARS_MAX && width_s(year).is_multiple_of(86_400));
    }
}
