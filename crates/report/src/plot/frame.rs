//! Axes and grid.

use super::scale::Scale;
use super::svg::{Anchor, Svg};
use crate::model::Unit;

/// Size of a drawing.
pub const SIZE: (f64, f64) = (520.0, 230.0);
/// Left and right end of the x axis.
pub const ACROSS: (f64, f64) = (54.0, 508.0);
/// Lower and upper end of the y axis.
pub const UP: (f64, f64) = (190.0, 12.0);

/// The texts of an x axis.
#[derive(Debug, Clone, Copy)]
pub enum Below<'a> {
    /// Numbers.
    Numbers,
    /// Times since the run began.
    Moments,
    /// None, but these places carry these texts.
    Fixed(&'a [(f64, String)]),
}

/// Draws grid, ticks and the x axis' name into a drawing whose x axis ends at `right`.
pub fn draw(
    svg: &mut Svg,
    x: &Scale,
    y: &Scale,
    names: (&str, Unit),
    below: Below<'_>,
    right: f64,
) {
    for tick in y.ticks() {
        let at = y.at(tick);
        let class = if tick == 0.0 { "axis" } else { "grid" };
        svg.line(class, (ACROSS.0, at), (right, at));
        svg.text("tick", (ACROSS.0 - 7.0, at + 3.8), Anchor::End, &y.label(tick, names.1));
    }
    let mut tick = |at: f64, label: &str| {
        svg.line("axis", (at, UP.0), (at, UP.0 + 4.0));
        svg.text("tick", (at, UP.0 + 17.0), Anchor::Middle, label);
    };
    match below {
        Below::Numbers => {
            x.ticks().iter().for_each(|value| tick(x.at(*value), &x.label(*value, Unit::Plain)));
        }
        Below::Moments => {
            x.ticks().iter().for_each(|s| tick(x.at(*s), &crate::number::moment(*s)));
        }
        Below::Fixed(labels) => labels.iter().for_each(|(at, label)| tick(*at, label)),
    }
    let middle = f64::midpoint(ACROSS.0, right);
    svg.text("name", (middle, SIZE.1 - 5.0), Anchor::Middle, names.0);
}
