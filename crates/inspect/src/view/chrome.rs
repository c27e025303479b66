//! The lines around every screen: what run, how it stands, where one is, which keys there are.

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::text::{Line, Span};

use super::{Scene, dialogues};
use crate::frame::Link;
use crate::state::actors::Counted;
use crate::state::mouse::Spot;
use crate::state::trace::Tracing;
use crate::state::{App, Screen};
use crate::text::plain;
use crate::units::{age, clock};

/// Data older than this is said to be old, milliseconds: ten snapshots were missed.
const OLD_MS: u64 = 2_000;

/// The run, its phase, and how old what is shown is.
pub fn head(frame: &mut Frame<'_>, area: Rect, app: &App, scene: &Scene<'_>) {
    let palette = scene.palette;
    let mut left = vec![
        Span::styled(" crrl inspect", palette.strong),
        Span::styled(format!("  {}", plain(&app.title, 60)), palette.quiet),
    ];
    if let Some(progress) = scene.world.progress() {
        left.push(Span::raw("  "));
        left.push(Span::styled(plain(&progress.phase, 60), palette.accent));
        if progress.steps > 0 {
            left.push(Span::raw(format!("  step {}/{}", progress.step, progress.steps)));
        }
    }
    if let Some(past) = &app.past {
        left.push(Span::raw("  "));
        left.push(Span::styled(past.phase(), palette.accent));
    }
    let right = Line::from(state(app, scene)).right_aligned();
    let room = area.width.saturating_sub(right.width() as u16 + 1);
    frame.render_widget(Line::from(left), Rect { width: room, ..area });
    frame.render_widget(right, area);
}

fn state(app: &App, scene: &Scene<'_>) -> Vec<Span<'static>> {
    let palette = scene.palette;
    let old = scene.world.frame_age_ms().unwrap_or(0);
    let (sign, text, style) = match scene.link {
        _ if app.paused => ("‖", "paused ".to_owned(), palette.warn),
        Link::Connecting { .. } => ("○", "connecting ".to_owned(), palette.warn),
        Link::Live if old > OLD_MS => ("●", format!("data {} old ", age(old)), palette.warn),
        Link::Live => ("●", "live ".to_owned(), palette.good),
        Link::Lost { .. } => ("✕", format!("lost {} ago ", age(old)), palette.bad),
        Link::Past => ("■", "read from its folder ".to_owned(), palette.accent),
        Link::Replay { at, of, halted } => {
            let sign = if *halted { "‖" } else { "▶" };
            let time = clock(scene.world.frame().map_or(0, |frame| frame.at_ms));
            (sign, format!("replay {at}/{of}  {time} "), palette.accent)
        }
    };
    vec![Span::styled(format!("{sign} {text}"), style)]
}

/// The screens there are.
pub fn tabs(frame: &mut Frame<'_>, area: Rect, app: &mut App, scene: &Scene<'_>) {
    let palette = scene.palette;
    let is_wide = area.width >= 98;
    let mut spans = vec![Span::raw(" ")];
    let (here, mut x) = (app.screen, area.x + 1);
    let mut tab = |key: char, screen: Screen| {
        let is_here = here.tab() == screen;
        let style = if is_here { palette.accent.patch(palette.strong) } else { palette.quiet };
        let text = match (is_here, is_wide) {
            (true, _) => format!("[{key} {}]", screen.title()),
            (false, true) => format!(" {key} {} ", screen.title()),
            (false, false) => format!(" {key} "),
        };
        let width = text.len() as u16;
        app.spots.push(Rect { x, width, ..area }.intersection(area), Spot::Tab(screen));
        x += width;
        spans.push(Span::styled(text, style));
    };
    Screen::NUMBERED.iter().for_each(|(key, screen)| tab(*key, *screen));
    if here == Screen::Diagnosis {
        tab('d', Screen::Diagnosis);
    }
    tab('?', Screen::Help);
    frame.render_widget(Line::from(spans), area);
}

/// A filter being typed, something to say, or the keys of the screen.
pub fn foot(frame: &mut Frame<'_>, area: Rect, app: &App, scene: &Scene<'_>) {
    let palette = scene.palette;
    let line = if let Some(asking) = &app.asking {
        dialogues::prompt(asking, scene)
    } else if let Some((text, _)) = &app.notice {
        Line::styled(format!(" {}", plain(text, 300)), palette.accent)
    } else if let Some(reason) = trouble(scene.link) {
        Line::styled(format!(" {}", plain(reason, 300)), palette.warn)
    } else {
        keys(app, palette.text, palette.quiet)
    };
    frame.render_widget(line, area);
}

fn trouble(link: &Link) -> Option<&str> {
    match link {
        Link::Connecting { reason: Some(reason) } | Link::Lost { reason, .. } => Some(reason),
        _ => None,
    }
}

fn keys(app: &App, key: Style, says: Style) -> Line<'static> {
    let screen = app.screen;
    let mut list: Vec<(&str, &str)> = vec![("q", "leave"), ("?", "help")];
    if app.is_replay {
        list.push(("space", "play, halt"));
        list.push(("← →", "time"));
    } else {
        list.push(("space", if app.paused { "go on" } else { "pause" }));
    }
    if screen.opens() {
        list.push(("enter", "open"));
    }
    if screen.has_filter() {
        list.push(("/", "filter"));
    }
    if screen.has_sort() {
        list.push(("< > r", "sort"));
    }
    if screen == Screen::Actors {
        list.push(("w", if app.counted == Counted::Ever { "lately" } else { "ever" }));
    }
    if screen.has_follow() {
        list.push(("f", if app.list().follow { "let go" } else { "follow" }));
    }
    if screen == Screen::Trace && app.trace.as_ref().is_some_and(Tracing::is_on) {
        list.push(("esc", "stop"));
    }
    if screen == Screen::Episode {
        list.push(("c", "colour"));
    }
    if screen.has_target() && !app.is_replay && app.past.is_none() {
        list.push(("t", "trace"));
        list.push(("S K R P C D", "order"));
    }
    list.push((":", "commands"));
    list.push(("d", "diagnose"));
    list.push(("e", "export"));
    let mut spans = vec![Span::raw(" ")];
    if let Some(filter) = app.filter(screen) {
        spans.push(Span::styled(format!("shown: {}   ", plain(filter.as_str(), 60)), key));
    }
    for (name, does) in list {
        spans.push(Span::styled(name, key));
        spans.push(Span::styled(format!(" {does}   "), says));
    }
    Line::from(spans)
}
