//! A rollout node without a cluster: real engine, real sandboxes, a channel for the mesh.
//!
//! Has a `main` of its own, because this very program is also the sandbox launcher its tests use.

#[path = "../../../tests/support/wanted.rs"]
mod wanted;
mod world;

use std::ops::Range;
use std::time::{Duration, Instant};

use crrl_actors::duty::Duty;
use crrl_actors::slow_tools::SlowTools;
use crrl_cluster::{Row, Shown};
use crrl_control::wire::{Held, NodeRole, Wire};
use crrl_types::actor::ActorState;
use crrl_types::fault::{Fault, Injection};
use crrl_types::{AdapterVersion, EpisodeId, Finish, JournalEntry, Sampled, Stop, Timing, Work};
use futures::FutureExt;
use world::{PANIC, World};

#[expect(clippy::print_stdout, reason = "a test runner of its own")]
fn main() {
    if std::env::args().nth(1).as_deref() == Some(crrl_sandbox::launcher::SUBCOMMAND) {
        crrl_sandbox::launcher::main();
    }
    let wanted = wanted::wanted(std::env::args().skip(1));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    let mut failed = 0;
    macro_rules! run {
        ($($test:ident),* $(,)?) => {$(
            if wanted.as_deref().is_none_or(|part| stringify!($test).contains(part)) {
                let test = std::panic::AssertUnwindSafe($test()).catch_unwind();
                let passed = runtime.block_on(test).is_ok();
                println!("test {} ... {}", stringify!($test), if passed { "ok" } else { "FAILED" });
                failed += u32::from(!passed);
            }
        )*};
    }
    run!(
        whoever_leaves_before_the_answer_leaves_no_sequence_open,
        a_result_is_sent_until_it_is_acknowledged,
        an_attempt_says_when_it_did_what,
        a_panicking_episode_hurts_nobody_else,
        an_adapter_is_served_once_it_is_verified,
        a_draft_is_made_ready_and_served_only_once_it_is_published,
        a_cancelled_episode_leaves_nothing_behind,
        what_is_said_of_an_earlier_lease_leaves_a_later_one_alone,
        what_cannot_be_rolled_out_is_reported,
        a_group_prepares_its_task_once,
        a_draining_node_does_what_was_on_its_way_and_takes_no_more,
        a_node_that_rests_gives_everything_back_and_goes_on_when_it_is_told_to,
        an_actor_that_is_started_on_a_draining_node_takes_nothing,
        an_episode_keeps_to_its_time,
        another_node_goes_on_where_one_left_off,
        the_working_copy_is_as_it_was_for_whoever_goes_on,
        what_comes_out_otherwise_is_not_gone_on_with,
        too_much_of_a_change_earns_nothing_and_is_no_failure,
        slow_tools_take_their_time,
        the_engine_and_the_sandboxes_are_rows_of_their_own,
        whoever_has_had_a_sandbox_for_longest_is_told_of_while_somebody_waits,
    );
    if failed > 0 {
        println!("{failed} failed");
        std::process::exit(1);
    }
}

/// What an attempt did, in words, and where it does not fit into the attempt.
fn told(timing: &Timing) -> (Vec<&'static str>, Vec<String>) {
    let name = |work: &Work| match work {
        Work::Places => "places",
        Work::Replay { .. } => "replay",
        Work::Generate { .. } => "generate",
        Work::Call { .. } => "call",
        Work::Diff => "diff",
        Work::Reward => "reward",
    };
    let pairs = timing
        .works
        .windows(2)
        .filter(|pair| pair[0].from_us + pair[0].took_us > pair[1].from_us + 1);
    let outside = timing.works.iter().filter(|w| w.from_us + w.took_us > timing.took_us);
    let wrong = pairs.map(|pair| format!("{pair:?} overlap"));
    let wrong = wrong.chain(outside.map(|work| format!("{work:?} after the end")));
    (timing.works.iter().map(|work| name(&work.work)).collect(), wrong.collect())
}

