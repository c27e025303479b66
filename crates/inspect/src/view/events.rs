//! Screen 9: the end of the run's history.

use ratatui::Frame;
use ratatui::layout::Rect;

use super::grid::{Cell, Column, Grid, width_of};
use super::{Scene, empty};
use crate::state::App;
use crate::state::history::{EventRow, Weight};
use crate::units::clock;

/// Draws it.
pub fn draw(frame: &mut Frame<'_>, area: Rect, app: &mut App, scene: &Scene<'_>) {
    let rows = app.event_rows(scene.world);
    let was_handed_out =
        scene.world.progress().is_some_and(|progress| progress.episodes.dispatched > 0);
    let says = match (app.is_replay, scene.world.history.is_empty()) {
        (true, true) => "The recording holds nothing of the run's history up to now.",
        (false, true) if was_handed_out => {
            "The run's history is not on this machine: it is where its coordinator runs."
        }
        (false, true) => "The run's history is empty: nothing was handed out yet.",
        (_, false) => "No event passes the filter; / changes it, Esc takes it away.",
    };
    table(frame, area, app, scene, &rows, says);
}

/// Only what went wrong, and what people had done: what screen 8 has of a run that is not up.
pub fn trouble(frame: &mut Frame<'_>, area: Rect, app: &mut App, scene: &Scene<'_>) {
    let rows = app.trouble_rows(scene.world);
    let says = "Nothing went wrong as far as the run's history tells: no node was lost, no episode failed. \
                Nobody injected a fault or gave an order.";
    table(frame, area, app, scene, &rows, says);
}

fn table(
    frame: &mut Frame<'_>,
    area: Rect,
    app: &mut App,
    scene: &Scene<'_>,
    rows: &[&EventRow],
    says: &str,
) {
    let palette = scene.palette;
    app.settle(rows.len(), Grid::page(area));
    if rows.is_empty() {
        return empty(frame, area, scene, says);
    }
    let nodes = rows.iter().map(|row| row.node.as_str());
    let columns = [
        Column::text("TIME", 8),
        Column::text("EVENT", 11).kept(),
        Column::text("NODE", width_of(nodes, 11, 20)),
        Column::text("WHAT", 30).kept().flexible(8),
    ];
    let list = app.list();
    let grid = Grid { columns: &columns, sorted: None, palette };
    let drawn = grid.draw(frame, area, Some(&list), rows.len(), |at| {
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
    drawn.register(&mut app.spots, |_| None);
}
