//! Commands by name.

use crossterm::event::KeyCode;
use crrl_inspect::state::actors::ActorColumn;
use crrl_inspect::state::asking::Asking;
use crrl_inspect::state::command;
use crrl_inspect::state::episodes::LiveColumn;
use crrl_inspect::state::keys::Effect;
use crrl_inspect::state::{App, Screen, World};

use crate::healthy;
use crate::keys::{press, tap};
use crate::screens::{seen, shows};

fn typed(app: &App) -> String {
    match &app.asking {
        Some(Asking::Command(line)) => line.text.clone(),
        other => panic!("no command is being typed: {other:?}"),
    }
}

fn run(app: &mut App, world: &World, letters: &str) -> Effect {
    press(app, world, ":");
    press(app, world, letters);
    tap(app, world, KeyCode::Enter)
}

#[test]
fn a_few_letters_find_a_screen_a_column_and_an_action() {
    let (mut app, world) = (App::new("test"), healthy());
    run(&mut app, &world, "scroll");
    assert_eq!(app.screen, Screen::Rollouts);
    run(&mut app, &world, "sort actors wait");
    assert_eq!((app.screen, app.actor_sort.column), (Screen::Actors, ActorColumn::Waiting));
    assert!(app.actor_sort.descending);
    run(&mut app, &world, "rollouts by task");
    assert_eq!((app.screen, app.live_sort.column), (Screen::Rollouts, LiveColumn::Task));
    run(&mut app, &world, "mouse");
    assert!(app.has_mouse);
    assert_eq!(run(&mut app, &world, "quit"), Effect::Detach);
    assert_eq!(run(&mut app, &world, "export"), Effect::Export);
}

#[test]
fn every_screen_column_and_order_has_a_name_and_no_two_share_one() {
    let names: Vec<String> = command::all().into_iter().map(|named| named.name).collect();
    for (_, screen) in Screen::ALL {
        assert!(names.contains(&format!("screen {}", screen.title().to_lowercase())), "{screen:?}");
    }
    for (_, column) in ActorColumn::ALL {
        assert!(names.contains(&format!("sort actors by {column}")), "{column}");
    }
    for verb in ["stop", "kill", "restart", "suspend", "resume", "drain", "trace"] {
        assert!(names.contains(&format!("{verb} what the cursor is on")), "{verb}");
    }
    let mut once = names.clone();
    once.sort();
    once.dedup();
    assert_eq!(once.len(), names.len());
}

#[test]
fn tab_completes_and_goes_through_what_answers() {
    let (mut app, world) = (App::new("test"), healthy());
    press(&mut app, &world, ":sort rollouts");
    tap(&mut app, &world, KeyCode::Tab);
    let first = typed(&app);
    assert!(first.starts_with("sort rollouts by "), "{first}");
    tap(&mut app, &world, KeyCode::Tab);
    let second = typed(&app);
    assert!(second.starts_with("sort rollouts by ") && second != first, "{second}");
    tap(&mut app, &world, KeyCode::BackTab);
    assert_eq!(typed(&app), first);
    tap(&mut app, &world, KeyCode::Enter);
    assert_eq!(app.history, [first]);
}

#[test]
fn what_was_run_last_comes_first_and_is_remembered_once() {
    let (mut app, world) = (App::new("test"), healthy());
    run(&mut app, &world, "screen faults");
    run(&mut app, &world, "screen learner");
    run(&mut app, &world, "screen faults");
    assert_eq!(app.history, ["screen learner", "screen faults"]);
    press(&mut app, &world, "1:");
    shows(&seen(&mut app, &world, (120, 40)), &["› screen faults", "  screen learner"]);
    tap(&mut app, &world, KeyCode::Down);
    tap(&mut app, &world, KeyCode::Enter);
    assert_eq!(app.screen, Screen::Learner);
    for at in 0..200 {
        crrl_inspect::state::asking::remember(&mut app.history, &at.to_string());
    }
    assert_eq!(app.history.len(), crrl_inspect::state::asking::HISTORY_MAX);
}

#[test]
fn letters_are_not_keys_while_a_command_is_typed_and_esc_drops_it() {
    let (mut app, world) = (App::new("test"), healthy());
    press(&mut app, &world, ":");
    assert_eq!(press(&mut app, &world, "q"), Effect::None);
    assert_eq!(press(&mut app, &world, "zzzz"), Effect::None);
    shows(&seen(&mut app, &world, (80, 24)), &["no command answers to that", " : qzzzz▏"]);
    assert_eq!(tap(&mut app, &world, KeyCode::Enter), Effect::None);
    tap(&mut app, &world, KeyCode::Esc);
    assert!(app.asking.is_none());
    assert_eq!(press(&mut app, &world, "q"), Effect::Detach);
}

#[test]
fn the_list_fits_any_terminal() {
    let world = healthy();
    for size in [(20, 5), (1, 1), (80, 24), (40, 8)] {
        let mut app = App::new("test");
        press(&mut app, &world, ":");
        for _ in 0..command::all().len() {
            tap(&mut app, &world, KeyCode::Down);
            seen(&mut app, &world, size);
        }
        assert!(size.1 < 5 || seen(&mut app, &world, size).contains('›'));
    }
}
