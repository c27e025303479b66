//! Screen 4: one actor.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::text::{Line, Span};
use ratatui::widgets::{RenderDirection, Sparkline};

use super::actors::{alarm, state_style};
use super::{Scene, empty, scroll, wrap};
use crate::state::App;
use crate::state::actors::{ActorId, ActorRow, Trouble};
use crate::state::window::SAMPLES_MAX;
use crate::units::{age, rate, wait};

/// Lines of the curve.
const CURVE_LINES: u16 = 6;

/// Draws it.
pub fn draw(frame: &mut Frame<'_>, area: Rect, app: &mut App, scene: &Scene<'_>) {
    let Some(id) = app.actor.clone() else {
        let says = "No actor was chosen: put the cursor on one in 2 or 3 and press Enter.";
        return empty(frame, area, scene, says);
    };
    let Some(actor) = scene.world.actor(&id) else {
        let says = format!(
            "Actor {} of node {} is not told of any more: it ended, or its node was started again.",
            id.name, id.node
        );
        return empty(frame, area, scene, &says);
    };
    let curve = if area.height >= 20 { CURVE_LINES } else { 0 };
    let [top, bottom] =
        Layout::vertical([Constraint::Min(0), Constraint::Length(curve)]).areas(area);
    let mut lines = facts(actor, scene, usize::from(area.width));
    lines.extend(snapshot(app, &id, scene));
    scroll(frame, top, app, &lines);
    draw_curve(frame, bottom, &id, actor, scene);
}

fn facts(actor: &ActorRow, scene: &Scene<'_>, width: usize) -> Vec<Line<'static>> {
    let palette = scene.palette;
    let dash = || "-".to_owned();
    let fact = |name: &str, value: String, style| {
        Line::from(vec![
            Span::styled(format!(" {name:<13}"), palette.quiet),
            Span::styled(value, style),
        ])
    };
    let text = palette.text;
    let trouble = match actor.trouble {
        Trouble::None => "",
        Trouble::Stale => "   what is known of it is old",
        Trouble::Slow => "   slow",
        Trouble::Failed => "",
    };
    let names = |rows: Vec<&ActorRow>| {
        let names: Vec<&str> = rows.iter().map(|row| row.name.as_str()).collect();
        if names.is_empty() { dash() } else { names.join(", ") }
    };
    let mine = scene.world.actors().iter().filter(|row| row.node == actor.node);
    let children = names(mine.filter(|row| row.parent.as_deref() == Some(&actor.name)).collect());
    let handler = actor.at(|kind, ms| format!("{kind}, for {}", age(ms))).unwrap_or_else(dash);
    let mut lines = vec![
        Line::from(vec![
            Span::styled(format!(" {}", actor.name), palette.strong),
            Span::styled(format!("  {}  in {}", actor.kind, actor.node), palette.quiet),
        ]),
        Line::raw(""),
        Line::from(vec![
            Span::styled(format!(" {:<13}", "state"), palette.quiet),
            Span::styled(actor.state_word(), state_style(actor.state, palette)),
            Span::styled(trouble, alarm(actor.trouble, palette)),
        ]),
        fact("at", handler, text),
        fact("waiting", format!("{} now, {} at most", actor.waiting, actor.waiting_max), text),
        fact("oldest", wait(actor.oldest_ms), text),
        fact(
            "handled",
            format!("{}, {} a second", actor.handled, actor.rate.map_or_else(dash, rate)),
            text,
        ),
        fact("busy", actor.busy.map_or_else(dash, |share| format!("{:.0} %", 100.0 * share)), text),
        fact("up", format!("{}, started again {} times", age(actor.up_ms), actor.restarts), text),
        fact("supervisor", actor.parent.clone().unwrap_or_else(dash), text),
        fact("supervises", children, text),
    ];
    let failure = actor.last_failure.as_deref().unwrap_or("-");
    for (at, line) in wrap(failure, width.saturating_sub(16)).into_iter().enumerate() {
        lines.push(fact(if at == 0 { "last failure" } else { "" }, line, palette.warn));
    }
    lines
}

/// What the actor has published of its state, where it was asked for and has come.
fn snapshot(app: &App, id: &ActorId, scene: &Scene<'_>) -> Vec<Line<'static>> {
    let Some(seen) = app.snapshot.as_ref().filter(|seen| seen.of == *id) else {
        return Vec::new();
    };
    let palette = scene.palette;
    let head = Line::styled(format!(" SNAPSHOT {}", seen.says), palette.quiet);
    let body = seen.lines.iter().map(|line| Line::styled(format!(" {line}"), palette.text));
    [Line::raw(""), head].into_iter().chain(body).collect()
}

fn draw_curve(
    frame: &mut Frame<'_>,
    area: Rect,
    id: &ActorId,
    actor: &ActorRow,
    scene: &Scene<'_>,
) {
    if area.height < 3 {
        return;
    }
    let rates = scene.world.rates(id);
    let most = rates.iter().copied().fold(0.0, f64::max);
    let width = area.width.saturating_sub(2).min(SAMPLES_MAX as u16 - 1);
    let title = match rates.len() {
        0 => " MESSAGES A SECOND: the curve begins with the second report".to_owned(),
        samples => format!(
            " MESSAGES A SECOND, last {samples} reports: now {}, at most {}",
            actor.rate.map_or_else(|| "-".to_owned(), rate),
            rate(most)
        ),
    };
    frame.render_widget(Line::styled(title, scene.palette.quiet), Rect { height: 1, ..area });
    // In hundredths, so that an actor of a message every few seconds has a curve too.
    // The newest stays at the right edge.
    let newest = rates.iter().rev().take(usize::from(width));
    let data: Vec<u64> = newest.map(|rate| (rate * 100.0) as u64).collect();
    let curve = Rect { x: area.x + 1, y: area.y + 1, width, height: area.height - 1 };
    let curve = curve.intersection(area);
    let sparkline =
        Sparkline::default().direction(RenderDirection::RightToLeft).style(scene.palette.accent);
    frame.render_widget(sparkline.data(&data), curve);
}
