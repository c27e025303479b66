//! What is told of one episode, turn by turn: of one under way as it becomes durable, of one that is
//! over with what it earned.

use crrl_types::{Stop, Trajectory};

use crate::pieces::Pieces;

/// Turns that are told of an episode under way; more are counted.
pub const TURNS_MAX: usize = 200;

/// By what tokens are coloured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub enum Paint {
    /// By the probability they were drawn with.
    #[default]
    Logprob,
    /// By the adapter that drew them.
    Version,
    /// By what the episode earned against its group.
    Advantage,
}

impl Paint {
    /// The next one, round.
    #[must_use]
    pub fn next(self) -> Self {
        match self {
            Self::Logprob => Self::Version,
            Self::Version => Self::Advantage,
            Self::Advantage => Self::Logprob,
        }
    }

    /// In words.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Logprob => "log-probability",
            Self::Version => "adapter version",
            Self::Advantage => "advantage",
        }
    }
}

/// An episode that is over.
#[derive(Debug, Clone, PartialEq)]
pub struct Left {
    /// What it left behind.
    pub trajectory: Trajectory,
    /// Its tokens by turn; none for a turn that has none of its own.
    pub tokens: Vec<Option<Pieces>>,
    /// Its advantage in its group; none where it was not scored or has no group.
    pub advantage: Option<f64>,
    /// Attempts of its group that were scored.
    pub scored: usize,
    /// The learner's adapter when it was trained on.
    pub trained_at: Option<u64>,
}

/// One entry of a journal, with its tokens as text.
#[derive(Debug, Clone, PartialEq)]
pub enum Entry {
    /// The policy wrote.
    Wrote {
        /// All of it, decoded.
        text: String,
        /// Token by token.
        tokens: Pieces,
        /// Why it ended.
        stop: Stop,
    },
    /// A tool answered.
    Answered {
        /// What it said.
        output: String,
        /// Whether it did what it was meant to.
        ok: bool,
        /// How long it took.
        wall_ms: u64,
    },
    /// What was changed.
    Changed(String),
}

/// A turn of an episode under way.
#[derive(Debug, Clone, PartialEq)]
pub struct LiveTurn {
    /// What the policy wrote, decoded.
    pub text: String,
    /// Token by token.
    pub tokens: Pieces,
    /// Why it ended.
    pub stop: Stop,
    /// What tools answered, in the order of the calls: output, whether it was good, milliseconds.
    pub answers: Vec<(String, bool, u64)>,
}

/// What is known of an episode under way.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Journal {
    /// The lease that wrote it.
    pub attempt: u32,
    /// Entries so far.
    pub entries: u32,
    /// The last turns, at most [`TURNS_MAX`].
    pub turns: Vec<LiveTurn>,
    /// Turns before those.
    pub forgotten: usize,
    /// The change, once it was asked for.
    pub change: Option<String>,
}

impl Journal {
    /// Takes in entries from number `first` on, as this lease wrote them. From the first on: they
    /// take the place of what is held. A gap is not bridged: what is missing comes first.
    pub fn add(&mut self, attempt: u32, first: u32, entries: Vec<Entry>) {
        if entries.is_empty() || (first > 0 && (first, attempt) != (self.entries, self.attempt)) {
            return;
        }
        if first == 0 {
            *self = Self { attempt, ..Self::default() };
        }
        for entry in entries {
            self.entries += 1;
            match entry {
                Entry::Wrote { text, tokens, stop } => {
                    self.turns.push(LiveTurn { text, tokens, stop, answers: Vec::new() });
                }
                Entry::Answered { output, ok, wall_ms } => {
                    if let Some(turn) = self.turns.last_mut() {
                        turn.answers.push((output, ok, wall_ms));
                    }
                }
                Entry::Changed(diff) => self.change = Some(diff),
            }
        }
        let over = self.turns.len().saturating_sub(TURNS_MAX);
        self.turns.drain(..over);
        self.forgotten += over;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrote(text: &str) -> Entry {
        let tokens = Pieces { pieces: Vec::new(), left_out: 0, note: None };
        Entry::Wrote { text: text.into(), tokens, stop: Stop::EndOfTurn }
    }

    fn answered(output: &str) -> Entry {
        Entry::Answered { output: output.into(), ok: true, wall_ms: 3 }
    }

    #[test]
    fn answers_belong_to_the_turn_before_them_and_nothing_is_taken_twice() {
        let mut journal = Journal::default();
        journal.add(1, 0, vec![wrote("a"), answered("x"), answered("y")]);
        journal.add(1, 1, vec![answered("x"), answered("y")]);
        journal.add(1, 9, vec![wrote("far away")]);
        journal.add(1, 3, vec![wrote("b"), Entry::Changed("-a\n".into())]);
        let told = |journal: &Journal| -> Vec<(String, usize)> {
            journal.turns.iter().map(|turn| (turn.text.clone(), turn.answers.len())).collect()
        };
        assert_eq!(told(&journal), [("a".into(), 2), ("b".into(), 0)]);
        assert_eq!((journal.entries, journal.change.as_deref()), (5, Some("-a\n")));
        // Begun anew elsewhere.
        journal.add(2, 5, vec![wrote("of another lease")]);
        journal.add(2, 0, vec![wrote("c")]);
        assert_eq!((told(&journal), journal.change), (vec![("c".into(), 0)], None));
    }

    #[test]
    fn the_first_turns_of_a_long_episode_are_let_go_of() {
        let mut journal = Journal::default();
        for at in 0..TURNS_MAX as u32 + 5 {
            journal.add(1, at, vec![wrote(&at.to_string())]);
        }
        assert_eq!((journal.turns.len(), journal.forgotten), (TURNS_MAX, 5));
        assert_eq!(journal.turns[0].text, "5");
    }
}
