//! Screen 3: who supervises whom.

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::style::Style;

use super::actors::{alarm, sign, state_style};
use super::grid::{Cell, Column, Grid};
use super::{Palette, Scene, empty};
use crate::state::App;
use crate::state::actors::Trouble;
use crate::state::tree::{self, Leaf, TreeRow};
use crate::units::{age, rate};

/// Draws it.
pub fn draw(frame: &mut Frame<'_>, area: Rect, app: &mut App, scene: &Scene<'_>) {
    let palette = scene.palette;
    let rows = tree::rows(scene.world);
    app.settle(rows.len(), Grid::page(area));
    if rows.is_empty() {
        return empty(frame, area, scene, "No node has reported yet, so there is no tree to draw.");
    }
    let columns = [
        Column::text("!", 1).kept(),
        Column::text("NODE AND ITS ACTORS", 44).kept().least(24),
        Column::text("STATE", 10).kept(),
        Column::number("MBOX", 6).kept(),
        Column::number("MSG/s", 6),
        Column::number("RST", 4),
        Column::number("UP", 6),
        Column::text("LAST FAILURE", 30).flexible(12),
    ];
    let grid = Grid { columns: &columns, sorted: None, palette };
    let list = app.list();
    let drawn = grid.draw(frame, area, Some(&list), rows.len(), |at| tree_row(&rows[at], palette));
    drawn.register(&mut app.spots, |_| None);
}

fn tree_row(row: &TreeRow<'_>, palette: Palette) -> (Vec<Cell>, Option<Style>) {
    let dash = || "-".to_owned();
    match row.what {
        Leaf::Node(node) => {
            let (sign, style) = match (node.is_down(), node.is_stale()) {
                (true, _) => ("✕", palette.bad),
                (_, true) => ("?", palette.quiet),
                _ => (" ", palette.text),
            };
            let state = if node.is_down() { palette.bad } else { palette.text };
            let why = if node.actors == 0 { "tells of no actors" } else { "" };
            let cells = vec![
                Cell::new(sign, style),
                Cell::new(format!("{}  {}", node.name, node.roles), palette.strong),
                Cell::new(node.state.word(), state),
                "".into(),
                "".into(),
                node.restarts.map_or_else(dash, |n| n.to_string()).into(),
                "".into(),
                Cell::new(node.last_exit.as_deref().unwrap_or(why), palette.quiet),
            ];
            (cells, None)
        }
        Leaf::Actor(actor) => {
            let kind = if actor.kind == actor.name { "" } else { &actor.kind };
            let cells = vec![
                Cell::new(sign(actor.trouble), alarm(actor.trouble, palette)),
                format!("{}{}  {kind}", row.branch, actor.name).into(),
                Cell::new(actor.state_word(), state_style(actor.state, palette)),
                actor.waiting.to_string().into(),
                actor.rate.map_or_else(dash, rate).into(),
                actor.restarts.to_string().into(),
                age(actor.up_ms).into(),
                Cell::new(actor.last_failure.as_deref().unwrap_or(""), palette.warn),
            ];
            (cells, (actor.trouble == Trouble::Stale).then_some(palette.quiet))
        }
    }
}
