//! Every rule, and that none of them fires in a healthy cluster.

use crrl_cluster::Snapshot;
use crrl_control::wire::NodeState;
use crrl_inspect::diagnose::{FINDINGS_MAX, Finding, Rule, diagnose};
use crrl_inspect::state::World;
use crrl_inspect::state::nodes::Standing;
use crrl_types::Event;
use crrl_types::actor::{ActorEvent, ActorState, Fate};
use crrl_types::event::EventKind;

use crate::{healthy, scene, told, world};

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

/// A cluster with a thread that has been at something for so long, after so much work; jobs wait
/// behind the one it is at.
fn with_thread(node: usize, (name, kind): (&str, &str), ms: u64, work: (u64, u64)) -> World {
    with(|s| {
        let parent = s.nodes[node].actors[1].name.clone();
        let mut thread = scene::actor(name, kind, Some(&parent), 190, 0);
        (thread.state, thread.waiting, thread.oldest_ms) = (ActorState::Busy, 3, ms);
        (thread.handled, thread.busy_ms) = work;
        thread.handling = Some(("forward/backward".into(), ms));
        s.nodes[node].actors.push(thread);
    })
}

#[test]
fn a_thread_that_hangs_and_none_that_takes_as_long_as_it_always_does() {
    let trainer = |ms, work| with_thread(1, ("trainer", "TrainerThread"), ms, work);
    // Twelve seconds a step.
    let quick = |ms| trainer(ms, (40, 480_000));
    assert!(diagnose(&quick(119_000)).healthy, "a step may take longer than others");
    let found = only(&quick(121_000));
    assert_eq!((found.rule, found.node.as_str()), (Rule::ThreadHangs, "learner"));
    assert_eq!((found.actor.as_deref(), found.for_ms), (Some("trainer"), 121_000));
    assert_eq!(
        found.says,
        "thread trainer in learner has been at forward/backward for 2m01s; its work usually takes \
         12 s, 3 wait for it"
    );
    // A quarter of an hour a step.
    let slow = |ms| trainer(ms, (4, 3_600_000));
    assert!(diagnose(&slow(4_499_000)).healthy, "{:?}", diagnose(&slow(4_499_000)));
    assert_eq!(only(&slow(4_501_000)).rule, Rule::ThreadHangs);
    // The first step of a run may have to compile kernels.
    let first = |ms| trainer(ms, (0, 0));
    assert!(diagnose(&first(599_000)).healthy);
    let found = only(&first(601_000));
    assert!(found.says.contains("for 10m01s; it has done no work yet"), "{}", found.says);
    let engine = |ms| with_thread(2, ("engine-thread", "EngineThread"), ms, (90_000, 450_000));
    assert!(diagnose(&engine(119_000)).healthy);
    let found = only(&engine(121_000));
    assert_eq!((found.rule, found.node.as_str()), (Rule::ThreadHangs, "rollout-0"));
    assert!(found.says.contains("its work usually takes 5 ms"), "{}", found.says);
}

#[test]
fn a_thread_that_was_started_again_may_load_its_model_for_as_long_as_the_first_time() {
    let loads = |ms| {
        with(move |s| {
            let mut thread = scene::actor("trainer", "TrainerThread", Some("learner"), 190, 0);
            (thread.state, thread.handled, thread.busy_ms) = (ActorState::Busy, 40, 480_000);
            thread.handling = Some(("load model".into(), ms));
            s.nodes[1].actors.push(thread);
        })
    };
    assert!(diagnose(&loads(599_000)).healthy, "{:?}", diagnose(&loads(599_000)));
    assert_eq!(only(&loads(601_000)).rule, Rule::ThreadHangs);
}

