//! What is seen, at the sizes people have.

use crrl_inspect::frame::Link;
use crrl_inspect::state::actors::{ActorColumn, Counted};
use crrl_inspect::state::app::Opened;
use crrl_inspect::state::command::Command;
use crrl_inspect::state::nodes::STALE_MS;
use crrl_inspect::state::{App, Screen, World};
use crrl_inspect::view::{self, Palette, Scene};
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::style::Color;

use crate::keys::press;
use crate::leftovers::{left, over, step};
use crate::{healthy, world};

pub(crate) const SCREENS: [Screen; 12] = [
    Screen::Overview,
    Screen::Actors,
    Screen::Tree,
    Screen::Actor,
    Screen::Trace,
    Screen::Rollouts,
    Screen::Episode,
    Screen::Learner,
    Screen::Faults,
    Screen::Events,
    Screen::Diagnosis,
    Screen::Help,
];

pub(crate) fn terminal(
    app: &mut App,
    world: &World,
    link: &Link,
    colour: bool,
    size: (u16, u16),
) -> Terminal<TestBackend> {
    let mut terminal = Terminal::new(TestBackend::new(size.0, size.1)).expect("in memory");
    let scene = Scene { world, link, palette: Palette::new(colour) };
    terminal.draw(|frame| view::draw(frame, app, &scene)).expect("in memory");
    terminal
}

pub(crate) fn text(terminal: &Terminal<TestBackend>) -> String {
    let buffer = terminal.backend().buffer();
    let area = buffer.area;
    let row = |y| (0..area.width).map(|x| buffer[(x, y)].symbol().to_owned()).collect::<String>();
    (0..area.height).map(|y| row(y).trim_end().to_owned() + "\n").collect()
}

pub(crate) fn seen(app: &mut App, world: &World, size: (u16, u16)) -> String {
    text(&terminal(app, world, &Link::Live, false, size))
}

/// What is seen of a run that stands like this.
pub(crate) fn seen_as(app: &mut App, world: &World, link: &Link, size: (u16, u16)) -> String {
    text(&terminal(app, world, link, false, size))
}

pub(crate) fn shows(screen: &str, wanted: &[&str]) {
    for text in wanted {
        assert!(screen.contains(text), "{text:?} is missing from\n{screen}");
    }
}

pub(crate) fn at(screen: Screen, world: &World) -> App {
    let mut app = App::new("quickstart");
    app.screen = screen;
    app.actor = world.actors().iter().find(|row| row.name == "engine").map(|row| row.id());
    app.opened =
        Some(Opened { episode: 7, left: Some(Ok(Some(Box::new(left())))), ..Opened::default() });
    app.archive.over = vec![over(7)];
    app.archive.steps = (1..=18).map(step).collect();
    app
}

#[test]
fn the_overview_answers_what_is_asked_first() {
    let world = healthy();
    for size in [(80, 24), (120, 40), (200, 50)] {
        let screen = seen(&mut at(Screen::Overview, &world), &world, size);
        shows(
            &screen,
            &["quickstart", "training", "step 19/40", "● live", "NODE", "STATE", "learner"],
        );
        shows(&screen, &["v19", "12 out", "reward 0.6", "nobody waits", "wrong    nothing"]);
    }
    let screen = seen(&mut at(Screen::Overview, &world), &world, (120, 40));
    shows(&screen, &["15.2k", "1.3 GiB", "0 ms", "DOING", "LAST EPISODES", "episode 7599"]);
}

#[test]
fn narrow_terminals_drop_columns_from_the_right_but_keep_name_state_and_mailbox() {
    let world = healthy();
    let wide = seen(&mut at(Screen::Actors, &world), &world, (200, 50));
    shows(&wide, &["NODE", "NAME", "TYPE", "STATE", "MBOX", "ΔMBOX", "OLDEST", "MSG/s", "BUSY%"]);
    shows(&wide, &["HANDLER(age)", "RST", "UP", "Generate (30 ms)", "parameter-server"]);
    let usual = seen(&mut at(Screen::Actors, &world), &world, (120, 40));
    shows(&usual, &["HANDLER(age)", "RST", "UP", "parameter-serv", "140", "260 ms"]);
    let small = seen(&mut at(Screen::Actors, &world), &world, (80, 24));
    shows(&small, &["NODE", "NAME", "STATE", "MBOX", "ΔMBOX", "OLDEST", "MSG/s"]);
    assert!(!small.contains("HANDLER") && !small.contains("RST"), "{small}");
    let tiny = seen(&mut at(Screen::Actors, &world), &world, (40, 12));
    shows(&tiny, &["NAME", "STATE", "MBOX", "engine"]);
}

