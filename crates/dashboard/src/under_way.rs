//! An episode under way as one viewer is told of it: turn by turn as its journal grows, each turn whole,
//! with long texts cut. Pure.

use crrl_inspect::archive::Page;
use crrl_inspect::pieces::Pieces;
use crrl_inspect::state::transcript::{Fate, Journal, LiveCall, LiveTurn};
use serde_json::{Value, json};

use crate::{excerpt, patch};

/// Calls of one turn that are told.
const CALLS_MAX: usize = 50;
/// Characters of a tool's name.
const NAME_CHARS_MAX: usize = 64;

/// What is said of an episode under way.
#[derive(Debug, Clone, PartialEq)]
pub enum News {
    /// What follows is told from the first turn on, as this lease wrote it. Of another lease than the one
    /// before: what was told before is void.
    Begin(Value),
    /// A turn as it is now; it takes the place of the one of its number.
    Turn(Value),
    /// What the episode has changed so far.
    Change(Value),
}

impl News {
    /// Its name as an event, and what is in it.
    #[must_use]
    pub fn into_parts(self) -> (&'static str, Value) {
        match self {
            Self::Begin(value) => ("begin", value),
            Self::Turn(value) => ("turn", value),
            Self::Change(value) => ("change", value),
        }
    }
}

/// What one viewer was told. Of the turns only the last is held: no other can change any more.
#[derive(Debug, Clone, Default)]
pub struct Told(Journal);

impl Told {
    /// The lease and the entries of its journal that were told.
    #[must_use]
    pub fn known(&self) -> (u32, u32) {
        (self.0.attempt, self.0.entries)
    }

    /// Takes in what is new in the journal; gives what there is to say of it, in order.
    pub fn add(&mut self, page: Page) -> Vec<News> {
        let journal = &mut self.0;
        let is_anew = page.first == 0;
        let (known, turns) = (journal.entries, journal.forgotten + journal.turns.len());
        let attempt = page.attempt;
        let is_news = !page.entries.is_empty();
        journal.add(attempt, page.first, page.entries);
        if !is_news || (!is_anew && journal.entries == known) {
            return Vec::new();
        }
        let mut news = Vec::new();
        if is_anew {
            news.push(News::Begin(json!({ "attempt": attempt })));
        }
        // The last one that was told may have got an answer since.
        let from = if is_anew { 0 } else { turns.saturating_sub(1) };
        let numbered = (journal.forgotten..).zip(&journal.turns);
        news.extend(numbered.filter(|(n, _)| *n >= from).map(|(n, t)| News::Turn(turn(n, t))));
        if let Some(diff) = journal.change.take() {
            news.push(News::Change(json!(patch::read(&diff, ""))));
        }
        let over = journal.turns.len().saturating_sub(1);
        journal.turns.drain(..over);
        journal.forgotten += over;
        news
    }
}

fn turn(number: usize, turn: &LiveTurn) -> Value {
    let tokens = &turn.tokens;
    json!({
        "turn": number,
        "text": excerpt::first(&turn.text),
        "tokens": tokens.pieces.len() + tokens.left_out,
        "logprob": mean(tokens),
        "stop": turn.stop,
        "note": tokens.note.as_deref().map(excerpt::listed),
        "calls": turn.calls.iter().take(CALLS_MAX).map(call).collect::<Vec<_>>(),
        "calls_left_out": turn.calls.len().saturating_sub(CALLS_MAX),
    })
}

fn mean(tokens: &Pieces) -> Option<f32> {
    let known: Vec<f32> = tokens.pieces.iter().filter_map(|piece| piece.logprob).collect();
    (!known.is_empty()).then(|| known.iter().sum::<f32>() / known.len() as f32)
}

