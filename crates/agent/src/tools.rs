//! The two tools: their schemas for the chat template, and the check of their arguments.

use serde_json::{Map, Value, json};

use crate::protocol::Invocation;

/// Bytes of a command line that are accepted.
pub const COMMAND_BYTES_MAX: usize = 8 * 1024;
/// Bytes of `old` and of `new` that are accepted.
pub const TEXT_BYTES_MAX: usize = 64 * 1024;

/// JSON schemas of the tools, in the form chat templates take.
#[must_use]
pub fn schemas() -> Vec<Value> {
    let tool = |name: &str, description: &str, properties: Value, required: &[&str]| {
        json!({
            "type": "function",
            "function": {
                "name": name,
                "description": description,
                "parameters": {
                    "type": "object",
                    "properties": properties,
                    "required": required,
                },
            },
        })
    };
    vec![
        tool(
            "shell",
            "Run a command in a restricted bash at the root of the repository.",
            json!({"cmd": {"type": "string", "description": "The command line."}}),
            &["cmd"],
        ),
        tool(
            "apply_patch",
            "Replace text in one file. The old text must occur exactly once, character by character.",
            json!({
                "path": {"type": "string", "description": "File, relative to the repository."},
                "old": {"type": "string", "description": "The text to replace."},
                "new": {"type": "string", "description": "The text to put in its place."},
            }),
            &["path", "old", "new"],
        ),
    ]
}

/// A tool call with its arguments checked.
///
/// # Errors
/// What is wrong with the call, in words for the policy.
pub fn invocation(name: &str, arguments: &Map<String, Value>) -> Result<Invocation, String> {
    match name {
        "shell" => {
            let cmd = text(arguments, "cmd", COMMAND_BYTES_MAX)?;
            if cmd.trim().is_empty() {
                return Err("`cmd` is empty".to_owned());
            }
            only(arguments, &["cmd"])?;
            Ok(Invocation::Shell { cmd })
        }
        "apply_patch" => {
            let path = text(arguments, "path", 4096)?;
            let old = text(arguments, "old", TEXT_BYTES_MAX)?;
            let new = text(arguments, "new", TEXT_BYTES_MAX)?;
            only(arguments, &["path", "old", "new"])?;
            if path.is_empty() {
                return Err("`path` is empty".to_owned());
            }
            if old == new {
                return Err("`old` and `new` are the same".to_owned());
            }
            Ok(Invocation::ApplyPatch { path, old, new })
        }
        other => {
            let shown: String = other.chars().take(40).collect();
            Err(format!("no tool is called `{shown}`; there are `shell` and `apply_patch`"))
        }
    }
}

fn text(arguments: &Map<String, Value>, key: &str, bytes_max: usize) -> Result<String, String> {
    match arguments.get(key) {
        Some(Value::String(text)) if text.len() > bytes_max => {
            Err(format!("`{key}` is longer than {bytes_max} bytes"))
        }
        Some(Value::String(text)) if text.contains('\0') => {
            Err(format!("`{key}` holds a NUL character"))
        }
        Some(Value::String(text)) => Ok(text.clone()),
        Some(_) => Err(format!("`{key}` is not a text")),
        None => Err(format!("`{key}` is missing")),
    }
}

fn only(arguments: &Map<String, Value>, known: &[&str]) -> Result<(), String> {
    match arguments.keys().find(|key| !known.contains(&key.as_str())) {
        Some(key) => {
            let shown: String = key.chars().take(40).collect();
            Err(format!("there is no argument `{shown}`"))
        }
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(name: &str, arguments: Value) -> Result<Invocation, String> {
        let Value::Object(map) = arguments else { panic!("an object") };
        invocation(name, &map)
    }

    #[test]
    fn good_calls_pass() {
        let shell = Invocation::Shell { cmd: "ls".to_owned() };
        assert_eq!(check("shell", json!({"cmd": "ls"})), Ok(shell));
        assert!(check("apply_patch", json!({"path": "a", "old": "b", "new": ""})).is_ok());
    }

    #[test]
    fn every_wrong_argument_is_named() {
        for (name, arguments, part) in [
            ("shell", json!({}), "`cmd` is missing"),
            ("shell", json!({"cmd": ["ls"]}), "`cmd` is not a text"),
            ("shell", json!({"cmd": " "}), "`cmd` is empty"),
            ("shell", json!({"cmd": "a\0b"}), "NUL"),
            ("shell", json!({"cmd": "x".repeat(9000)}), "longer than 8192"),
            ("shell", json!({"cmd": "ls", "cwd": "/"}), "no argument `cwd`"),
            ("apply_patch", json!({"path": "a", "old": "b"}), "`new` is missing"),
            ("apply_patch", json!({"path": "a", "old": "b", "new": "b"}), "the same"),
            ("python", json!({}), "no tool is called `python`"),
        ] {
            let why = check(name, arguments).expect_err("was taken");
            assert!(why.contains(part), "{why}");
        }
    }
}
