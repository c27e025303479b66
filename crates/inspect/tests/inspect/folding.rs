//! What is folded from frames.

use crrl_inspect::state::actors::{ActorColumn, ActorId, Trouble};
use crrl_inspect::state::nodes::Standing;
use crrl_inspect::state::tree::{self, Leaf};
use crrl_inspect::state::{App, World};
use crrl_types::actor::ActorState;

use crate::{healthy, scene, told, world};

fn id(node: &str, name: &str) -> ActorId {
    ActorId { node: node.into(), name: name.into() }
}

#[test]
fn rates_come_from_two_reports_and_are_kept_for_a_minute() {
    let world = healthy();
    let engine = world.actor(&id("rollout-0", "engine")).expect("an actor");
    let rate = engine.rate.expect("there were two reports");
    assert!((290.0..340.0).contains(&rate), "{rate}");
    assert!(engine.busy.is_some_and(|share| (0.25..0.35).contains(&share)));
    assert_eq!(world.rates(&id("rollout-0", "engine")).len(), 40);
    let mut first = World::new();
    first.fold(scene::frame(1));
    assert_eq!(first.actor(&id("rollout-0", "engine")).expect("an actor").rate, None);
}

#[test]
fn a_node_that_stops_reporting_turns_stale_and_its_actors_with_it() {
    let frozen = scene::frame(160).snapshot.nodes[2].clone();
    let world = world(150, 170, |s, frame| {
        if s > 160 {
            frame.snapshot.nodes[2] = frozen.clone();
        }
    });
    let node = &world.nodes()[2];
    assert_eq!(
        (node.name.as_str(), node.age_ms, node.is_stale()),
        ("rollout-0", Some(10_000), true)
    );
    assert_eq!(world.actor(&id("rollout-0", "engine")).expect("told of").trouble, Trouble::Stale);
    assert!(!world.nodes()[3].is_stale());
}

/// Only what is new is made anew.
#[test]
fn rows_of_nodes_that_said_nothing_new_stay_as_they_were_beside_those_that_did() {
    let mut world = healthy();
    let mut frame = scene::frame(191);
    let held = world.frame().expect("was folded").snapshot.nodes.clone();
    // rollout-0 leaves, rollout-1 says something, the others are as before.
    frame.snapshot.nodes = vec![held[1].clone(), held[0].clone(), frame.snapshot.nodes[3].clone()];
    let before = world.clone();
    world.fold(frame);
    for name in ["coordinator", "learner"] {
        let of = |world: &World| -> Vec<_> {
            world.actors().iter().filter(|row| row.node == name).cloned().collect()
        };
        assert!(!of(&world).is_empty());
        assert_eq!(of(&world), of(&before), "{name}");
    }
    let of = |world: &World, name| world.live().iter().filter(|row| row.node == name).count();
    assert_eq!((of(&world, "rollout-0"), world.actor(&id("rollout-0", "engine"))), (0, None));
    assert!(of(&world, "rollout-1") > 0 && of(&before, "rollout-0") > 0);
    let handled = |world: &World| world.actor(&id("rollout-1", "engine")).expect("told of").handled;
    assert!(handled(&world) > handled(&before));
}

#[test]
fn everything_turns_stale_when_the_coordinator_goes_silent() {
    let mut world = healthy();
    world.tick(world.now_ms() + 9_000);
    assert!(world.nodes().iter().all(|node| node.is_stale()));
    assert_eq!(world.frame_age_ms(), Some(9_000));
    world.tick(0);
    assert_eq!(world.frame_age_ms(), Some(9_000), "time does not go back");
}

#[test]
fn a_clock_that_is_set_back_stops_no_time() {
    const HOUR_MS: u64 = 3_600_000;
    let mut world = healthy();
    let now_ms = world.now_ms();
    world.tick(now_ms + 4_000);
    world.tick(now_ms + 4_000 - HOUR_MS);
    world.tick(now_ms + 9_000 - HOUR_MS);
    assert_eq!(world.frame_age_ms(), Some(9_000), "nothing came, by either clock");
    assert!(world.nodes().iter().all(|node| node.is_stale()));
    let mut frame = scene::frame(191);
    frame.at_ms -= HOUR_MS;
    told::tell(&mut frame);
    let at_ms = frame.at_ms;
    world.fold(frame);
    assert_eq!((world.now_ms(), world.frame_age_ms()), (at_ms, Some(0)));
    assert!(!world.nodes().iter().any(|node| node.is_stale()));
    world.tick(at_ms + 9_000);
    assert_eq!((world.frame_age_ms(), world.nodes()[1].age_ms), (Some(9_000), Some(9_000)));
}

#[test]
fn a_node_without_actors_has_no_age_rather_than_a_wrong_one() {
    let quiet = scene::frame(150).snapshot.nodes[1].clone();
    let world = world(150, 180, |_, frame| {
        frame.snapshot.nodes[1] = quiet.clone();
        frame.snapshot.nodes[1].actors.clear();
    });
    assert_eq!((world.nodes()[1].age_ms, world.nodes()[1].is_stale()), (None, false));
}

#[test]
fn a_process_that_never_reported_is_a_node_all_the_same() {
    let world = world(150, 151, |_, frame| {
        let nodes = &mut frame.snapshot.nodes;
        nodes.retain(|node| node.node.as_str() != "learner");
        frame.processes[1].pid = None;
        frame.processes[1].given_up = true;
        frame.processes[1].roles = vec!["learner".into()];
    });
    let node = &world.nodes()[1];
    assert_eq!((node.name.as_str(), node.state), ("learner", Standing::GivenUp));
}

#[test]
fn an_actor_that_is_gone_is_forgotten() {
    let world = world(150, 160, |s, frame| {
        if s > 155 {
            frame.snapshot.nodes[2].actors.retain(|actor| actor.name != "engine");
        }
    });
    assert!(world.actor(&id("rollout-0", "engine")).is_none());
    assert!(world.rates(&id("rollout-0", "engine")).is_empty());
}

#[test]
fn failed_actors_come_first_and_equals_keep_their_place() {
    let world = world(150, 151, |_, frame| {
        frame.snapshot.nodes[3].actors[4].state = ActorState::Failed;
    });
    let app = App::new("test");
    let rows = app.actor_rows(&world);
    assert_eq!((rows[0].node.as_str(), rows[0].name.as_str()), ("rollout-1", "inbox"));
    let rest: Vec<_> = rows[1..].iter().map(|row| (&row.node, &row.name)).collect();
    assert!(rest.is_sorted(), "{rest:?}");
    let mut rows: Vec<_> = world.actors().iter().collect();
    ActorColumn::Waiting.sort(true, &mut rows);
    assert!(rows.is_sorted_by(|a, b| a.waiting >= b.waiting));
}

#[test]
fn the_tree_hangs_every_actor_once_even_those_that_supervise_each_other() {
    let world = world(150, 151, |_, frame| {
        let actors = &mut frame.snapshot.nodes[2].actors;
        actors[1].parent = Some("engine".into());
        actors[3].parent = Some("nobody".into());
    });
    let rows = tree::rows(&world);
    let actors = rows.iter().filter(|row| matches!(row.what, Leaf::Actor(_))).count();
    assert_eq!((actors, rows.len()), (world.actors().len(), world.actors().len() + 4));
}
