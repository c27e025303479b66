//! A made-up cluster: a coordinator, a learner, two rollout nodes, at any second of a run.

use crrl_cluster::Snapshot;
use crrl_cluster::board::{EpisodeCounts, Progress, RewardPoint};
use crrl_cluster::host::NodeProcess;
use crrl_control::wire::{NodeReport, NodeRole, NodeState};
use crrl_inspect::frame::Frame;
use crrl_types::actor::{ActorReport, ActorState, EpisodeReport};
use crrl_types::event::EventKind;
use crrl_types::fault::{Fault, FaultSeen};
use crrl_types::{AdapterVersion, Digest, EpisodeId, Event, GroupId};

/// When the made-up run begins: 14:00:00 of some day.
pub(crate) const BEGIN_MS: u64 =
    1_700_000_000_000 - 1_700_000_000_000 % 86_400_000 + 14 * 3_600_000;

/// The cluster after so many seconds, as its coordinator's board has it.
pub(crate) fn frame(s: u64) -> Frame {
    let nodes =
        vec![coordinator(s), learner(s), rollout("rollout-0", s, 0), rollout("rollout-1", s, 1)];
    let processes = nodes.iter().map(process).collect();
    Frame {
        at_ms: BEGIN_MS + s * 1000,
        snapshot: Snapshot { nodes, progress: progress(s), ..Snapshot::default() },
        processes,
    }
}

fn process(report: &NodeReport) -> NodeProcess {
    NodeProcess {
        name: report.node.to_string(),
        roles: Vec::new(),
        host: None,
        pid: Some(report.pid),
        started_ms: Some(BEGIN_MS - 20_000),
        restarts: u32::from(report.node.as_str() == "rollout-1"),
        given_up: false,
        retired: false,
        last_exit: None,
    }
}

fn progress(s: u64) -> Progress {
    let steps = s / 10;
    let mut progress = Progress {
        phase: "training".into(),
        step: steps,
        steps: 40,
        adapter_version: steps,
        episodes: EpisodeCounts {
            dispatched: 40 * s,
            in_flight: 12,
            finished: 40 * s,
            trained: 30 * s,
            dropped: 9 * s,
            failed: s / 20,
        },
        metrics: vec![("loss".into(), 0.02), ("entropy".into(), 0.41), ("grad_norm".into(), 1.7)],
        ..Progress::default()
    };
    for step in 1..=steps {
        let at = step as f64;
        progress.push_point(RewardPoint {
            step,
            reward: exact(0.3 + 0.4 * (1.0 - (-at / 12.0).exp()) + 0.03 * (at * 1.7).sin()),
            success: exact(0.1 + 0.5 * (1.0 - (-at / 15.0).exp()) + 0.03 * (at * 2.3).cos()),
            attempts: 64,
        });
    }
    for episode in (40 * s).saturating_sub(12)..40 * s {
        let reward = (episode * 37 % 100) as f64 / 100.0;
        progress.push_line(&format!(
            "episode {episode} json-decoder-negation-13 reward {reward:.2} 4 turns 3 calls"
        ));
    }
    progress
}

/// A number that is the same after it was written as text and read.
fn exact(value: f64) -> f64 {
    (value * 1024.0).round() / 1024.0
}

fn node(name: &str, roles: &[NodeRole], s: u64, actors: Vec<ActorReport>) -> NodeReport {
    NodeReport {
        node: name.into(),
        roles: roles.to_vec(),
        pid: 4000 + name.len() as u32,
        incarnation: 1,
        state: NodeState::Ready,
        adapter_version: AdapterVersion(s / 10),
        adapter_digest: Digest::default(),
        tokens_per_s: 0.0,
        episodes: 0,
        rss_bytes: 180 << 20,
        activity: String::new(),
        faults: Vec::new(),
        actors,
        live: Vec::new(),
    }
}

/// An actor that handles so many messages a second.
pub(crate) fn actor(
    name: &str,
    kind: &str,
    parent: Option<&str>,
    s: u64,
    rate: u64,
) -> ActorReport {
    ActorReport {
        name: name.into(),
        kind: kind.into(),
        parent: parent.map(str::to_owned),
        state: ActorState::Idle,
        waiting: 0,
        waiting_max: 7,
        oldest_ms: 0,
        handled: rate * s + rate / 3 * (s % 3 % 2),
        busy_ms: rate * s,
        handling: None,
        restarts: 0,
        last_failure: None,
        up_ms: s * 1000 + 40,
    }
}

