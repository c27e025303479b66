//! What holds whatever comes and whatever is done, in whichever order.

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers, MouseButton, MouseEvent, MouseEventKind};
use crrl_inspect::frame::{Frame, Link};
use crrl_inspect::pieces::{Piece, Pieces};
use crrl_inspect::scripts::export;
use crrl_inspect::state::app::RowKey;
use crrl_inspect::state::keys::Effect;
use crrl_inspect::state::transcript::{Entry, Journal};
use crrl_inspect::state::{App, Screen, World, tree};
use crrl_types::Stop;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use crate::screens::terminal;
use crate::{leftovers, scene};

/// Nodes of the made-up cluster.
const NODES: usize = 4;

/// The second each node's report is of; none of a node that is not there.
type Seconds = [Option<u64>; NODES];

/// Something that comes, or is done.
#[derive(Debug, Clone)]
enum Step {
    Frame(Seconds),
    Events(u64),
    Turn(Entry),
    Time(u64),
    Key(KeyCode),
    Click(u16, u16),
    Size(u16, u16),
}

fn seconds() -> impl Strategy<Value = Seconds> {
    proptest::array::uniform4(proptest::option::weighted(0.9, 1..400_u64))
}

fn key() -> impl Strategy<Value = KeyCode> {
    let letters = "123456789d?jkgGfrcwm/:e +-<>tSKRPCDx!qn";
    let others = [
        KeyCode::Enter,
        KeyCode::Esc,
        KeyCode::Tab,
        KeyCode::BackTab,
        KeyCode::Backspace,
        KeyCode::Up,
        KeyCode::Down,
        KeyCode::PageUp,
        KeyCode::PageDown,
        KeyCode::Home,
        KeyCode::End,
        KeyCode::Left,
        KeyCode::Right,
    ];
    select(letters.chars().map(KeyCode::Char).chain(others).collect::<Vec<_>>())
}

fn entry() -> impl Strategy<Value = Entry> {
    let call = "<tool_call>{\"name\": \"shell\", \"arguments\": {\"cmd\": \"ls\"}}</tool_call>";
    let said = prop_oneof![Just(call.to_owned()), Just("<tool_call>{".to_owned()), ".{0,60}"];
    let wrote = said.prop_map(|text| {
        let piece = Piece { id: 1, text: text.clone(), logprob: Some(-0.1), version: Some(3) };
        let tokens = Pieces { pieces: vec![piece], left_out: 0, note: None };
        Entry::Wrote { text, tokens, stop: Stop::EndOfTurn }
    });
    let answered = (".{0,60}", any::<bool>());
    prop_oneof![
        wrote,
        answered.prop_map(|(output, ok)| Entry::Answered { output, ok, wall_ms: 3 }),
        ".{0,60}".prop_map(Entry::Changed),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => seconds().prop_map(Step::Frame),
        1 => (1..400_u64).prop_map(Step::Events),
        2 => entry().prop_map(Step::Turn),
        1 => (0..20_000_u64).prop_map(Step::Time),
        12 => key().prop_map(Step::Key),
        2 => (0..120_u16, 0..40_u16).prop_map(|(column, row)| Step::Click(column, row)),
        2 => (1..160_u16, 1..50_u16).prop_map(|(width, height)| Step::Size(width, height)),
    ]
}

/// The made-up cluster at this time, each node with a report of a second of its own.
fn mixed(at_ms: u64, seconds: &Seconds) -> Frame {
    let mut frame = scene::frame(seconds.iter().flatten().max().copied().unwrap_or(1));
    let report = |at: usize, s: u64| scene::frame(s).snapshot.nodes.swap_remove(at);
    let reports = seconds.iter().enumerate().filter_map(|(at, s)| s.map(|s| report(at, s)));
    frame.snapshot.nodes = reports.collect();
    frame.at_ms = at_ms;
    frame
}

/// The viewer's insides, with a person who does anything.
struct Viewer {
    app: App,
    world: World,
    size: (u16, u16),
    now_ms: u64,
}

