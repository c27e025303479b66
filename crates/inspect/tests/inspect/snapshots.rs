//! Every screen whole, at three sizes, as it was agreed on. `BLESS=1` writes them anew: look at the
//! difference before it is committed.

use std::path::PathBuf;

use crrl_inspect::frame::Link;
use crrl_inspect::state::{App, Screen};
use crrl_types::{OrderAnswer, Outcome, Target, TraceEvent, TraceRequest, Traced};
use ratatui::style::Color;

use crate::keys::press;
use crate::screens::{SCREENS, at, seen, terminal, text};
use crate::{healthy, scene};

const SIZES: [(u16, u16); 3] = [(80, 24), (120, 40), (200, 50)];

fn golden(name: &str) -> PathBuf {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/inspect/snapshots");
    folder.join(format!("{name}.txt"))
}

fn check(name: &str, mut app: impl FnMut() -> App) {
    let world = healthy();
    let mut whole = String::new();
    for size in SIZES {
        let screen = seen(&mut app(), &world, size);
        whole += &format!("── {} x {}\n{screen}", size.0, size.1);
    }
    let path = golden(name);
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(&path, &whole).expect("writable");
    }
    let agreed = std::fs::read_to_string(&path).unwrap_or_default();
    let differs = agreed.lines().zip(whole.lines()).position(|(a, b)| a != b);
    assert!(
        agreed == whole,
        "{} differs from line {:?} on:\n{whole}",
        path.display(),
        differs.map(|at| at + 1)
    );
}

fn with_a_trace() -> App {
    let mut app = App::new("quickstart");
    let request = TraceRequest::of(Target::actor("rollout-0", "engine"));
    let now_ms = healthy().now_ms();
    app.trace = Some(crrl_inspect::state::trace::Tracing::new(request.clone(), now_ms - 3_000));
    app.trace_answered(&request, Ok(OrderAnswer::new(Outcome::Done, "begun")), now_ms - 2_500);
    let event = |n: u64| TraceEvent {
        at_ms: scene::BEGIN_MS + 187_000 + n * 31,
        node: "rollout-0".into(),
        actor: "engine".into(),
        message: ["Generate", "Swap", "Tick"][n as usize % 3].into(),
        from: n.is_multiple_of(3).then(|| "rollout-0".into()),
        handled_us: (!n.is_multiple_of(2)).then_some(n * 377),
    };
    app.traced(Traced::Events((0..60).map(event).collect()), now_ms - 100);
    app.screen = Screen::Trace;
    app
}

#[test]
fn every_screen_looks_as_it_was_agreed() {
    let world = healthy();
    for screen in SCREENS.into_iter().filter(|screen| *screen != Screen::Trace) {
        check(&screen.title().to_lowercase(), || at(screen, &world));
    }
    check("trace", with_a_trace);
}

#[test]
fn what_is_typed_looks_as_it_was_agreed() {
    let world = healthy();
    let typed = |keys: &'static str| {
        let world = healthy();
        move || {
            let mut app = at(Screen::Actors, &world);
            press(&mut app, &world, keys);
            app
        }
    };
    check("commands", typed(":sort wait"));
    check("order", typed("jKen"));
    check("filter", typed("/node:rollout"));
    drop(world);
}

#[test]
fn colour_changes_no_character() {
    let world = healthy();
    let screens = SCREENS.into_iter().map(|screen| at(screen, &world)).chain([with_a_trace()]);
    for mut app in screens {
        for size in SIZES {
            let with = text(&terminal(&mut app, &world, &Link::Live, true, size));
            app.laid = None;
            let drawn = terminal(&mut app, &world, &Link::Live, false, size);
            assert_eq!(with, text(&drawn), "{:?}", app.screen);
            app.laid = None;
            let plain =
                |cell: &ratatui::buffer::Cell| cell.fg == Color::Reset && cell.bg == Color::Reset;
            assert!(drawn.backend().buffer().content.iter().all(plain), "{:?}", app.screen);
        }
    }
}

#[test]
fn nothing_jumps_from_one_frame_to_the_next() {
    let world = healthy();
    for screen in SCREENS {
        let mut app = at(screen, &world);
        let first = seen(&mut app, &world, (120, 40));
        assert_eq!(first, seen(&mut app, &world, (120, 40)), "{screen:?}");
    }
}
