//! Orders to actors and nodes: a capital letter opens a dialogue, and nothing is sent before the
//! target's name was typed.

use crossterm::event::KeyCode;
use crrl_types::{Action, Order, OrderAnswer, Target};

use super::actors::ActorId;

/// Characters of a name that are typed at most.
const NAME_CHARS_MAX: usize = 128;

/// The keys of what can be asked of an actor or a node.
pub const KEYS: [(char, Action); 6] = [
    ('S', Action::Stop),
    ('K', Action::Kill),
    ('R', Action::Restart),
    ('P', Action::Suspend),
    ('C', Action::Resume),
    ('D', Action::Drain),
];

/// How far a dialogue is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stage {
    /// The name is being typed.
    Typing {
        /// So far.
        typed: String,
        /// Whether Enter was pressed on another name.
        is_wrong: bool,
    },
    /// It was sent.
    Sent,
    /// It was answered; an error where nobody answered.
    Answered(Result<OrderAnswer, String>),
}

/// A dialogue about one order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dialogue {
    /// What is sent in the end.
    pub order: Order,
    /// How far it is.
    pub stage: Stage,
}

/// What a key came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Spoken {
    /// It goes on.
    More,
    /// It is over.
    Closed,
    /// This is to be sent.
    Send(Order),
}

impl Dialogue {
    /// Nothing typed yet.
    #[must_use]
    pub fn new(order: Order) -> Self {
        Self { order, stage: Stage::Typing { typed: String::new(), is_wrong: false } }
    }

    /// The name that has to be typed.
    #[must_use]
    pub fn name(&self) -> &str {
        let Target { node, actor } = &self.order.target;
        actor.as_deref().unwrap_or(node.as_str())
    }

    /// Takes a key.
    pub fn key(&mut self, code: KeyCode) -> Spoken {
        let is_name = matches!(&self.stage, Stage::Typing { typed, .. } if typed == self.name());
        let Stage::Typing { typed, is_wrong } = &mut self.stage else {
            return match code {
                KeyCode::Esc | KeyCode::Enter | KeyCode::Char('q' | ' ') => Spoken::Closed,
                _ => Spoken::More,
            };
        };
        *is_wrong = false;
        match code {
            KeyCode::Esc => return Spoken::Closed,
            KeyCode::Enter if is_name => {
                self.stage = Stage::Sent;
                return Spoken::Send(self.order.clone());
            }
            KeyCode::Enter => *is_wrong = true,
            KeyCode::Backspace => drop(typed.pop()),
            KeyCode::Char(c) if typed.chars().count() < NAME_CHARS_MAX => typed.push(c),
            _ => {}
        }
        Spoken::More
    }
}

/// Who is meant by an actor of a table.
#[must_use]
pub fn target_of(id: &ActorId) -> Target {
    Target::actor(id.node.as_str(), id.name.as_str())
}

/// An answer in a line.
#[must_use]
pub fn in_words(order: &Order, answer: &Result<OrderAnswer, String>) -> String {
    match answer {
        Ok(answer) => format!("{order}: {}: {}", answer.outcome.word(), answer.says),
        Err(error) => format!("{order}: not sent, or not answered: {error}"),
    }
}
