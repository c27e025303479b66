//! Tables whose columns stay where they are.
//!
//! Widths come from the columns, not from the rows on the screen, so nothing moves as numbers change.
//! What does not fit is dropped from the right, never what has to be kept.

use ratatui::Frame;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::text::Span;

use super::Palette;
use crate::state::command::Command;
use crate::state::list::List;
use crate::state::mouse::{Spot, Spots};

/// Blanks between two columns.
const GAP: u16 = 2;
/// No column that is kept gets narrower than this.
const NARROWEST: u16 = 3;
/// A column.
#[derive(Debug, Clone, Copy)]
pub struct Column {
    title: &'static str,
    width: u16,
    /// What it is content with where there is no room.
    least: u16,
    is_right: bool,
    is_kept: bool,
    is_flexible: bool,
}

impl Column {
    /// Text, from the left.
    #[must_use]
    pub fn text(title: &'static str, width: u16) -> Self {
        Self { title, width, least: width, is_right: false, is_kept: false, is_flexible: false }
    }

    /// Numbers, from the right.
    #[must_use]
    pub fn number(title: &'static str, width: u16) -> Self {
        Self { is_right: true, ..Self::text(title, width) }
    }

    /// Never dropped.
    #[must_use]
    pub fn kept(self) -> Self {
        Self { is_kept: true, ..self }
    }

    /// Content with so much where there is no room.
    #[must_use]
    pub fn least(self, least: u16) -> Self {
        Self { least: least.min(self.width), ..self }
    }

    /// Content with so much where there is no room; takes all that is left where there is.
    #[must_use]
    pub fn flexible(self, least: u16) -> Self {
        Self { is_flexible: true, ..self.least(least) }
    }
}

/// What is in a row at a column.
#[derive(Debug, Clone)]
pub struct Cell(String, Style);

impl Cell {
    /// A text in a style.
    #[must_use]
    pub fn new(text: impl Into<String>, style: Style) -> Self {
        Self(text.into(), style)
    }
}

impl<T: Into<String>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self(text.into(), Style::new())
    }
}

/// Width of the widest of these texts, within bounds.
pub fn width_of<'a>(texts: impl Iterator<Item = &'a str>, least: u16, most: u16) -> u16 {
    let widest = texts.map(|text| Span::raw(text).width()).max().unwrap_or(0);
    u16::try_from(widest).unwrap_or(most).clamp(least, most)
}

/// Where a table's heads and rows were drawn.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub struct Drawn {
    /// Columns, by their number, and where their heads are.
    pub heads: Vec<(usize, Rect)>,
    /// Rows, by their number, and where they are.
    pub rows: Vec<(usize, Rect)>,
}

impl Drawn {
    /// Lets the mouse find rows, and heads that are sorted by.
    pub fn register(self, spots: &mut Spots, sort: impl Fn(usize) -> Option<Command>) {
        for (at, area) in self.heads {
            if let Some(command) = sort(at) {
                spots.push(area, Spot::Head(command));
            }
        }
        for (at, area) in self.rows {
            spots.push(area, Spot::Row(at));
        }
    }
}

/// A table.
#[derive(Debug)]
pub struct Grid<'a> {
    /// Its columns.
    pub columns: &'a [Column],
    /// The column it is sorted by, and whether downwards.
    pub sorted: Option<(usize, bool)>,
    /// Colours.
    pub palette: Palette,
}

