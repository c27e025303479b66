//! Orders to actors and nodes: a capital letter opens a dialogue, and nothing is sent before the
//! target's name was typed.

use crossterm::event::KeyCode;
use crrl_types::{Action, Order, OrderAnswer, Target};

use super::actors::ActorId;

/// Characters of a name that are typed at most.
const NAME_CHARS_MAX: usize = 128;

/// What can be asked of an actor or a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "named as the actions they stand for")]
pub enum Verb {
    Stop,
    Kill,
    Restart,
    Suspend,
    Resume,
    Drain,
}

impl Verb {
    /// Every one, with its key.
    pub const ALL: [(char, Self); 6] = [
        ('S', Self::Stop),
        ('K', Self::Kill),
        ('R', Self::Restart),
        ('P', Self::Suspend),
        ('C', Self::Resume),
        ('D', Self::Drain),
    ];

    /// What is sent.
    #[must_use]
    pub fn action(self) -> Action {
        match self {
            Self::Stop => Action::Stop,
            Self::Kill => Action::Kill,
            Self::Restart => Action::Restart,
            Self::Suspend => Action::Suspend,
            Self::Resume => Action::Resume,
            Self::Drain => Action::Drain,
        }
    }

    /// What that means for an actor, or for a node.
    #[must_use]
    pub fn means(self, is_actor: bool) -> &'static str {
        match (self, is_actor) {
            (Self::Stop, true) => "It ends in good order and stays away until it is restarted.",
            (Self::Stop, false) => "Its process leaves and stays away until it is restarted.",
            (Self::Kill, true) => {
                "It ends in the middle of its message; its supervisor starts it again."
            }
            (Self::Kill, false) => "Its process is killed; its host starts it again.",
            (Self::Restart, true) => "It ends in good order, or has ended, and is started again.",
            (Self::Restart, false) => "Its process leaves and is started again by its host.",
            (Self::Suspend, true) => "It takes no message until it is resumed; its messages wait.",
            (Self::Suspend, false) => {
                "It gives its episodes back and gets none until it is resumed."
            }
            (Self::Resume, true) => "It takes messages again.",
            (Self::Resume, false) => "It takes work again.",
            (Self::Drain, true) => "Only a node can be drained.",
            (Self::Drain, false) => "It finishes what it has and gets no more.",
        }
    }
}

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
    /// What.
    pub verb: Verb,
    /// To whom.
    pub target: Target,
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
    pub fn new(verb: Verb, target: Target) -> Self {
        Self { verb, target, stage: Stage::Typing { typed: String::new(), is_wrong: false } }
    }

    /// What is sent in the end.
    #[must_use]
    pub fn order(&self) -> Order {
        Order { target: self.target.clone(), action: self.verb.action() }
    }

    /// The name that has to be typed.
    #[must_use]
    pub fn name(&self) -> &str {
        self.target.actor.as_deref().unwrap_or(self.target.node.as_str())
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
                return Spoken::Send(self.order());
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
