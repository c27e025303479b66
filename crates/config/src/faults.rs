//! Scenarios: what goes wrong in which node for how long, by name and from files (`[[fault]]`).
//!
//! Only says what is meant; injecting it is another's business.

use crrl_types::fault::{Bomb, Direction, Fault};
use serde::{Deserialize, Serialize};

use crate::sections::Role;

/// Longest fault.
const DURATION_MAX_S: f64 = 3600.0;
/// Shortest one that lasts.
const DURATION_MIN_S: f64 = 0.001;

/// One fault, into which node, and for how long.
#[derive(Debug, Clone, PartialEq)]
pub struct Scenario {
    /// What it is called.
    pub name: String,
    /// Into which node.
    pub target: Target,
    /// What.
    pub fault: Fault,
    /// For how long, in seconds; 0 for what happens at once.
    pub duration_s: f64,
}

/// Into which node.
#[derive(Debug, Clone, PartialEq)]
pub enum Target {
    /// One of a role, drawn by the seed.
    Role(Role),
    /// This one.
    Node(String),
}

/// The scenarios by name, and what each does.
pub const SCENARIOS: [(&str, &str); 38] = [
    ("kill-rollout", "kill -9 of a rollout node"),
    ("kill-learner", "kill -9 of the learner"),
    ("kill-coordinator", "kill -9 of the coordinator"),
    ("kill-parameter-server", "kill -9 of the parameter server, if it is a node of its own"),
    ("pause-rollout", "a rollout node stands still (SIGSTOP) longer than its connection lives"),
    ("pause-learner", "the learner stands still longer than its connection lives"),
    ("pause-parameter-server", "the parameter server stands still, if it is a node of its own"),
    ("partition-rollout", "a rollout node is cut off, both ways"),
    ("partition-rollout-in", "a rollout node hears nothing, and is heard"),
    ("partition-rollout-out", "a rollout node is not heard, and hears everything"),
    ("partition-learner", "the learner is cut off, both ways"),
    ("partition-coordinator", "the coordinator is cut off from everyone"),
    ("partition-parameter-server", "the parameter server is cut off, if it is a node of its own"),
    ("loss-rollout", "a tenth of a rollout node's packets is lost, both ways"),
    ("loss-coordinator", "a tenth of the coordinator's packets is lost, both ways"),
    ("delay-coordinator", "the coordinator's packets leave 50 to 150 ms late, out of order"),
    ("duplicate-coordinator", "half of the coordinator's packets leave twice"),
    ("corrupt-packets", "a bit of every tenth packet of the coordinator is flipped"),
    ("truncate-packets", "every tenth packet of the coordinator is cut short"),
    ("corrupt-adapter", "a bit of every adapter the parameter server sends is flipped"),
    ("corrupt-offer", "a bit of every adapter the learner sends is flipped"),
    ("not-finite", "a gradient of the learner's next update is not a number"),
    ("slow-disk-coordinator", "everything the coordinator writes takes 200 ms longer"),
    ("slow-disk-learner", "everything the learner writes takes 200 ms longer"),
    ("full-disk-coordinator", "nothing more fits on the coordinator's disk, for a while"),
    ("full-disk-learner", "nothing more fits on the learner's disk, for a while"),
    ("torn-checkpoint", "the learner dies, and its newest checkpoint is half of one"),
    ("clock-ahead", "the coordinator's wall clock is an hour ahead, for a while"),
    ("clock-behind", "the coordinator's wall clock is an hour behind, for a while"),
    ("fork-bomb", "a sandbox starts processes that start processes"),
    ("memory-bomb", "a sandbox takes memory without end"),
    ("endless-output", "a sandbox writes output without end"),
    ("disk-fill", "a sandbox writes files until nothing more fits"),
    ("egress", "a sandbox looks for ways out to the network"),
    ("hang-rollout", "a rollout node's actors take no message, for a while"),
    ("hang-learner", "the learner's actor takes no message, for a while"),
    ("hang-coordinator", "the coordinator's actors take no message, for a while"),
    ("slow-tools", "tool calls on a rollout node take 500 ms longer in the mean, some far longer"),
];