impl Grid<'_> {
    /// Rows that fit below the head.
    #[must_use]
    pub fn page(area: Rect) -> usize {
        usize::from(area.height.saturating_sub(1))
    }

    /// Draws the head, and rows `list.offset..` of `len`. `row` gives the cells of a row, one a column,
    /// and what the whole row is drawn in, if that is not the cells' own style. No `list`: no cursor.
    pub fn draw(
        &self,
        frame: &mut Frame<'_>,
        area: Rect,
        list: Option<&List>,
        len: usize,
        row: impl Fn(usize) -> (Vec<Cell>, Option<Style>),
    ) -> Drawn {
        let mut drawn = Drawn { heads: Vec::new(), rows: Vec::new() };
        if area.is_empty() {
            return drawn;
        }
        let places = self.places(area.width.saturating_sub(1));
        let buffer = frame.buffer_mut();
        for (at, x, width) in &places {
            let column = &self.columns[*at];
            let sign = match self.sorted {
                Some((by, descending)) if by == *at => {
                    if descending {
                        "▾"
                    } else {
                        "▴"
                    }
                }
                _ => "",
            };
            let title = match column.width {
                // No room for both.
                1 if !sign.is_empty() => sign.to_owned(),
                _ => format!("{}{sign}", column.title),
            };
            let style = if sign.is_empty() { self.palette.quiet } else { self.palette.accent };
            put(buffer, (area.x + x, area.y), *width, column.is_right, &title, style);
            drawn.heads.push((*at, Rect { x: area.x + x, width: *width, height: 1, ..area }));
        }
        let from = list.map_or(0, |list| list.offset);
        for (y, at) in (area.y + 1..area.bottom()).zip(from..len) {
            let (cells, whole) = row(at);
            for (column, x, width) in &places {
                let Some(Cell(text, style)) = cells.get(*column) else { continue };
                let style = whole.unwrap_or(*style);
                let is_right = self.columns[*column].is_right;
                put(buffer, (area.x + x, y), *width, is_right, text, style);
            }
            if list.is_some_and(|list| list.selected == at) {
                buffer.set_style(Rect { y, height: 1, ..area }, self.palette.cursor);
            }
            drawn.rows.push((at, Rect { y, height: 1, ..area }));
        }
        drawn
    }

    /// Which columns are seen, from where, how wide.
    fn places(&self, available: u16) -> Vec<(usize, u16, u16)> {
        let mut seen: Vec<usize> = (0..self.columns.len()).collect();
        let room = |seen: &[usize]| {
            seen.iter().map(|at| self.columns[*at].least + gap(&self.columns[*at])).sum::<u16>()
        };
        while room(&seen) > available + GAP {
            let Some(drop) = seen.iter().rposition(|at| !self.columns[*at].is_kept) else { break };
            seen.remove(drop);
        }
        let mut spare = (available + GAP).saturating_sub(room(&seen));
        let mut widths: Vec<u16> = seen.iter().map(|at| self.columns[*at].least).collect();
        // Where even what is kept does not fit, the widest give way.
        let mut lacks = room(&seen).saturating_sub(available + GAP);
        while lacks > 0 {
            let Some(widest) = widths.iter_mut().max().filter(|width| **width > NARROWEST) else {
                break;
            };
            *widest -= 1;
            lacks -= 1;
        }
        // First what each asks for, then all the rest to the last one.
        for (width, at) in widths.iter_mut().zip(&seen) {
            let more = (self.columns[*at].width - *width).min(spare);
            *width += more;
            spare -= more;
        }
        if let Some(last) = seen.iter().rposition(|at| self.columns[*at].is_flexible) {
            widths[last] += spare;
        }
        let mut x = 1;
        seen.into_iter()
            .zip(widths)
            .map(|(at, width)| {
                let place = (at, x, width);
                x += width + gap(&self.columns[at]);
                place
            })
            .collect()
    }
}

/// Blanks behind a column: a sign stands close to what it is about.
fn gap(column: &Column) -> u16 {
    if column.width == 1 { 1 } else { GAP }
}

/// Writes a text into its column; what does not fit ends in `…`.
fn put(buffer: &mut Buffer, at: (u16, u16), width: u16, is_right: bool, text: &str, style: Style) {
    let (x, y) = at;
    let width = width.min(buffer.area.right().saturating_sub(x));
    if width == 0 || y >= buffer.area.bottom() {
        return;
    }
    let taken = Span::raw(text).width();
    if taken > usize::from(width) {
        buffer.set_stringn(x, y, text, usize::from(width - 1), style);
        buffer.set_stringn(x + width - 1, y, "…", 1, style);
    } else {
        let shift = if is_right { width - taken as u16 } else { 0 };
        buffer.set_stringn(x + shift, y, text, usize::from(width - shift), style);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_dropped_from_the_right_but_never_what_is_kept() {
        let columns = [
            Column::text("A", 10),
            Column::text("NAME", 10).kept().flexible(6),
            Column::text("B", 10),
            Column::number("WAIT", 5).kept(),
            Column::text("C", 10),
        ];
        let grid = Grid { columns: &columns, sorted: None, palette: Palette::new(false) };
        let seen = |width| grid.places(width).iter().map(|(at, ..)| *at).collect::<Vec<_>>();
        assert_eq!(seen(80), [0, 1, 2, 3, 4]);
        assert_eq!(seen(45), [0, 1, 2, 3]);
        assert_eq!(seen(26), [0, 1, 3]);
        assert_eq!(seen(3), [1, 3]);
        let widths = |width| grid.places(width).iter().map(|(.., w)| *w).collect::<Vec<_>>();
        assert_eq!(widths(80), [10, 37, 10, 5, 10]);
        assert_eq!(widths(26), [10, 7, 5], "it shrinks before it goes");
        assert_eq!(widths(9), [4, 3]);
    }
}
