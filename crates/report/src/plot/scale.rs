//! From values to places on the page, and the round numbers between.

use crate::model::Unit;
use crate::number;

/// Ticks of one axis at most.
const TICKS_MAX: usize = 12;

/// Steps between ticks of a time axis, seconds.
const MOMENTS_S: [f64; 18] = [
    1.0, 2.0, 5.0, 10.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 900.0, 1_800.0, 3_600.0, 7_200.0,
    14_400.0, 21_600.0, 43_200.0, 86_400.0,
];

/// Whether an axis ends at its data or at the next round number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fit {
    /// At the data.
    Tight,
    /// At the next tick.
    Round,
}

/// One axis.
#[derive(Debug, Clone, PartialEq)]
pub struct Scale {
    low: f64,
    high: f64,
    step: f64,
    pixels: (f64, f64),
}

impl Scale {
    /// An axis over these values, about so many ticks on it; `whole` allows no fractions. Of no
    /// finite values it is 0 to 1.
    #[must_use]
    pub fn over(
        values: impl IntoIterator<Item = f64>,
        ticks: usize,
        whole: bool,
        fit: Fit,
        pixels: (f64, f64),
    ) -> Self {
        let finite = values.into_iter().filter(|value| value.is_finite());
        let (mut low, mut high) = finite
            .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), v| (low.min(v), high.max(v)));
        if low > high {
            (low, high) = (0.0, 1.0);
        }
        if high - low <= 1e-12 * high.abs().max(low.abs()) {
            // One value only: it gets room on both sides, and 0 as its neighbour if it is 0.
            let room = if high == 0.0 { 1.0 } else { high.abs() / 2.0 };
            (low, high) = if high == 0.0 { (0.0, 1.0) } else { (low - room, high + room) };
            if whole {
                (low, high) = (low.floor(), high.ceil());
            }
        }
        let mut step = round_step((high - low) / ticks.clamp(1, TICKS_MAX) as f64);
        if whole {
            step = step.max(1.0);
        }
        if fit == Fit::Round {
            low = (low / step + 1e-9).floor() * step;
            high = (high / step - 1e-9).ceil() * step;
        }
        Self { low, high, step, pixels }
    }

    /// An axis of seconds from 0.
    #[must_use]
    pub fn moments(end_s: f64, ticks: usize, pixels: (f64, f64)) -> Self {
        let high = if end_s.is_finite() { end_s.max(1.0) } else { 1.0 };
        let wanted = high / ticks.clamp(1, TICKS_MAX) as f64;
        let step = MOMENTS_S.into_iter().find(|step| *step >= wanted);
        let step = step.unwrap_or_else(|| round_step(wanted / 86_400.0).max(1.0) * 86_400.0);
        Self { low: 0.0, high, step, pixels }
    }

    /// Where a value is; what lies outside is at the edge.
    #[must_use]
    pub fn at(&self, value: f64) -> f64 {
        let share = ((value - self.low) / (self.high - self.low)).clamp(0.0, 1.0);
        self.pixels.0 + share * (self.pixels.1 - self.pixels.0)
    }

    /// The round numbers within.
    #[must_use]
    pub fn ticks(&self) -> Vec<f64> {
        let first = (self.low / self.step - 1e-9).ceil();
        (0..=TICKS_MAX)
            .map(|i| (first + i as f64) * self.step)
            .take_while(|tick| *tick <= self.high + 1e-9 * self.step)
            .map(|tick| if tick.abs() < 1e-9 * self.step { 0.0 } else { tick })
            .collect()
    }

    /// The tick's text.
    #[must_use]
    pub fn label(&self, tick: f64, unit: Unit) -> String {
        match unit {
            Unit::Share => {
                let decimals = decimals(100.0 * self.step);
                format!("{:.decimals$} %", 100.0 * tick).replace('-', "−")
            }
            Unit::Count => number::count(tick.max(0.0).round() as u64),
            Unit::Plain | Unit::Seconds => {
                let size = self.high.abs().max(self.low.abs());
                let text = if tick == 0.0 {
                    "0".to_owned()
                } else if size < 1e-3 {
                    format!("{tick:.1e}").replace(".0e", "e")
                } else if size >= 10_000.0 {
                    let decimals = decimals(self.step / 1_000.0);
                    format!("{:.decimals$}k", tick / 1_000.0)
                } else {
                    let decimals = decimals(self.step);
                    format!("{tick:.decimals$}")
                };
                text.replace('-', "−")
            }
        }
    }
}