/// A scenario by its name.
#[must_use]
pub fn named(name: &str) -> Option<Scenario> {
    use Role::{Coordinator, Learner, ParameterServer, Rollout};
    let cut = |direction| Fault::Drop { direction, share: 1.0 };
    let lossy = Fault::Drop { direction: Direction::Both, share: 0.1 };
    // Past the idle timeout of 3 s, so that it is noticed.
    let long = 6.0;
    let (role, fault, duration_s) = match name {
        "kill-rollout" => (Rollout, Fault::Kill, 0.0),
        "kill-learner" => (Learner, Fault::Kill, 0.0),
        "kill-coordinator" => (Coordinator, Fault::Kill, 0.0),
        "kill-parameter-server" => (ParameterServer, Fault::Kill, 0.0),
        "pause-rollout" => (Rollout, Fault::Pause, long),
        "pause-learner" => (Learner, Fault::Pause, long),
        "pause-parameter-server" => (ParameterServer, Fault::Pause, long),
        "partition-rollout" => (Rollout, cut(Direction::Both), long),
        "partition-rollout-in" => (Rollout, cut(Direction::In), long),
        "partition-rollout-out" => (Rollout, cut(Direction::Out), long),
        "partition-learner" => (Learner, cut(Direction::Both), long),
        "partition-coordinator" => (Coordinator, cut(Direction::Both), long),
        "partition-parameter-server" => (ParameterServer, cut(Direction::Both), long),
        "loss-rollout" => (Rollout, lossy, 10.0),
        "loss-coordinator" => (Coordinator, lossy, 10.0),
        "delay-coordinator" => (Coordinator, Fault::Delay { ms: 50, jitter_ms: 100 }, 10.0),
        "duplicate-coordinator" => (Coordinator, Fault::Duplicate { share: 0.5 }, 10.0),
        "corrupt-packets" => (Coordinator, Fault::Corrupt { share: 0.1 }, 10.0),
        "truncate-packets" => (Coordinator, Fault::Truncate { share: 0.1 }, 10.0),
        "corrupt-adapter" => (ParameterServer, Fault::CorruptAdapter, 10.0),
        "corrupt-offer" => (Learner, Fault::CorruptAdapter, 10.0),
        "not-finite" => (Learner, Fault::NotFinite, 0.0),
        "slow-disk-coordinator" => (Coordinator, Fault::SlowDisk { ms: 200 }, 8.0),
        "slow-disk-learner" => (Learner, Fault::SlowDisk { ms: 200 }, 8.0),
        "full-disk-coordinator" => (Coordinator, Fault::FullDisk, 5.0),
        "full-disk-learner" => (Learner, Fault::FullDisk, 5.0),
        "torn-checkpoint" => (Learner, Fault::TornWrite, 0.0),
        "clock-ahead" => (Coordinator, Fault::ClockSkew { s: 3600 }, 8.0),
        "clock-behind" => (Coordinator, Fault::ClockSkew { s: -3600 }, 8.0),
        "fork-bomb" => (Rollout, Fault::Bomb(Bomb::Fork), 0.0),
        "memory-bomb" => (Rollout, Fault::Bomb(Bomb::Memory), 0.0),
        "endless-output" => (Rollout, Fault::Bomb(Bomb::Output), 0.0),
        "disk-fill" => (Rollout, Fault::Bomb(Bomb::Disk), 0.0),
        "egress" => (Rollout, Fault::Bomb(Bomb::Egress), 0.0),
        "hang-rollout" => (Rollout, Fault::Hang, long),
        "hang-learner" => (Learner, Fault::Hang, long),
        "hang-coordinator" => (Coordinator, Fault::Hang, long),
        "slow-tools" => (Rollout, Fault::SlowTools { ms: 500 }, 10.0),
        _ => return None,
    };
    Some(Scenario { name: name.to_owned(), target: Target::Role(role), fault, duration_s })
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
    skew_s: Option<i32>,
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
    SlowDisk,
    FullDisk,
    TornWrite,
    ClockSkew,
    ForkBomb,
    MemoryBomb,
    EndlessOutput,
    DiskFill,
    Egress,
    Hang,
    SlowTools,
}

