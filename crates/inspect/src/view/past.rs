//! What stands in for nodes, actors and faults of a run that is not up.

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};

use super::grid::{Cell, Column, Grid, width_of};
use super::{Scene, below, empty};
use crate::past::Past;
use crate::state::App;
use crate::text::plain;

/// Lines above the table of processes.
const HEAD_LINES: u16 = 5;

/// The overview: how far the run came, and how its processes ended.
pub fn overview(frame: &mut Frame<'_>, area: Rect, app: &mut App, past: &Past, scene: &Scene<'_>) {
    let palette = scene.palette;
    let label = |text: &str| Span::styled(format!(" {text:<9}"), palette.quiet);
    let episodes: Vec<String> =
        past.episodes.iter().map(|(state, n)| format!("{n} {}", plain(state, 16))).collect();
    let adapter = past.adapter.map_or_else(|| "none".to_owned(), |version| format!("v{version}"));
    let mut lines = vec![
        Line::from(vec![label("run"), Span::styled(past.phase(), palette.accent)]),
        Line::from(vec![label("episodes"), Span::raw(episodes.join("   "))]),
        Line::from(vec![label("adapter"), Span::raw(format!("{adapter} was published last"))]),
        Line::from(vec![
            label("here"),
            Span::raw("6 episodes   7 curves   8 what went wrong   9 history   q leaves"),
        ]),
    ];
    if let Some(problem) = &past.problem {
        lines.insert(1, Line::styled(format!(" {}", plain(problem, 300)), palette.bad));
    }
    for (y, line) in (area.y..area.bottom()).zip(&lines) {
        frame.render_widget(line, Rect { y, height: 1, ..area });
    }
    let area = below(area, HEAD_LINES.max(lines.len() as u16));
    let nodes = &past.processes;
    app.settle(nodes.len(), Grid::page(area));
    if nodes.is_empty() {
        return empty(frame, area, scene, "Nothing tells how its processes ended.");
    }
    let columns = [
        Column::text("NODE", width_of(nodes.iter().map(|n| n.name.as_str()), 11, 24)).kept(),
        Column::text("ROLE", 20),
        Column::number("RST", 4),
        Column::text("ENDED LAST WITH", 30).kept().flexible(10),
    ];
    let grid = Grid { columns: &columns, sorted: None, palette };
    let list = app.list();
    let drawn = grid.draw(frame, area, Some(&list), nodes.len(), |at| {
        let node = &nodes[at];
        let exit = node.last_exit.as_deref().unwrap_or("nothing that was written down");
        let is_good = exit == "exit code 0";
        let cells = vec![
            plain(&node.name, 64).into(),
            plain(&node.roles.join("+"), 64).into(),
            node.restarts.to_string().into(),
            Cell::new(plain(exit, 200), if is_good { palette.text } else { palette.warn }),
        ];
        (cells, None)
    });
    drawn.register(&mut app.spots, |_| None);
}

/// Nodes and actors there are none of.
pub fn no_actors(frame: &mut Frame<'_>, area: Rect, app: &mut App, scene: &Scene<'_>) {
    app.settle(0, 0);
    let says = "The run is not up, so it has no nodes and no actors. Its episodes (6), its curves (7), what \
                went wrong (8) and its history (9) are in its folder.";
    empty(frame, area, scene, says);
}
