//! Curves, with what was measured as dots and how sure they are as bands.

use std::fmt::Write as _;

use super::colour;
use super::frame::{ACROSS, Below, SIZE, UP, draw};
use super::scale::{Fit, Scale};
use super::svg::Svg;
use crate::model::{Band, Chart, Point, Series, Unit};
use crate::number;
use crate::text;

/// Bands that are drawn: more of them on each other hide the lines.
const BANDS_MAX: usize = 3;

/// Dots that say what they are when pointed at; of more, none can be hit.
const HINTS_MAX: usize = 150;

/// Pixels between the points of a line that are marked; closer, they are one smear.
const NODE_APART: f64 = 6.0;

/// Draws a chart.
#[must_use]
pub fn lines(chart: &Chart) -> String {
    let all = || chart.series.iter().flat_map(|series| series.line.iter().chain(&series.raw));
    let bands = || {
        let with = chart.series.iter().filter(|series| !series.band.is_empty());
        with.take(BANDS_MAX).flat_map(|series| &series.band)
    };
    let x = Scale::over(all().map(|point| point.x), 7, true, Fit::Tight, ACROSS);
    let values: Vec<f64> =
        all().map(|point| point.y).chain(bands().flat_map(|band| [band.low, band.high])).collect();
    // What cannot be negative is seen best above 0.
    let floor = values.iter().all(|value| *value >= 0.0).then_some(0.0);
    let y = Scale::over(values.into_iter().chain(floor), 5, false, Fit::Round, UP);
    let mut svg = Svg::new(&chart.id, SIZE, &chart.title, &description(chart));
    draw(&mut svg, &x, &y, (&chart.x_name, chart.unit), Below::Numbers, ACROSS.1);
    let place = |point: &Point| (x.at(point.x), y.at(point.y));
    let mut banded = 0;
    for (at, series) in chart.series.iter().enumerate().filter(|(_, s)| !s.band.is_empty()) {
        if banded < BANDS_MAX {
            banded += 1;
            for stretch in stretches(series) {
                let upper = stretch.iter().map(|band| (x.at(band.x), y.at(band.high)));
                let lower = stretch.iter().rev().map(|band| (x.at(band.x), y.at(band.low)));
                let points: Vec<_> = upper.chain(lower).collect();
                svg.polygon(&format!("band f{}", colour(at)), &points, "");
            }
        }
    }
    for (at, series) in chart.series.iter().enumerate() {
        for point in &series.raw {
            let few = series.raw.len() <= HINTS_MAX;
            let hint = if few { hint(chart, point) } else { String::new() };
            svg.circle(&format!("dot f{}", colour(at)), place(point), 2.2, &hint);
        }
    }
    for (at, series) in chart.series.iter().enumerate().rev() {
        let points: Vec<_> = series.line.iter().map(place).collect();
        svg.polyline(&format!("line s{0} d{0}", colour(at)), &points);
        // A line of one point is none; and without dots its points are what was measured.
        let ends = points.first().zip(points.last());
        let width = ends.map_or(0.0, |(first, last)| last.0 - first.0);
        let few = series.raw.is_empty() && width / points.len() as f64 >= NODE_APART;
        for point in series.line.iter().filter(|_| few || series.line.len() == 1) {
            svg.circle(&format!("node f{}", colour(at)), place(point), 2.2, &hint(chart, point));
        }
    }
    svg.finish()
}

/// The band where points next to each other have one: it does not cross a point without.
fn stretches(series: &Series) -> Vec<Vec<Band>> {
    let mut stretches = vec![Vec::new()];
    let mut bands = series.band.iter().peekable();
    for point in &series.line {
        match bands.next_if(|band| band.x <= point.x) {
            Some(band) => stretches.last_mut().expect("never empty").push(*band),
            None => stretches.push(Vec::new()),
        }
    }
    stretches.retain(|stretch| stretch.len() > 1);
    stretches
}

fn hint(chart: &Chart, point: &Point) -> String {
    format!("{} {}: {}", chart.x_name, number::value(point.x), shown(point.y, chart.unit))
}

/// A value in its unit.
pub(crate) fn shown(value: f64, unit: Unit) -> String {
    match unit {
        Unit::Share => number::percent(value),
        Unit::Count => number::count(value.max(0.0).round() as u64),
        Unit::Seconds => format!("{} s", number::value(value)),
        Unit::Plain => number::value(value),
    }
}

/// The chart in words, as HTML.
fn description(chart: &Chart) -> String {
    let mut out = String::new();
    for series in chart.series.iter().filter(|series| !series.line.is_empty()) {
        let Series { label, line, .. } = series;
        let (first, last) = (line[0], line[line.len() - 1]);
        let (low, high) = line
            .iter()
            .fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), p| (l.min(p.y), h.max(p.y)));
        let shown = |value| shown(value, chart.unit);
        write!(
            out,
            "{}: from {} at {} {} to {} at {}, lowest {}, highest {}. ",
            text::attribute(label),
            shown(first.y),
            text::attribute(&chart.x_name),
            first.x,
            shown(last.y),
            last.x,
            shown(low),
            shown(high),
        )
        .expect("a string takes everything");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chart(series: Vec<Series>) -> Chart {
        Chart {
            id: "c".into(),
            title: "Reward <of all>".into(),
            x_name: "optimizer step".into(),
            unit: Unit::Plain,
            about: String::new(),
            series,
        }
    }

    fn series(label: &str, points: &[(f64, f64)]) -> Series {
        let line = points.iter().map(|(x, y)| Point { x: *x, y: *y }).collect();
        Series { label: label.into(), raw: Vec::new(), line, band: Vec::new() }
    }

    #[test]
    fn a_chart_is_told_in_words_and_hostile_labels_are_text() {
        let svg = lines(&chart(vec![series("</desc><script>", &[(1.0, 0.25), (30.0, 0.5)])]));
        assert!(svg.contains("from 0.250 at optimizer step 1 to 0.500 at 30"), "{svg}");
        assert!(!svg.contains("<script>") && svg.contains("Reward &lt;of all&gt;"));
        assert!(svg.contains("aria-labelledby=\"c-t c-d\""));
    }

    #[test]
    fn lines_differ_in_dashes_too() {
        let points = [(1.0, 0.0), (2.0, 1.0)];
        let svg = lines(&chart(vec![series("a", &points), series("b", &points)]));
        assert!(svg.contains("line s1 d1") && svg.contains("line s2 d2"));
    }

    #[test]
    fn a_band_does_not_cross_points_that_have_none() {
        let mut gapped = series("a", &[(1.0, 0.5), (2.0, 0.5), (3.0, 0.5), (4.0, 0.5), (5.0, 0.5)]);
        gapped.band =
            [1.0, 2.0, 4.0, 5.0].map(|x| Band { x, low: 0.4, high: 0.6 }).into_iter().collect();
        assert_eq!(lines(&chart(vec![gapped])).matches("class=\"band").count(), 2);
    }

    #[test]
    fn one_point_is_seen_and_none_is_no_crash() {
        assert!(lines(&chart(vec![series("a", &[(3.0, 0.5)])])).contains("<circle class=\"node"));
        assert!(lines(&chart(vec![series("a", &[])])).ends_with("</svg>"));
        assert!(lines(&chart(Vec::new())).ends_with("</svg>"));
    }
}