impl Kind {
    /// Whether it goes on for a time; the others happen at once, or at the next chance.
    fn lasts(self) -> bool {
        !matches!(
            self,
            Self::Kill
                | Self::NotFinite
                | Self::TornWrite
                | Self::ForkBomb
                | Self::MemoryBomb
                | Self::EndlessOutput
                | Self::DiskFill
                | Self::Egress
        )
    }

    fn text(self) -> String {
        toml::Value::try_from(self).map_or_else(
            |_| format!("{self:?}"),
            |value| value.as_str().unwrap_or_default().to_owned(),
        )
    }
}

/// Reads a file of faults.
///
/// # Errors
/// What is wrong with it, in words for whoever wrote it.
pub fn parse(text: &str) -> Result<Vec<Scenario>, String> {
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
    let Entry { kind, name, node, role, duration_s, direction, share, ms, jitter_ms, skew_s } =
        entry;
    let target = match (node, role) {
        (Some(node), None) => Target::Node(node),
        (None, Some(role)) => Target::Role(role),
        _ => return Err("say either node = \"rollout-0\" or role = \"rollout\"".to_owned()),
    };
    let shares = matches!(kind, Kind::Drop | Kind::Duplicate | Kind::Corrupt | Kind::Truncate);
    let given = [
        ("share", share.is_some(), shares),
        ("direction", direction.is_some(), kind == Kind::Drop),
        ("ms", ms.is_some(), matches!(kind, Kind::Delay | Kind::SlowDisk | Kind::SlowTools)),
        ("jitter_ms", jitter_ms.is_some(), kind == Kind::Delay),
        ("skew_s", skew_s.is_some(), kind == Kind::ClockSkew),
        ("duration_s", duration_s.is_some(), kind.lasts()),
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
    let duration_s = duration_s.unwrap_or(if kind.lasts() { 5.0 } else { 0.0 });
    if !(0.0..=DURATION_MAX_S).contains(&duration_s) {
        return Err(format!("duration_s = {duration_s} is not between 0 and {DURATION_MAX_S}"));
    }
    if kind.lasts() && duration_s < DURATION_MIN_S {
        return Err(format!("duration_s = {duration_s} is less than a millisecond"));
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
        Kind::SlowDisk => Fault::SlowDisk { ms: ms.unwrap_or(200) },
        Kind::FullDisk => Fault::FullDisk,
        Kind::TornWrite => Fault::TornWrite,
        Kind::ClockSkew => Fault::ClockSkew { s: skew_s.unwrap_or(3600) },
        Kind::ForkBomb => Fault::Bomb(Bomb::Fork),
        Kind::MemoryBomb => Fault::Bomb(Bomb::Memory),
        Kind::EndlessOutput => Fault::Bomb(Bomb::Output),
        Kind::DiskFill => Fault::Bomb(Bomb::Disk),
        Kind::Egress => Fault::Bomb(Bomb::Egress),
        Kind::Hang => Fault::Hang,
        Kind::SlowTools => Fault::SlowTools { ms: ms.unwrap_or(500) },
    };
    let name = name.unwrap_or_else(|| kind.text());
    Ok(Scenario { name, target, fault, duration_s })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_scenario_that_is_listed_is_there() {
        for (name, _) in SCENARIOS {
            assert!(named(name).is_some(), "{name}");
        }
        let mut names: Vec<&str> = SCENARIOS.iter().map(|(name, _)| *name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), SCENARIOS.len());
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
            ("[[fault]]\nkind = \"fork-bomb\"\nnode = \"a\"\nduration_s = 3", "has no duration_s"),
            ("[[fault]]\nkind = \"hang\"\nnode = \"a\"\nskew_s = 3", "has no skew_s"),
            ("[[fault]]\nkind = \"hang\"\nnode = \"a\"\nduration_s = 0", "less than a millisecond"),
        ] {
            let error = parse(text).expect_err("no sense");
            assert!(error.contains(words), "{text}: {error}");
        }
    }
}
