//! What was to be repaired, as far as the run's folder tells.

use crrl_types::{BugKind, Origin, Task, TaskId};

/// What a report keeps of a task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskFact {
    /// What kind of bug it is.
    pub kind: String,
    /// What the agent was told.
    pub statement: String,
    /// The patch that nobody showed it.
    pub patch: String,
}

impl TaskFact {
    /// Keeps what is needed of a task.
    #[must_use]
    pub fn of(task: Task) -> Self {
        let kind = match &task.origin {
            Origin::Mutated { bug, .. } => kind_name(*bug),
            Origin::Mined { .. } => "mined".to_owned(),
            Origin::Imported => kind_of_id(&task.instance_id),
        };
        Self { kind, statement: task.problem_statement, patch: task.patch }
    }
}

/// What is said of a task of which nothing tells the kind.
pub const UNKNOWN_KIND: &str = "not known";

/// The kind in the id of an injected bug: `FILE-FUNCTION-KIND-LINE-HASH`.
#[must_use]
pub fn kind_of_id(id: &TaskId) -> String {
    let part = id.as_str().rsplit('-').nth(2).unwrap_or_default();
    let known: Result<BugKind, _> = serde_json::from_value(part.into());
    known.map_or_else(|_| UNKNOWN_KIND.to_owned(), kind_name)
}

fn kind_name(kind: BugKind) -> String {
    match serde_json::to_value(kind) {
        Ok(serde_json::Value::String(name)) => name.replace('_', " "),
        _ => UNKNOWN_KIND.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kind_is_read_off_an_id() {
        for (id, kind) in [
            ("compiler-CodeGenerator.writeline-argument_swap-471-8ff0", "argument swap"),
            ("re.__init__-_subx-boolean-318-b39a", "boolean"),
            ("a-b-f-none_check-1-0000", "none check"),
            ("django__django-11099", UNKNOWN_KIND),
            ("", UNKNOWN_KIND),
            ("x-y-boole\u{202e}an-1-2", UNKNOWN_KIND),
        ] {
            assert_eq!(kind_of_id(&id.into()), kind, "{id}");
        }
    }
}
