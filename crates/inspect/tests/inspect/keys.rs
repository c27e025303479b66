//! What a person does, key by key.

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use crrl_inspect::state::actors::ActorColumn;
use crrl_inspect::state::app::NOTICE_MS;
use crrl_inspect::state::keys::Effect;
use crrl_inspect::state::tree;
use crrl_inspect::state::{App, Screen, World};
use crrl_types::actor::ActorState;

use crate::screens::seen;
use crate::{healthy, scene, world};

pub(crate) fn press(app: &mut App, world: &World, keys: &str) -> Effect {
    keys.chars().map(|c| tap(app, world, KeyCode::Char(c))).last().unwrap_or(Effect::None)
}

pub(crate) fn tap(app: &mut App, world: &World, code: KeyCode) -> Effect {
    let effect = app.key(KeyEvent::new(code, KeyModifiers::NONE), world);
    let len = match app.screen {
        Screen::Actors => app.actor_rows(world).len(),
        Screen::Rollouts => app.rollout_rows(world).len(),
        Screen::Events => app.event_rows(world).len(),
        Screen::Tree => tree::rows(world).len(),
        _ => app.len,
    };
    app.settle(len, 10);
    effect
}

#[test]
fn a_filter_is_typed_seen_at_once_and_taken_away() {
    let (mut app, world) = (App::new("test"), healthy());
    press(&mut app, &world, "2/node:rollout waiting>100");
    assert_eq!(app.actor_rows(&world).len(), 2);
    tap(&mut app, &world, KeyCode::Enter);
    assert!(app.asking.is_none());
    tap(&mut app, &world, KeyCode::Esc);
    assert_eq!(app.actor_rows(&world).len(), 17);
    press(&mut app, &world, "/mailbox>3");
    tap(&mut app, &world, KeyCode::Enter);
    let error = app.prompt().and_then(|prompt| prompt.error.clone()).expect("is told");
    assert!(error.to_string().contains("waiting, growth, oldest"), "{error}");
    tap(&mut app, &world, KeyCode::Esc);
    assert_eq!(press(&mut app, &world, "q"), Effect::Detach);
}

#[test]
fn a_filter_that_is_given_up_leaves_what_was_before() {
    let (mut app, world) = (App::new("test"), healthy());
    press(&mut app, &world, "2/node:rollout");
    tap(&mut app, &world, KeyCode::Enter);
    press(&mut app, &world, "/ nothing");
    assert_eq!(app.actor_rows(&world).len(), 0);
    tap(&mut app, &world, KeyCode::Esc);
    assert_eq!(app.actor_rows(&world).len(), 10);
}

#[test]
fn q_in_a_filter_is_a_letter() {
    let (mut app, world) = (App::new("test"), healthy());
    assert_eq!(press(&mut app, &world, "2/q"), Effect::None);
}

#[test]
fn a_failed_actor_is_never_filtered_out() {
    let world = world(150, 151, |_, f| f.snapshot.nodes[1].actors[1].state = ActorState::Failed);
    let mut app = App::new("test");
    press(&mut app, &world, "2/nothing-is-called-that");
    let rows = app.actor_rows(&world);
    assert_eq!((rows.len(), rows[0].name.as_str()), (1, "learner"));
}

#[test]
fn columns_are_sorted_by_in_turn_and_round() {
    let (mut app, world) = (App::new("test"), healthy());
    press(&mut app, &world, "2<");
    assert_eq!(app.actor_sort.column, ActorColumn::Up);
    press(&mut app, &world, ">>");
    assert_eq!((app.actor_sort.column, app.actor_sort.descending), (ActorColumn::Node, false));
    press(&mut app, &world, "r");
    assert!(app.actor_sort.descending);
}

#[test]
fn the_cursor_stays_with_its_row_where_asked_to() {
    let (mut app, before) = (App::new("test"), healthy());
    press(&mut app, &before, "2>>>>>fj");
    let key = app.row_key(&before);
    let after = world(150, 191, |s, frame| {
        if s > 190 {
            frame.snapshot.nodes[3].actors[2].waiting = 0;
            frame.snapshot.nodes[2].actors[2].waiting = 0;
        }
    });
    assert_ne!(app.row_key(&after), key);
    app.follow(key.clone(), &after);
    assert_eq!(app.row_key(&after), key);
}

#[test]
fn enter_leads_in_and_esc_back() {
    let (mut app, world) = (App::new("test"), healthy());
    app.settle(4, 10);
    press(&mut app, &world, "jj");
    tap(&mut app, &world, KeyCode::Enter);
    assert_eq!((app.screen, app.actor_rows(&world).len()), (Screen::Actors, 5));
    tap(&mut app, &world, KeyCode::Enter);
    assert_eq!(app.screen, Screen::Actor);
    assert_eq!(app.actor.as_ref().map(|id| id.node.as_str()), Some("rollout-0"));
    tap(&mut app, &world, KeyCode::Esc);
    tap(&mut app, &world, KeyCode::Esc);
    assert_eq!(app.screen, Screen::Overview);
    press(&mut app, &world, "6");
    tap(&mut app, &world, KeyCode::Enter);
    assert_eq!(app.screen, Screen::Episode);
    assert_eq!(app.opened.as_ref().map(|opened| opened.episode), Some(40 * 190 + 5));
}

#[test]
fn a_key_that_does_not_apply_says_so() {
    let world = healthy();
    for keys in ["1/", "1<", "1r", "3f", "x", "8/", "6t", "9S", "1c", "1w"] {
        let mut app = App::new("test");
        press(&mut app, &world, keys);
        assert!(app.notice.is_some(), "{keys}");
    }
}

#[test]
fn a_notice_goes_although_what_is_shown_stands_still() {
    let (mut app, world) = (App::new("test"), healthy());
    app.tick(1_000);
    press(&mut app, &world, " x");
    assert!(app.paused);
    let says = "x is no key here";
    for (now_ms, is_seen) in [(1_000, true), (999 + NOTICE_MS, true), (1_000 + NOTICE_MS, false)] {
        app.tick(now_ms);
        let screen = seen(&mut app, &world, (120, 40));
        assert_eq!(screen.contains(says), is_seen, "at {now_ms}:\n{screen}");
    }
}

#[test]
fn the_refresh_has_a_floor_and_a_ceiling() {
    let (mut app, world) = (App::new("test"), healthy());
    press(&mut app, &world, "++++++");
    assert_eq!(app.refresh_ms, 250);
    press(&mut app, &world, "----------");
    assert_eq!(app.refresh_ms, 8_000);
}

#[test]
fn events_stay_at_the_newest_until_one_moves_up() {
    let (mut app, mut world) = (App::new("test"), healthy());
    press(&mut app, &world, "9");
    let newest = app.list().selected;
    scene::events(191).iter().for_each(|event| world.history.push(event));
    tap(&mut app, &world, KeyCode::F(5));
    assert_eq!(app.list().selected, newest + 2);
    press(&mut app, &world, "k");
    let at = app.list().selected;
    scene::events(192).iter().for_each(|event| world.history.push(event));
    tap(&mut app, &world, KeyCode::F(5));
    assert_eq!(app.list().selected, at);
    press(&mut app, &world, "G");
    assert!(app.list().follow);
}
