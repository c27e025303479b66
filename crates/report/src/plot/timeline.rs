//! Throughput over wall time, with marks where something went wrong, and where people had it go wrong.

use super::frame::{ACROSS, Below, SIZE, UP, draw};
use super::scale::Scale;
use super::stack::{bars, description, heights};
use super::svg::{Anchor, Svg};
use crrl_types::Deed;

use crate::facts::MarkKind;
use crate::model::timeline::Timeline;
use crate::number;

/// How much wider than other drawings this one is.
const WIDER: f64 = 520.0;
/// Marks that are drawn; the table has more.
const MARKS_MAX: usize = 200;
/// Pixels a letter needs; marks closer than that share one.
const LETTER: f64 = 9.0;
/// Pixels of what was done once.
const ONCE: f64 = 2.0;
/// The mark of what people had done.
pub const DEED: char = '!';

/// The letter of a mark, so that its kind is not told by colour alone.
#[must_use]
pub fn letter(kind: MarkKind) -> char {
    match kind {
        MarkKind::NodeDown => '▼',
        MarkKind::NodeUp => '▲',
        MarkKind::LeaseLost => '○',
        MarkKind::Restarted => 'R',
        MarkKind::RolledBack => 'B',
        MarkKind::Quarantined => 'Q',
        MarkKind::Restored => 'L',
    }
}

/// Draws throughput and marks; nothing where no episode came back.
#[must_use]
pub fn timeline(timeline: &Timeline) -> Option<String> {
    let stack = timeline.throughput.as_ref()?;
    let right = ACROSS.1 + WIDER;
    let end = stack.bars.iter().map(|bar| bar.to).fold(1.0, f64::max);
    let x = Scale::moments(end, 10, (ACROSS.0, right));
    let y = heights(stack);
    let faults: u64 = timeline.counts.iter().map(|(_, n)| n).sum();
    let words = match faults {
        0 => "No fault is in the history.".to_owned(),
        n => format!("{} faults and recoveries are marked.", number::count(n)),
    };
    let done: Vec<&(f64, Deed)> =
        timeline.deeds.iter().filter(|(_, deed)| deed.is_done()).collect();
    let ordered = match done.len() as u64 {
        0 => String::new(),
        n => format!(" Faults injected and orders given: {}.", number::count(n)),
    };
    let words = format!("{}{words}{ordered}", description(stack));
    let mut svg = Svg::new(&stack.id, (SIZE.0 + WIDER, SIZE.1), &stack.title, &words);
    draw(&mut svg, &x, &y, (&stack.x_name, stack.unit), Below::Moments, right);
    bars(&mut svg, stack, &x, &y);
    let mut free = f64::NEG_INFINITY;
    for (s, deed) in done.into_iter().take(MARKS_MAX) {
        let from = x.at(*s);
        let to = x.at(s + deed.lasts_ms.unwrap_or(0) as f64 / 1_000.0);
        let size = ((to - from).max(ONCE), UP.0 - UP.1);
        svg.rect("injected", (from, UP.1), size, &format!("{}: {}", deed.target, deed.what));
        if from >= free {
            free = from + LETTER;
            svg.text("fault-name", (from + 3.0, UP.0 - 4.0), Anchor::Start, &DEED.to_string());
        }
    }
    let mut taken = [f64::NEG_INFINITY; MarkKind::ALL.len()];
    for (s, mark) in timeline.marks.iter().take(MARKS_MAX) {
        let at = x.at(*s);
        let row = MarkKind::ALL.iter().position(|kind| *kind == mark.kind).unwrap_or(0);
        svg.line("fault", (at, UP.0), (at, UP.1));
        if at - taken[row] >= LETTER {
            taken[row] = at;
            let place = (at + 3.0, UP.1 + 8.0 + 11.0 * row as f64);
            svg.text("fault-name", place, Anchor::Start, &letter(mark.kind).to_string());
        }
    }
    Some(svg.finish())
}
