//! One episode: where it is, and turn by turn what was done in it.

use crrl_store::EpisodeRow;
use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::text::{Line, Span};

use super::{Palette, Scene, empty, scroll_parts, transcript, wrap};
use crate::state::App;
use crate::state::app::Opened;
use crate::state::episodes::LiveRow;
use crate::state::transcript::{Laid, LaidOf, Left};
use crate::text;
use crate::units::age;

/// Draws it.
pub fn draw(frame: &mut Frame<'_>, area: Rect, app: &mut App, scene: &Scene<'_>) {
    let Some(opened) = app.opened.take() else {
        return empty(frame, area, scene, "No episode was opened: Enter opens one in 6.");
    };
    let width = usize::from(area.width).saturating_sub(4).max(8);
    let palette = scene.palette;
    let live = scene.world.live().iter().find(|row| row.episode == opened.episode);
    let over = app.archive.over.iter().find(|row| row.episode.0 == opened.episode);
    let mut top = head(opened.episode, live, over, palette);
    if let Some((says, style)) = missing(&opened, live.is_some(), app.is_replay, palette) {
        top.extend(said(&says, width, style));
    }
    let laid = laid(app.laid.take(), &opened, width, app, palette);
    scroll_parts(frame, area, app, [&top, &laid.lines]);
    (app.laid, app.opened) = (Some(laid), Some(opened));
}

/// The lines of what is known of it, laid out anew where something changed.
fn laid(held: Option<Laid>, opened: &Opened, width: usize, app: &App, palette: Palette) -> Laid {
    let left = opened.left.as_ref().and_then(|left| left.as_ref().ok()?.as_deref());
    let journal = &opened.journal;
    let of = LaidOf {
        episode: opened.episode,
        width,
        paint: app.paint,
        journal: left.is_none().then_some((journal.attempt, journal.entries)),
        judged: left.map(Left::judged),
    };
    match held.filter(|held| held.of == of) {
        Some(held) => held,
        None => {
            let lines = match left {
                Some(left) => transcript::left(left, width, app.paint, palette),
                None => transcript::live(journal, width, app.paint, palette),
            };
            Laid { of, lines }
        }
    }
}

/// Why less is told of it than one may expect.
fn missing(
    opened: &Opened,
    is_live: bool,
    is_replay: bool,
    palette: Palette,
) -> Option<(String, Style)> {
    let quiet = |says: &str| Some((says.to_owned(), palette.quiet));
    let source = if is_replay { "recording" } else { "run store" };
    let unreadable =
        |error: &str| Some((format!("The {source} cannot be read: {error}"), palette.bad));
    if let Some(error) = &opened.unreadable {
        return unreadable(error);
    }
    match &opened.left {
        Some(Err(error)) => unreadable(error),
        Some(Ok(Some(_))) => None,
        _ if opened.journal.entries > 0 => None,
        _ if is_replay => quiet("The recording holds no turn of it up to now."),
        _ if is_live => {
            quiet("Nothing of it is durable yet: its first turn is still being written.")
        }
        None => quiet("reading the run store …"),
        Some(Ok(None)) => {
            quiet("It left no transcript: it failed, or is waiting to be handed out again.")
        }
    }
}

fn said(says: &str, width: usize, style: Style) -> Vec<Line<'static>> {
    let shown = text::plain(says, 400);
    wrap(&shown, width).into_iter().map(|line| Line::styled(format!(" {line}"), style)).collect()
}

fn head(
    episode: u64,
    live: Option<&LiveRow>,
    over: Option<&EpisodeRow>,
    palette: Palette,
) -> Vec<Line<'static>> {
    let title = |rest: String| {
        Line::from(vec![
            Span::styled(format!(" episode {episode}"), palette.strong),
            Span::styled(rest, palette.quiet),
        ])
    };
    let mut lines = Vec::new();
    if let Some(row) = live {
        lines.push(title(format!("  {}  in {}  group {}", row.task, row.node, row.group)));
        lines.push(Line::from(vec![
            Span::styled(" live", palette.accent),
            Span::raw(format!(
                "   turn {}   {} calls   for {}   adapter v{}, {} behind",
                row.turns,
                row.calls,
                age(row.age_ms),
                row.version,
                row.behind
            )),
        ]));
        let style = if row.hangs() { palette.warn } else { palette.text };
        let doing = format!(" at {}, for {}", row.doing, age(row.idle_ms));
        lines.push(Line::styled(doing, style));
    } else if let Some(row) = over {
        let node = row.node.as_ref().map_or_else(String::new, |node| format!("  in {node}"));
        let task = text::plain(row.task.as_str(), 200);
        lines.push(title(format!("  {task}{}  group {}", text::plain(&node, 64), row.group)));
        let step = row.step.map_or_else(String::new, |step| format!("   step {step}"));
        let reason = row
            .reason
            .as_deref()
            .map_or_else(String::new, |reason| format!("   {}", text::plain(reason, 200)));
        let state = text::plain(&row.state, 16);
        lines.push(Line::raw(format!(" {state}   attempt {}{step}{reason}", row.attempt)));
    } else {
        lines.push(title(String::new()));
    }
    lines.push(Line::raw(""));
    lines
}