/// 1, 2 or 5 times a power of ten, at least this.
fn round_step(wanted: f64) -> f64 {
    if !(wanted.is_finite() && wanted > 0.0) {
        return 1.0;
    }
    let power = 10_f64.powf(wanted.log10().floor());
    let factor = [1.0, 2.0, 5.0, 10.0].into_iter().find(|f| f * power >= wanted * (1.0 - 1e-9));
    factor.unwrap_or(10.0) * power
}

/// Decimals that tell multiples of a step apart.
fn decimals(step: f64) -> usize {
    (-(step + step * 1e-9).log10().floor()).clamp(0.0, 9.0) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scale(values: &[f64], whole: bool, fit: Fit) -> Scale {
        Scale::over(values.iter().copied(), 5, whole, fit, (0.0, 100.0))
    }

    #[test]
    fn ticks_are_round_and_cover_the_data() {
        let y = scale(&[0.0, 0.37], false, Fit::Round);
        assert_eq!(y.ticks().len(), 5);
        let labels: Vec<String> = y.ticks().iter().map(|t| y.label(*t, Unit::Plain)).collect();
        assert_eq!(labels, ["0", "0.1", "0.2", "0.3", "0.4"]);
        assert_eq!((y.at(0.0), y.at(0.4), y.at(0.2)), (0.0, 100.0, 50.0));
        let x = scale(&[1.0, 30.0], true, Fit::Tight);
        assert_eq!(x.ticks(), [10.0, 20.0, 30.0]);
        assert_eq!((x.at(1.0), x.at(30.0)), (0.0, 100.0));
        let negative = scale(&[-0.013, 0.004], false, Fit::Round);
        assert_eq!(negative.ticks(), [-0.015, -0.01, -0.005, 0.0, 0.005]);
    }

    #[test]
    fn labels_suit_the_size_of_what_they_count() {
        let label =
            |values: &[f64], tick: f64, unit| scale(values, false, Fit::Round).label(tick, unit);
        assert_eq!(label(&[0.0, 1e-4], 2e-5, Unit::Plain), "2e−5");
        assert_eq!(label(&[0.0, 50_000.0], 20_000.0, Unit::Plain), "20k");
        assert_eq!(label(&[0.0, 0.04], 0.02, Unit::Share), "2 %");
        assert_eq!(label(&[0.0, 0.004], 0.0015, Unit::Share), "0.1 %");
        assert_eq!(label(&[0.0, 4.0], 3.0, Unit::Count), "3");
        assert_eq!(label(&[-2.0, 4.0], -2.0, Unit::Plain), "−2");
    }

    #[test]
    fn nothing_one_value_and_no_numbers_still_make_an_axis() {
        for values in
            [&[] as &[f64], &[f64::NAN, f64::INFINITY], &[0.0], &[7.0], &[-3.0, -3.0], &[1e300]]
        {
            for whole in [false, true] {
                let scale = scale(values, whole, Fit::Round);
                let ticks = scale.ticks();
                assert!((2..=TICKS_MAX + 1).contains(&ticks.len()), "{values:?}: {ticks:?}");
                for value in values.iter().copied().chain(ticks).filter(|v| v.is_finite()) {
                    assert!((0.0..=100.0).contains(&scale.at(value)), "{value} of {values:?}");
                }
            }
        }
        assert_eq!(scale(&[0.0, 0.0], true, Fit::Round).ticks(), [0.0, 1.0]);
    }

    #[test]
    fn time_has_ticks_people_count_in() {
        let scale = Scale::moments(336.0, 6, (0.0, 1.0));
        assert_eq!(scale.ticks(), [0.0, 60.0, 120.0, 180.0, 240.0, 300.0]);
        let year = Scale::moments(365.0 * 86_400.0, 6, (0.0, 1.0)).ticks();
        assert!(year.len() <= TICKS_MAX && year[1] % 86_400.0 == 0.0, "{year:?}");
    }
}
