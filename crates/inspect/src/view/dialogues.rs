//! What is typed at the bottom: the list of commands above their line, and what an order means before
//! the name of who gets it was typed.

use crrl_types::{Order, Target};
use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::text::{Line, Span};
use ratatui::widgets::Clear;

use super::{Scene, wrap};
use crate::state::App;
use crate::state::asking::{Asking, CommandLine};
use crate::state::orders::{Dialogue, Stage};
use crate::text::plain;

/// Commands that are listed at once.
const LISTED_MAX: usize = 10;
/// Columns a name takes.
const NAME_COLUMNS: usize = 38;

/// Draws over the bottom of the screen.
pub fn draw(frame: &mut Frame<'_>, area: Rect, app: &App, scene: &Scene<'_>) {
    match &app.asking {
        Some(Asking::Command(line)) => commands(frame, area, line, scene),
        Some(Asking::Order(dialogue)) => order(frame, area, dialogue, scene),
        Some(Asking::Filter(_)) | None => {}
    }
}

/// The line it is typed in.
#[must_use]
pub fn prompt(asking: &Asking, scene: &Scene<'_>) -> Line<'static> {
    let palette = scene.palette;
    let caret = || Span::styled("▏", palette.accent);
    match asking {
        Asking::Filter(prompt) => {
            let mut spans = vec![
                Span::styled(" filter ", palette.accent),
                Span::raw(plain(&prompt.text, 200)),
                caret(),
            ];
            if let Some(error) = &prompt.error {
                spans.push(Span::styled(format!("  {error}"), palette.bad));
            }
            Line::from(spans)
        }
        Asking::Command(line) => Line::from(vec![
            Span::styled(" : ", palette.accent),
            Span::raw(plain(&line.text, 200)),
            caret(),
            Span::styled("   Enter runs, Tab completes, ↑ ↓ choose, Esc", palette.quiet),
        ]),
        Asking::Order(dialogue) => match &dialogue.stage {
            Stage::Typing { typed, is_wrong } => {
                let name = plain(dialogue.name(), 128);
                let (says, style) = match is_wrong {
                    true => (format!(" that is not {name} "), palette.bad),
                    false => (format!(" type {name} "), palette.accent),
                };
                let rest = Span::styled("   Enter sends, Esc drops it", palette.quiet);
                Line::from(vec![
                    Span::styled(says, style),
                    Span::raw(plain(typed, 128)),
                    caret(),
                    rest,
                ])
            }
            Stage::Sent => Line::styled(" sent; Esc does not take it back", palette.warn),
            Stage::Answered(_) => Line::styled(" Esc closes this", palette.quiet),
        },
    }
}

fn commands(frame: &mut Frame<'_>, area: Rect, line: &CommandLine, scene: &Scene<'_>) {
    let palette = scene.palette;
    let room = usize::from(area.height).min(LISTED_MAX);
    if line.found.is_empty() {
        let nothing = vec![Line::styled(" no command answers to that", palette.warn)];
        return panel(frame, area, "COMMANDS", nothing, scene);
    }
    let from = (line.chosen + 1).saturating_sub(room);
    let shown = line.found.iter().enumerate().skip(from).take(room).map(|(at, named)| {
        let sign = if at == line.chosen { "›" } else { " " };
        let style = if at == line.chosen { palette.cursor } else { Style::new() };
        let name = Span::raw(format!(" {sign} {:<NAME_COLUMNS$}", named.name));
        Line::from(vec![name, Span::styled(named.key.clone(), palette.quiet)]).style(style)
    });
    let title = format!("COMMANDS {} of {}", line.chosen + 1, line.found.len());
    panel(frame, area, &title, shown.collect(), scene);
}

fn order(frame: &mut Frame<'_>, area: Rect, dialogue: &Dialogue, scene: &Scene<'_>) {
    let palette = scene.palette;
    let width = usize::from(area.width).saturating_sub(4);
    let said = |text: &str, style: Style| -> Vec<Line<'static>> {
        let lines = wrap(&plain(text, 600), width);
        lines.into_iter().map(|line| Line::styled(format!("   {line}"), style)).collect()
    };
    let Order { target: Target { node, actor }, action } = &dialogue.order;
    let what = match actor {
        Some(actor) => format!("actor {actor} of node {node}"),
        None => format!("node {node}, with all its actors"),
    };
    let verb = action.word().to_uppercase();
    let mut lines = said(&what, palette.strong);
    lines.extend(match &dialogue.stage {
        Stage::Typing { .. } => said(action.means(actor.is_some()), palette.text),
        Stage::Sent => said("sent; waiting for the answer", palette.quiet),
        Stage::Answered(Ok(answer)) => {
            let style = if answer.outcome.is_done() { palette.good } else { palette.bad };
            said(&format!("{}: {}", answer.outcome.word(), answer.says), style)
        }
        Stage::Answered(Err(error)) => {
            said(&format!("not sent, or not answered: {error}"), palette.bad)
        }
    });
    panel(frame, area, &verb, lines, scene);
}

/// Lines at the bottom, under a title; the first ones stay where there is no room for all.
fn panel(
    frame: &mut Frame<'_>,
    area: Rect,
    title: &str,
    lines: Vec<Line<'static>>,
    scene: &Scene<'_>,
) {
    let wanted = u16::try_from(lines.len()).unwrap_or(u16::MAX).saturating_add(1);
    let height = wanted.min(area.height);
    let area = Rect { y: area.bottom() - height, height, ..area };
    frame.render_widget(Clear, area);
    let rule = "─".repeat(usize::from(area.width).saturating_sub(title.chars().count() + 4));
    let title = Line::from(vec![
        Span::styled("─ ", scene.palette.quiet),
        Span::styled(title.to_owned(), scene.palette.accent),
        Span::styled(format!(" {rule}"), scene.palette.quiet),
    ]);
    let has_title = height == wanted;
    let all = has_title.then_some(title).into_iter().chain(lines);
    for (y, line) in (area.y..area.bottom()).zip(all) {
        frame.render_widget(line, Rect { y, height: 1, ..area });
    }
}
