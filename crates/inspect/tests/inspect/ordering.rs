//! Orders: a capital letter, a name, an answer.

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use crrl_inspect::state::asking::Asking;
use crrl_inspect::state::keys::Effect;
use crrl_inspect::state::orders::KEYS;
use crrl_inspect::state::{App, Screen, World};
use crrl_types::{Action, Order, OrderAnswer, Outcome, Target};

use crate::healthy;
use crate::keys::{press, tap};
use crate::screens::{SCREENS, at, seen, shows};

/// The engine of the first rollout node, under the cursor of the actors' screen.
fn on_the_engine(world: &World) -> App {
    let mut app = App::new("test");
    press(&mut app, world, "2/node:rollout-0 engine");
    tap(&mut app, world, KeyCode::Enter);
    app
}

fn engine() -> Target {
    Target::actor("rollout-0", "engine")
}

#[test]
fn nothing_is_sent_before_the_name_was_typed() {
    let world = healthy();
    let mut app = on_the_engine(&world);
    assert_eq!(press(&mut app, &world, "K"), Effect::None);
    shows(
        &seen(&mut app, &world, (80, 24)),
        &[
            "KILL",
            "actor engine of node rollout-0",
            "ends in the middle of its message",
            "type engine",
        ],
    );
    assert_eq!(tap(&mut app, &world, KeyCode::Enter), Effect::None);
    assert_eq!(press(&mut app, &world, "engin"), Effect::None);
    assert_eq!(tap(&mut app, &world, KeyCode::Enter), Effect::None);
    shows(&seen(&mut app, &world, (80, 24)), &["that is not engine"]);
    press(&mut app, &world, "e");
    let sent = tap(&mut app, &world, KeyCode::Enter);
    assert_eq!(sent, Effect::Order(Order { target: engine(), action: Action::Kill }));
    assert_eq!(tap(&mut app, &world, KeyCode::Enter), Effect::None, "it is sent once");
}

#[test]
fn esc_drops_it_and_the_name_is_compared_whole() {
    let world = healthy();
    let mut app = on_the_engine(&world);
    press(&mut app, &world, "Sengine ");
    assert_eq!(tap(&mut app, &world, KeyCode::Enter), Effect::None);
    tap(&mut app, &world, KeyCode::Esc);
    assert!(app.asking.is_none());
    assert_eq!(app.screen, Screen::Actors, "the screen stays");
}

#[test]
fn each_capital_is_its_order_and_reaches_what_is_under_the_cursor() {
    let world = healthy();
    for (key, action) in KEYS {
        let mut app = on_the_engine(&world);
        press(&mut app, &world, &format!("{key}engine"));
        let order = Order { target: engine(), action };
        assert_eq!(tap(&mut app, &world, KeyCode::Enter), Effect::Order(order));
    }
    // A node, on the overview and in the tree.
    for screen in ["1", "3"] {
        let mut app = App::new("test");
        press(&mut app, &world, screen);
        press(&mut app, &world, "Dcoordinator");
        let order = Order { target: Target::node("coordinator"), action: Action::Drain };
        assert_eq!(tap(&mut app, &world, KeyCode::Enter), Effect::Order(order));
    }
}

#[test]
fn no_small_letter_asks_for_a_change_on_any_screen() {
    let world = healthy();
    for screen in SCREENS {
        for key in ('a'..='z').chain('0'..='9').chain("<>+-?/ ".chars()) {
            let mut app = at(screen, &world);
            seen(&mut app, &world, (80, 24));
            for code in [KeyCode::Char(key), KeyCode::Enter, KeyCode::Enter] {
                let effect = app.key(KeyEvent::new(code, KeyModifiers::NONE), &world);
                assert!(!matches!(effect, Effect::Order(_)), "{key} on {screen:?}");
                assert!(!matches!(app.asking, Some(Asking::Order(_))), "{key} on {screen:?}");
            }
        }
    }
}

#[test]
fn the_answer_is_shown_and_so_is_a_refusal() {
    let world = healthy();
    let order = Order { target: engine(), action: Action::Restart };
    let answers = [
        (Ok(OrderAnswer::new(Outcome::Done, "it was started again")), "done: it was started again"),
        (
            Ok(OrderAnswer::new(Outcome::Denied, "a viewer's certificate may only watch")),
            "denied: a viewer's certificate may only watch",
        ),
        (Ok(OrderAnswer::new(Outcome::Busy, "no \u{1b}[2Jroom")), "busy: no room"),
        (Err("nobody answers".to_owned()), "not sent, or not answered: nobody answers"),
    ];
    for (answer, says) in answers {
        let mut app = on_the_engine(&world);
        press(&mut app, &world, "Rengine");
        tap(&mut app, &world, KeyCode::Enter);
        shows(&seen(&mut app, &world, (80, 24)), &["waiting for the answer"]);
        app.order_answered(&order, answer);
        shows(&seen(&mut app, &world, (80, 24)), &["RESTART", says]);
        tap(&mut app, &world, KeyCode::Esc);
        assert!(app.asking.is_none());
    }
}

#[test]
fn an_answer_to_a_dialogue_that_was_closed_is_said_at_the_bottom() {
    let world = healthy();
    let mut app = on_the_engine(&world);
    press(&mut app, &world, "Rengine");
    tap(&mut app, &world, KeyCode::Enter);
    tap(&mut app, &world, KeyCode::Esc);
    let order = Order { target: engine(), action: Action::Restart };
    let denied = OrderAnswer::new(Outcome::Denied, "only an operator may");
    app.order_answered(&order, Ok(denied));
    let wanted = "restart rollout-0/engine: denied: only an operator may";
    shows(&seen(&mut app, &world, (80, 24)), &[wanted]);
}

#[test]
fn where_there_is_nobody_to_order_about_that_is_said() {
    let world = healthy();
    let mut app = App::new("test");
    press(&mut app, &world, "6S");
    assert!(app.asking.is_none());
    shows(&seen(&mut app, &world, (120, 40)), &["put the cursor on an actor or a node first"]);
    let mut replay = on_the_engine(&world);
    replay.is_replay = true;
    assert_eq!(press(&mut replay, &world, "K"), Effect::None);
    assert!(replay.asking.is_none());
    shows(&seen(&mut replay, &world, (120, 40)), &["this is a recording"]);
}

#[test]
fn a_dialogue_fits_a_terminal_of_20_by_5() {
    let world = healthy();
    let mut app = on_the_engine(&world);
    press(&mut app, &world, "Ken");
    for size in [(20, 5), (1, 1), (200, 50)] {
        seen(&mut app, &world, size);
    }
    shows(&seen(&mut app, &world, (20, 5)), &["type engine en"]);
}