fn call(call: &LiveCall) -> Value {
    let (fate, output, wall_ms) = match &call.fate {
        Fate::Waiting => ("waiting", None, None),
        Fate::Refused(why) => ("refused", Some(why), None),
        Fate::Answered { output, ok: true, wall_ms } => ("worked", Some(output), Some(*wall_ms)),
        Fate::Answered { output, ok: false, wall_ms } => ("failed", Some(output), Some(*wall_ms)),
    };
    json!({
        "name": call.name.chars().take(NAME_CHARS_MAX).collect::<String>(),
        "arguments": excerpt::first(&call.arguments),
        "fate": fate,
        "output": output.map(|output| excerpt::first(output)),
        "wall_ms": wall_ms,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crrl_inspect::state::transcript::Entry;
    use crrl_types::Stop;

    fn wrote(text: &str) -> Entry {
        let tokens = Pieces { pieces: Vec::new(), left_out: 3, note: None };
        Entry::Wrote { text: text.into(), tokens, stop: Stop::EndOfTurn }
    }

    fn shell(cmd: &str) -> String {
        let call = json!({ "name": "shell", "arguments": { "cmd": cmd } });
        format!("<tool_call>{call}</tool_call>")
    }

    fn answered(output: &str) -> Entry {
        Entry::Answered { output: output.into(), ok: true, wall_ms: 3 }
    }

    fn page(attempt: u32, first: u32, entries: Vec<Entry>) -> Page {
        Page { attempt, first, entries }
    }

    /// Kind, number of the turn and fate of its last call.
    fn short(news: Vec<News>) -> Vec<(&'static str, Option<u64>, String)> {
        let of = |news: News| {
            let (name, value) = news.into_parts();
            let fate = value["calls"].as_array().and_then(|calls| calls.last());
            let fate = fate.and_then(|call| call["fate"].as_str()).unwrap_or("").to_owned();
            (name, value["turn"].as_u64(), fate)
        };
        news.into_iter().map(of).collect()
    }

    #[test]
    fn a_turn_is_told_again_when_its_call_was_answered_and_never_after_the_next_began() {
        let mut told = Told::default();
        let first = told.add(page(1, 0, vec![wrote(&shell("ls"))]));
        let turn = |n, fate: &str| ("turn", Some(n), fate.to_owned());
        assert_eq!(short(first), [("begin", None, String::new()), turn(0, "waiting")]);
        assert_eq!(short(told.add(page(1, 1, vec![answered("a.py")]))), [turn(0, "worked")]);
        let more = vec![wrote("b"), wrote("c"), Entry::Changed("-a\n".into())];
        let news = short(told.add(page(1, 2, more)));
        let all = [turn(0, "worked"), turn(1, ""), turn(2, ""), ("change", None, String::new())];
        assert_eq!(news, all);
        assert_eq!(told.known(), (1, 5));
        assert!(told.add(page(1, 5, Vec::new())).is_empty());
        assert_eq!(short(told.add(page(1, 5, vec![wrote("d")]))), [turn(2, ""), turn(3, "")]);
        assert_eq!(told.0.turns.len(), 1, "what cannot change is let go of");
    }

    #[test]
    fn another_lease_that_begins_anew_is_told_from_the_first_turn_on() {
        let mut told = Told::default();
        told.add(page(1, 0, vec![wrote("a"), wrote("b")]));
        assert!(told.add(page(1, 7, vec![wrote("far away")])).is_empty(), "a gap is not bridged");
        let news = told.add(page(2, 0, vec![wrote("c")]));
        assert_eq!(news[0], News::Begin(json!({ "attempt": 2 })));
        let News::Turn(turn) = &news[1] else { panic!("{news:?}") };
        assert_eq!((turn["turn"].as_u64(), turn["text"]["text"].as_str()), (Some(0), Some("c")));
    }

    #[test]
    fn whatever_is_written_is_cut_and_passed_on_as_it_is() {
        let hostile = "</script>\u{1b}[31m\u{202e}";
        let mut told = Told::default();
        let text = format!("{hostile}{}", shell("ls").repeat(60));
        let long = format!("{hostile}{}", "x".repeat(10 << 20));
        let news = told.add(page(1, 0, vec![wrote(&text), answered(&long)]));
        let News::Turn(turn) = &news[1] else { panic!("{news:?}") };
        assert!(turn.to_string().len() < 400_000, "{}", turn.to_string().len());
        assert!(turn["text"]["text"].as_str().is_some_and(|text| text.starts_with(hostile)));
        let output = &turn["calls"][0]["output"];
        assert!(output["text"].as_str().is_some_and(|text| text.starts_with(hostile)));
        assert_eq!(output["bytes"].as_u64(), Some(long.len() as u64));
        assert!(output["next"].is_u64(), "the rest can be asked for");
    }
}
