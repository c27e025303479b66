//! What a person is typing at the bottom: a filter, the name of a command, an order.

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::command::{self, Named};
use super::orders::Dialogue;
use crate::filter::{Filter, FilterError};

/// Characters that are typed at most.
pub const CHARS_MAX: usize = 200;
/// Names of commands that are remembered.
pub const HISTORY_MAX: usize = 50;

/// What is being typed.
#[derive(Debug, Clone)]
pub enum Asking {
    /// Which rows are shown.
    Filter(Prompt),
    /// What is to be done here.
    Command(CommandLine),
    /// What is to be done to an actor or a node.
    Order(Dialogue),
}

/// A filter being typed.
#[derive(Debug, Clone, Default)]
pub struct Prompt {
    /// So far.
    pub text: String,
    /// What is wrong with it.
    pub error: Option<FilterError>,
    /// The filter as it was, for who thinks better of it.
    pub before: Option<Filter>,
}

/// The name of a command being typed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CommandLine {
    /// So far.
    pub text: String,
    /// Commands that answer to it, the best first.
    pub found: Vec<Named>,
    /// Which of them Enter runs.
    pub chosen: usize,
    /// What was typed before Tab filled in a name; Tab fills in the next one.
    completing: Option<String>,
}

/// What a key came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Typed {
    /// It goes on.
    More,
    /// The person thought better of it.
    Dropped,
    /// This one is to be run.
    Run(Named),
}

impl CommandLine {
    /// Nothing typed yet: what was run last comes first.
    #[must_use]
    pub fn new(history: &[String]) -> Self {
        Self { found: command::matching("", history), ..Self::default() }
    }

    /// Takes a key.
    pub fn key(&mut self, key: KeyEvent, history: &[String]) -> Typed {
        let control = key.modifiers.contains(KeyModifiers::CONTROL);
        match key.code {
            KeyCode::Esc => return Typed::Dropped,
            KeyCode::Enter => {
                return self.found.get(self.chosen).cloned().map_or(Typed::More, Typed::Run);
            }
            KeyCode::Down => self.choose(1),
            KeyCode::Up => self.choose(-1),
            KeyCode::Char('n') if control => self.choose(1),
            KeyCode::Char('p') if control => self.choose(-1),
            KeyCode::Tab => self.complete(1),
            KeyCode::BackTab => self.complete(-1),
            KeyCode::Char('u') if control => self.retype(String::new(), history),
            KeyCode::Backspace => {
                let mut text = self.text.clone();
                if text.pop().is_none() {
                    return Typed::Dropped;
                }
                self.retype(text, history);
            }
            KeyCode::Char(c) if !control && self.text.chars().count() < CHARS_MAX => {
                self.retype(format!("{}{c}", self.text), history);
            }
            _ => {}
        }
        Typed::More
    }

    fn retype(&mut self, text: String, history: &[String]) {
        self.found = command::matching(&text, history);
        self.text = text;
        (self.chosen, self.completing) = (0, None);
    }

    fn choose(&mut self, by: isize) {
        let len = self.found.len().max(1) as isize;
        self.chosen = (self.chosen as isize + by).rem_euclid(len) as usize;
    }

    /// Fills in the name that is chosen; again: the one after it, among the same.
    fn complete(&mut self, by: isize) {
        if self.completing.is_some() {
            self.choose(by);
        } else {
            self.completing = Some(self.text.clone());
        }
        if let Some(named) = self.found.get(self.chosen) {
            self.text.clone_from(&named.name);
        }
    }
}

/// Remembers that a command was run.
pub fn remember(history: &mut Vec<String>, name: &str) {
    history.retain(|held| held != name);
    history.push(name.to_owned());
    if history.len() > HISTORY_MAX {
        history.remove(0);
    }
}