#[test]
fn a_thread_that_waits_for_room_on_the_disk_is_not_said_to_hang() {
    let found = only(&with(|s| {
        let mut thread = scene::actor("trainer", "TrainerThread", Some("learner"), 190, 0);
        (thread.state, thread.handled, thread.busy_ms) = (ActorState::Busy, 40, 480_000);
        thread.handling = Some(("checkpoint".into(), 300_000));
        s.nodes[1].actors.push(thread);
        s.nodes[1].activity = "no space left: waiting for room for run/checkpoints".into();
    }));
    assert_eq!((found.rule, found.node.as_str()), (Rule::NoSpace, "learner"));
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
fn a_node_that_was_told_to_leave_is_missed_by_nobody() {
    let gone = |retired: bool, last_exit: &'static str| {
        world(150, 190, move |s, frame| {
            told::tell(frame);
            if s < 160 {
                return;
            }
            let node = &mut frame.snapshot.nodes[3];
            (node.state, node.activity) = (NodeState::Stopped, "lost: it left".into());
            node.actors[1].oldest_ms = 60_000;
            frame.snapshot.seen[3].reported_at_ms = scene::BEGIN_MS + 159_000;
            let process = &mut frame.processes[3];
            (process.pid, process.retired) = (None, retired);
            process.last_exit = Some(last_exit.into());
        })
    };
    // A scale-down that had to be helped, and a stop by order.
    for world in [gone(true, "signal 9"), gone(false, "exit code 0")] {
        let verdict = diagnose(&world);
        assert!(verdict.healthy, "{verdict:?}");
        assert_eq!(verdict.looked_at, "4 nodes, 12 actors, 6 episodes under way");
        let node = &world.nodes()[3];
        assert_eq!((node.state, node.is_stale(), node.actors), (Standing::Left, false, 0));
        assert_eq!((node.activity.as_str(), node.episodes), ("", None));
    }
    let found = diagnose(&gone(false, "signal 9")).findings.swap_remove(0);
    assert_eq!((found.rule, found.node.as_str()), (Rule::NodeDown, "rollout-1"));
}

/// A cluster with a process that was started so many seconds ago and has said nothing.
fn unheard(ago_s: u64, host: Option<&str>) -> World {
    let host = host.map(str::to_owned);
    world(190, 190, move |_, frame| {
        frame.snapshot.nodes.pop();
        frame.processes[3].started_ms = Some(frame.at_ms - 1_000 * ago_s);
        frame.processes[3].host.clone_from(&host);
    })
}

#[test]
fn a_node_that_never_said_anything() {
    assert!(diagnose(&unheard(59, None)).healthy, "it may be joining");
    let found = only(&unheard(61, None));
    assert_eq!((found.rule, found.node.as_str()), (Rule::NodeSilent, "rollout-1"));
    assert_eq!(found.for_ms, 61_000);
    assert!(found.says.starts_with("node rollout-1 has said nothing since"), "{}", found.says);
    // To another machine the program may have to be brought first.
    assert!(diagnose(&unheard(599, Some("anna@far"))).healthy);
    assert_eq!(only(&unheard(601, Some("anna@far"))).for_ms, 601_000);
    // Of one whose host does not tell when it was started, it counts from when it was first seen.
    let old = |s| {
        world(130, s, |_, frame| {
            frame.snapshot.nodes.pop();
            frame.processes[3].started_ms = None;
        })
    };
    assert!(diagnose(&old(190)).healthy);
    assert_eq!(only(&old(191)).for_ms, 61_000);
}

#[test]
fn a_coordinator_that_was_just_started_again_has_heard_nobody_yet() {
    let after = |s| {
        world(190, s, |_, frame| {
            frame.snapshot.nodes.clear();
            for process in &mut frame.processes {
                process.started_ms = Some(scene::BEGIN_MS - 7_200_000);
            }
            frame.processes[0].roles = vec!["coordinator".into()];
            frame.processes[0].started_ms = Some(scene::BEGIN_MS + 187_000);
            frame.processes[2].host = Some("anna@far".into());
        })
    };
    // The nodes have been there for two hours, it for three seconds.
    let verdict = diagnose(&after(190));
    assert!(verdict.healthy, "{verdict:?}");
    let found = diagnose(&after(248)).findings;
    let silent: Vec<_> = found.iter().map(|f| (f.rule, f.node.as_str(), f.for_ms)).collect();
    let unheard = |node| (Rule::NodeSilent, node, 61_000);
    assert_eq!(silent, [unheard("coordinator"), unheard("learner"), unheard("rollout-1")]);
}

