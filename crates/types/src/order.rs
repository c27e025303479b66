//! What an operator may ask of a node or an actor, and what is answered.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::id::NodeName;

/// A node, or one actor of it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Target {
    /// The node.
    pub node: NodeName,
    /// The actor's name in its node; none means the node itself.
    pub actor: Option<String>,
}

impl Target {
    /// A node.
    #[must_use]
    pub fn node(node: impl Into<NodeName>) -> Self {
        Self { node: node.into(), actor: None }
    }

    /// An actor of a node.
    #[must_use]
    pub fn actor(node: impl Into<NodeName>, actor: impl Into<String>) -> Self {
        Self { node: node.into(), actor: Some(actor.into()) }
    }

    /// Reads `rollout-0` or `rollout-0/rollout`. Names hold no slash.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (node, actor) = match text.split_once('/') {
            Some((node, actor)) => (node, Some(actor)),
            None => (text, None),
        };
        let is_name = |name: &str| !name.is_empty() && !name.contains('/');
        (is_name(node) && actor.is_none_or(is_name))
            .then(|| Self { node: node.into(), actor: actor.map(str::to_owned) })
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.actor {
            Some(actor) => write!(f, "{}/{actor}", self.node),
            None => write!(f, "{}", self.node),
        }
    }
}

/// What is to be done to a target.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    /// Ends it in good order; it is not started again by itself.
    Stop,
    /// Ends it at once, in the middle of whatever it is at; whoever watches it starts it again.
    Kill,
    /// Ends it in good order, or finds it ended, and starts it again.
    Restart,
    /// It does nothing until [`Action::Resume`]: an actor takes no message, a rollout node gives its
    /// episodes back and gets none.
    Suspend,
    /// It does its work again, after [`Action::Suspend`] or [`Action::Drain`].
    Resume,
    /// A rollout node finishes what it has and gets no more.
    Drain,
    /// A node writes more or less into its log.
    Log {
        /// As `CRRL_LOG`: `info,crrl_actors=debug`; empty for what the node was started with.
        filter: String,
        /// After so long it writes again what it wrote when it was started; none: until it ends.
        for_ms: Option<u64>,
    },
}

impl Action {
    /// One of each kind, as they are listed to people.
    pub const ALL: [Self; 7] = [
        Self::Stop,
        Self::Kill,
        Self::Restart,
        Self::Suspend,
        Self::Resume,
        Self::Drain,
        Self::Log { filter: String::new(), for_ms: None },
    ];

    /// The one of this name; a [`Action::Log`] is that of the node's start.
    #[must_use]
    pub fn named(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|action| action.word() == word)
    }

    /// Its name.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Kill => "kill",
            Self::Restart => "restart",
            Self::Suspend => "suspend",
            Self::Resume => "resume",
            Self::Drain => "drain",
            Self::Log { .. } => "log",
        }
    }

    /// What it means to an actor, or to a node.
    #[must_use]
    pub fn means(&self, is_actor: bool) -> &'static str {
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
            (Self::Log { .. }, true) => "Only a node writes a log.",
            (Self::Log { .. }, false) => "It writes more or less into its log.",
        }
    }
}

/// One order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    /// To whom.
    pub target: Target,
    /// What.
    pub action: Action,
}

impl fmt::Display for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.action.word(), self.target)?;
        if let Action::Log { filter, for_ms } = &self.action {
            write!(f, " {filter:?}")?;
            if let Some(ms) = for_ms {
                write!(f, " for {} s", *ms as f64 / 1000.0)?;
            }
        }
        Ok(())
    }
}

/// What became of an order or a request for a trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// It was done.
    Done,
    /// It was done to a smaller extent than was asked for.
    Truncated,
    /// There is no such target, or it is not there now.
    Absent,
    /// The target is there and cannot do that.
    Unsupported,
    /// It may be possible later.
    Busy,
    /// The certificate does not allow it.
    Denied,
}

impl Outcome {
    /// Its name.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Truncated => "truncated",
            Self::Absent => "absent",
            Self::Unsupported => "unsupported",
            Self::Busy => "busy",
            Self::Denied => "denied",
        }
    }

    /// Whether something was done.
    #[must_use]
    pub fn is_done(self) -> bool {
        matches!(self, Self::Done | Self::Truncated)
    }
}

/// The answer to an order or to a request for a trace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct OrderAnswer {
    /// What became of it.
    pub outcome: Outcome,
    /// The same in words, with what to do where it was not done.
    pub says: String,
}

impl OrderAnswer {
    /// An answer.
    #[must_use]
    pub fn new(outcome: Outcome, says: impl Into<String>) -> Self {
        Self { outcome, says: says.into() }
    }
}

/// One line of a run's `orders.jsonl`: something was asked for, or it was answered. An order that was
/// carried out has two lines of one number; one that was refused has only its answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct OrderRecord {
    /// Number of the order; grows over the whole run.
    pub id: u64,
    /// When, in milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// Who, by the name in the certificate.
    pub who: String,
    /// With what right: the roles in the certificate.
    pub roles: Vec<String>,
    /// What: the word of an [`Action`], `fault`, `stop-run` or `release`.
    pub operation: String,
    /// To whom.
    pub target: String,
    /// What else was said: a filter, a fault, a reason.
    pub detail: String,
    /// What became of it; none while it is being carried out.
    pub outcome: Option<Outcome>,
    /// The same in words.
    pub says: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_action_is_found_by_its_name() {
        for action in Action::ALL {
            assert_eq!(Action::named(action.word()), Some(action));
        }
        assert_eq!(Action::named("melt"), None);
    }

    #[test]
    fn a_target_is_read_as_it_is_written() {
        for text in ["rollout-0", "rollout-0/rollout"] {
            assert_eq!(Target::parse(text).map(|target| target.to_string()).as_deref(), Some(text));
        }
        for text in ["", "/", "rollout-0/", "/rollout", "a/b/c"] {
            assert_eq!(Target::parse(text), None, "{text}");
        }
    }
}
