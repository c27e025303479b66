//! Every rule, and that none of them fires in a healthy cluster.

use crrl_cluster::Snapshot;
use crrl_control::wire::NodeState;
use crrl_inspect::diagnose::{FINDINGS_MAX, Finding, Rule, diagnose};
use crrl_inspect::state::World;
use crrl_types::actor::ActorState;

use crate::{healthy, scene, world};

/// The one finding of a world with one thing wrong.
fn only(world: &World) -> Finding {
    let verdict = diagnose(world);
    assert!(!verdict.healthy);
    assert_eq!(verdict.findings.len(), 1, "{:?}", verdict.findings);
    verdict.findings[0].clone()
}

/// A world whose last frames are changed.
fn with(change: impl Fn(&mut Snapshot)) -> World {
    world(150, 190, |s, frame| {
        if s > 189 {
            change(&mut frame.snapshot);
        }
    })
}

#[test]
fn a_healthy_cluster_is_healthy() {
    let verdict = diagnose(&healthy());
    assert!(verdict.healthy, "{verdict:?}");
    assert_eq!(verdict.looked_at, "4 nodes, 17 actors, 12 episodes under way");
}

#[test]
fn an_actor_at_one_message() {
    let hung = |ms| with(move |s| s.nodes[2].actors[2].handling = Some(("Generate".into(), ms)));
    assert!(diagnose(&hung(5_000)).healthy);
    let found = only(&hung(41_000));
    assert_eq!((found.rule, found.node.as_str()), (Rule::ActorBusy, "rollout-0"));
    assert_eq!(found.actor.as_deref(), Some("engine"));
    assert_eq!(
        found.says,
        "actor engine in rollout-0 has been at one message, Generate, for 41 s; 140 wait for it"
    );
}

#[test]
fn a_message_that_waits() {
    let found = only(&with(|s| {
        s.nodes[0].actors[1].waiting = 900;
        s.nodes[0].actors[1].oldest_ms = 7_000;
    }));
    assert_eq!(found.rule, Rule::ActorBehind);
    assert_eq!(
        found.says,
        "900 messages wait for actor coordinator in coordinator, the oldest for 7.0 s"
    );
}

#[test]
fn an_actor_that_failed() {
    let found = only(&with(|s| {
        s.nodes[3].actors[3].state = ActorState::Failed;
        s.nodes[3].actors[3].last_failure = Some("no\u{1b}[2J space".into());
    }));
    assert_eq!(found.says, "actor sandboxes in rollout-1 failed: no space");
}

#[test]
fn a_node_that_says_nothing() {
    let frozen = scene::frame(180).snapshot.nodes[2].clone();
    let world = world(150, 190, |s, frame| {
        if s > 180 {
            frame.snapshot.nodes[2] = frozen.clone();
        }
    });
    let found = only(&world);
    assert_eq!((found.rule, found.for_ms), (Rule::NodeSilent, 10_000));
    assert!(found.says.starts_with("node rollout-0 has said nothing for 10 s"), "{}", found.says);
}

#[test]
fn a_node_whose_disk_is_full() {
    let found = only(&world(150, 190, |s, frame| {
        if s >= 180 {
            let says = "no space left: waiting for room for run/checkpoints";
            frame.snapshot.nodes[1].activity = says.into();
        }
    }));
    assert_eq!((found.rule, found.node.as_str()), (Rule::NoSpace, "learner"));
    assert_eq!(
        (found.for_ms, found.says.as_str()),
        (10_000, "node learner has no space left: waiting for room for run/checkpoints, for 10 s")
    );
}

#[test]
fn a_node_that_was_lost_is_being_started_again_or_was_given_up() {
    let lost = |change: fn(&mut crrl_inspect::frame::Frame)| {
        only(&world(150, 190, |s, frame| {
            if s > 189 {
                frame.snapshot.nodes[3].state = NodeState::Stopped;
                frame.snapshot.nodes[3].activity = "lost: timed out".into();
                change(frame);
            }
        }))
    };
    let found = lost(|_| {});
    assert_eq!(
        (found.rule, found.says.as_str()),
        (Rule::NodeDown, "node rollout-1 was lost: timed out")
    );
    let found = lost(|frame| {
        frame.processes[3].pid = None;
        frame.processes[3].last_exit = Some("signal 9".into());
    });
    assert_eq!(found.says, "node rollout-1 is being started again (signal 9)");
    let found = lost(|frame| frame.processes[3].given_up = true);
    assert_eq!(found.says, "node rollout-1 was given up after 1 restarts");
}

