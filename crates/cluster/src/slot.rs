//! The last snapshot an actor has published of its state, for whoever asks: the latest wins, and an
//! actor that hangs still shows its last one, with its age.
//!
//! What is published is bounded and redacted here, whoever publishes it: texts and lists are cut until
//! it fits [`SNAPSHOT_BYTES_MAX`], and what a field is called decides whether its text is shown.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crrl_types::actor::{ActorSnapshot, SNAPSHOT_BYTES_MAX};
use serde_json::Value;

use crate::peer::lock;

/// Shortest time between two snapshots of an actor: what they cost does not grow with its messages.
pub const PUBLISH_EVERY: Duration = Duration::from_secs(1);
/// Characters of a text: a name or a reason fits, a prompt does not.
const TEXT_CHARS_MAX: usize = 120;
/// Elements of a list; fewer where the whole is still too long.
const LIST_MAX: usize = 128;
/// A field with one of these in its name may be a number and nothing else.
const SECRET: [&str; 7] =
    ["token", "prompt", "transcript", "secret", "password", "credential", "key"];
/// What stands in the place of anything else.
const REDACTED: &str = "redacted";

/// The place of one actor's snapshot. Cloning gives another handle to the same.
#[derive(Debug, Clone, Default)]
pub struct Slot(Arc<Mutex<Held>>);

#[derive(Debug, Default)]
enum Held {
    /// Nobody publishes here.
    #[default]
    Nothing,
    /// Somebody will.
    Promised,
    Here {
        at: Instant,
        json: String,
        is_cut: bool,
    },
}

/// What is found in a slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Shown {
    /// Nobody publishes there.
    Unsupported,
    /// Whoever does has not yet.
    NotYet,
    /// The last snapshot.
    Here {
        /// It and its age.
        snapshot: ActorSnapshot,
        /// Whether there was more of it than is shown.
        is_cut: bool,
    },
}

impl Shown {
    /// A value as it is at this moment.
    #[must_use]
    pub fn now(value: &Value) -> Self {
        let (json, is_cut) = bounded(value);
        Self::Here { snapshot: ActorSnapshot { json, age_ms: 0 }, is_cut }
    }
}

impl Slot {
    /// Something will be published here.
    pub fn promise(&self) {
        let mut held = lock(&self.0);
        if matches!(*held, Held::Nothing) {
            *held = Held::Promised;
        }
    }

    /// Whether the last snapshot is old enough for another.
    #[must_use]
    pub fn is_due(&self, now: Instant) -> bool {
        match &*lock(&self.0) {
            Held::Nothing | Held::Promised => true,
            Held::Here { at, .. } => now.saturating_duration_since(*at) >= PUBLISH_EVERY,
        }
    }

    /// Puts a value in the place of the last.
    pub fn publish(&self, value: &Value) {
        let (json, is_cut) = bounded(value);
        *lock(&self.0) = Held::Here { at: Instant::now(), json, is_cut };
    }

    /// What is there.
    #[must_use]
    pub fn show(&self) -> Shown {
        match &*lock(&self.0) {
            Held::Nothing => Shown::Unsupported,
            Held::Promised => Shown::NotYet,
            Held::Here { at, json, is_cut } => {
                let age_ms = u64::try_from(at.elapsed().as_millis()).unwrap_or(u64::MAX);
                let snapshot = ActorSnapshot { json: json.clone(), age_ms };
                Shown::Here { snapshot, is_cut: *is_cut }
            }
        }
    }
}

/// The value as text that fits, and whether something was left out for that.
fn bounded(value: &Value) -> (String, bool) {
    let mut list_max = LIST_MAX;
    loop {
        let mut is_cut = false;
        let json = cut(value, list_max, &mut is_cut).to_string();
        if json.len() <= SNAPSHOT_BYTES_MAX {
            return (json, is_cut);
        }
        if list_max == 0 {
            return ("{}".to_owned(), true);
        }
        list_max /= 2;
    }
}

