//! What scripts get.

use crrl_inspect::diagnose::diagnose;
use crrl_inspect::frame::Link;
use crrl_inspect::past::Past;
use crrl_inspect::scripts::export;
use crrl_inspect::scripts::query::{Query, print};
use crrl_inspect::scripts::watching;
use crrl_inspect::state::snapshot::Snapshot;
use crrl_inspect::state::{App, Screen};
use crrl_types::actor::{ActorSnapshot, SnapshotAnswer};
use crrl_types::{OrderAnswer, Outcome, Target};
use serde_json::Value;

use crate::healthy;
use crate::screens::{at, seen_as, shows};

fn printed(query: &Query, as_json: bool) -> String {
    let mut out = Vec::new();
    print(&healthy(), query, as_json, &mut out).expect("a query that makes sense");
    String::from_utf8(out).expect("UTF-8")
}

fn actors(sort: &str, limit: usize, filter: &str) -> Query {
    Query::Actors { sort: sort.into(), limit, filter: filter.into() }
}

#[test]
fn the_busiest_actors_come_first_and_only_so_many() {
    let text = printed(&actors("waiting", 3, ""), true);
    let rows: Vec<Value> = serde_json::from_str(&text).expect("JSON");
    assert_eq!(rows.len(), 3);
    assert_eq!((&rows[0]["name"], &rows[0]["waiting"]), (&"engine".into(), &140.into()));
    let text = printed(&actors("-waiting", 1, "node:^rollout"), false);
    assert_eq!(text.lines().count(), 2);
    assert!(text.starts_with("NODE") && !text.contains("engine"), "{text}");
}

#[test]
fn a_query_that_makes_no_sense_says_what_does() {
    for query in [actors("mailbox", 1, ""), actors("waiting", 1, "mailbox>1")] {
        let error = print(&healthy(), &query, false, &mut Vec::new()).expect_err("refused");
        assert_eq!(error.exit_code(), 2);
        assert!(error.to_string().contains("waiting"), "{error}");
    }
}

#[test]
fn mbox_is_another_word_for_what_waits() {
    for as_json in [false, true] {
        let said = printed(&actors("mbox", 2, "mbox>100"), as_json);
        assert_eq!(said, printed(&actors("waiting", 2, "waiting>100"), as_json));
        assert!(said.contains("engine"), "{said}");
    }
    let turned = printed(&actors("-mbox", 3, ""), true);
    assert_eq!(turned, printed(&actors("-waiting", 3, ""), true));
}

#[test]
fn a_list_that_is_cut_says_so_beside_the_data() {
    let episodes = |limit| Query::Episodes { limit, filter: String::new() };
    let says = |query: &Query, as_json| {
        let mut out = Vec::new();
        let left_out = print(&healthy(), query, as_json, &mut out).expect("it answers");
        let out = String::from_utf8(out).expect("UTF-8");
        assert!(!out.contains("--limit"), "{out}");
        left_out
    };
    for as_json in [false, true] {
        let few = says(&actors("name", 3, ""), as_json);
        assert_eq!(few.as_deref(), Some("3 of 17 actors; --limit prints more"));
        let filtered = says(&actors("name", 1, "node:^rollout name:engine"), as_json);
        assert_eq!(filtered.as_deref(), Some("1 of 2 actors; --limit prints more"));
        let few = says(&episodes(5), as_json);
        assert_eq!(few.as_deref(), Some("5 of 12 episodes under way; --limit prints more"));
        for whole in [actors("name", 17, ""), episodes(12), Query::Nodes, Query::Tree] {
            assert_eq!(says(&whole, as_json), None, "{whole:?}");
        }
    }
}

#[test]
fn every_table_is_there_for_people_and_for_programs() {
    for query in [Query::Nodes, Query::Tree, Query::Episodes { limit: 9, filter: String::new() }] {
        assert!(printed(&query, false).contains("rollout-0"), "{query:?}");
        let value: Value = serde_json::from_str(&printed(&query, true)).expect("JSON");
        assert!(value.as_array().is_some_and(|rows| !rows.is_empty()), "{query:?}");
    }
}

