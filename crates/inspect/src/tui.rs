//! The loop: what came is folded, what is shown is drawn, keys and clicks are taken.

use std::path::Path;
use std::time::{Duration, Instant};

use crossterm::event::{self, Event, KeyEventKind};
use crrl_cluster::RunDir;

use crate::error::InspectError;
use crate::feed::{is_up, now_ms};
use crate::recording::Recording;
use crate::scripts::{export, remark};
use crate::source::Source;
use crate::state::app::REFRESH_MS_MIN;
use crate::state::keys::Effect;
use crate::state::{App, World};
use crate::terminal::{self, Screen as Tty};
use crate::view::{self, Palette, Scene};

/// Longest wait for a key: how soon a signal is heard.
const KEY_WAIT: Duration = Duration::from_millis(100);

/// Shows a run until the person leaves: its cluster where one is up, its folder where none is. The
/// cluster is asked with a certificate of the folder; without a name, with the operator's.
///
/// # Errors
/// [`InspectError`]: no run, no such certificate, nothing up and nothing left behind, no terminal.
pub fn watch(run: &RunDir, who: Option<&str>, colour: bool) -> Result<(), InspectError> {
    let_there_be_a_terminal()?;
    crate::feed::check(run, who)?;
    let source = if is_up(run) || answers(run, who)? {
        Source::live(run, who)?
    } else if run.store().is_file() {
        Source::past(run)?
    } else {
        return Err(InspectError::NotUp(run.path().to_owned()));
    };
    let name = run.path().file_name().map_or_else(String::new, |n| n.to_string_lossy().into());
    show(source, Some(run), &name, colour)
}

/// Shows a recording until the person leaves.
///
/// # Errors
/// [`InspectError`]: no recording, no terminal.
pub fn replay(path: &Path, colour: bool) -> Result<(), InspectError> {
    let recording = Recording::open(path)?;
    let_there_be_a_terminal()?;
    let (name, left_out) = (recording.run().to_owned(), recording.left_out());
    let shown = show(Source::replay(recording), None, &name, colour);
    // Once more where it stays: a notice on the screen goes.
    if let Some(says) = left_out {
        remark(&says);
    }
    shown
}

fn let_there_be_a_terminal() -> Result<(), InspectError> {
    if terminal::is_there() {
        return Ok(());
    }
    let says = "the viewer needs a terminal; without one: crrl inspect nodes, actors, tree, episodes, \
                watch, diagnose";
    Err(InspectError::Usage(says.to_owned()))
}

/// A cluster whose processes are on other machines is up if it answers.
fn answers(run: &RunDir, who: Option<&str>) -> Result<bool, InspectError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        match crate::feed::Session::open(run, who).await {
            Ok(session) => {
                session.close().await;
                Ok(true)
            }
            // It does, and has to be asked again.
            Err(InspectError::Refused { .. }) => Ok(true),
            Err(InspectError::NotUp(_)) => Ok(false),
            Err(error) => Err(error),
        }
    })
}

/// The terminal is given back before `source` goes: that may wait for the answer to an order, and say that none
/// came.
fn show(
    mut source: Source,
    run: Option<&RunDir>,
    title: &str,
    colour: bool,
) -> Result<(), InspectError> {
    let mut world = World::new();
    let mut app = App::new(title);
    let mut link = source.begin(run, &mut world, &mut app);
    let palette = Palette::new(colour);
    let mut screen = Tty::open()?;
    let began = Instant::now();
    let mut drawn: Option<Instant> = None;
    while !screen.must_leave() {
        app.tick(u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX));
        source.pump(&mut world, &mut app, &mut link)?;
        let every = if app.is_lively() { REFRESH_MS_MIN } else { app.refresh_ms };
        if drawn.is_none_or(|at| at.elapsed() >= Duration::from_millis(every)) {
            source.tick(&mut world, &app);
            let scene = Scene { world: &world, link: &link, palette };
            screen.tty.draw(|frame| view::draw(frame, &mut app, &scene))?;
            drawn = Some(Instant::now());
        }
        if !event::poll(KEY_WAIT)? {
            continue;
        }
        // A storm of resizes or keys is one redraw.
        while event::poll(Duration::ZERO)? {
            drawn = None;
            let effect = match event::read()? {
                Event::Key(key) if key.kind != KeyEventKind::Release => app.key(key, &world),
                Event::Mouse(mouse) => app.mouse(mouse, now_ms(), &world),
                _ => continue,
            };
            if effect == Effect::Detach {
                return Ok(());
            }
            carry_out(effect, &mut source, &mut world, &mut app)?;
            screen.point(app.has_mouse)?;
        }
    }
    Ok(())
}

fn carry_out(
    effect: Effect,
    source: &mut Source,
    world: &mut World,
    app: &mut App,
) -> Result<(), InspectError> {
    match effect {
        Effect::None | Effect::Detach => {}
        Effect::Export => {
            let says = match export::write(app, world, Path::new(".")) {
                Ok(path) => format!("written to {}", path.display()),
                Err(error) => format!("cannot be written: {error}"),
            };
            app.say(says);
        }
        Effect::Seek(by_ms) => source.seek(by_ms, world)?,
        Effect::Halt => source.halt(world),
        Effect::Order(order) => source.order(&order, app),
        Effect::Trace(request) => source.trace(&request, app),
        Effect::EndTrace => source.end_trace(),
    }
    Ok(())
}
