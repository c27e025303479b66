//! A plot with its legend, its words and its numbers.

use super::table::{Cell, Table};
use crate::model::{Chart, Stack, curve};
use crate::number;
use crate::plot::lines::shown;
use crate::plot::{self, colour};
use crate::text;

/// Rows of numbers below a plot; of more, every second, third... is shown.
const ROWS_MAX: usize = 40;

/// Characters of a name in a legend.
const NAME_CHARS_MAX: usize = 40;

/// The figure of a chart.
#[must_use]
pub fn lines(chart: &Chart) -> String {
    let names: Vec<&str> = chart.series.iter().map(|series| series.label.as_str()).collect();
    let legend = if names.len() > 1 { legend(&names, Swatch::Line) } else { String::new() };
    whole(&Parts {
        id: &chart.id,
        title: &chart.title,
        legend: &legend,
        svg: &plot::lines::lines(chart),
        about: &chart.about,
        numbers: &numbers_of_chart(chart),
        wide: false,
    })
}

/// The figure of a stack.
#[must_use]
pub fn stack(stack: &Stack) -> String {
    drawn(stack, &plot::stack::stack(stack), false)
}

/// The figure of a stack that is already drawn.
#[must_use]
pub fn drawn(stack: &Stack, svg: &str, wide: bool) -> String {
    let names: Vec<&str> = stack.names.iter().map(String::as_str).collect();
    whole(&Parts {
        id: &stack.id,
        title: &stack.title,
        legend: &legend(&names, Swatch::Area),
        svg,
        about: &stack.about,
        numbers: &numbers_of_stack(stack),
        wide,
    })
}

/// What a figure is put together from; all but `title` and `about` is HTML.
#[derive(Debug, Clone, Copy)]
pub struct Parts<'a> {
    /// Unique on the page.
    pub id: &'a str,
    /// What is shown.
    pub title: &'a str,
    /// Names of what is drawn.
    pub legend: &'a str,
    /// The drawing.
    pub svg: &'a str,
    /// How to read it.
    pub about: &'a str,
    /// The numbers, for those who do not see the drawing.
    pub numbers: &'a str,
    /// Whether it takes the whole width.
    pub wide: bool,
}

/// A figure.
#[must_use]
pub fn whole(parts: &Parts<'_>) -> String {
    let Parts { id, title, legend, svg, about, numbers, wide } = parts;
    let class = if *wide { " class=\"wide\"" } else { "" };
    format!(
        "<figure id=\"fig-{id}\"{class}><figcaption><h3>{}</h3>{legend}</figcaption>\n{svg}\n\
         <p class=\"about\">{}</p>\n{numbers}</figure>\n",
        text::html(title),
        text::html(about)
    )
}

/// What a legend shows beside a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Swatch {
    /// A piece of the line, with its dashes.
    Line,
    /// A square.
    Area,
}

/// A legend.
#[must_use]
pub fn legend(names: &[&str], swatch: Swatch) -> String {
    let mut out = String::from("<ul class=\"legend\">");
    for (at, name) in names.iter().enumerate() {
        let colour = colour(at);
        let drawn = match swatch {
            Swatch::Line => format!(
                "<line class=\"line s{colour} d{colour}\" x1=\"0\" y1=\"6\" x2=\"26\" y2=\"6\"/>"
            ),
            Swatch::Area => format!("<rect class=\"part f{colour}\" width=\"12\" height=\"12\"/>"),
        };
        let width = if swatch == Swatch::Line { 26 } else { 12 };
        out += &format!(
            "<li><svg class=\"swatch\" width=\"{width}\" height=\"12\" viewBox=\"0 0 {width} 12\" \
             aria-hidden=\"true\">{drawn}</svg><bdi>{}</bdi></li>",
            text::html(&text::short(name, NAME_CHARS_MAX))
        );
    }
    out + "</ul>"
}

fn folded(table: &str) -> String {
    format!("<details class=\"numbers\"><summary>Numbers</summary>{table}</details>\n")
}

fn every(n: usize) -> usize {
    n.div_ceil(ROWS_MAX).max(1)
}

/// A table of all lines, a row an x. Column names are of the page; series' names stand in a row.
fn numbers_of_chart(chart: &Chart) -> String {
    let mut table = Table::new(&chart.title, &["series", "#x", "#value", "#low", "#high"]);
    let each = every(chart.series.iter().map(|series| series.line.len()).sum());
    for series in &chart.series {
        let last = series.line.len().saturating_sub(1) % each;
        for point in series.line.iter().skip(last).step_by(each) {
            let band = series.band.iter().find(|band| band.x == point.x);
            let end = |value: Option<f64>| {
                Cell::number(value.map_or_else(|| "–".to_owned(), |value| shown(value, chart.unit)))
            };
            table.row([
                Cell::text(text::short(&series.label, NAME_CHARS_MAX)),
                Cell::number(number::count(point.x.max(0.0).round() as u64)),
                Cell::number(shown(point.y, chart.unit)),
                end(band.map(|band| band.low)),
                end(band.map(|band| band.high)),
            ]);
        }
    }
    if table.is_empty() { String::new() } else { folded(&table.html()) }
}

fn numbers_of_stack(stack: &Stack) -> String {
    let mut table = Table::new(&stack.title, &["part", "#from", "#to", "#value"]);
    let known: Vec<_> = stack.bars.iter().filter(|bar| !bar.parts.is_empty()).collect();
    let each = every(known.len() * stack.names.len());
    for bar in known.into_iter().step_by(each) {
        for (name, part) in stack.names.iter().zip(&bar.parts) {
            table.row([
                Cell::text(text::short(name, NAME_CHARS_MAX)),
                Cell::number(number::count(bar.from.max(0.0) as u64)),
                Cell::number(number::count(bar.to.max(0.0) as u64)),
                Cell::number(shown(*part, stack.unit)),
            ]);
        }
    }
    if table.is_empty() { String::new() } else { folded(&table.html()) }
}

/// Points that a thinned curve keeps, told to the reader.
#[must_use]
pub fn thinning(steps: u64) -> Option<String> {
    let each = (steps as usize).div_ceil(curve::POINTS_MAX);
    (each > 1).then(|| format!("Curves are drawn with one point for {each} steps."))
}