#[test]
fn actors_are_counted_lately_or_ever_and_sorted_by_what_is_seen() {
    let world = world(150, 190, |s, frame| {
        // One fills by ten messages a second; another is emptied at the end.
        frame.snapshot.nodes[2].actors[2].waiting = 10 * (s - 150) as u32;
        frame.snapshot.nodes[3].actors[2].waiting = 10 * (190 - s) as u32;
        frame.snapshot.nodes[0].actors[1].waiting_max = 4_321;
        // Idle by now, after it was busier than any other.
        frame.snapshot.nodes[0].actors[2].handled = 1_234_567;
        frame.snapshot.nodes[0].actors[2].busy_ms = 7_500_000;
    });
    let mut app = at(Screen::Actors, &world);
    let lately = seen(&mut app, &world, (120, 40));
    shows(&lately, &["ΔMBOX", "MSG/s", "BUSY%", "+10", "-10", "w ever"]);
    let first = |app: &App| {
        let row = app.actor_rows(&world)[0];
        (row.node.clone(), row.name.clone())
    };
    app.run(Command::SortActors(ActorColumn::Growth), &world);
    assert_eq!(first(&app), ("rollout-0".into(), "engine".into()));
    press(&mut app, &world, "w");
    assert_eq!(first(&app), ("coordinator".into(), "coordinator".into()), "most ever waited");
    app.notice = None;
    let ever = seen(&mut app, &world, (120, 40));
    shows(&ever, &["MOST", "MSGS", "BUSY", "4321", "1.2M", "2h05m", "w lately"]);
    assert!(!ever.contains("MSG/s") && !ever.contains("ΔMBOX"), "{ever}");
    for column in [ActorColumn::Rate, ActorColumn::Busy] {
        app.run(Command::SortActors(column), &world);
        assert_eq!(first(&app).1, "parameter-server", "{}", column.name());
    }
    // Nothing moves sideways.
    let heads = |screen: &str| {
        let line = screen.lines().find(|line| line.contains("HANDLER")).expect("a head");
        line.split("HANDLER").next().expect("what is left of it").chars().count()
    };
    assert_eq!(heads(&lately), heads(&ever));
    press(&mut app, &world, "w");
    assert_eq!(app.counted, Counted::Lately);
}

#[test]
fn columns_stay_where_they_are_as_the_cursor_moves_and_numbers_grow() {
    let before = healthy();
    let after = world(150, 191, |_, frame| {
        for actor in frame.snapshot.nodes.iter_mut().flat_map(|node| &mut node.actors) {
            actor.waiting *= 999;
            actor.oldest_ms *= 999;
        }
    });
    let head = |world: &World| {
        let screen = seen(&mut at(Screen::Actors, world), world, (120, 40));
        screen.lines().find(|line| line.contains("NAME")).map(str::to_owned)
    };
    assert_eq!(head(&before), head(&after));
}

#[test]
fn stale_rows_are_grey_and_say_how_old_they_are() {
    let mut world = healthy();
    world.tick(world.now_ms() + STALE_MS + 1_000);
    let link =
        Link::Lost { reason: "the coordinator cannot be reached: timed out".into(), since_ms: 0 };
    let drawn = terminal(&mut at(Screen::Overview, &world), &world, &link, true, (120, 40));
    let screen = text(&drawn);
    shows(&screen, &["✕ lost 6.0 s ago", "timed out", "6.0 s", "has not answered"]);
    let y = screen.lines().position(|line| line.starts_with(" rollout-0")).expect("a row") as u16;
    assert_eq!(drawn.backend().buffer()[(2, y)].fg, Color::DarkGray);
    let actors = seen(&mut at(Screen::Actors, &world), &world, (120, 40));
    shows(&actors, &[" ? coordinator"]);
}

#[test]
fn without_colour_there_is_none_and_signs_stand_in() {
    let world = world(150, 190, |_, frame| {
        frame.snapshot.nodes[2].actors[2].handling = Some(("Generate".into(), 9_000));
        frame.snapshot.nodes[2].live[0].idle_ms = 50_000;
    });
    for screen in SCREENS {
        let drawn = terminal(&mut at(screen, &world), &world, &Link::Live, false, (120, 40));
        let cells = &drawn.backend().buffer().content;
        assert!(
            cells.iter().all(|cell| cell.fg == Color::Reset && cell.bg == Color::Reset),
            "{screen:?}"
        );
    }
    shows(&seen(&mut at(Screen::Actors, &world), &world, (120, 40)), &[" ! rollout-0"]);
    shows(&seen(&mut at(Screen::Rollouts, &world), &world, (120, 40)), &["hangs !"]);
}

