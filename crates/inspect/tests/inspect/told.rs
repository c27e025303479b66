//! What a coordinator tells beside its nodes' reports: when it heard them, and what they measure.

use crrl_cluster::NodeSeen;
use crrl_control::wire::{NodeReport, NodeRole, NodeState};
use crrl_inspect::diagnose::{Rule, diagnose};
use crrl_inspect::frame::Frame;
use crrl_inspect::scripts::query::{Query, print};
use crrl_inspect::state::actors::Trouble;
use crrl_inspect::state::{Screen, World};
use crrl_types::actor::ActorReport;
use crrl_types::{AdapterVersion, Digest, Gpu, RoundTrip, Vitals};

use crate::scene;
use crate::screens::{at, seen, shows};
use crate::{healthy, world};

/// Tells it of a frame whose nodes have all just reported; the run has been in its phase since it began.
pub(crate) fn tell(frame: &mut Frame) {
    let at_ms = frame.at_ms;
    frame.snapshot.phase_since_ms = Some(scene::BEGIN_MS);
    frame.snapshot.seen = frame.snapshot.nodes.iter().map(|node| of(node, at_ms)).collect();
}

fn of(report: &NodeReport, at_ms: u64) -> NodeSeen {
    let is_coordinator = report.roles.contains(&NodeRole::Coordinator);
    let gpu = Gpu {
        index: 0,
        name: "NVIDIA H100 80GB HBM3".into(),
        used_bytes: Some(41_234 << 20),
        memory_bytes: Some(81_559 << 20),
        busy_percent: Some(93),
    };
    let round_trip = RoundTrip { p50_us: 310, p99_us: 4_160, samples: 120 };
    let vitals = Vitals {
        build: "0.1.0".into(),
        cpu_percent: Some(if is_coordinator { 12.4 } else { 388.0 }),
        gpus: if report.roles == [NodeRole::Learner] { vec![gpu] } else { Vec::new() },
        round_trip: (!is_coordinator).then_some(round_trip),
    };
    NodeSeen {
        node: report.node.clone(),
        reported_at_ms: at_ms,
        activity_since_ms: at_ms - 2_000,
        clock_ahead_us: match report.node.as_str() {
            "coordinator" => None,
            "rollout-1" => Some(-4_250_000),
            _ => Some(310),
        },
        vitals: Some(vitals),
    }
}

#[test]
fn ages_are_the_coordinators_whenever_one_attaches() {
    // One look, as a script takes it.
    let attached = world(190, 190, |_, frame| {
        frame.snapshot.nodes[1].activity = "waiting for a batch".into();
        frame.snapshot.progress.phase = "training, waiting for a rollout node".into();
        frame.snapshot.progress.episodes.in_flight = 0;
        tell(frame);
        frame.snapshot.phase_since_ms = Some(frame.at_ms - 41_000);
        frame.snapshot.seen[1].activity_since_ms = frame.at_ms - 72_000;
        frame.snapshot.seen[1].reported_at_ms = frame.at_ms - 700;
    });
    let learner = &attached.nodes()[1];
    assert_eq!((learner.activity_ms, learner.age_ms), (72_000, Some(700)));
    let says: Vec<String> = diagnose(&attached).findings.into_iter().map(|f| f.says).collect();
    assert_eq!(
        says,
        [
            "the learner (learner) has been waiting for a batch for 1m12s",
            "the run has been training, waiting for a rollout node for 41 s",
        ]
    );
    let screen = seen(&mut at(Screen::Overview, &attached), &attached, (120, 40));
    shows(&screen, &["for 41 s   ", "learner is waiting for a batch, for 1m12s"]);
    assert!(!screen.contains("or more"), "{screen}");
}

#[test]
fn of_a_coordinator_that_tells_no_ages_it_is_said_that_they_may_be_longer() {
    let plain = world(150, 190, |_, _| {});
    assert!(!plain.tells_ages() && healthy().tells_ages());
    let screen = seen(&mut at(Screen::Overview, &plain), &plain, (120, 40));
    shows(&screen, &["for 40 s or more"]);
    assert!(plain.nodes().iter().all(|node| node.build.is_none() && node.cpu_percent.is_none()));
}

#[test]
fn a_node_that_tells_of_no_actors_has_an_age_too_and_ages_go_on_between_frames() {
    let mut world = world(150, 180, |_, frame| {
        frame.snapshot.nodes[1].actors.clear();
        tell(frame);
    });
    assert_eq!(world.nodes()[1].age_ms, Some(0));
    world.tick(world.now_ms() + 700);
    assert_eq!((world.nodes()[1].age_ms, world.nodes()[1].activity_ms), (Some(700), 2_700));
}

