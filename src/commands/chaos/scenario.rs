//! What can go wrong: the scenarios by name, and files of one's own.

use std::path::Path;

use crrl_config::Role;
use crrl_control::resilience::Sign;
use crrl_types::fault::{Direction, Fault};
use serde::{Deserialize, Serialize};

use crate::commands::failure::Coded;

/// Longest fault.
const DURATION_MAX_S: f64 = 3600.0;

/// One fault, into which node, and for how long.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Scenario {
    /// What it is called.
    pub(super) name: String,
    /// Into which node.
    pub(super) target: Target,
    /// What.
    pub(super) fault: Fault,
    /// For how long, in seconds; 0 for what happens at once.
    pub(super) duration_s: f64,
}

/// Into which node.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Target {
    /// One of a role, drawn by the seed.
    Role(Role),
    /// This one.
    Node(String),
}

/// The scenarios by name, and what each does.
pub(super) const SCENARIOS: [(&str, &str); 19] = [
    ("kill-rollout", "kill -9 of a rollout node"),
    ("kill-learner", "kill -9 of the learner"),
    ("kill-coordinator", "kill -9 of the coordinator"),
    ("pause-rollout", "a rollout node stands still (SIGSTOP) longer than its connection lives"),
    ("pause-learner", "the learner stands still longer than its connection lives"),
    ("partition-rollout", "a rollout node is cut off, both ways"),
    ("partition-rollout-in", "a rollout node hears nothing, and is heard"),
    ("partition-rollout-out", "a rollout node is not heard, and hears everything"),
    ("partition-learner", "the learner is cut off, both ways"),
    ("partition-coordinator", "the coordinator is cut off from everyone"),
    ("loss-rollout", "a tenth of a rollout node's packets is lost, both ways"),
    ("loss-coordinator", "a tenth of the coordinator's packets is lost, both ways"),
    ("delay-coordinator", "the coordinator's packets leave 50 to 150 ms late, out of order"),
    ("duplicate-coordinator", "half of the coordinator's packets leave twice"),
    ("corrupt-packets", "a bit of every tenth packet of the coordinator is flipped"),
    ("truncate-packets", "every tenth packet of the coordinator is cut short"),
    ("corrupt-adapter", "a bit of every adapter the parameter server sends is flipped"),
    ("corrupt-offer", "a bit of every adapter the learner sends is flipped"),
    ("not-finite", "a gradient of the learner's next update is not a number"),
];

/// A scenario by its name.
pub(super) fn named(name: &str) -> Option<Scenario> {
    use Role::{Coordinator, Learner, ParameterServer, Rollout};
    let cut = |direction| Fault::Drop { direction, share: 1.0 };
    let lossy = Fault::Drop { direction: Direction::Both, share: 0.1 };
    // Past the idle timeout of 3 s, so that it is noticed.
    let long = 6.0;
    let (role, fault, duration_s) = match name {
        "kill-rollout" => (Rollout, Fault::Kill, 0.0),
        "kill-learner" => (Learner, Fault::Kill, 0.0),
        "kill-coordinator" => (Coordinator, Fault::Kill, 0.0),
        "pause-rollout" => (Rollout, Fault::Pause, long),
        "pause-learner" => (Learner, Fault::Pause, long),
        "partition-rollout" => (Rollout, cut(Direction::Both), long),
        "partition-rollout-in" => (Rollout, cut(Direction::In), long),
        "partition-rollout-out" => (Rollout, cut(Direction::Out), long),
        "partition-learner" => (Learner, cut(Direction::Both), long),
        "partition-coordinator" => (Coordinator, cut(Direction::Both), long),
        "loss-rollout" => (Rollout, lossy, 10.0),
        "loss-coordinator" => (Coordinator, lossy, 10.0),
        "delay-coordinator" => (Coordinator, Fault::Delay { ms: 50, jitter_ms: 100 }, 10.0),
        "duplicate-coordinator" => (Coordinator, Fault::Duplicate { share: 0.5 }, 10.0),
        "corrupt-packets" => (Coordinator, Fault::Corrupt { share: 0.1 }, 10.0),
        "truncate-packets" => (Coordinator, Fault::Truncate { share: 0.1 }, 10.0),
        "corrupt-adapter" => (ParameterServer, Fault::CorruptAdapter, 10.0),
        "corrupt-offer" => (Learner, Fault::CorruptAdapter, 10.0),
        "not-finite" => (Learner, Fault::NotFinite, 0.0),
        _ => return None,
    };
    Some(Scenario { name: name.to_owned(), target: Target::Role(role), fault, duration_s })
}

