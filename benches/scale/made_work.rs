//! A plan, its tasks, and what workers make of them: enough to keep everybody busy.

use crrl_control::plan::{Phase, Plan, StalePolicy, Train};
use crrl_control::wire::{NodeReport, NodeRole, NodeState, Serving};
use crrl_types::actor::{ActorReport, ActorState, EpisodeReport};
use crrl_types::{
    AdapterVersion, Digest, EpisodeId, Finish, GroupId, NodeName, Reward, Sampling, TaskId,
    TokenSpan, Trajectory, Turn,
};

/// Attempts at one task.
pub(crate) const GROUP_SIZE: u32 = 8;
/// Tasks of the plan.
pub(crate) const TASKS: usize = 500;

/// Name of a worker.
pub(crate) fn worker(at: usize) -> NodeName {
    format!("rollout-{at:05}").into()
}

/// What is served under a version.
pub(crate) fn serving(version: u64) -> Serving {
    Serving { version: AdapterVersion(version), digest: Digest::of(&version.to_le_bytes()) }
}

/// Name of a task.
pub(crate) fn task(at: usize) -> TaskId {
    TaskId(format!("pytree-{at:04}-operator-swap"))
}

/// A plan that never ends. Workers stay at adapter 0 and nothing is ever stale.
pub(crate) fn plan(groups_per_step: u32) -> Plan {
    let train = Phase::Train(Train {
        tasks: "tasks.jsonl".into(),
        steps: 1_000_000,
        group_size: GROUP_SIZE,
        groups_per_step,
        sampling: Sampling::default(),
        staleness_max: 1_000_000,
        stale: StalePolicy::TrainRest,
        sync: false,
        skip_equal_groups: true,
        staleness: Default::default(),
        stragglers: Default::default(),
    });
    Plan::new(1, vec![train])
}

/// The task of a line of [`task_lines`].
pub(crate) fn task_of(line: &str) -> TaskId {
    TaskId(line.split('"').nth(3).unwrap_or_default().to_owned())
}

/// Lines of the task file: a statement and a patch of a usual length.
pub(crate) fn task_lines() -> String {
    let text = "The total comes out one too high when the last row is empty. ".repeat(20);
    let line = |at| {
        format!(r#"{{"instance_id": "{}", "problem_statement": "{text}", "patch": "x"}}"#, task(at))
    };
    (0..TASKS).map(|at| line(at) + "\n").collect()
}

/// What an attempt earns: of every group some, so that it has something to teach.
pub(crate) fn reward(episode: EpisodeId) -> f64 {
    (episode.0 % 3) as f64 / 2.0
}

/// What an attempt leaves behind: half of its tokens generated, two turns.
pub(crate) fn trajectory(
    (episode, group): (EpisodeId, GroupId),
    node: &NodeName,
    tokens: usize,
) -> Trajectory {
    let Serving { version, digest } = serving(0);
    let (start, end) = (tokens as u32 / 2, tokens as u32);
    let generated = |at: usize| at >= start as usize;
    let text = "I look at the rows of the table first.\n".repeat(tokens / 40);
    Trajectory {
        episode,
        group,
        task: task(episode.0 as usize % TASKS),
        node: node.clone(),
        tokens: (0..tokens).map(|at| (at as u32).wrapping_mul(2_654_435_761) % 49_152).collect(),
        generated: (0..tokens).map(generated).collect(),
        logprobs: (0..tokens).map(|at| if generated(at) { -0.25 } else { 0.0 }).collect(),
        adapters: vec![TokenSpan { start, end, version, digest }],
        turns: vec![Turn { text, tokens: end - start, tools: Vec::new() }],
        finish: Finish::Done,
        diff: "--- a/table.py\n+++ b/table.py\n@@ -1 +1 @@\n-total + 1\n+total\n".to_owned(),
        reward: Reward {
            total: reward(episode),
            success: episode.0.is_multiple_of(3),
            components: Vec::new(),
        },
        temperature: 1.0,
        wall_ms: 2_000,
    }
}

/// What a node says of itself in its `beat`th second, with so many actors and episodes under way.
pub(crate) fn report(node: &NodeName, beat: u64, actors: usize, live: usize) -> NodeReport {
    let actor = |at: usize| ActorReport {
        name: format!("rollout-{at}"),
        kind: "Rollout".to_owned(),
        parent: Some("node".to_owned()),
        state: if at.is_multiple_of(2) { ActorState::Idle } else { ActorState::Busy },
        waiting: at as u32 % 3,
        waiting_max: 9,
        oldest_ms: at as u64 % 40,
        handled: beat * 37 + at as u64,
        busy_ms: beat * 11,
        handling: (!at.is_multiple_of(2)).then(|| ("Inbound".to_owned(), 3)),
        restarts: 0,
        last_failure: None,
        up_ms: beat * 1000,
    };
    let episode = |at: usize| EpisodeReport {
        episode: EpisodeId(beat * 16 + at as u64),
        group: GroupId(beat),
        task: task(at),
        turns: 3,
        calls: 4,
        doing: "shell grep -n total table.py".to_owned(),
        age_ms: beat * 10,
        idle_ms: 120,
        version: AdapterVersion(0),
    };
    NodeReport {
        node: node.clone(),
        roles: vec![NodeRole::Rollout],
        pid: 4242,
        incarnation: 1,
        state: NodeState::Ready,
        adapter_version: AdapterVersion(0),
        adapter_digest: serving(0).digest,
        tokens_per_s: 812.5,
        episodes: live as u32,
        rss_bytes: 700 << 20,
        activity: "pytree-0001-operator-swap turn 3: shell grep -n total table.py".to_owned(),
        faults: Vec::new(),
        actors: (0..actors).map(actor).collect(),
        live: (0..live).map(episode).collect(),
    }
}