/// A thousand nodes of twenty actors each. Their reports have waited for their turn for twelve seconds; all but
/// one were heard a moment ago.
#[test]
fn of_twenty_thousand_actors_only_the_node_is_silent_that_was_not_heard() {
    const SILENT: usize = 500;
    let actor = |at: usize, s: u64| ActorReport {
        name: format!("rollout-{at}"),
        up_ms: s * 1_000,
        ..ActorReport::default()
    };
    let node = |at: usize, s: u64| NodeReport {
        node: format!("rollout-{at:04}").into(),
        roles: vec![NodeRole::Rollout],
        pid: 7,
        incarnation: 1,
        state: NodeState::Ready,
        adapter_version: AdapterVersion(0),
        adapter_digest: Digest::default(),
        tokens_per_s: 0.0,
        episodes: 0,
        rss_bytes: 0,
        activity: "rolling out".into(),
        faults: Vec::new(),
        actors: (0..20).map(|at| actor(at, s)).collect(),
        live: Vec::new(),
    };
    let mut world = World::new();
    for s in 1..=13 {
        let mut frame = Frame { at_ms: scene::BEGIN_MS + s * 1_000, ..Frame::default() };
        frame.snapshot.nodes = (0..1_000).map(|at| node(at, 1)).collect();
        tell(&mut frame);
        let silent_from = scene::BEGIN_MS + 4_000;
        let silent = &mut frame.snapshot.seen[SILENT].reported_at_ms;
        *silent = (*silent).min(silent_from);
        world.fold(frame);
    }
    assert_eq!(world.actors().len(), 20_000);
    let verdict = diagnose(&world);
    assert_eq!(verdict.found, 1, "{:?}", verdict.findings);
    let found = &verdict.findings[0];
    assert_eq!((found.rule, found.node.as_str()), (Rule::NodeSilent, "rollout-0500"));
    assert_eq!(found.says, "node rollout-0500 has said nothing for 9.0 s; it was at: rolling out");
    let stale = world.actors().iter().filter(|actor| actor.trouble == Trouble::Stale).count();
    assert_eq!(stale, 20, "its actors and no others");
}

#[test]
fn the_overview_has_what_nodes_measure_and_what_they_do_not_is_absent() {
    let world = healthy();
    let wide = seen(&mut at(Screen::Overview, &world), &world, (200, 50));
    shows(&wide, &["CPU%", "GPU", "RTT p50/p99", "SKEW", "BUILD", "ACTORS"]);
    let row = |name: &str| {
        let line = wide.lines().find(|line| line.starts_with(&format!(" {name}")));
        line.unwrap_or_else(|| panic!("no {name} in\n{wide}")).to_owned()
    };
    shows(&row("learner"), &["388", "0: 93% 40/80 GiB H100", "0.31/4.2 ms", " 0 ms", "0.1.0"]);
    shows(&row("rollout-1"), &["-4.2 s"]);
    let coordinator = row("coordinator");
    shows(&coordinator, &["12"]);
    assert!(!coordinator.contains("GiB") && !coordinator.contains("0.31"), "{coordinator}");
    // What there is no room for goes from the right.
    let narrow = seen(&mut at(Screen::Overview, &world), &world, (80, 24));
    shows(&narrow, &["NODE", "STATE", "VERSION", "TOK/s", "CPU%", "RSS"]);
    assert!(!narrow.contains("BUILD") && !narrow.contains("RTT"), "{narrow}");
}

#[test]
fn scripts_are_given_what_nodes_measure() {
    let mut out = Vec::new();
    print(&healthy(), &Query::Nodes, true, &mut out).expect("it answers");
    let nodes: serde_json::Value = serde_json::from_slice(&out).expect("JSON");
    let learner = &nodes[1];
    assert_eq!(learner["cpu_percent"], 388.0);
    assert_eq!(learner["gpus"][0]["name"], "NVIDIA H100 80GB HBM3");
    assert_eq!((&learner["rtt_p50_ms"], &learner["rtt_p99_ms"]), (&0.31.into(), &4.16.into()));
    assert_eq!((&learner["clock_skew_ms"], &learner["build"]), (&0.31.into(), &"0.1.0".into()));
    assert_eq!((&learner["age_ms"], &learner["activity_ms"]), (&0.into(), &2_000.into()));
    assert!(nodes[0]["rtt_p50_ms"].is_null() && nodes[0]["clock_skew_ms"].is_null());
    let mut out = Vec::new();
    print(&healthy(), &Query::Nodes, false, &mut out).expect("it answers");
    let text = String::from_utf8(out).expect("text");
    shows(&text, &["CPU%", "RTT p50/p99", "SKEW", "BUILD", "GPU", "0.31/4.2 ms", "-4.2 s"]);
}