/// The scenarios a word of the command line stands for: one, all, or a file's.
pub(super) fn resolve(word: &str) -> anyhow::Result<Vec<Scenario>> {
    if word == "all" {
        return Ok(SCENARIOS.iter().filter_map(|(name, _)| named(name)).collect());
    }
    if let Some(scenario) = named(word) {
        return Ok(vec![scenario]);
    }
    let path = Path::new(word);
    if path.extension().is_none_or(|extension| extension != "toml") {
        let known = SCENARIOS.iter().map(|(name, _)| *name);
        let nearest = known.min_by_key(|name| strsim::levenshtein(name, word)).unwrap_or_default();
        return Err(Coded::usage(format!(
            "no scenario {word:?}; did you mean {nearest}? `crrl chaos list` names them all, and a \
             file of one's own ends in .toml"
        )));
    }
    let text = std::fs::read_to_string(path)
        .map_err(|error| Coded::usage(format!("cannot read {word}: {error}")))?;
    parse(&text).map_err(|error| Coded::usage(format!("{word}: {error}")))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    fault: Vec<Entry>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    kind: Kind,
    name: Option<String>,
    node: Option<String>,
    role: Option<Role>,
    duration_s: Option<f64>,
    direction: Option<Direction>,
    share: Option<f64>,
    ms: Option<u32>,
    jitter_ms: Option<u32>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Kind {
    Kill,
    Pause,
    Drop,
    Delay,
    Duplicate,
    Corrupt,
    Truncate,
    CorruptAdapter,
    NotFinite,
}

impl Kind {
    fn text(self) -> String {
        toml::Value::try_from(self).map_or_else(
            |_| format!("{self:?}"),
            |value| value.as_str().unwrap_or_default().to_owned(),
        )
    }
}

/// Reads a file of faults.
fn parse(text: &str) -> Result<Vec<Scenario>, String> {
    let file: File = toml::from_str(text).map_err(|error| error.to_string())?;
    if file.fault.is_empty() {
        return Err("it names no [[fault]]".to_owned());
    }
    file.fault
        .into_iter()
        .zip(1..)
        .map(|(entry, number)| {
            scenario(entry).map_err(|problem| format!("[[fault]] number {number}: {problem}"))
        })
        .collect()
}

fn scenario(entry: Entry) -> Result<Scenario, String> {
    let Entry { kind, name, node, role, duration_s, direction, share, ms, jitter_ms } = entry;
    let target = match (node, role) {
        (Some(node), None) => Target::Node(node),
        (None, Some(role)) => Target::Role(role),
        _ => return Err("say either node = \"rollout-0\" or role = \"rollout\"".to_owned()),
    };
    let shares = matches!(kind, Kind::Drop | Kind::Duplicate | Kind::Corrupt | Kind::Truncate);
    let given = [
        ("share", share.is_some(), shares),
        ("direction", direction.is_some(), kind == Kind::Drop),
        ("ms", ms.is_some(), kind == Kind::Delay),
        ("jitter_ms", jitter_ms.is_some(), kind == Kind::Delay),
        ("duration_s", duration_s.is_some(), !matches!(kind, Kind::Kill | Kind::NotFinite)),
    ];
    for (option, given, taken) in given {
        if given && !taken {
            return Err(format!("kind = {:?} has no {option}", kind.text()));
        }
    }
    let share = share.unwrap_or(1.0);
    if !(0.0..=1.0).contains(&share) {
        return Err(format!("share = {share} is not between 0 and 1"));
    }
    let duration_s = duration_s.unwrap_or(if given[4].2 { 5.0 } else { 0.0 });
    if !(0.0..=DURATION_MAX_S).contains(&duration_s) {
        return Err(format!("duration_s = {duration_s} is not between 0 and {DURATION_MAX_S}"));
    }
    let fault = match kind {
        Kind::Kill => Fault::Kill,
        Kind::Pause => Fault::Pause,
        Kind::Drop => Fault::Drop { direction: direction.unwrap_or(Direction::Both), share },
        Kind::Delay => Fault::Delay { ms: ms.unwrap_or(100), jitter_ms: jitter_ms.unwrap_or(0) },
        Kind::Duplicate => Fault::Duplicate { share },
        Kind::Corrupt => Fault::Corrupt { share },
        Kind::Truncate => Fault::Truncate { share },
        Kind::CorruptAdapter => Fault::CorruptAdapter,
        Kind::NotFinite => Fault::NotFinite,
    };
    let name = name.unwrap_or_else(|| kind.text());
    Ok(Scenario { name, target, fault, duration_s })
}

/// What a node of these roles is needed for most.
pub(super) fn sign(roles: &[Role], fault: Fault) -> Sign {
    if roles.contains(&Role::ParameterServer) && fault == Fault::CorruptAdapter {
        Sign::Activated
    } else if roles.contains(&Role::Coordinator) {
        Sign::Finished
    } else if roles.contains(&Role::Learner) {
        Sign::Stepped
    } else if roles.contains(&Role::Rollout) {
        Sign::Dispatched
    } else {
        Sign::Activated
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_scenario_that_is_listed_is_there() {
        for (name, _) in SCENARIOS {
            assert!(named(name).is_some(), "{name}");
        }
        assert_eq!(resolve("all").expect("known").len(), SCENARIOS.len());
    }

    #[test]
    fn a_wrong_name_is_answered_with_the_nearest() {
        let error = resolve("kill-rolout").expect_err("unknown").to_string();
        assert!(error.contains("did you mean kill-rollout?"), "{error}");
    }

    #[test]
    fn a_file_says_what_goes_wrong_where() {
        let text = r#"
            [[fault]]
            kind = "drop"
            role = "rollout"
            direction = "in"
            share = 0.5
            duration_s = 2
            [[fault]]
            kind = "kill"
            node = "learner"
        "#;
        let [lossy, kill] = &parse(text).expect("sound")[..] else { panic!("two") };
        assert_eq!(lossy.fault, Fault::Drop { direction: Direction::In, share: 0.5 });
        assert_eq!(lossy.target, Target::Role(Role::Rollout));
        assert_eq!((kill.fault, kill.duration_s), (Fault::Kill, 0.0));
    }

    #[test]
    fn what_makes_no_sense_is_named() {
        for (text, words) in [
            ("", "no [[fault]]"),
            ("[[fault]]\nkind = \"kill\"", "either node"),
            ("[[fault]]\nkind = \"kill\"\nnode = \"a\"\nshare = 0.5", "has no share"),
            ("[[fault]]\nkind = \"drop\"\nnode = \"a\"\nshare = 2", "not between 0 and 1"),
            ("[[fault]]\nkind = \"melt\"\nnode = \"a\"", "melt"),
        ] {
            let error = parse(text).expect_err("no sense");
            assert!(error.contains(words), "{text}: {error}");
        }
    }
}
