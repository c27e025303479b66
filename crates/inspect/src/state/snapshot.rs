//! What the actor that is looked at has published of its state, as lines.

use crrl_types::Target;
use crrl_types::actor::SnapshotAnswer;
use serde_json::Value;

use super::actors::ActorId;
use crate::text::plain;
use crate::units::age;

/// Characters of a line.
const LINE_CHARS_MAX: usize = 500;
/// Columns of a name.
const NAME_COLUMNS: usize = 22;

/// An actor's snapshot, or why there is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// Whose.
    pub of: ActorId,
    /// How old it is, or why there is none.
    pub says: String,
    /// What is in it.
    pub lines: Vec<String>,
    /// The same as it was published.
    pub value: Option<Value>,
}

impl Snapshot {
    /// Of an answer; an error where nobody answered. None where no actor was asked about.
    #[must_use]
    pub fn of(target: &Target, answer: &Result<SnapshotAnswer, String>) -> Option<Self> {
        let of = ActorId { node: target.node.to_string(), name: target.actor.clone()? };
        let (says, lines, value) = match answer {
            Ok(answer) => (says(answer), lines(answer), value(answer)),
            Err(error) => (plain(error, LINE_CHARS_MAX), Vec::new(), None),
        };
        Some(Self { of, says, lines, value })
    }
}

fn value(answer: &SnapshotAnswer) -> Option<Value> {
    serde_json::from_str(&answer.snapshot.as_ref()?.json).ok()
}

/// How old it is, or why there is none.
#[must_use]
pub fn says(answer: &SnapshotAnswer) -> String {
    let reason = plain(&answer.answer.says, LINE_CHARS_MAX);
    match &answer.snapshot {
        Some(snapshot) if reason.is_empty() => format!("published {} ago", age(snapshot.age_ms)),
        Some(snapshot) => format!("published {} ago; {reason}", age(snapshot.age_ms)),
        None => format!("{}: {reason}", answer.answer.outcome.word()),
    }
}

/// What is in it, a line each: fields as they were published, the elements of a list below its length.
#[must_use]
pub fn lines(answer: &SnapshotAnswer) -> Vec<String> {
    let Some(snapshot) = &answer.snapshot else { return Vec::new() };
    let mut out = Vec::new();
    match serde_json::from_str(&snapshot.json) {
        Ok(value) => put(&value, 0, &mut out),
        Err(error) => out.push(format!("no JSON: {error}")),
    }
    out.iter().map(|line| plain(line, LINE_CHARS_MAX)).collect()
}

fn put(value: &Value, level: usize, out: &mut Vec<String>) {
    let Value::Object(fields) = value else { return out.push(word(value)) };
    let pad = "  ".repeat(level);
    for (name, value) in fields {
        match value {
            Value::Object(_) => {
                out.push(format!("{pad}{name}"));
                put(value, level + 1, out);
            }
            Value::Array(list) => {
                out.push(format!("{pad}{name:<NAME_COLUMNS$} {}", list.len()));
                out.extend(list.iter().map(|element| format!("{pad}  {}", flat(element))));
            }
            other => out.push(format!("{pad}{name:<NAME_COLUMNS$} {}", word(other))),
        }
    }
}

/// An element of a list, in one line.
fn flat(value: &Value) -> String {
    match value {
        Value::Object(fields) => {
            let pairs = fields.iter().map(|(name, value)| format!("{name} {}", word(value)));
            pairs.collect::<Vec<_>>().join("  ")
        }
        other => word(other),
    }
}

fn word(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use crrl_types::actor::ActorSnapshot;
    use crrl_types::{OrderAnswer, Outcome};

    use super::*;

    fn answer(outcome: Outcome, why: &str, json: Option<&str>) -> SnapshotAnswer {
        let snapshot = json.map(|json| ActorSnapshot { json: json.to_owned(), age_ms: 4_200 });
        SnapshotAnswer { answer: OrderAnswer::new(outcome, why), snapshot }
    }

    #[test]
    fn a_snapshot_is_read_line_by_line_with_its_age() {
        let json = r#"{"stance":"takes work","credit":3,"adapter":{"version":7,"asked_ms_ago":null},
            "in_flight":[{"episode":12,"attempt":1},{"episode":13,"attempt":2}],
            "says":"bell\u0007 \u001b[2J"}"#;
        let seen = answer(Outcome::Done, "", Some(json));
        assert_eq!(says(&seen), "published 4.2 s ago");
        let expected = [
            "stance                 takes work",
            "credit                 3",
            "adapter",
            "  version                7",
            "  asked_ms_ago           -",
            "in_flight              2",
            "  episode 12  attempt 1",
            "  episode 13  attempt 2",
        ];
        let lines = lines(&seen);
        assert_eq!(lines[..8], expected);
        assert!(!lines[8].contains('\u{1b}') && !lines[8].contains('\u{7}'), "{:?}", lines[8]);
    }

    #[test]
    fn what_is_not_there_says_why_and_what_was_cut_says_so() {
        let none = answer(Outcome::Unsupported, "a thread publishes none", None);
        let target = Target::actor("rollout-0", "engine");
        let seen = Snapshot::of(&target, &Ok(none)).expect("an actor was named");
        assert_eq!(seen.says, "unsupported: a thread publishes none");
        assert!(seen.lines.is_empty());
        let cut = answer(Outcome::Truncated, "lists are cut", Some("{}"));
        assert_eq!(says(&cut), "published 4.2 s ago; lists are cut");
        let nobody = Snapshot::of(&target, &Err("nobody answers".into()));
        assert_eq!(nobody.map(|seen| seen.says).as_deref(), Some("nobody answers"));
        assert_eq!(Snapshot::of(&Target::node("rollout-0"), &Err(String::new())), None);
    }
}
