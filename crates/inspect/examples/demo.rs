//! The viewer over a made-up cluster that runs for ever: to see what a change to a screen looks like.
//!
//!     cargo run -p crrl-inspect --example demo [FILE]
//!
//! With FILE, three minutes of it are recorded there and replayed.

#[path = "../tests/inspect/scene.rs"]
mod scene;

use std::time::{Duration, Instant};

use crossterm::event::{self, Event};
use crrl_inspect::frame::Link;
use crrl_inspect::recording::Recorder;
use crrl_inspect::state::keys::Effect;
use crrl_inspect::state::{App, World};
use crrl_inspect::terminal::Screen;
use crrl_inspect::view::{self, Palette, Scene};
use crrl_inspect::{InspectError, tui};

/// Second of the made-up run it begins at.
const FIRST_S: u64 = 190;

fn main() -> Result<(), InspectError> {
    let colour = std::env::var_os("NO_COLOR").is_none();
    if let Some(path) = std::env::args_os().nth(1).map(std::path::PathBuf::from) {
        let mut recorder = Recorder::create(&path, "demo")?;
        for s in FIRST_S..FIRST_S + 180 {
            recorder.push(&scene::frame(s))?;
        }
        return tui::replay(&path, colour);
    }
    let mut world = World::new();
    (FIRST_S - 30..FIRST_S).for_each(|s| fold(&mut world, s));
    let mut app = App::new("demo");
    let mut screen = Screen::open()?;
    let began = Instant::now();
    let mut folded = FIRST_S;
    while !screen.must_leave() {
        let now = FIRST_S + began.elapsed().as_secs();
        app.tick(u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX));
        if !app.paused {
            (folded..now).for_each(|s| fold(&mut world, s));
            folded = folded.max(now);
        }
        let scene = Scene { world: &world, link: &Link::Live, palette: Palette::new(colour) };
        screen.tty.draw(|frame| view::draw(frame, &mut app, &scene))?;
        while event::poll(Duration::from_millis(100))? {
            if let Event::Key(key) = event::read()?
                && app.key(key, &world) == Effect::Detach
            {
                return Ok(());
            }
        }
    }
    Ok(())
}

fn fold(world: &mut World, s: u64) {
    scene::events(s).iter().for_each(|event| world.history.push(event));
    world.fold(scene::frame(s));
}
