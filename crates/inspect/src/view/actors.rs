//! Screen 2: every actor.

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::style::Style;

use super::grid::{Cell, Column, Grid, width_of};
use super::{Palette, Scene, empty};
use crate::state::App;
use crate::state::actors::{ActorColumn, ActorRow, Counted, SLOW_MS, Trouble};
use crate::state::command::Command;
use crate::units::{age, count, growth, rate, wait};
use crrl_types::actor::ActorState;

/// Draws it.
pub fn draw(frame: &mut Frame<'_>, area: Rect, app: &mut App, scene: &Scene<'_>) {
    let (world, palette) = (scene.world, scene.palette);
    let rows = app.actor_rows(world);
    app.settle(rows.len(), Grid::page(area));
    if rows.is_empty() {
        let says = if world.frame().is_none() {
            "Nothing has come from the coordinator yet."
        } else if world.actors().is_empty() {
            "No node has told of its actors yet; reports come once a second."
        } else {
            "No actor passes the filter; / changes it, Esc takes it away."
        };
        return empty(frame, area, scene, says);
    }
    let counted = app.counted;
    let [grown, messages, busy] = match counted {
        Counted::Lately => ["ΔMBOX", "MSG/s", "BUSY%"],
        Counted::Ever => ["MOST", "MSGS", "BUSY"],
    };
    // From all actors, not from those that are shown: filters and order move no column.
    let all = world.actors();
    let columns = [
        Column::text("!", 1).kept(),
        Column::text("NODE", width_of(all.iter().map(|a| a.node.as_str()), 9, 20)),
        Column::text("NAME", width_of(all.iter().map(|a| a.name.as_str()), 12, 32))
            .kept()
            .least(14),
        Column::text("TYPE", width_of(all.iter().map(|a| a.kind.as_str()), 8, 18)).least(6),
        Column::text("STATE", 9).kept(),
        Column::number("MBOX", 6).kept(),
        Column::number(grown, 6).least(5),
        Column::number("OLDEST", 7).least(6),
        Column::number(messages, 6).least(5),
        Column::number(busy, 6),
        Column::text("HANDLER(age)", 26).flexible(12),
        Column::number("RST", 4),
        Column::number("UP", 6),
    ];
    let by = ActorColumn::ALL.iter().position(|(column, _)| *column == app.actor_sort.column);
    let sorted = by.map(|by| (by, app.actor_sort.descending));
    let list = app.list();
    let grid = Grid { columns: &columns, sorted, palette };
    let drawn =
        grid.draw(frame, area, Some(&list), rows.len(), |at| actor_row(rows[at], counted, palette));
    let sort = |at: usize| ActorColumn::ALL.get(at).map(|(by, _)| Command::SortActors(*by));
    drawn.register(&mut app.spots, sort);
}

/// A sign for what is wrong.
#[must_use]
pub fn sign(trouble: Trouble) -> &'static str {
    match trouble {
        Trouble::None => " ",
        Trouble::Stale => "?",
        Trouble::Slow => "!",
        Trouble::Failed => "✕",
    }
}

/// The style of what is wrong.
#[must_use]
pub fn alarm(trouble: Trouble, palette: Palette) -> Style {
    match trouble {
        Trouble::None => palette.text,
        Trouble::Stale => palette.quiet,
        Trouble::Slow => palette.warn,
        Trouble::Failed => palette.bad,
    }
}

/// The style of a state.
#[must_use]
pub fn state_style(state: ActorState, palette: Palette) -> Style {
    match state {
        ActorState::Idle => palette.text,
        ActorState::Busy => palette.accent,
        ActorState::Starting | ActorState::Suspended => palette.warn,
        ActorState::Stopped => palette.quiet,
        ActorState::Failed => palette.bad,
    }
}

fn actor_row(row: &ActorRow, counted: Counted, palette: Palette) -> (Vec<Cell>, Option<Style>) {
    let dash = || "-".to_owned();
    let [grown, messages, busy] = match counted {
        Counted::Lately => [
            row.waiting_growth.map_or_else(dash, growth),
            row.rate.map_or_else(dash, rate),
            row.busy.map_or_else(dash, |share| format!("{:.0}", 100.0 * share)),
        ],
        Counted::Ever => {
            [row.waiting_max.to_string(), count(row.handled as f64), wait(row.busy_ms)]
        }
    };
    let slow = |ms: u64| if ms > SLOW_MS { palette.warn } else { palette.text };
    let handler = row.at(|kind, ms| format!("{kind} ({})", age(ms))).unwrap_or_else(dash);
    let at_it = row.handling.as_ref().map_or(0, |(_, ms)| *ms);
    let cells = vec![
        Cell::new(sign(row.trouble), alarm(row.trouble, palette)),
        row.node.as_str().into(),
        row.name.as_str().into(),
        Cell::new(row.kind.as_str(), palette.quiet),
        Cell::new(row.state_word(), state_style(row.state, palette)),
        row.waiting.to_string().into(),
        grown.into(),
        Cell::new(wait(row.oldest_ms), slow(row.oldest_ms)),
        messages.into(),
        busy.into(),
        Cell::new(handler, slow(at_it)),
        Cell::new(
            row.restarts.to_string(),
            if row.restarts > 0 { palette.warn } else { palette.text },
        ),
        age(row.up_ms).into(),
    ];
    (cells, (row.trouble == Trouble::Stale).then_some(palette.quiet))
}