fn coordinator(s: u64) -> NodeReport {
    let root = Some("supervisor");
    let mut actors = vec![
        actor("supervisor", "Supervisor", None, s, 1),
        actor("coordinator", "Coordinator", root, s, 210),
        actor("parameter-server", "ParameterServer", root, s, 3),
        actor("inbox", "Inbox", root, s, 240),
    ];
    actors[1].waiting = (s % 4) as u32;
    actors[1].oldest_ms = s % 4 * 2;
    let roles = [NodeRole::Coordinator, NodeRole::ParameterServer];
    let activity = format!("12 episodes out, {} back, {} trained on", 40 * s, 30 * s);
    NodeReport { activity, ..node("coordinator", &roles, s, actors) }
}

fn learner(s: u64) -> NodeReport {
    let mut actors = vec![
        actor("supervisor", "Supervisor", None, s, 1),
        actor("learner", "LearnerActor", Some("supervisor"), s, 2),
        actor("inbox", "Inbox", Some("supervisor"), s, 6),
    ];
    actors[1].state = ActorState::Busy;
    actors[1].handling = Some(("Train".into(), 400 + s % 10 * 90));
    NodeReport {
        activity: format!("step {}: 64 episodes", s / 10 + 1),
        tokens_per_s: 15_200.0,
        rss_bytes: 1_300 << 20,
        ..node("learner", &[NodeRole::Learner], s, actors)
    }
}

fn rollout(name: &str, s: u64, at: u64) -> NodeReport {
    let mut actors = vec![
        actor("supervisor", "Supervisor", None, s, 1),
        actor("rollout", "Rollout", Some("supervisor"), s, 85),
        actor("engine", "Engine", Some("rollout"), s, 310),
        actor("sandboxes", "SandboxPool", Some("rollout"), s, 44),
        actor("inbox", "Inbox", Some("supervisor"), s, 90),
    ];
    actors[2].state = ActorState::Busy;
    actors[2].handling = Some(("Generate".into(), 30));
    actors[2].waiting = 140;
    actors[2].oldest_ms = 260;
    actors[3].restarts = at as u32;
    actors[3].last_failure = (at == 1).then(|| "the sandbox launcher did not answer".to_owned());
    let doing = [
        "thinking",
        "shell grep -n 'def decode' json/decoder.py",
        "shell python -m pytest -q",
        "edit json/decoder.py",
    ];
    let live = (0..6)
        .map(|n| EpisodeReport {
            episode: EpisodeId(40 * s + at * 6 + n),
            group: GroupId(5 * s + n / 2),
            task: "json-decoder-JSONDecoder.raw_decode-negation-13-2a67".into(),
            turns: 1 + n as u32,
            calls: n as u32,
            doing: doing[(n % 4) as usize].into(),
            age_ms: 900 + 700 * n,
            idle_ms: 40 + 90 * n,
            version: AdapterVersion(s / 10),
        })
        .collect();
    NodeReport {
        activity: "6 episodes: 2 thinking, 4 at tools".into(),
        tokens_per_s: 2_410.0 + at as f32,
        rss_bytes: 420 << 20,
        episodes: 6,
        faults: if at == 1 {
            vec![FaultSeen {
                id: 77,
                fault: Fault::Duplicate { share: 0.5 },
                fired: 128,
                active: false,
            }]
        } else {
            Vec::new()
        },
        live,
        ..node(name, &[NodeRole::Rollout], s, actors)
    }
}

/// The history of that run, second by second.
pub(crate) fn events(s: u64) -> Vec<Event> {
    let event = |kind| Event { at_ms: BEGIN_MS + s * 1000, node: "coordinator".into(), kind };
    let task = || "json-decoder-JSONDecoder.raw_decode-negation-13-2a67".into();
    let mut list = vec![
        event(EventKind::Finished { episode: EpisodeId(40 * s), reward: 0.4375, success: false }),
        event(EventKind::Dispatched {
            episode: EpisodeId(40 * s + 12),
            group: GroupId(5 * s),
            task: task(),
            to: "rollout-0".into(),
            attempt: 1,
        }),
    ];
    if s.is_multiple_of(10) {
        let version = AdapterVersion(s / 10);
        list.push(event(EventKind::Published { version, digest: Digest::of(&s.to_le_bytes()) }));
    }
    if s % 30 == 29 {
        let (peer, reason) = ("rollout-1".into(), "timed out".into());
        list.push(event(EventKind::NodeDown { peer, reason }));
    }
    list
}
