//! Which key does what. No key does nothing: one that does not apply says so.

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use crrl_types::{Order, TraceRequest};

use super::actors::ActorRow;
use super::app::App;
use super::asking::{Asking, Prompt, Typed, remember};
use super::command::Command;
use super::episodes::Rollout;
use super::history::EventRow;
use super::list::Step;
use super::orders::{self, Spoken};
use super::screens::Screen;
use super::world::World;
use crate::filter::{CHARS_MAX, Filter};

/// What the loop has to do because of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Nothing more.
    None,
    /// Leave; the cluster goes on.
    Detach,
    /// Write what is shown to a file.
    Export,
    /// Move in a recording by so many milliseconds.
    Seek(i64),
    /// Play a recording, or halt it.
    Halt,
    /// Send this order.
    Order(Order),
    /// Begin this trace.
    Trace(TraceRequest),
    /// End the trace.
    EndTrace,
}

impl App {
    /// Takes a key.
    pub fn key(&mut self, key: KeyEvent, world: &World) -> Effect {
        let control = key.modifiers.contains(KeyModifiers::CONTROL);
        if control && key.code == KeyCode::Char('c') {
            return Effect::Detach;
        }
        match self.asking.take() {
            Some(Asking::Filter(prompt)) => {
                self.type_filter(prompt, key.code);
                return Effect::None;
            }
            Some(Asking::Command(mut line)) => {
                return match line.key(key, &self.history) {
                    Typed::More => {
                        self.asking = Some(Asking::Command(line));
                        Effect::None
                    }
                    Typed::Dropped => Effect::None,
                    Typed::Run(named) => {
                        remember(&mut self.history, &named.name);
                        self.run(named.command, world)
                    }
                };
            }
            Some(Asking::Order(mut dialogue)) => {
                let spoken = dialogue.key(key.code);
                if spoken != Spoken::Closed {
                    self.asking = Some(Asking::Order(dialogue));
                }
                return match spoken {
                    Spoken::Send(order) => Effect::Order(order),
                    Spoken::More | Spoken::Closed => Effect::None,
                };
            }
            None => {}
        }
        match key.code {
            KeyCode::Left if self.is_replay => return Effect::Seek(-1_000),
            KeyCode::Right if self.is_replay => return Effect::Seek(1_000),
            KeyCode::Char('u') if control => self.step(Step::Pages(-1)),
            KeyCode::Char('d') if control => self.step(Step::Pages(1)),
            KeyCode::Char('j') | KeyCode::Down => self.step(Step::Rows(1)),
            KeyCode::Char('k') | KeyCode::Up => self.step(Step::Rows(-1)),
            KeyCode::PageDown => self.step(Step::Pages(1)),
            KeyCode::PageUp => self.step(Step::Pages(-1)),
            KeyCode::Char('g') | KeyCode::Home => self.step(Step::First),
            KeyCode::Char('G') | KeyCode::End => self.step(Step::Last),
            code => match command(code) {
                Some(command) => return self.run(command, world),
                None => self.unknown(code),
            },
        }
        Effect::None
    }

    fn unknown(&mut self, code: KeyCode) {
        if let KeyCode::Char(c) = code {
            self.say(format!("{c} is no key here; ? lists them"));
        }
    }

    fn type_filter(&mut self, mut prompt: Prompt, code: KeyCode) {
        match code {
            KeyCode::Esc => {
                self.filters.insert(self.screen, prompt.before.take().unwrap_or_default());
                return;
            }
            KeyCode::Enter if prompt.error.is_none() => return,
            KeyCode::Backspace if prompt.text.pop().is_none() => return,
            KeyCode::Char(c) if prompt.text.chars().count() < CHARS_MAX => prompt.text.push(c),
            _ => {}
        }
        let parsed = match self.screen {
            Screen::Actors => Filter::parse::<ActorRow>(&prompt.text),
            Screen::Rollouts => Filter::parse::<Rollout<'_>>(&prompt.text),
            _ => Filter::parse::<EventRow>(&prompt.text),
        };
        prompt.error = match parsed {
            Ok(filter) => {
                self.filters.insert(self.screen, filter);
                None
            }
            Err(error) => Some(error),
        };
        self.asking = Some(Asking::Filter(prompt));
    }
}

/// The command of a key.
fn command(code: KeyCode) -> Option<Command> {
    let c = match code {
        KeyCode::Enter => return Some(Command::Open),
        KeyCode::Esc | KeyCode::Backspace => return Some(Command::Back),
        KeyCode::F(1) => return Some(Command::Go(Screen::Help)),
        KeyCode::Char(c) => c,
        _ => return None,
    };
    Some(match c {
        'q' => Command::Leave,
        'e' => Command::Export,
        ' ' => Command::Pause,
        '<' => Command::Turn(-1),
        '>' => Command::Turn(1),
        'r' => Command::Reverse,
        'f' => Command::Follow,
        'c' => Command::Paint,
        'w' => Command::Count,
        'm' => Command::Mouse,
        't' => Command::Trace,
        '/' => Command::Filter,
        ':' => Command::Palette,
        '+' => Command::Faster,
        '-' => Command::Slower,
        c => {
            if orders::KEYS.iter().any(|(key, _)| *key == c) {
                return Some(Command::Order(c));
            }
            let of_key = |(key, _): &&(Option<char>, Screen)| *key == Some(c);
            Command::Go(Screen::ALL.iter().find(of_key)?.1)
        }
    })
}