async fn an_attempt_says_when_it_did_what() {
    let mut world = World::new(2).await;
    world.assign(7, 1, "the answer is wrong", 60_000);
    let Wire::Finished { trajectory, .. } = world.next(NodeRole::Coordinator).await else {
        panic!("no result")
    };
    // A random policy changes nothing, is nudged, and takes a second turn.
    let timing = world.timings[&EpisodeId(7)].clone();
    let (did, wrong) = told(&timing);
    assert_eq!(did, ["places", "generate", "diff", "generate", "diff", "reward"]);
    assert!(wrong.is_empty(), "{wrong:?}");
    assert!(timing.took_us / 1000 >= trajectory.wall_ms);
    let drawn: Vec<u32> = timing
        .works
        .iter()
        .filter_map(|work| match work.work {
            Work::Generate { tokens, .. } => Some(tokens),
            _ => None,
        })
        .collect();
    assert_eq!(drawn, trajectory.turns.iter().map(|turn| turn.tokens).collect::<Vec<_>>());
    let turns: Vec<u32> = timing.works.iter().map(|work| work.turn).collect();
    assert_eq!(turns, [0, 1, 1, 2, 2, 0]);

    // Whoever goes on says what it did once more, and counts turns from the first.
    let mut second = World::new(2).await;
    let mut assignment = second.assignment(7, 2, "the answer is wrong", 60_000);
    assignment.past = world.journals[&EpisodeId(7)].clone();
    second.send(Wire::Assign(Box::new(assignment)));
    let result = second.next(NodeRole::Coordinator).await;
    assert!(matches!(result, Wire::Finished { attempt: 2, .. }), "{result:?}");
    let timing = &second.timings[&EpisodeId(7)];
    assert_eq!(told(timing).0, ["places", "replay", "generate", "diff", "reward"]);
    assert_eq!(timing.works[1].work, Work::Replay { entries: 2 });
    assert_eq!(timing.works[2].turn, 2);

    // One that fails tells how far it came.
    world.assign(8, 1, PANIC, 60_000);
    let failed = world.next(NodeRole::Coordinator).await;
    assert!(matches!(failed, Wire::Failed { .. }), "{failed:?}");
    assert!(world.timings.contains_key(&EpisodeId(8)));
    second.all_given_back().await;
    world.all_given_back().await;
}

async fn a_result_is_sent_until_it_is_acknowledged() {
    let mut world = World::new(4).await;
    world.peer_up(NodeRole::Coordinator);
    match world.next(NodeRole::Coordinator).await {
        Wire::Join { capacity: 4, holding, serving: Some(serving), .. } => {
            assert!(holding.is_empty());
            assert_eq!(serving.version, AdapterVersion(0));
            assert_eq!(serving.digest, world.engine.base_digest());
        }
        other => panic!("{other:?}"),
    }
    world.assign(1, 1, "the answer is wrong", 60_000);
    let Wire::Finished { attempt: 1, trajectory } = world.next(NodeRole::Coordinator).await else {
        panic!("no result")
    };
    assert_eq!(trajectory.episode, EpisodeId(1));
    assert_eq!(trajectory.tokens.len(), trajectory.logprobs.len());
    assert!(trajectory.generated_len() > 0);
    let covered: u32 = trajectory.adapters.iter().map(|span| span.end - span.start).sum();
    assert_eq!(covered as usize, trajectory.generated_len());
    assert!(trajectory.adapters.iter().all(|span| span.digest == world.engine.base_digest()));
    assert!(trajectory.reward.get("line").is_some());
    // Nobody said that it is durable.
    let again = world.next_raw(NodeRole::Coordinator).await;
    assert!(matches!(again, Wire::Finished { attempt: 1, .. }), "{again:?}");
    world.peer_up(NodeRole::Coordinator);
    let joined = world.next(NodeRole::Coordinator).await;
    assert!(matches!(&joined, Wire::Join { holding, .. } if holding.len() == 1), "{joined:?}");
    let again = world.next_raw(NodeRole::Coordinator).await;
    assert!(matches!(again, Wire::Finished { attempt: 1, .. }), "{again:?}");
    world.send(Wire::Ack { episode: EpisodeId(1), attempt: 1 });
    world.peer_up(NodeRole::Coordinator);
    let joined = world.next(NodeRole::Coordinator).await;
    assert!(matches!(&joined, Wire::Join { holding, .. } if holding.is_empty()), "{joined:?}");
}