#[test]
fn an_episode_that_hangs() {
    let found = only(&with(|s| s.nodes[2].live[1].idle_ms = 95_000));
    assert_eq!(found.rule, Rule::EpisodeHangs);
    assert!(
        found.says.contains("\"shell grep -n 'def decode' json/decoder.py\" for 1m35s"),
        "{}",
        found.says
    );
}

#[test]
fn of_episodes_that_wait_the_oldest_is_named_with_what_it_waits_for() {
    let waits = |oldest_ms: u64| {
        with(move |s| {
            for (at, live) in s.nodes[2].live.iter_mut().enumerate() {
                live.doing = "waiting for a sandbox, 8 of 8 taken".into();
                live.idle_ms = if at < 3 { oldest_ms - 1_000 * at as u64 } else { 20 };
            }
        })
    };
    assert!(diagnose(&waits(29_000)).healthy);
    let found = only(&waits(41_000));
    assert_eq!((found.rule, found.node.as_str()), (Rule::EpisodeHangs, "rollout-0"));
    assert_eq!(found.for_ms, 41_000);
    let says = "has been waiting for a sandbox, 8 of 8 taken, for 41 s (json-decoder-";
    assert!(found.says.contains(says), "{}", found.says);
    assert!(found.says.ends_with("); 2 more wait too long"), "{}", found.says);
    // The second of them is late by then, the third is not.
    assert!(only(&waits(31_500)).says.ends_with("); 1 more waits too long"));
}

#[test]
fn a_learner_that_waits_and_a_run_that_waits() {
    let world_of = |from| {
        world(150, 190, move |s, frame| {
            if s >= from {
                frame.snapshot.nodes[1].activity = "waiting for a batch".into();
            }
        })
    };
    assert!(diagnose(&world_of(165)).healthy, "25 s are not long");
    let found = only(&world_of(155));
    assert_eq!(
        (found.rule, found.says.as_str()),
        (Rule::Waits, "the learner (learner) has been waiting for a batch for 35 s")
    );
    let run = world(150, 190, |_, frame| {
        frame.snapshot.progress.phase = "training, waiting for a rollout node".into();
    });
    assert_eq!(only(&run).says, "the run has been training, waiting for a rollout node for 40 s");
}

#[test]
fn a_fault_at_work() {
    let found = only(&with(|s| s.nodes[3].faults[0].active = true));
    assert_eq!((found.rule, found.node.as_str()), (Rule::FaultActive, "rollout-1"));
    assert!(found.says.contains("fired 128 times"));
}

#[test]
fn nothing_that_comes_back() {
    let mut world = World::new();
    scene::events(10).iter().for_each(|event| world.history.push(event));
    (150..=190).for_each(|s| world.fold(scene::frame(s)));
    let found = only(&world);
    assert_eq!((found.rule, found.for_ms), (Rule::NothingBack, 180_000));
    assert_eq!(found.says, "12 episodes are out and none has come back for 3m00s");
}

#[test]
fn a_coordinator_that_does_not_answer_is_said_first() {
    let mut world = healthy();
    world.tick(world.now_ms() + 12_000);
    let verdict = diagnose(&world);
    assert_eq!(verdict.findings[0].rule, Rule::NoAnswer);
    assert_eq!(verdict.findings[0].says, "the coordinator has not answered for 12 s");
}

#[test]
fn findings_that_are_not_told_are_counted() {
    assert_eq!(diagnose(&with(|s| s.nodes[2].live[1].idle_ms = 95_000)).left_out(), None);
    let world = with(|s| {
        let live = s.nodes[2].live[1].clone();
        s.nodes[2].live = vec![live; 1_240];
        s.nodes[2].live.iter_mut().for_each(|live| live.idle_ms = 95_000);
    });
    let verdict = diagnose(&world);
    assert_eq!((verdict.findings.len(), verdict.found), (FINDINGS_MAX, 1_240));
    let says = verdict.left_out().expect("1,140 are not told");
    assert_eq!(says, "100 of 1,240 findings, the worst");
}

#[test]
fn a_run_that_failed() {
    let world = with(|s| s.progress.phase = "failed: the disk is full".into());
    assert_eq!(only(&world).says, "the run failed: the disk is full");
}