#[test]
fn a_verdict_is_printed_in_words_and_as_json() {
    let mut world = healthy();
    world.tick(world.now_ms() + 20_000);
    let mut out = Vec::new();
    watching::print(&diagnose(&world), false, &mut out).expect("written");
    let text = String::from_utf8(out).expect("UTF-8");
    assert!(text.starts_with("the coordinator has not answered for 20 s\n"), "{text}");
    assert!(text.ends_with("not healthy: looked at 4 nodes, 17 actors, 12 episodes under way\n"));
    let mut out = Vec::new();
    watching::print(&diagnose(&healthy()), true, &mut out).expect("written");
    let value: Value = serde_json::from_slice(&out).expect("JSON");
    assert_eq!(value["healthy"], true);
    assert!(watching::summary(&healthy()).ends_with("4/4 nodes ready  healthy"));
}

#[test]
fn every_screen_can_be_exported_twice_in_a_second() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let world = healthy();
    let mut app = App::new("test");
    let screens = Screen::NUMBERED.map(|(_, screen)| screen);
    for screen in screens.into_iter().chain([Screen::Episode, Screen::Diagnosis, Screen::Help]) {
        app.screen = screen;
        let one = export::write(&app, &world, folder.path()).expect("writable");
        let two = export::write(&app, &world, folder.path()).expect("writable");
        assert_ne!(one, two);
        let text = std::fs::read(one).expect("readable");
        let value: Value = serde_json::from_slice(&text).expect("JSON");
        assert_eq!(value["screen"], screen.title());
    }
}

#[test]
fn what_went_wrong_in_a_run_that_is_not_up_is_exported_as_it_is_shown() {
    let world = healthy();
    let mut app = at(Screen::Faults, &world);
    app.past = Some(Past::default());
    shows(&seen_as(&mut app, &world, &Link::Past, (120, 40)), &["node down", "timed out"]);
    let exported = export::value(&app, &world);
    let rows = exported["rows"].as_array().expect("rows");
    let down = rows.iter().find(|row| row["event"] == "node down").expect("it is shown");
    assert_eq!(down["node"], "rollout-1");
    assert!(rows.iter().all(|row| row["weight"] != "routine"), "{rows:?}");
}

#[test]
fn what_an_actor_has_published_is_exported_with_it() {
    let world = healthy();
    let mut app = at(Screen::Actor, &world);
    let id = app.actor.clone().expect("one is looked at");
    let published = ActorSnapshot { json: r#"{"credit":3}"#.to_owned(), age_ms: 4_200 };
    let answer = OrderAnswer::new(Outcome::Done, "");
    let answer = SnapshotAnswer { answer, snapshot: Some(published) };
    let target = Target::actor(id.node.as_str(), id.name.as_str());
    app.snapshot = Snapshot::of(&target, &Ok(answer));
    let exported = export::value(&app, &world);
    let snapshot = &exported["rows"]["snapshot"];
    assert_eq!(snapshot["says"], "published 4.2 s ago");
    assert_eq!(snapshot["value"]["credit"], 3);
    // That of another one is not shown either.
    app.actor = world.actors().iter().map(|row| row.id()).find(|other| *other != id);
    let exported = export::value(&app, &world);
    assert_eq!(exported["rows"]["snapshot"], Value::Null);
}

#[test]
fn an_episode_is_exported_with_what_it_earned() {
    let world = healthy();
    let exported = export::value(&at(Screen::Episode, &world), &world);
    let rows = &exported["rows"];
    assert_eq!((&rows["episode"], &rows["over"]["state"]), (&7.into(), &"trained".into()));
    assert_eq!((&rows["advantage"], &rows["scored"]), (&1.25.into(), &8.into()));
    assert_eq!((&rows["trained_at"], &rows["is_final"]), (&14.into(), &true.into()));
    assert_eq!(rows["trajectory"]["turns"].as_array().map(Vec::len), Some(2));
}