#[test]
fn an_actor_that_is_starting_for_long() {
    let starts = |ms| {
        with(move |s| {
            let actor = &mut s.nodes[0].actors[1];
            (actor.state, actor.up_ms) = (ActorState::Starting, ms);
            (actor.waiting, actor.oldest_ms) = (0, 0);
        })
    };
    assert!(diagnose(&starts(30_000)).healthy);
    let found = only(&starts(41_000));
    assert_eq!((found.rule, found.for_ms), (Rule::ActorBusy, 41_000));
    assert_eq!(found.says, "actor coordinator in coordinator has been starting for 41 s");
}

#[test]
fn an_actor_that_was_stopped_by_order_and_none_that_ended_by_itself() {
    let stopped = |why: Option<&'static str>| {
        with(move |s| {
            let actor = &mut s.nodes[2].actors[1];
            (actor.state, actor.last_failure) = (ActorState::Stopped, why.map(str::to_owned));
        })
    };
    assert!(diagnose(&stopped(None)).healthy);
    let found = only(&stopped(Some("stopped by an order of anna")));
    assert_eq!((found.rule, found.actor.as_deref()), (Rule::ActorStopped, Some("rollout")));
    assert!(found.rule.is_meant());
    assert_eq!(
        found.says,
        "actor rollout in rollout-0 was stopped by an order of anna; crrl inspect do restart \
         rollout-0/rollout"
    );
}

#[test]
fn an_actor_that_is_started_again_and_again() {
    let restarted = |s: u64, why: &str| ActorEvent {
        at_ms: scene::BEGIN_MS + 1_000 * s,
        node: "rollout-0".into(),
        actor: "rollout".into(),
        fate: Fate::Restarted,
        why: Some(why.to_owned()),
    };
    let world = |events: Vec<ActorEvent>| with(move |s| s.actor_events.clone_from(&events));
    assert!(diagnose(&world(vec![restarted(180, "no space")])).healthy, "once is not often");
    let apart = vec![restarted(100, "no space"), restarted(180, "no space")];
    assert!(diagnose(&world(apart)).healthy);
    let meant = "restarted by an order of anna";
    assert!(diagnose(&world(vec![restarted(170, meant), restarted(180, meant)])).healthy);
    let crashing =
        world(vec![restarted(150, "x"), restarted(170, "y"), restarted(180, "no space")]);
    let found = only(&crashing);
    assert_eq!((found.rule, found.actor.as_deref()), (Rule::ActorFailed, Some("rollout")));
    assert_eq!(
        found.says,
        "actor rollout in rollout-0 was started again 3 times within 40 s: no space"
    );
    // It is among what happened, by time.
    let rows = crashing.events();
    let at = rows.iter().rposition(|row| row.event == "actor").expect("three of them");
    assert_eq!(rows[at].detail, "actor=rollout fate=restarted reason=no space");
    assert!(rows[at - 1].at_ms <= rows[at].at_ms && rows[at].at_ms <= rows[at + 1].at_ms);
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
    // Whoever has had a sandbox for longest is named, and is not late by that alone.
    let held = |idle_ms| {
        with(move |s| {
            s.nodes[2].live[0].doing = "waiting for a sandbox, 8 of 8 taken".into();
            s.nodes[2].live[0].idle_ms = idle_ms;
            s.nodes[2].actors[3].handling = Some(("episode 17, for 300 s".into(), 0));
            s.nodes[2].actors[3].waiting = 1;
        })
    };
    assert!(diagnose(&held(20)).healthy, "{:?}", diagnose(&held(20)));
    let says = only(&held(41_000)).says;
    let end = "); the one that has had one for longest is episode 17, for 300 s";
    assert!(says.ends_with(end), "{says}");
    // The second of them is late by then, the third is not.
    assert!(only(&waits(31_500)).says.ends_with("); 1 more waits too long"));
}

