//! Draws the state; fetches nothing and decides nothing. One file a screen.
//!
//! - [`palette`]: the few colours there are, and what stands in for them without
//! - [`grid`]: tables whose columns stay where they are
//! - [`chrome`]: the lines around every screen
//! - [`dialogues`]: what is typed: the list of commands, the name of who gets an order

pub mod actor;
pub mod actors;
pub mod chrome;
pub mod diagnosis;
pub mod dialogues;
pub mod episode;
pub mod events;
pub mod faults;
pub mod grid;
pub mod help;
pub mod learner;
pub mod overview;
pub mod palette;
pub mod past;
pub mod rollouts;
pub mod tokens;
pub mod trace;
pub mod transcript;
pub mod tree;

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::text::Line;
use unicode_width::UnicodeWidthChar as _;

use crate::frame::Link;
use crate::state::{App, Screen, World};

pub use palette::Palette;

/// What a screen is drawn from.
#[derive(Debug)]
pub struct Scene<'a> {
    /// The cluster.
    pub world: &'a World,
    /// Whether it still is like that.
    pub link: &'a Link,
    /// Colours.
    pub palette: Palette,
}

/// Draws everything. Tells the app how many rows were seen.
pub fn draw(frame: &mut Frame<'_>, app: &mut App, scene: &Scene<'_>) {
    let area = frame.area();
    app.spots.clear();
    let tabs = u16::from(area.height >= 8);
    let [head, tab, body, foot] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(tabs),
        Constraint::Min(0),
        Constraint::Length(1),
    ])
    .areas(area);
    chrome::head(frame, head, app, scene);
    chrome::tabs(frame, tab, app, scene);
    // An empty line above the table where there is room for it.
    let body = if area.height >= 16 { below(body, 1) } else { body };
    let past = app.past.take();
    match (app.screen, &past) {
        (Screen::Overview, Some(past)) => past::overview(frame, body, app, past, scene),
        (Screen::Actors | Screen::Tree | Screen::Actor | Screen::Trace, Some(_)) => {
            past::no_actors(frame, body, app, scene);
        }
        (Screen::Faults, Some(_)) => events::trouble(frame, body, app, scene),
        (Screen::Overview, _) => overview::draw(frame, body, app, scene),
        (Screen::Actors, _) => actors::draw(frame, body, app, scene),
        (Screen::Tree, _) => tree::draw(frame, body, app, scene),
        (Screen::Actor, _) => actor::draw(frame, body, app, scene),
        (Screen::Trace, _) => trace::draw(frame, body, app, scene),
        (Screen::Rollouts, _) => rollouts::draw(frame, body, app, scene),
        (Screen::Episode, _) => episode::draw(frame, body, app, scene),
        (Screen::Learner, _) => learner::draw(frame, body, app, scene),
        (Screen::Faults, _) => faults::draw(frame, body, app, scene),
        (Screen::Events, _) => events::draw(frame, body, app, scene),
        (Screen::Diagnosis, _) => diagnosis::draw(frame, body, app, scene),
        (Screen::Help, _) => help::draw(frame, body, app, scene),
    }
    app.past = past;
    dialogues::draw(frame, body, app, scene);
    chrome::foot(frame, foot, app, scene);
}

/// An area without its first lines.
fn below(area: Rect, lines: u16) -> Rect {
    let lines = lines.min(area.height);
    Rect { y: area.y + lines, height: area.height - lines, ..area }
}

/// A text that scrolls. Tells the app how long it is.
fn scroll(frame: &mut Frame<'_>, area: Rect, app: &mut App, lines: &[Line<'_>]) {
    scroll_parts(frame, area, app, [lines, &[]]);
}

/// A text of two parts that scrolls as one.
fn scroll_parts(frame: &mut Frame<'_>, area: Rect, app: &mut App, parts: [&[Line<'_>]; 2]) {
    let page = usize::from(area.height);
    let len = parts[0].len() + parts[1].len();
    (app.len, app.page) = (len, page);
    let end = len.saturating_sub(page.max(1));
    let is_held = app.paused || !app.screen.grows();
    let list = app.list_mut();
    list.offset = if list.follow && !is_held { end } else { list.offset.min(end) };
    let from = list.offset;
    for (y, line) in (area.y..area.bottom()).zip(parts.into_iter().flatten().skip(from)) {
        frame.render_widget(line, Rect { y, height: 1, ..area });
    }
}

/// An empty state: what is missing, and why.
fn empty(frame: &mut Frame<'_>, area: Rect, scene: &Scene<'_>, says: &str) {
    let lines = wrap(says, usize::from(area.width).saturating_sub(2));
    for (y, line) in (area.y..area.bottom()).zip(lines) {
        let line = Line::styled(format!(" {line}"), scene.palette.quiet);
        frame.render_widget(line, Rect { y, height: 1, ..area });
    }
}

/// A text in lines of at most so many columns, broken between words where that can be.
fn wrap(text: &str, width: usize) -> Vec<String> {
    let width = width.max(4);
    let mut lines = Vec::new();
    let mut rest: Vec<char> = text.chars().collect();
    while let Some((at, is_blank)) = place_of_break(rest.iter().copied(), width) {
        let tail = rest.split_off(at);
        lines.push(rest.iter().collect());
        rest = tail.into_iter().skip(usize::from(is_blank)).collect();
    }
    lines.push(rest.into_iter().collect());
    lines
}

/// Before which character a text that is wider than so many columns is broken, and whether that is a blank
/// between two words; `None` where all of it fits. No character is wider than two columns.
fn place_of_break(text: impl Iterator<Item = char>, width: usize) -> Option<(usize, bool)> {
    let (mut column, mut blank) = (0, None);
    for (at, c) in text.enumerate() {
        if c == ' ' && column > width / 2 {
            blank = Some(at);
        }
        column += c.width().unwrap_or(0);
        if column > width {
            return Some(blank.map_or((at, false), |blank| (blank, true)));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use ratatui::text::Span;

    use super::*;

    #[test]
    fn lines_are_as_long_as_they_are_wide() {
        assert_eq!(wrap("if not end: return", 12), ["if not end:", "return"]);
        assert_eq!(wrap("abcdefgh", 4), ["abcd", "efgh"]);
        // Two columns each.
        assert_eq!(wrap("修正されたコード", 6), ["修正さ", "れたコ", "ード"]);
        assert_eq!(wrap("修正されたコード", 7), ["修正さ", "れたコ", "ード"]);
        assert_eq!(wrap("ab修正 cd", 6), ["ab修正", "cd"]);
        assert_eq!(wrap("🙂🙂🙂", 4), ["🙂🙂", "🙂"]);
        let text = "x漢y字 🙂🙂 e 混じり文 🚀z".repeat(9);
        for width in 4..40 {
            let lines = wrap(&text, width);
            assert!(lines.iter().all(|line| Span::raw(line).width() <= width), "{lines:?}");
            let kept = |text: &str| text.replace(' ', "");
            assert_eq!(kept(&lines.concat()), kept(&text), "at {width} columns");
        }
    }
}