async fn a_panicking_episode_hurts_nobody_else() {
    let mut world = World::new(4).await;
    world.assign(1, 1, PANIC, 60_000);
    world.assign(2, 1, "the answer is wrong", 60_000);
    let mut seen = Vec::new();
    for _ in 0..2 {
        match world.next(NodeRole::Coordinator).await {
            Wire::Failed { episode, attempt: 1, reason } => {
                assert!(reason.contains("panicked"), "{reason}");
                seen.push((episode.0, false));
            }
            Wire::Finished { trajectory, .. } => seen.push((trajectory.episode.0, true)),
            other => panic!("{other:?}"),
        }
    }
    seen.sort_unstable();
    assert_eq!(seen, [(1, false), (2, true)]);
    world.all_given_back().await;
}

async fn an_adapter_is_served_once_it_is_verified() {
    let mut world = World::new(4).await;
    world.peer_up(NodeRole::ParameterServer);
    let asked = world.next(NodeRole::ParameterServer).await;
    assert_eq!(asked, Wire::AdapterWanted { have: AdapterVersion(0) });
    let (manifest, payload) = world.adapter(3);
    let mut broken = payload.clone();
    *broken.last_mut().expect("not empty") ^= 1;
    world.offer(&manifest, broken, true);
    assert!(world.arrived().await.is_some(), "a broken adapter was taken");
    world.assign(1, 1, "the answer is wrong", 60_000);
    let Wire::Finished { trajectory, .. } = world.next(NodeRole::Coordinator).await else {
        panic!("a broken adapter stopped an episode")
    };
    assert_eq!(trajectory.oldest_version(), Some(AdapterVersion(0)));
    world.send(Wire::Ack { episode: EpisodeId(1), attempt: 1 });

    world.offer(&manifest, payload, true);
    let served = Wire::Activated { version: AdapterVersion(3), digest: manifest.digest };
    assert_eq!(world.next(NodeRole::Coordinator).await, served);
    world.assign(2, 1, "the answer is wrong", 60_000);
    let Wire::Finished { trajectory, .. } = world.next(NodeRole::Coordinator).await else {
        panic!("no result")
    };
    assert!(trajectory.adapters.iter().all(|span| span.digest == manifest.digest));
    assert_eq!(trajectory.oldest_version(), Some(AdapterVersion(3)));
}

async fn a_draft_is_made_ready_and_served_only_once_it_is_published() {
    let mut world = World::new(4).await;
    let (manifest, payload) = world.adapter(3);
    world.offer(&manifest, payload, false);
    assert_eq!(world.arrived().await, None);
    world.assign(1, 1, "the answer is wrong", 60_000);
    let Wire::Finished { trajectory, .. } = world.next(NodeRole::Coordinator).await else {
        panic!("no result")
    };
    assert_eq!(trajectory.oldest_version(), Some(AdapterVersion(0)), "served too early");
    let (version, digest) = (manifest.version, manifest.digest);
    world.send(Wire::Published { version, digest });
    assert_eq!(world.next(NodeRole::Coordinator).await, Wire::Activated { version, digest });

    // Drafts that are never published give way; what is served stays.
    for version in [4, 5] {
        let (manifest, payload) = world.adapter(version);
        world.offer(&manifest, payload, false);
        assert_eq!(world.arrived().await, None);
    }
    assert_eq!(world.engine.status().serving.version, AdapterVersion(3));
}

async fn a_cancelled_episode_leaves_nothing_behind() {
    let mut world = World::new(2).await;
    for episode in 1..=2 {
        world.assign(episode, 1, "the answer is wrong", 60_000);
        let reason = "the run is over".into();
        world.send(Wire::Cancel { episode: EpisodeId(episode), attempt: 1, reason });
    }
    world.all_given_back().await;
    // Its place is free at once, and the next result is the next episode's.
    world.assign(3, 1, "the answer is wrong", 60_000);
    let next = world.next(NodeRole::Coordinator).await;
    assert!(
        matches!(&next, Wire::Finished { trajectory, .. } if trajectory.episode.0 == 3),
        "{next:?}"
    );
}

