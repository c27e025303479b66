//! Screen 6: episodes, those under way first.

use crrl_store::EpisodeRow;
use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::style::Style;

use super::grid::{Cell, Column, Grid, width_of};
use super::{Palette, Scene, empty};
use crate::state::App;
use crate::state::command::Command;
use crate::state::episodes::{LiveColumn, LiveRow, Rollout};
use crate::text::plain;
use crate::units::{age, wait};

/// What each column of the table is sorted by.
const SORTED: [Option<LiveColumn>; 11] = [
    Some(LiveColumn::Episode),
    None,
    Some(LiveColumn::Node),
    Some(LiveColumn::Turns),
    Some(LiveColumn::Calls),
    Some(LiveColumn::Age),
    Some(LiveColumn::Idle),
    None,
    Some(LiveColumn::Version),
    Some(LiveColumn::Task),
    None,
];

/// Draws it.
pub fn draw(frame: &mut Frame<'_>, area: Rect, app: &mut App, scene: &Scene<'_>) {
    let (world, palette) = (scene.world, scene.palette);
    let len = app.rollout_rows(world).len();
    app.settle(len, Grid::page(area));
    let rows = app.rollout_rows(world);
    if rows.is_empty() {
        let says = if app.filter(app.screen).is_some() {
            "No episode passes the filter; / changes it, Esc takes it away.".to_owned()
        } else if let Some(error) = &app.archive.error {
            format!("No episode is under way, and the run store cannot be read: {error}")
        } else if app.is_replay {
            "No episode is under way, and the recording holds none that is over by now.".to_owned()
        } else {
            "No episode is under way and none is over: nothing was handed out yet.".to_owned()
        };
        return empty(frame, area, scene, &plain(&says, 400));
    }
    let nodes = world.nodes().iter().map(|node| node.name.as_str());
    let columns = [
        Column::number("EPISODE", 7).kept(),
        Column::text("STATE", 8).kept(),
        Column::text("NODE", width_of(nodes, 9, 20)),
        Column::number("TURNS", 5),
        Column::number("CALLS", 5),
        Column::number("AGE", 6),
        Column::number("IDLE", 7),
        Column::number("REWARD", 6),
        Column::number("VERSION", 8),
        Column::text("TASK", 30).kept().least(12),
        Column::text("DOING", 30).flexible(12),
    ];
    let by = SORTED.iter().position(|column| *column == Some(app.live_sort.column));
    let sorted = by.map(|by| (by, app.live_sort.descending));
    let list = app.list();
    let grid = Grid { columns: &columns, sorted, palette };
    let drawn = grid.draw(frame, area, Some(&list), rows.len(), |at| match rows[at] {
        Rollout::Live(row) => live_row(row, palette),
        Rollout::Over(row) => over_row(row, palette),
    });
    drop(rows);
    let sort = |at: usize| SORTED.get(at).copied().flatten().map(Command::SortRollouts);
    drawn.register(&mut app.spots, sort);
}

fn live_row(row: &LiveRow, palette: Palette) -> (Vec<Cell>, Option<Style>) {
    let (word, style) =
        if row.hangs() { ("hangs !", palette.warn) } else { ("live", palette.accent) };
    let version = match row.behind {
        0 => format!("v{}", row.version),
        behind => format!("v{} -{behind}", row.version),
    };
    let cells = vec![
        row.episode.to_string().into(),
        Cell::new(word, style),
        row.node.as_str().into(),
        row.turns.to_string().into(),
        row.calls.to_string().into(),
        age(row.age_ms).into(),
        Cell::new(wait(row.idle_ms), if row.hangs() { palette.warn } else { palette.text }),
        "".into(),
        version.into(),
        row.task.as_str().into(),
        row.doing.as_str().into(),
    ];
    (cells, row.stale.then_some(palette.quiet))
}

fn over_row(row: &EpisodeRow, palette: Palette) -> (Vec<Cell>, Option<Style>) {
    let reward = row.reward.map_or_else(String::new, |reward| format!("{reward:.3}"));
    let earned = match row.success {
        Some(true) => palette.good,
        _ => palette.text,
    };
    let state = if row.state == "failed" { palette.bad } else { palette.quiet };
    let node = row.node.as_ref().map_or_else(String::new, ToString::to_string);
    let solved = match (row.success, &row.reason) {
        (_, Some(reason)) => plain(reason, 200),
        (Some(true), None) => "solved".to_owned(),
        (_, None) => String::new(),
    };
    let cells = vec![
        Cell::new(row.episode.to_string(), palette.quiet),
        Cell::new(plain(&row.state, 16), state),
        Cell::new(plain(&node, 64), palette.quiet),
        "".into(),
        "".into(),
        "".into(),
        "".into(),
        Cell::new(reward, earned),
        row.oldest.map_or_else(String::new, |version| format!("v{version}")).into(),
        Cell::new(plain(row.task.as_str(), 200), palette.quiet),
        Cell::new(solved, earned),
    ];
    (cells, None)
}
