//! What a person does with the mouse.

use crossterm::event::{KeyModifiers, MouseButton, MouseEvent, MouseEventKind};
use crrl_inspect::state::actors::ActorColumn;
use crrl_inspect::state::mouse::DOUBLE_MS;
use crrl_inspect::state::{App, Screen, World};

use crate::keys::press;
use crate::screens::seen;
use crate::{healthy, world};

const SIZE: (u16, u16) = (120, 40);

/// Where a text is on the screen.
fn find(app: &mut App, world: &World, wanted: &str) -> (u16, u16) {
    let screen = seen(app, world, SIZE);
    let (y, line) = screen
        .lines()
        .enumerate()
        .find(|(_, line)| line.contains(wanted))
        .unwrap_or_else(|| panic!("{wanted:?} is missing from\n{screen}"));
    let before = &line[..line.find(wanted).expect("was found")];
    (before.chars().count() as u16, y as u16)
}

fn click(app: &mut App, world: &World, wanted: &str, at_ms: u64) {
    let (column, row) = find(app, world, wanted);
    let kind = MouseEventKind::Down(MouseButton::Left);
    app.mouse(MouseEvent { kind, column, row, modifiers: KeyModifiers::NONE }, at_ms, world);
}

fn wheel(app: &mut App, world: &World, kind: MouseEventKind) {
    app.mouse(MouseEvent { kind, column: 5, row: 9, modifiers: KeyModifiers::NONE }, 0, world);
}

fn app() -> App {
    let mut app = App::new("test");
    app.has_mouse = true;
    app
}

#[test]
fn a_click_on_a_tab_switches_and_one_on_a_head_sorts() {
    let (mut app, world) = (app(), healthy());
    click(&mut app, &world, "2 Actors", 0);
    assert_eq!(app.screen, Screen::Actors);
    click(&mut app, &world, "MBOX", 0);
    assert_eq!((app.actor_sort.column, app.actor_sort.descending), (ActorColumn::Waiting, true));
    click(&mut app, &world, "MBOX", 0);
    assert!(!app.actor_sort.descending, "twice turns it round");
    click(&mut app, &world, "? Help", 0);
    assert_eq!(app.screen, Screen::Help);
}

#[test]
fn a_click_selects_and_two_open_if_they_are_quick_and_on_the_same() {
    let (mut app, world) = (app(), healthy());
    press(&mut app, &world, "2");
    click(&mut app, &world, "sandboxes", 1_000);
    let row = app.row_key(&world);
    assert_eq!(app.screen, Screen::Actors);
    click(&mut app, &world, "sandboxes", 1_000 + DOUBLE_MS + 1);
    assert_eq!((app.screen, app.row_key(&world)), (Screen::Actors, row), "too slow");
    click(&mut app, &world, "parameter-serv", 1_600);
    assert_eq!(app.screen, Screen::Actors, "another row");
    click(&mut app, &world, "parameter-serv", 1_700);
    assert_eq!(app.screen, Screen::Actor);
    assert_eq!(app.actor.as_ref().map(|id| id.name.as_str()), Some("parameter-server"));
}

#[test]
fn a_row_that_moved_away_between_two_clicks_is_not_opened() {
    let (mut app, before) = (app(), healthy());
    press(&mut app, &before, "2>>>>>");
    let (_, y) = find(&mut app, &before, "engine");
    let kind = MouseEventKind::Down(MouseButton::Left);
    let event = MouseEvent { kind, column: 4, row: y, modifiers: KeyModifiers::NONE };
    app.mouse(event, 0, &before);
    let after = world(150, 191, |s, frame| {
        if s > 190 {
            frame.snapshot.nodes[0].actors[0].waiting = 9_999;
        }
    });
    seen(&mut app, &after, SIZE);
    app.mouse(event, 100, &after);
    assert_eq!(app.screen, Screen::Actors);
}

#[test]
fn the_wheel_moves_and_nothing_is_clicked_while_something_is_typed_or_the_mouse_is_off() {
    let (mut app, world) = (app(), healthy());
    press(&mut app, &world, "2");
    seen(&mut app, &world, SIZE);
    wheel(&mut app, &world, MouseEventKind::ScrollDown);
    assert_eq!(app.list().selected, 3);
    wheel(&mut app, &world, MouseEventKind::ScrollUp);
    assert_eq!(app.list().selected, 0);
    press(&mut app, &world, ":");
    click(&mut app, &world, "1 Overview", 0);
    assert_eq!(app.screen, Screen::Actors);
    app.asking = None;
    press(&mut app, &world, "m");
    assert!(!app.has_mouse);
    click(&mut app, &world, "1 Overview", 0);
    assert_eq!(app.screen, Screen::Actors);
}

#[test]
fn a_click_anywhere_on_any_screen_is_survived() {
    let world = healthy();
    for screen in crate::screens::SCREENS {
        for (column, row) in [(0, 0), (119, 39), (60, 20), (500, 500)] {
            let mut app = crate::screens::at(screen, &world);
            app.has_mouse = true;
            seen(&mut app, &world, SIZE);
            let kind = MouseEventKind::Down(MouseButton::Left);
            let event = MouseEvent { kind, column, row, modifiers: KeyModifiers::NONE };
            app.mouse(event, 0, &world);
            app.mouse(event, 1, &world);
            seen(&mut app, &world, (20, 5));
        }
    }
}