async fn what_is_said_of_an_earlier_lease_leaves_a_later_one_alone() {
    let mut world = World::new(2).await;
    let late =
        || Wire::Cancel { episode: EpisodeId(1), attempt: 1, reason: "the lease has ended".into() };
    world.assign(1, 2, "the answer is wrong", 60_000);
    world.send(late());
    let next = world.next(NodeRole::Coordinator).await;
    assert!(matches!(&next, Wire::Finished { attempt: 2, .. }), "{next:?}");
    // Neither a late cancel nor a late acknowledgement takes the unacknowledged result away.
    world.send(late());
    world.send(Wire::Ack { episode: EpisodeId(1), attempt: 1 });
    world.peer_up(NodeRole::Coordinator);
    let joined = world.next(NodeRole::Coordinator).await;
    let held = Held { episode: EpisodeId(1), attempt: 2 };
    assert!(matches!(&joined, Wire::Join { holding, .. } if *holding == [held]), "{joined:?}");
    world.all_given_back().await;
}

async fn what_cannot_be_rolled_out_is_reported() {
    let mut world = World::new(2).await;
    let mut bad = world.assignment(1, 1, "", 60_000);
    bad.task_json = "{".to_owned();
    world.send(Wire::Assign(Box::new(bad)));
    let failed = world.next(NodeRole::Coordinator).await;
    assert!(
        matches!(&failed, Wire::Failed { reason, .. } if reason.contains("cannot be read")),
        "{failed:?}"
    );
    world.send(Wire::Ack { episode: EpisodeId(1), attempt: 1 });
    let mut gone = world.assignment(2, 1, "", 60_000);
    gone.task_json = gone.task_json.replace("\"files\"", "\"tree\"");
    world.send(Wire::Assign(Box::new(gone)));
    let failed = world.next(NodeRole::Coordinator).await;
    assert!(matches!(&failed, Wire::Failed { .. }), "{failed:?}");
    world.all_given_back().await;
}

async fn a_group_prepares_its_task_once() {
    let mut world = World::new(4).await;
    for episode in 1..=4 {
        world.assign(episode, 1, "the answer is wrong", 60_000);
    }
    for _ in 0..4 {
        let next = world.next(NodeRole::Coordinator).await;
        assert!(matches!(next, Wire::Finished { .. }), "{next:?}");
    }
    assert_eq!(world.sandboxes.templates(), 1);
    assert!(world.engine.status().stats.shared_tokens > 0, "each computed the prompt for itself");
    world.all_given_back().await;
}

async fn a_draining_node_does_what_was_on_its_way_and_takes_no_more() {
    let mut world = World::new(2).await;
    // Long enough for the order to be heard before it ends.
    world.slow.begin(slow_tools(Duration::from_secs(2)..Duration::from_secs(4)));
    assign_a_call(&mut world, 60_000);
    world.roster.set(Duty::Drains);
    assert_eq!(world.next(NodeRole::Coordinator).await, Wire::Credit { episodes: 0 });
    // Handed out before that was heard.
    world.assign(2, 1, "the answer is wrong", 60_000);
    for _ in 0..2 {
        let next = world.next(NodeRole::Coordinator).await;
        assert!(matches!(&next, Wire::Finished { .. }), "{next:?}");
    }
    world.peer_up(NodeRole::Coordinator);
    let joined = world.next(NodeRole::Coordinator).await;
    assert!(matches!(&joined, Wire::Join { capacity: 0, holding, .. } if holding.len() == 2));
}