fn cut(value: &Value, list_max: usize, is_cut: &mut bool) -> Value {
    match value {
        Value::String(text) => {
            let mut chars = text.chars();
            let short: String =
                chars.by_ref().take(TEXT_CHARS_MAX).filter(|c| !c.is_control()).collect();
            *is_cut |= chars.next().is_some();
            Value::String(short)
        }
        Value::Array(list) => {
            *is_cut |= list.len() > list_max;
            let mut kept = Vec::with_capacity(list.len().min(list_max));
            for element in list.iter().take(list_max) {
                kept.push(cut(element, list_max, is_cut));
            }
            Value::Array(kept)
        }
        Value::Object(fields) => {
            let mut kept = serde_json::Map::new();
            for (name, value) in fields {
                let value = match is_secret(name, value) {
                    true => Value::from(REDACTED),
                    false => cut(value, list_max, is_cut),
                };
                kept.insert(name.clone(), value);
            }
            Value::Object(kept)
        }
        plain => plain.clone(),
    }
}

fn is_secret(name: &str, value: &Value) -> bool {
    let holds_text = matches!(value, Value::String(_) | Value::Array(_) | Value::Object(_));
    holds_text && SECRET.iter().any(|word| name.contains(word))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn shown(slot: &Slot) -> (Value, bool) {
        match slot.show() {
            Shown::Here { snapshot, is_cut } => {
                assert!(snapshot.json.len() <= SNAPSHOT_BYTES_MAX, "{}", snapshot.json.len());
                (serde_json::from_str(&snapshot.json).expect("JSON, cut or not"), is_cut)
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn nothing_not_yet_and_the_latest_are_told_apart() {
        let slot = Slot::default();
        assert_eq!(slot.show(), Shown::Unsupported);
        slot.promise();
        assert_eq!(slot.show(), Shown::NotYet);
        assert!(slot.is_due(Instant::now()));
        slot.publish(&json!({ "step": 1 }));
        slot.publish(&json!({ "step": 2 }));
        // A promise takes nothing away.
        slot.promise();
        assert_eq!(shown(&slot), (json!({ "step": 2 }), false));
        let now = Instant::now();
        assert!(!slot.is_due(now) && slot.is_due(now + PUBLISH_EVERY), "one a second");
    }

    #[test]
    fn what_is_too_long_is_cut_fits_and_says_so() {
        let slot = Slot::default();
        let leases: Vec<Value> = (0..2_000)
            .map(|n| json!({ "episode": n, "node": format!("rollout-{n:04}"), "since_ms": n }))
            .collect();
        slot.publish(&json!({ "queued": 7, "leases": leases }));
        let (value, is_cut) = shown(&slot);
        assert!(is_cut);
        assert_eq!(value["queued"], 7, "numbers beside the list stay");
        let kept = value["leases"].as_array().map_or(0, Vec::len);
        assert!((16..2_000).contains(&kept), "{kept} kept");
        // One text alone is cut too, and a value that no cut makes fit is left out whole.
        slot.publish(&json!({ "why": "x".repeat(50_000) }));
        let (value, is_cut) = shown(&slot);
        assert_eq!((value["why"].as_str().map(str::len), is_cut), (Some(TEXT_CHARS_MAX), true));
        let many: serde_json::Map<String, Value> =
            (0..5_000).map(|n| (format!("field {n}"), Value::from(n))).collect();
        slot.publish(&Value::Object(many));
        assert_eq!(shown(&slot), (json!({}), true));
    }

    #[test]
    fn no_tokens_prompts_and_keys_whoever_publishes_them() {
        let slot = Slot::default();
        slot.publish(&json!({
            "tokens_per_s": 120.5,
            "invitation_token": "crrl-join-abc",
            "tokens": [15, 27, 3],
            "last": { "prompt": "You are an agent", "keys": { "pem": "MIIB" } },
            "says": "bell\u{7}",
        }));
        let (value, is_cut) = shown(&slot);
        let expected = json!({
            "tokens_per_s": 120.5,
            "invitation_token": "redacted",
            "tokens": "redacted",
            "last": { "prompt": "redacted", "keys": "redacted" },
            "says": "bell",
        });
        assert_eq!((value, is_cut), (expected, false));
    }
}
