//! Before and after, a row each: a hollow ring, a filled dot, and the way between.

use super::scale::{Fit, Scale};
use super::svg::{Anchor, Svg};
use crate::model::Unit;
use crate::model::kinds::Compared;
use crate::number;
use crate::text;

const ROW: f64 = 22.0;
const TOP: f64 = 8.0;
const LEFT: f64 = 130.0;
const RIGHT: f64 = 500.0;
/// Rows that are drawn; the table has all.
const ROWS_MAX: usize = 24;

/// Draws the success of each kind, before and after.
#[must_use]
pub fn dumbbell(id: &str, title: &str, rows: &[Compared]) -> String {
    let rows = &rows[..rows.len().min(ROWS_MAX)];
    let values = rows.iter().flat_map(|row| [row.before, row.after]);
    let x = Scale::over(values.chain([0.0]), 6, false, Fit::Round, (LEFT, RIGHT));
    let bottom = TOP + ROW * rows.len() as f64;
    let words: String = rows
        .iter()
        .map(|row| {
            let (before, after) = (number::percent(row.before), number::percent(row.after));
            format!("{}: {before} before, {after} after. ", text::attribute(&row.kind))
        })
        .collect();
    let mut svg = Svg::new(id, (520.0, bottom + 24.0), title, &words);
    for tick in x.ticks() {
        let at = x.at(tick);
        svg.line(if tick == 0.0 { "axis" } else { "grid" }, (at, TOP), (at, bottom));
        svg.text("tick", (at, bottom + 15.0), Anchor::Middle, &x.label(tick, Unit::Share));
    }
    for (row, at) in rows.iter().zip(0_u32..) {
        let y = TOP + ROW * (f64::from(at) + 0.5);
        let name = format!("{} ({})", text::short(&row.kind, 18), row.tasks);
        svg.text("tick", (LEFT - 10.0, y + 3.8), Anchor::End, &name);
        let (before, after) = (x.at(row.before), x.at(row.after));
        svg.line("way s1", (before, y), (after, y));
        let hint = |when: &str, share| format!("{}, {when}: {}", row.kind, number::percent(share));
        svg.circle("ring s1", (before, y), 4.5, &hint("before", row.before));
        svg.circle("node f1", (after, y), 4.5, &hint("after", row.after));
    }
    svg.finish()
}