#[test]
fn the_tree_the_actor_and_the_faults() {
    let world = healthy();
    let tree = seen(&mut at(Screen::Tree, &world), &world, (120, 40));
    shows(&tree, &["│  ├─ engine", "└─ supervisor", "the sandbox launcher did not"]);
    let actor = seen(&mut at(Screen::Actor, &world), &world, (80, 24));
    shows(
        &actor,
        &["engine  Engine  in rollout-0", "Generate, for 30 ms", "140 now, 7 at most", "rollout"],
    );
    shows(&actor, &["MESSAGES A SECOND, last 40 reports"]);
    shows(
        &seen(&mut at(Screen::Faults, &world), &world, (80, 24)),
        &["over", "rollout-1", "128", "50 % of packets twice"],
    );
}

#[test]
fn an_episode_is_told_whole_and_nothing_of_it_reaches_the_terminal_raw() {
    let world = healthy();
    let list = seen(&mut at(Screen::Rollouts, &world), &world, (200, 50));
    shows(
        &list,
        &["live", "thinking", "trained", "0.875", "v12", "json-decoder-negation-13", "solved"],
    );
    let mut app = at(Screen::Episode, &world);
    let mut all = String::new();
    for offset in (0..200).step_by(30) {
        app.list_mut().offset = offset;
        all += &seen(&mut app, &world, (120, 40));
    }
    shows(
        &all,
        &["episode 7", "reward 0.875", "line 0.750 x 0.500", "5 of 9 tokens generated: v12"],
    );
    shows(
        &all,
        &[
            "TURN 1",
            "log-probability -0.500 a token",
            "I look at whoami",
            "TURN 2",
            "-1.500 a token",
        ],
    );
    shows(&all, &["▸ shell", "cat decoder.py", "xxxx", "CHANGE", "-if not end:", "+if end:"]);
    assert!(app.len < 100, "ten megabytes on a line are cut: {}", app.len);
    assert!(!all.contains("owned") && !all.contains('\u{1b}') && !all.contains('\u{202e}'));
}

#[test]
fn curves_of_board_and_store() {
    let world = healthy();
    let screen = seen(&mut at(Screen::Learner, &world), &world, (200, 50));
    shows(
        &screen,
        &[
            "reward  0.6",
            "solved  0.4",
            "loss",
            "KL (k3)",
            "entropy, nats",
            "gradient norm",
            "step 19",
        ],
    );
    shows(&seen(&mut at(Screen::Learner, &world), &world, (20, 5)), &["reward 0.6"]);
}

#[test]
fn events_and_their_trouble() {
    let world = healthy();
    let screen = seen(&mut at(Screen::Events, &world), &world, (200, 50));
    shows(&screen, &["14:03:10", "finished", "reward=0.438", "published", "version=19"]);
}

#[test]
fn empty_screens_say_why() {
    let world = World::new();
    for screen in SCREENS {
        let mut app = App::new("quickstart");
        app.screen = screen;
        let drawn = terminal(&mut app, &world, &Link::Connecting { reason: None }, false, (80, 24));
        let screen = text(&drawn);
        shows(&screen, &["○ connecting"]);
        let said = screen.lines().skip(2).take(21).any(|line| line.len() > 20);
        assert!(said, "nothing is said:\n{screen}");
    }
    let mut app = at(Screen::Actors, &world);
    shows(
        &seen(&mut app, &healthy_without_actors(), (80, 24)),
        &["No node has told of its actors"],
    );
}

fn healthy_without_actors() -> World {
    world(150, 160, |_, frame| frame.snapshot.nodes.iter_mut().for_each(|node| node.actors.clear()))
}

#[test]
fn any_size_is_survived_in_any_order() {
    let world = healthy();
    let sizes =
        [(1, 1), (20, 5), (0, 0), (200, 50), (3, 60), (300, 2), (40, 8), (80, 24), (19, 16)];
    for screen in SCREENS {
        let mut app = at(screen, &world);
        for size in sizes {
            seen(&mut app, &world, size);
            app.list_mut().offset = 9_999;
            app.list_mut().selected = 9_999;
        }
    }
    let small = seen(&mut at(Screen::Overview, &world), &world, (20, 5));
    shows(&small, &["coordina…", "ready", "live"]);
    let small = seen(&mut at(Screen::Actors, &world), &world, (20, 5));
    shows(&small, &["NA", "ST", "MB"]);
}

#[test]
fn a_text_that_became_shorter_is_not_scrolled_out_of_sight() {
    let world = healthy();
    for screen in [Screen::Help, Screen::Diagnosis, Screen::Episode, Screen::Actor] {
        let mut app = at(screen, &world);
        app.list_mut().offset = 9_999;
        let seen = seen(&mut app, &world, (80, 24));
        assert!(seen.lines().skip(3).take(4).any(|line| line.len() > 3), "{seen}");
    }
}

#[test]
fn help_names_every_screen() {
    let world = healthy();
    let help = seen(&mut at(Screen::Help, &world), &world, (120, 70));
    for (digit, _) in Screen::NUMBERED {
        shows(&help, &[&format!("   {digit}          ")]);
    }
}