async fn a_node_that_rests_gives_everything_back_and_goes_on_when_it_is_told_to() {
    let mut world = World::new(2).await;
    world.assign(1, 1, "the answer is wrong", 60_000);
    let next = world.next(NodeRole::Coordinator).await;
    assert!(matches!(&next, Wire::Finished { .. }), "{next:?}");
    world.assign(2, 1, "the answer is wrong", 60_000);
    world.roster.set(Duty::Rests);
    // What is done is held until it is acknowledged; what is not is anybody's.
    let held = loop {
        match world.next(NodeRole::Coordinator).await {
            Wire::Join { capacity: 0, holding, .. } => break holding,
            // It was faster.
            Wire::Finished { .. } => {}
            other => panic!("{other:?}"),
        }
    };
    assert!(held.contains(&Held { episode: EpisodeId(1), attempt: 1 }), "{held:?}");
    world.send(Wire::Ack { episode: EpisodeId(1), attempt: 1 });
    world.send(Wire::Ack { episode: EpisodeId(2), attempt: 1 });
    world.all_given_back().await;
    // It was on its way: nobody works on it, and that is said.
    world.assign(3, 1, "the answer is wrong", 60_000);
    let again = loop {
        if let Wire::Join { capacity, holding, .. } = world.next(NodeRole::Coordinator).await {
            break (capacity, holding);
        }
    };
    assert_eq!(again, (0, Vec::new()));
    world.roster.set(Duty::Works);
    assert_eq!(world.next(NodeRole::Coordinator).await, Wire::Credit { episodes: 2 });
    world.assign(3, 2, "the answer is wrong", 60_000);
    let next = world.next(NodeRole::Coordinator).await;
    assert!(matches!(&next, Wire::Finished { attempt: 2, .. }), "{next:?}");
    world.all_given_back().await;
}

async fn an_actor_that_is_started_on_a_draining_node_takes_nothing() {
    let mut world = World::draining(2).await;
    world.peer_up(NodeRole::Coordinator);
    let joined = world.next(NodeRole::Coordinator).await;
    assert!(matches!(&joined, Wire::Join { capacity: 0, .. }), "{joined:?}");
    world.assign(1, 1, "the answer is wrong", 60_000);
    world.peer_up(NodeRole::Coordinator);
    let joined = world.next(NodeRole::Coordinator).await;
    assert!(matches!(&joined, Wire::Join { holding, .. } if holding.is_empty()), "{joined:?}");
}

async fn an_episode_keeps_to_its_time() {
    let mut world = World::new(2).await;
    // The first pays for loading the template.
    world.assign(2, 1, "the answer is wrong", 60_000);
    world.next(NodeRole::Coordinator).await;
    world.send(Wire::Ack { episode: EpisodeId(2), attempt: 1 });
    // Without a lease the second would take longer than anything is waited for here.
    world.slow.begin(slow_tools(Duration::from_secs(100)..Duration::from_secs(1000)));
    assign_a_call(&mut world, 500);
    match world.next(NodeRole::Coordinator).await {
        Wire::Finished { trajectory, .. } => assert_eq!(trajectory.finish, Finish::TimeLimit),
        // Its places took most of the lease.
        Wire::Failed { reason, .. } => assert!(reason.contains("outlived its lease"), "{reason}"),
        other => panic!("{other:?}"),
    }
    world.all_given_back().await;
}

async fn whoever_leaves_before_the_answer_leaves_no_sequence_open() {
    let world = World::new(2).await;
    for _ in 0..200 {
        // Polled once, which sends the question, and dropped whether or not the answer is there.
        drop(world.engine.open().now_or_never());
    }
    world.all_given_back().await;
    world.engine.open().await.expect("every place is free again");
}

async fn another_node_goes_on_where_one_left_off() {
    let mut first = World::new(2).await;
    first.assign(7, 1, "the answer is wrong", 60_000);
    let Wire::Finished { trajectory: whole, .. } = first.next(NodeRole::Coordinator).await else {
        panic!("no result")
    };
    // A random policy changes nothing, is nudged, and takes a second turn.
    let past = first.journals[&EpisodeId(7)].clone();
    assert!(
        matches!(past[..], [JournalEntry::Generated { .. }, JournalEntry::Diff(_)]),
        "{past:?}"
    );

    let mut second = World::new(2).await;
    let mut assignment = second.assignment(7, 2, "the answer is wrong", 60_000);
    assignment.past = past.clone();
    second.send(Wire::Assign(Box::new(assignment)));
    let Wire::Finished { attempt: 2, trajectory } = second.next(NodeRole::Coordinator).await else {
        panic!("no result")
    };
    // The same weights, tokens and seed: as if nothing had happened.
    assert_eq!(trajectory.tokens, whole.tokens);
    assert_eq!(trajectory.generated, whole.generated);
    assert_eq!(trajectory.adapters, whole.adapters);
    let JournalEntry::Generated { tokens, .. } = &past[0] else { unreachable!("just seen") };
    let start = trajectory.adapters[0].start as usize;
    let kept: Vec<f32> = tokens.iter().map(|token| token.logprob).collect();
    assert_eq!(trajectory.logprobs[start..start + tokens.len()], kept);
    second.all_given_back().await;
}

