//! What a click or a turn of the wheel does. Off until asked for: a terminal whose mouse is ours does
//! not select text.

use crossterm::event::{MouseButton, MouseEvent, MouseEventKind};
use ratatui::layout::{Position, Rect};

use super::app::App;
use super::command::Command;
use super::keys::Effect;
use super::list::Step;
use super::screens::Screen;
use super::world::World;

/// Two clicks within this time are one double click, milliseconds.
pub const DOUBLE_MS: u64 = 400;
/// Rows a turn of the wheel moves.
const WHEEL_ROWS: isize = 3;

/// Something the mouse can be pointed at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spot {
    /// The tab of a screen.
    Tab(Screen),
    /// The head of a column.
    Head(Command),
    /// A row of the table, counted from its first one.
    Row(usize),
}

/// What is where, as drawn last.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Spots(Vec<(Rect, Spot)>);

impl Spots {
    /// Nothing is drawn yet.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// Something is drawn here.
    pub fn push(&mut self, area: Rect, spot: Spot) {
        self.0.push((area, spot));
    }

    /// What is here.
    #[must_use]
    pub fn at(&self, column: u16, row: u16) -> Option<Spot> {
        let here = Position { x: column, y: row };
        self.0.iter().find(|(area, _)| area.contains(here)).map(|(_, spot)| *spot)
    }
}

impl App {
    /// Takes what the mouse did at this time, milliseconds.
    pub fn mouse(&mut self, event: MouseEvent, at_ms: u64, world: &World) -> Effect {
        // What is being typed is finished first.
        if self.asking.is_some() || !self.has_mouse {
            return Effect::None;
        }
        match event.kind {
            MouseEventKind::ScrollDown => self.step(Step::Rows(WHEEL_ROWS)),
            MouseEventKind::ScrollUp => self.step(Step::Rows(-WHEEL_ROWS)),
            MouseEventKind::Down(MouseButton::Left) => {
                return match self.spots.at(event.column, event.row) {
                    Some(Spot::Tab(screen)) => self.run(Command::Go(screen), world),
                    Some(Spot::Head(command)) => self.run(command, world),
                    Some(Spot::Row(row)) => self.click(row, at_ms, world),
                    None => Effect::None,
                };
            }
            _ => {}
        }
        Effect::None
    }

    /// Rows move between two clicks: it is the same row if it is the same thing.
    fn click(&mut self, row: usize, at_ms: u64, world: &World) -> Effect {
        let grows = self.screen.grows();
        let list = self.list_mut();
        list.selected = row;
        list.follow &= !grows;
        let key = self.row_key(world);
        let is_twice = self.clicked.take().is_some_and(|(screen, held, at, before_ms)| {
            let is_same = if key.is_some() { held == key } else { held.is_none() && at == row };
            screen == self.screen && is_same && at_ms.saturating_sub(before_ms) <= DOUBLE_MS
        });
        if is_twice {
            return self.run(Command::Open, world);
        }
        self.clicked = Some((self.screen, key, row, at_ms));
        Effect::None
    }
}
