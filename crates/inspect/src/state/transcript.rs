//! What is told of one episode, turn by turn: of one under way as it becomes durable, of one that is
//! over with what it earned.

use crrl_agent::tool_call::{self, Parsed};
use crrl_agent::{Invocation, command, tools};
use crrl_types::{Stop, Trajectory};
use ratatui::text::Line;
use serde::{Deserialize, Serialize};
use serde_json::Value;

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

/// An episode's lines, so that they are not laid out anew for every frame.
#[derive(Debug, Clone)]
pub struct Laid {
    /// What they were laid out from.
    pub of: LaidOf,
    /// The lines.
    pub lines: Vec<Line<'static>>,
}

/// What an episode's lines depend on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LaidOf {
    /// The episode.
    pub episode: u64,
    /// Columns there are.
    pub width: usize,
    /// By what tokens are coloured.
    pub paint: Paint,
    /// Lease and entries of its journal; none of one that is over.
    pub journal: Option<(u32, u32)>,
    /// What was known of it since it is over; none of one under way.
    pub judged: Option<Judged>,
}

/// What becomes known of an episode after its last turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Judged {
    /// The bits of its advantage.
    advantage: Option<u64>,
    scored: usize,
    trained_at: Option<u64>,
    is_final: bool,
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
    /// Whether the three above stay as they are: it was trained on, or let go of.
    pub is_final: bool,
}

impl Left {
    /// What became known of it after its last turn.
    #[must_use]
    pub fn judged(&self) -> Judged {
        let Self { advantage, scored, trained_at, is_final, .. } = self;
        Judged {
            advantage: advantage.map(f64::to_bits),
            scored: *scored,
            trained_at: *trained_at,
            is_final: *is_final,
        }
    }
}

/// One entry of a journal, with its tokens as text.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
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
    /// Calls of tools, in order.
    pub calls: Vec<LiveCall>,
}

/// A call of a tool in an episode under way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LiveCall {
    /// The tool; empty where it could not be read.
    pub name: String,
    /// What it was given, as JSON.
    pub arguments: String,
    /// What became of it.
    pub fate: Fate,
}

/// What became of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// It has not answered yet.
    Waiting,
    /// It was not carried out, and why.
    Refused(String),
    /// It answered.
    Answered {
        /// What it said, uncut.
        output: String,
        /// Whether it did what it was meant to.
        ok: bool,
        /// How long it took.
        wall_ms: u64,
    },
}

/// The calls a turn makes, as the scaffold reads them.
fn calls(text: &str) -> Vec<LiveCall> {
    let call = |parsed| match parsed {
        Parsed::Malformed(why) => {
            LiveCall { name: String::new(), arguments: String::new(), fate: Fate::Refused(why) }
        }
        Parsed::Call { name, arguments } => {
            let refusal = match tools::invocation(&name, &arguments) {
                Ok(Invocation::Shell { cmd }) => command::refusal(&cmd),
                Ok(_) => None,
                Err(why) => Some(why),
            };
            let fate = refusal.map_or(Fate::Waiting, Fate::Refused);
            LiveCall { name, arguments: Value::Object(arguments).to_string(), fate }
        }
    };
    tool_call::parse(text).into_iter().map(call).collect()
}

impl LiveTurn {
    /// A tool answered: the first call that waits.
    fn answered(&mut self, fate: Fate) {
        match self.calls.iter_mut().find(|call| call.fate == Fate::Waiting) {
            Some(call) => call.fate = fate,
            // Nothing tells what was called where nothing turns tokens into text.
            None => {
                self.calls.push(LiveCall { name: String::new(), arguments: String::new(), fate });
            }
        }
    }

    /// The policy goes on: what waits is not answered any more.
    fn close(&mut self) {
        for call in self.calls.iter_mut().filter(|call| call.fate == Fate::Waiting) {
            call.fate = Fate::Refused("not run".to_owned());
        }
    }
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
                    if let Some(turn) = self.turns.last_mut() {
                        turn.close();
                    }
                    let calls = calls(&text);
                    self.turns.push(LiveTurn { text, tokens, stop, calls });
                }
                Entry::Answered { output, ok, wall_ms } => {
                    if let Some(turn) = self.turns.last_mut() {
                        turn.answered(Fate::Answered { output, ok, wall_ms });
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
            journal.turns.iter().map(|turn| (turn.text.clone(), turn.calls.len())).collect()
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

    #[test]
    fn calls_are_told_with_what_became_of_them() {
        let call = |cmd: &str| {
            let body = serde_json::json!({ "name": "shell", "arguments": { "cmd": cmd } });
            format!("<tool_call>\n{body}\n</tool_call>")
        };
        let mut journal = Journal::default();
        let text = format!("I look.\n{}{}<tool_call>{{</tool_call>", call("ls"), call("cat a.py"));
        journal.add(1, 0, vec![wrote(&text), answered("a.py")]);
        let fates: Vec<_> = journal.turns[0].calls.iter().map(|call| call.fate.clone()).collect();
        let ls = Fate::Answered { output: "a.py".into(), ok: true, wall_ms: 3 };
        assert_eq!(fates[..2], [ls, Fate::Waiting]);
        assert!(matches!(&fates[2], Fate::Refused(why) if why.contains("JSON")), "{fates:?}");
        assert!(journal.turns[0].calls[1].arguments.contains("cat a.py"));
        journal.add(1, 2, vec![wrote("on")]);
        assert_eq!(journal.turns[0].calls[1].fate, Fate::Refused("not run".into()));
    }
}
