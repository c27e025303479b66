//! Screen 9: the end of the run's history.

use ratatui::Frame;
use ratatui::layout::Rect;

use super::grid::{Cell, Column, Grid, width_of};
use super::{Scene, empty};
use crate::state::App;
use crate::state::history::Weight;
use crate::units::clock;

/// Draws it.
pub fn draw(frame: &mut Frame<'_>, area: Rect, app: &mut App, scene: &Scene<'_>) {
    let (world, palette) = (scene.world, scene.palette);
    let rows = app.event_rows(world);
    app.settle(rows.len(), Grid::page(area));
    if rows.is_empty() {
        let says = match (app.is_replay, world.history.is_empty()) {
            (true, true) => {
                "A recording holds what was seen of the cluster, not the run's history."
            }
            (false, true) => "The run's history is empty: nothing was handed out yet.",
            (_, false) => "No event passes the filter; / changes it, Esc takes it away.",
        };
        return empty(frame, area, scene, says);
    }
    let nodes = world.history.rows().map(|row| row.node.as_str());
    let columns = [
        Column::text("TIME", 8),
        Column::text("EVENT", 11).kept(),
        Column::text("NODE", width_of(nodes, 11, 20)),
        Column::text("WHAT", 30).kept().flexible(8),
    ];
    let list = app.list();
    let grid = Grid { columns: &columns, sorted: None, palette };
    grid.draw(frame, area, Some(&list), rows.len(), |at| {
        let row = rows[at];
        let style = match row.weight {
            Weight::Routine => palette.text,
            Weight::Milestone => palette.accent,
            Weight::Trouble => palette.bad,
        };
        let cells = vec![
            Cell::new(clock(row.at_ms), palette.quiet),
            Cell::new(row.event.as_str(), style),
            row.node.as_str().into(),
            row.detail.as_str().into(),
        ];
        (cells, None)
    });
}
