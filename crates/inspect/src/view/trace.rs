//! Screen 5: messages of one actor, or of one node's actors, as they are received and handled.

use crrl_types::TraceStop;
use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};

use super::grid::{Cell, Column, Grid, width_of};
use super::{Scene, below, empty};
use crate::state::App;
use crate::state::trace::{Stage, Tracing};
use crate::text::plain;
use crate::units::{age, clock};

/// A message that was handled for longer than this is marked, microseconds.
const LONG_US: u64 = 100_000;
/// Lines above the table.
const HEAD_LINES: u16 = 2;

/// Draws it.
pub fn draw(frame: &mut Frame<'_>, area: Rect, app: &mut App, scene: &Scene<'_>) {
    let Some(trace) = app.trace.take() else {
        app.settle(0, 0);
        let says = "Nothing is traced. t on an actor in 2, 3 or 4, or on a node in 1, traces its messages: \
                    when each was received and how long it was handled, never what is in it. A trace \
                    ends by itself: after 1000 messages, when there are more than 100 a second, or \
                    after a minute.";
        return empty(frame, area, scene, says);
    };
    for (y, line) in (area.y..area.bottom()).zip(head(&trace, scene)) {
        frame.render_widget(line, Rect { y, height: 1, ..area });
    }
    let below_head =
        if area.height > HEAD_LINES + 2 { below(area, HEAD_LINES) } else { below(area, 1) };
    table(frame, below_head, app, &trace, scene);
    app.trace = Some(trace);
}

/// What is traced, how far it is, and what will end it.
fn head(trace: &Tracing, scene: &Scene<'_>) -> [Line<'static>; 2] {
    let palette = scene.palette;
    let (now, request) = (scene.world.now_ms(), &trace.request);
    let (sign, word, style) = match &trace.stage {
        Stage::Asked => ("○", "asked for".to_owned(), palette.warn),
        Stage::Running => ("●", "traced".to_owned(), palette.good),
        Stage::Refused(why) => ("✕", format!("refused: {}", plain(why, 300)), palette.bad),
        Stage::Over(TraceStop::Left) => ("■", "stopped".to_owned(), palette.quiet),
        Stage::Over(why) => ("■", format!("tripped off: {}", why.says()), palette.bad),
    };
    let limits = format!(
        "   {} of {} messages   {} a second, at most {}   {} of {}",
        trace.count,
        request.max_count,
        trace.rate(now),
        request.max_rate,
        age(trace.lasted_ms(now)),
        age(request.ttl_ms),
    );
    let first = Line::from(vec![
        Span::styled(
            format!(" {sign} {}", plain(&request.target.to_string(), 128)),
            palette.strong,
        ),
        Span::styled(format!("  {word}"), style),
    ]);
    [first, Line::styled(limits, palette.quiet)]
}

fn table(frame: &mut Frame<'_>, area: Rect, app: &mut App, trace: &Tracing, scene: &Scene<'_>) {
    let (rows, palette) = (&trace.events, scene.palette);
    app.settle(rows.len(), Grid::page(area));
    if rows.is_empty() {
        let says = match trace.stage {
            Stage::Asked | Stage::Running => "No message has come for it yet.",
            Stage::Refused(_) | Stage::Over(_) => "No message was seen. t begins anew.",
        };
        return empty(frame, area, scene, says);
    }
    // From the target's actors, not from the rows: nothing moves as they come.
    let node = request_node(trace);
    let names = scene.world.actors().iter().filter(|row| row.node == node);
    let columns = [
        Column::text("TIME", 12),
        Column::text("ACTOR", width_of(names.map(|row| row.name.as_str()), 12, 28)).kept().least(8),
        Column::text("MESSAGE", 24).kept().least(12),
        Column::text("WHAT", 8),
        Column::number("TOOK", 8).kept(),
        Column::text("FROM", 14).flexible(8),
    ];
    let grid = Grid { columns: &columns, sorted: None, palette };
    let list = app.list();
    let drawn = grid.draw(frame, area, Some(&list), rows.len(), |at| {
        let event = &rows[at];
        let (word, took) = match event.handled_us {
            Some(us) => ("handled", took(us)),
            None => ("received", "-".to_owned()),
        };
        let is_long = event.handled_us.is_some_and(|us| us > LONG_US);
        let from = event.from.as_ref().map_or_else(|| "-".to_owned(), ToString::to_string);
        let time = format!("{}.{:03}", clock(event.at_ms), event.at_ms % 1000);
        let cells = vec![
            Cell::new(time, palette.quiet),
            plain(&event.actor, 64).into(),
            Cell::new(plain(&event.message, 64), palette.accent),
            Cell::new(word, palette.quiet),
            Cell::new(took, if is_long { palette.warn } else { palette.text }),
            Cell::new(plain(&from, 64), palette.quiet),
        ];
        (cells, None)
    });
    drawn.register(&mut app.spots, |_| None);
}

fn request_node(trace: &Tracing) -> &str {
    trace.request.target.node.as_str()
}

/// How long a message was handled: `7 µs`, `1.25 ms`, `4.2 s`.
fn took(us: u64) -> String {
    match us {
        0..1_000 => format!("{us} µs"),
        1_000..100_000 => format!("{:.2} ms", us as f64 / 1e3),
        _ => age(us / 1_000),
    }
}
