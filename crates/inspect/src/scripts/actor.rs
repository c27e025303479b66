//! What one actor has published of its state.

use std::io::Write;

use crrl_cluster::RunDir;
use crrl_types::actor::SnapshotAnswer;
use crrl_types::{Outcome, Target};
use serde::Serialize;
use serde_json::Value;

use super::orders::dial;
use super::{json, line, runtime};
use crate::error::InspectError;
use crate::state::snapshot::{lines, says};

/// An actor's snapshot, as it is printed.
#[derive(Debug, Clone, PartialEq, Serialize, schemars::JsonSchema)]
pub struct ActorSnapshotLine {
    /// Its node.
    pub node: String,
    /// Its name there; none where a node was named.
    pub actor: Option<String>,
    /// Whether there is a snapshot: `truncated` where it was cut, `absent` where there is no such actor,
    /// `unsupported` where the actor publishes none, `busy` where it has not yet or its node does not
    /// answer.
    pub outcome: Outcome,
    /// The same in words, where there is something to say.
    pub says: String,
    /// How long ago it was published, milliseconds.
    pub age_ms: Option<u64>,
    /// What was published.
    pub snapshot: Option<Value>,
}

impl ActorSnapshotLine {
    /// Of an answer.
    #[must_use]
    pub fn of(target: &Target, answer: &SnapshotAnswer) -> Self {
        let snapshot = answer.snapshot.as_ref();
        Self {
            node: target.node.to_string(),
            actor: target.actor.clone(),
            outcome: answer.answer.outcome,
            says: answer.answer.says.clone(),
            age_ms: snapshot.map(|snapshot| snapshot.age_ms),
            snapshot: snapshot.and_then(|snapshot| serde_json::from_str(&snapshot.json).ok()),
        }
    }
}

/// Asks for an actor's snapshot with a certificate of the folder; without a name, the operator's.
///
/// # Errors
/// [`InspectError`]: nobody answers. Whatever else stands in the way is an answer.
pub fn ask(
    run: &RunDir,
    who: Option<&str>,
    target: &Target,
) -> Result<SnapshotAnswer, InspectError> {
    runtime()?.block_on(async {
        let client = dial(run, who).await?;
        let answer = client.snapshot(target).await;
        client.close().await;
        answer.map_err(|source| InspectError::Unreachable { path: run.path().to_owned(), source })
    })
}

/// Prints an answer.
///
/// # Errors
/// Nobody reads.
pub fn print(
    target: &Target,
    answer: &SnapshotAnswer,
    as_json: bool,
    out: &mut dyn Write,
) -> Result<(), InspectError> {
    if as_json {
        return line(out, &json(&ActorSnapshotLine::of(target, answer))?).map(drop);
    }
    let head = format!("{target}  {}", says(answer));
    for text in std::iter::once(head).chain(lines(answer)) {
        if !line(out, &text)? {
            break;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use crrl_types::OrderAnswer;
    use crrl_types::actor::ActorSnapshot;

    use super::*;

    fn printed(answer: &SnapshotAnswer, as_json: bool) -> String {
        let (target, mut out) = (Target::actor("rollout-0", "rollout"), Vec::new());
        print(&target, answer, as_json, &mut out).expect("it is read");
        String::from_utf8(out).expect("text")
    }

    #[test]
    fn json_is_one_object_whether_there_is_a_snapshot_or_not() {
        let snapshot = ActorSnapshot { json: r#"{"credit":3}"#.to_owned(), age_ms: 12 };
        let answer = OrderAnswer::new(Outcome::Done, "");
        let whole = SnapshotAnswer { answer, snapshot: Some(snapshot) };
        let expected = "{\"node\":\"rollout-0\",\"actor\":\"rollout\",\"outcome\":\"done\",\"says\":\"\",\
                        \"age_ms\":12,\"snapshot\":{\"credit\":3}}\n";
        assert_eq!(printed(&whole, true), expected);
        assert!(
            printed(&whole, false).starts_with("rollout-0/rollout  published 12 ms ago\ncredit ")
        );
        let none = SnapshotAnswer::none(Outcome::Busy, "it has published nothing yet");
        let value: Value = serde_json::from_str(&printed(&none, true)).expect("JSON");
        assert_eq!((&value["outcome"], &value["snapshot"]), (&"busy".into(), &Value::Null));
        assert_eq!(
            printed(&none, false),
            "rollout-0/rollout  busy: it has published nothing yet\n"
        );
    }
}