/// A turn that repairs the answer with one tool call.
fn repairs(world: &World, ok: bool) -> Vec<JournalEntry> {
    let call = "<tool_call>\n{\"name\": \"apply_patch\", \"arguments\": {\"path\": \
                \"answer.py\", \"old\": \"41\", \"new\": \"42\"}}\n</tool_call>";
    calls(world, call, ok)
}

/// A turn that makes a tool call.
fn calls(world: &World, call: &str, ok: bool) -> Vec<JournalEntry> {
    let digest = world.engine.base_digest();
    let tokens = world.codec.encode(call).into_iter();
    let sampled = |id| Sampled { id, logprob: -1.0, version: AdapterVersion(0), digest };
    vec![
        JournalEntry::Generated { tokens: tokens.map(sampled).collect(), stop: Stop::Length },
        JournalEntry::Tool { output: String::new(), ok, wall_ms: 1 },
    ]
}

/// Hands out the second attempt of episode 1, which begins with a tool call that is yet to be made.
fn assign_a_call(world: &mut World, lease_ms: u64) {
    let mut assignment = world.assignment(1, 2, "the answer is wrong", lease_ms);
    assignment.past = repairs(world, true);
    assignment.past.truncate(1);
    world.journals.insert(EpisodeId(1), assignment.past.clone());
    world.send(Wire::Assign(Box::new(assignment)));
}

/// Slow tools whose first call is late by so much: their seed is looked for.
fn slow_tools(late: Range<Duration>) -> Injection {
    let ms = u32::try_from(late.start.as_millis()).expect("less than a month");
    let fault = Fault::SlowTools { ms };
    let of = |seed| Injection { id: 1, fault, duration_ms: 600_000, seed };
    let is_it = move |injection: &Injection| {
        let twin = SlowTools::default();
        twin.begin(*injection);
        late.contains(&twin.next(Instant::now()))
    };
    (0..1000).map(of).find(is_it).expect("some seed draws it")
}

async fn the_working_copy_is_as_it_was_for_whoever_goes_on() {
    let mut world = World::new(2).await;
    let mut assignment = world.assignment(1, 2, "the answer is wrong", 60_000);
    assignment.past = repairs(&world, true);
    world.send(Wire::Assign(Box::new(assignment)));
    let next = world.next(NodeRole::Coordinator).await;
    let Wire::Finished { trajectory, .. } = next else { panic!("{next:?}") };
    assert!(trajectory.diff.contains("+    return 42"), "{}", trajectory.diff);
    assert!(trajectory.reward.success, "{:?}", trajectory.reward);
    assert!(trajectory.turns.len() > 1, "nothing was generated after it");
    world.all_given_back().await;
}

async fn what_comes_out_otherwise_is_not_gone_on_with() {
    let mut world = World::new(2).await;
    let mut assignment = world.assignment(1, 2, "the answer is wrong", 60_000);
    assignment.past = repairs(&world, false);
    world.send(Wire::Assign(Box::new(assignment)));
    let next = world.next(NodeRole::Coordinator).await;
    let Wire::Failed { reason, .. } = next else { panic!("{next:?}") };
    assert!(reason.contains("failed there and succeeded here"), "{reason}");
    world.all_given_back().await;
}

async fn too_much_of_a_change_earns_nothing_and_is_no_failure() {
    let mut world = World::new(2).await;
    let mut assignment = world.assignment(1, 2, "the answer is wrong", 60_000);
    let call = "<tool_call>\n{\"name\": \"shell\", \"arguments\": {\"cmd\": \
                \"touch $(seq 300)\"}}\n</tool_call>";
    assignment.past = calls(&world, call, true);
    world.send(Wire::Assign(Box::new(assignment)));
    let next = world.next(NodeRole::Coordinator).await;
    let Wire::Finished { trajectory, .. } = next else { panic!("{next:?}") };
    let why = "too much was changed: more than 256 files were changed";
    assert_eq!(trajectory.diff, why);
    assert_eq!((trajectory.reward.total, trajectory.reward.success), (0.0, false));
    assert!(trajectory.generated_len() > 0);
    world.all_given_back().await;
}