#[test]
fn a_learner_that_waits_and_a_run_that_waits() {
    let world_of = |from| {
        world(150, 190, move |s, frame| {
            frame.snapshot.progress.episodes.in_flight = 0;
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

/// A learner that has waited for a batch for 40 s, in such a run.
fn learner_waits(change: impl Fn(&mut Snapshot)) -> World {
    world(150, 190, |_, frame| {
        frame.snapshot.nodes[1].activity = "waiting for a batch".into();
        change(&mut frame.snapshot);
    })
}

#[test]
fn a_learner_may_wait_where_it_needs_no_batch_and_where_one_is_on_its_way() {
    let slow = diagnose(&learner_waits(|_| {}));
    assert!(slow.healthy, "episodes are out and come back: {slow:?}");
    let measuring = diagnose(&learner_waits(|s| {
        s.progress.phase = "evaluating before (3/300)".into();
        s.progress.episodes.in_flight = 0;
    }));
    assert!(measuring.healthy, "{measuring:?}");
    let over = diagnose(&learner_waits(|s| {
        s.progress.phase = "done".into();
        s.progress.episodes.in_flight = 0;
    }));
    assert!(over.healthy, "{over:?}");
    assert_eq!(only(&learner_waits(|s| s.progress.episodes.in_flight = 0)).rule, Rule::Waits);
    // They are out, and none comes back.
    let mut stuck = World::new();
    scene::events(10).iter().for_each(|event| stuck.history.push(event));
    for s in 150..=190 {
        let mut frame = scene::frame(s);
        frame.snapshot.nodes[1].activity = "waiting for a batch".into();
        stuck.fold(frame);
    }
    let rules: Vec<Rule> = diagnose(&stuck).findings.iter().map(|found| found.rule).collect();
    assert_eq!(rules, [Rule::Waits, Rule::NothingBack]);
}

/// The history is on another machine.
#[test]
fn whether_episodes_come_back_is_known_from_the_coordinator_too() {
    let away = |none_back_since_s: Option<u64>| {
        let mut world = World::new();
        for s in 150..=190 {
            let mut frame = scene::frame(s);
            frame.snapshot.nodes[1].activity = "waiting for a batch".into();
            frame.snapshot.none_back_since_ms =
                none_back_since_s.map(|s| scene::BEGIN_MS + 1_000 * s);
            world.fold(frame);
        }
        world
    };
    assert!(diagnose(&away(Some(100))).healthy);
    let told = diagnose(&away(Some(60))).findings;
    let rules: Vec<Rule> = told.iter().map(|found| found.rule).collect();
    assert_eq!(rules, [Rule::Waits, Rule::NothingBack]);
    assert_eq!(told[1].for_ms, 130_000);
    // One of an earlier build does not tell: that is no excuse.
    assert_eq!(only(&away(None)).rule, Rule::Waits);
}

#[test]
fn a_run_may_wait_for_a_node_that_loads_its_model() {
    let waits = |ms: u64, state: NodeState| {
        world(190, 190, move |_, frame| {
            told::tell(frame);
            frame.snapshot.phase_since_ms = Some(frame.at_ms - ms);
            frame.snapshot.progress.phase = "evaluating (0/9), waiting for the learner".into();
            frame.snapshot.nodes[1].state = state;
        })
    };
    assert!(diagnose(&waits(599_000, NodeState::Starting)).healthy);
    assert_eq!(only(&waits(601_000, NodeState::Starting)).rule, Rule::Waits);
    assert_eq!(only(&waits(31_000, NodeState::Ready)).rule, Rule::Waits);
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
fn what_was_just_handed_out_need_not_be_back_whatever_was_before() {
    let mut world = World::new();
    // The learner took three minutes over its step, or the run was resumed after a night.
    scene::events(10).iter().for_each(|event| world.history.push(event));
    let finished = scene::events(180).into_iter().next().expect("one that came back");
    world.history.push(&Event { at_ms: scene::BEGIN_MS + 11_000, ..finished });
    let dispatched = scene::events(180).into_iter().nth(1).expect("one that was handed out");
    world.history.push(&dispatched);
    (150..=190).for_each(|s| world.fold(scene::frame(s)));
    let verdict = diagnose(&world);
    assert!(verdict.healthy, "{verdict:?}");
    let (at_ms, node) = (scene::BEGIN_MS + 189_000, "coordinator".into());
    world.history.push(&Event { at_ms, node, kind: EventKind::Started });
    world.fold(scene::frame(191));
    assert!(diagnose(&world).healthy);
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
