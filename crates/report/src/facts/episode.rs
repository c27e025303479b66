//! What an episode did, in counts: its text is read, counted and let go.

use std::collections::BTreeMap;

use crrl_store::{AttemptTiming, EpisodeRow};
use crrl_types::{EpisodeId, Finish, GroupId, Step, TaskId, Trajectory, Work};

use super::command;

/// Name of a call that could not be read.
pub const UNREADABLE: &str = "(unreadable call)";

/// Characters of a tool's name that are kept: a model may call it anything.
const NAME_CHARS_MAX: usize = 32;

/// Different names one episode counts.
const NAMES_MAX: usize = 64;

/// One episode.
#[derive(Debug, Clone, PartialEq)]
pub struct EpisodeFact {
    /// Unique in the run.
    pub id: EpisodeId,
    /// The attempts it is compared with.
    pub group: GroupId,
    /// What was to be repaired.
    pub task: TaskId,
    /// 0-based phase of the plan.
    pub phase: u32,
    /// Whether it was measured and never trained on.
    pub evaluation: bool,
    /// Name of its state in the ledger.
    pub state: String,
    /// Total reward, once there is one.
    pub reward: Option<f64>,
    /// Whether its task counts as solved.
    pub success: Option<bool>,
    /// Tokens generated.
    pub generated: Option<u32>,
    /// The optimizer step it was trained in.
    pub step: Option<Step>,
    /// What it did; `None` where it left nothing or was not looked at.
    pub conduct: Option<Conduct>,
    /// Where its time went; `None` where nobody measured, or looked.
    pub spent: Option<Spent>,
}

/// Seconds of the attempt that came back, by what they were spent on.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Spent {
    /// Until there was a sandbox and a place in the engine.
    pub places: f64,
    /// The policy generated.
    pub generating: f64,
    /// Tools ran.
    pub tools: f64,
    /// The diff and the reward.
    pub scoring: f64,
    /// What a lost node had done, done again.
    pub replaying: f64,
    /// Anything else.
    pub rest: f64,
}

/// What an episode did.
#[derive(Debug, Clone, PartialEq)]
pub struct Conduct {
    /// How it ended.
    pub finish: Finish,
    /// Whether it changed anything.
    pub changed: bool,
    /// Calls by tool: those that did what they were meant to, and all.
    pub tools: BTreeMap<String, (u32, u32)>,
    /// Programs its commands called, and how often.
    pub programs: BTreeMap<String, u32>,
}

impl EpisodeFact {
    /// What the ledger says of it.
    #[must_use]
    pub fn of(row: EpisodeRow) -> Self {
        Self {
            id: row.episode,
            group: row.group,
            task: row.task,
            phase: row.phase,
            evaluation: row.evaluation,
            state: row.state,
            reward: row.reward.filter(|reward| reward.is_finite()),
            success: row.success,
            generated: row.generated,
            step: row.step,
            conduct: None,
            spent: None,
        }
    }
}

impl Spent {
    /// Of the last attempt that was measured: the one that came back, unless its word was lost.
    #[must_use]
    pub fn of(attempts: &[AttemptTiming]) -> Option<Self> {
        let timing = &attempts.last()?.timing;
        let seconds = |micros: u64| micros as f64 / 1e6;
        let mut spent = Self::default();
        for work in &timing.works {
            let part = match work.work {
                Work::Places => &mut spent.places,
                Work::Replay { .. } => &mut spent.replaying,
                Work::Generate { .. } => &mut spent.generating,
                Work::Call { .. } => &mut spent.tools,
                Work::Diff | Work::Reward => &mut spent.scoring,
            };
            *part += seconds(work.took_us);
        }
        let known = spent.places + spent.replaying + spent.generating + spent.tools + spent.scoring;
        spent.rest = (seconds(timing.took_us) - known).max(0.0);
        Some(spent)
    }
}

impl Conduct {
    /// Counts what a trajectory shows.
    #[must_use]
    pub fn of(trajectory: &Trajectory) -> Self {
        let mut tools: BTreeMap<String, (u32, u32)> = BTreeMap::new();
        let mut programs: BTreeMap<String, u32> = BTreeMap::new();
        for tool in trajectory.turns.iter().flat_map(|turn| &turn.tools) {
            let name = match tool.name.as_str() {
                "" => UNREADABLE.to_owned(),
                name => name.chars().take(NAME_CHARS_MAX).collect(),
            };
            if tools.len() < NAMES_MAX || tools.contains_key(&name) {
                let counts = tools.entry(name).or_default();
                counts.0 += u32::from(tool.ok);
                counts.1 += 1;
            }
            for program in
                shell_command(&tool.arguments).iter().flat_map(|cmd| command::programs(cmd))
            {
                if programs.len() < NAMES_MAX || programs.contains_key(&program) {
                    *programs.entry(program).or_default() += 1;
                }
            }
        }
        let changed = !trajectory.diff.trim().is_empty();
        Self { finish: trajectory.finish, changed, tools, programs }
    }

    /// Calls in all.
    #[must_use]
    pub fn calls(&self) -> u32 {
        self.tools.values().map(|(_, all)| all).sum()
    }
}

/// The command line of a call of a shell.
fn shell_command(arguments: &str) -> Option<String> {
    match serde_json::from_str(arguments).ok()? {
        serde_json::Value::Object(mut map) => match map.remove("cmd")? {
            serde_json::Value::String(cmd) => Some(cmd),
            _ => None,
        },
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use crrl_types::{ToolRecord, Turn};

    use super::*;

    fn call(name: &str, arguments: &str, ok: bool) -> ToolRecord {
        let (name, arguments) = (name.to_owned(), arguments.to_owned());
        ToolRecord { name, arguments, output: String::new(), ok, wall_ms: 1 }
    }

    fn trajectory(tools: Vec<ToolRecord>) -> Trajectory {
        Trajectory {
            episode: EpisodeId(1),
            group: GroupId(1),
            task: "t".into(),
            node: "n".into(),
            tokens: vec![],
            generated: vec![],
            logprobs: vec![],
            adapters: vec![],
            turns: vec![Turn { text: String::new(), tokens: 3, tools }],
            finish: Finish::Done,
            diff: String::new(),
            reward: crrl_types::Reward::default(),
            temperature: 1.0,
            wall_ms: 5,
        }
    }

    #[test]
    fn calls_are_counted_by_tool_and_program() {
        let conduct = Conduct::of(&trajectory(vec![
            call("shell", r#"{"cmd": "grep x f | head"}"#, true),
            call("shell", r#"{"cmd": "grep y f"}"#, false),
            call("", "", false),
            call("apply_patch", r#"{"path": "f"}"#, true),
            call("shell", "not json", false),
        ]));
        assert_eq!(conduct.tools["shell"], (1, 3));
        assert_eq!(conduct.tools[UNREADABLE], (0, 1));
        assert_eq!((conduct.programs["grep"], conduct.programs["head"]), (2, 1));
        assert_eq!((conduct.calls(), conduct.changed), (5, false));
    }

    #[test]
    fn invented_tools_are_bounded() {
        let tools = (0..999).map(|i| call(&format!("{i}{}", "x".repeat(99)), "{}", false));
        let conduct = Conduct::of(&trajectory(tools.collect()));
        assert_eq!(conduct.tools.len(), NAMES_MAX);
        assert!(conduct.tools.keys().all(|name| name.len() <= NAME_CHARS_MAX));
    }
}