async fn slow_tools_take_their_time() {
    let mut world = World::new(2).await;
    let fault = Fault::SlowTools { ms: 4000 };
    let injection = Injection { id: 1, fault, duration_ms: 60_000, seed: 4 };
    // Draws the same.
    let twin = SlowTools::default();
    twin.begin(injection);
    let late = twin.next(Instant::now());
    assert!(late > Duration::from_millis(100), "another seed is wanted: {late:?}");
    world.slow.begin(injection);
    assign_a_call(&mut world, 60_000);
    let next = world.next(NodeRole::Coordinator).await;
    let Wire::Finished { trajectory, .. } = next else { panic!("{next:?}") };
    assert!(trajectory.diff.contains("+    return 42"), "{}", trajectory.diff);
    let works = &world.timings[&EpisodeId(1)].works;
    let call = works.iter().find(|work| matches!(work.work, Work::Call { .. })).expect("called");
    assert!(u128::from(call.took_us) >= late.as_micros(), "{call:?} where {late:?} were drawn");
    assert_eq!(world.slow.seen().iter().map(|seen| seen.fired).sum::<u64>(), 1);
    world.all_given_back().await;
}

async fn whoever_has_had_a_sandbox_for_longest_is_told_of_while_somebody_waits() {
    let world = World::new(2).await;
    let at = || world.sandboxes.report().handling;
    let first = world.sandboxes.place(EpisodeId(17)).await.expect("there are two");
    let second = world.sandboxes.place(EpisodeId(4)).await.expect("there are two");
    assert_eq!(at(), None, "nobody waits");
    let mut third = Box::pin(world.sandboxes.place(EpisodeId(5)));
    assert!(third.as_mut().now_or_never().is_none(), "there is no third");
    let (says, ms) = at().expect("somebody waits");
    assert!(says.starts_with("episode 17, for ") && says.ends_with(" s"), "{says}");
    // No message is handled for as long as that: an actor that was at one would hang.
    assert_eq!(ms, 0);
    drop(third);
    assert_eq!(at(), None, "nobody waits any more");
    drop((first, second));
}

async fn the_engine_and_the_sandboxes_are_rows_of_their_own() {
    let mut world = World::new(2).await;
    world.assign(7, 1, "the answer is wrong", 60_000);
    let result = world.next(NodeRole::Coordinator).await;
    assert!(matches!(result, Wire::Finished { .. }), "{result:?}");
    world.all_given_back().await;
    let deadline = Instant::now() + Duration::from_secs(30);
    let engine = loop {
        let seen = world.engine.worker().report();
        if seen.state == ActorState::Idle && seen.waiting == 0 {
            break seen;
        }
        assert!(Instant::now() < deadline, "did not come about: {seen:?}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    };
    assert_eq!((engine.name.as_str(), engine.kind.as_str()), ("engine", "EngineThread"));
    assert_eq!(engine.parent.as_deref(), Some("rollout"));
    // Opened, two turns, closed; and every step.
    let steps = world.engine.status().stats.steps;
    assert!(engine.handled >= steps + 4, "{} after {steps} steps", engine.handled);
    let pool = world.sandboxes.report();
    assert_eq!((pool.name.as_str(), pool.state), ("sandboxes", ActorState::Idle));
    assert_eq!((pool.handled, pool.waiting, pool.last_failure), (1, 0, None));
    let Shown::Here { snapshot, is_cut: false } = world.sandboxes.snapshot() else {
        panic!("shows nothing")
    };
    let value: serde_json::Value = serde_json::from_str(&snapshot.json).expect("JSON");
    assert_eq!(
        (&value["opened"], &value["open"], &value["open_max"]),
        (&1.into(), &0.into(), &2.into())
    );
}
