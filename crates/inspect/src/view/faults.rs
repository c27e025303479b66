//! Screen 8: faults that were injected.

use ratatui::Frame;
use ratatui::layout::Rect;

use super::grid::{Cell, Column, Grid, width_of};
use super::{Scene, empty};
use crate::state::App;
use crate::units::age;

/// Draws it.
pub fn draw(frame: &mut Frame<'_>, area: Rect, app: &mut App, scene: &Scene<'_>) {
    let (rows, palette) = (scene.world.faults(), scene.palette);
    app.settle(rows.len(), Grid::page(area));
    if rows.is_empty() {
        let says = "No fault is at work, and no node remembers one. `crrl chaos run SCENARIO` injects \
                    them; nodes tell of the last few. A process that is killed tells of nothing: its \
                    end is among the events (9).";
        return empty(frame, area, scene, says);
    }
    let columns = [
        Column::text("STATE", 7).kept(),
        Column::text("NODE", width_of(rows.iter().map(|f| f.node.as_str()), 11, 24)).kept(),
        Column::number("FIRED", 9).kept(),
        Column::number("SEEN FOR", 8),
        Column::text("WHAT", 36),
    ];
    let grid = Grid { columns: &columns, sorted: None, palette };
    let list = app.list();
    let drawn = grid.draw(frame, area, Some(&list), rows.len(), |at| {
        let fault = &rows[at];
        let (word, style) =
            if fault.active { ("active", palette.bad) } else { ("over", palette.quiet) };
        let cells = vec![
            Cell::new(word, style),
            fault.node.as_str().into(),
            fault.fired.to_string().into(),
            age(fault.seen_ms).into(),
            Cell::new(fault.what.clone(), palette.quiet),
        ];
        (cells, None)
    });
    drawn.register(&mut app.spots, |_| None);
}