impl Viewer {
    fn new() -> Self {
        let mut app = App::new("test");
        app.has_mouse = true;
        app.archive.over = (1..=9).map(leftovers::over).collect();
        app.archive.steps = (1..=18).map(leftovers::step).collect();
        Self { app, world: World::new(), size: (80, 24), now_ms: scene::BEGIN_MS }
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Frame(seconds) => self.frame(&seconds),
            Step::Events(s) => {
                scene::events(s).iter().for_each(|event| self.world.history.push(event));
            }
            Step::Turn(entry) => {
                if let Some(opened) = &mut self.app.opened {
                    let journal = &mut opened.journal;
                    journal.add(1, journal.entries, vec![entry]);
                }
            }
            Step::Time(ms) => {
                self.now_ms += ms;
                self.world.tick(self.now_ms);
                self.app.tick(self.now_ms);
            }
            Step::Key(code) => {
                let key = KeyEvent::new(code, KeyModifiers::NONE);
                if self.app.key(key, &self.world) == Effect::Export {
                    let exported = export::value(&self.app, &self.world);
                    assert_eq!(exported["screen"], self.app.screen.title());
                }
            }
            Step::Click(column, row) => {
                let kind = MouseEventKind::Down(MouseButton::Left);
                let modifiers = KeyModifiers::NONE;
                let click = MouseEvent { kind, column, row, modifiers };
                self.app.mouse(click, self.now_ms, &self.world);
            }
            Step::Size(width, height) => self.size = (width, height),
        }
    }

    /// Something comes: the cursor stays with its row where it was asked to, if that is still there.
    fn frame(&mut self, seconds: &Seconds) {
        let (app, world) = (&mut self.app, &mut self.world);
        let before = app.list().follow.then(|| app.row_key(world)).flatten();
        self.now_ms += 1_000;
        world.fold(mixed(self.now_ms, seconds));
        app.follow(before.clone(), world);
        let is_there = match &before {
            Some(RowKey::Actor(id)) => app.actor_rows(world).iter().any(|row| row.id() == *id),
            Some(RowKey::Episode(number)) => {
                app.rollout_rows(world).iter().any(|row| row.episode() == *number)
            }
            None => false,
        };
        if is_there {
            assert_eq!(app.row_key(world), before);
        }
    }

    /// Draws, and looks where the cursor is.
    fn look(&mut self) {
        terminal(&mut self.app, &self.world, &Link::Live, true, self.size);
        let (app, world) = (&self.app, &self.world);
        let rows = match app.screen {
            Screen::Overview => world.nodes().len(),
            Screen::Actors => app.actor_rows(world).len(),
            Screen::Tree => tree::rows(world).len(),
            Screen::Trace => app.trace.as_ref().map_or(0, |trace| trace.events.len()),
            Screen::Rollouts => app.rollout_rows(world).len(),
            Screen::Faults => world.faults().len(),
            Screen::Events => app.event_rows(world).len(),
            // Texts, without a cursor.
            Screen::Actor
            | Screen::Episode
            | Screen::Learner
            | Screen::Diagnosis
            | Screen::Help => return,
        };
        let list = app.list();
        assert!(list.selected < rows.max(1), "{list:?} of {rows} on {:?}", app.screen);
        let seen = list.offset..list.offset + app.page.max(1);
        assert!(seen.contains(&list.selected), "{list:?} of {seen:?} on {:?}", app.screen);
        if rows > 0 && matches!(app.screen, Screen::Actors | Screen::Rollouts) {
            assert!(app.row_key(world).is_some(), "{list:?} on {:?}", app.screen);
        }
    }
}

/// So many cases: each is a minute of a busy person.
fn cases(cases: u32) -> ProptestConfig {
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(cases(32))]

    #[test]
    fn whatever_comes_and_is_done_the_cursor_stays_on_a_row(steps in vec(step(), 1..60)) {
        let mut viewer = Viewer::new();
        for step in steps {
            viewer.take(step);
            viewer.look();
        }
    }

    #[test]
    fn a_board_that_comes_in_parts_comes_to_the_same(
        before in seconds(),
        after in seconds(),
        order in Just([0_usize, 1, 2, 3]).prop_shuffle(),
        is_shown in proptest::array::uniform4(any::<bool>()),
    ) {
        let (first_ms, then_ms) = (scene::BEGIN_MS, scene::BEGIN_MS + 1_000);
        let mut whole = World::new();
        whole.fold(mixed(first_ms, &before));
        let mut parts = whole.clone();
        whole.fold(mixed(then_ms, &after));
        let mut so_far = before;
        for (node, is_shown) in order.into_iter().zip(is_shown) {
            so_far[node] = after[node];
            if is_shown {
                parts.fold(mixed(then_ms, &so_far));
            }
        }
        parts.fold(mixed(then_ms, &after));
        for passed_ms in [0, 9_000] {
            whole.tick(then_ms + passed_ms);
            parts.tick(then_ms + passed_ms);
            prop_assert_eq!(whole.nodes(), parts.nodes());
            prop_assert_eq!(whole.actors(), parts.actors());
            prop_assert_eq!(whole.live(), parts.live());
            prop_assert_eq!(whole.faults(), parts.faults());
            for row in whole.actors() {
                prop_assert_eq!(whole.rates(&row.id()), parts.rates(&row.id()));
            }
        }
    }

    #[test]
    fn a_journal_that_comes_in_parts_comes_to_the_same(
        entries in vec(entry(), 0..30),
        sizes in vec(1..6_usize, 30),
    ) {
        let mut whole = Journal::default();
        whole.add(1, 0, entries.clone());
        let (mut parts, mut first) = (Journal::default(), 0);
        for size in sizes {
            let part = &entries[first..entries.len().min(first + size)];
            parts.add(1, first as u32, part.to_vec());
            // What is known already changes nothing.
            if first > 0 {
                parts.add(1, first as u32, part.to_vec());
            }
            first += part.len();
        }
        prop_assert_eq!(parts, whole);
    }
}
