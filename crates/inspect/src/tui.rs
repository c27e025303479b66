//! The loop: what came is folded, what is shown is drawn, keys are taken.

use std::path::Path;
use std::time::{Duration, Instant};

use crossterm::event::{self, Event, KeyEventKind};
use crrl_cluster::RunDir;

use crate::archive::{Answer, Ask, Store};
use crate::error::InspectError;
use crate::feed::{Feed, is_up, now_ms};
use crate::frame::Link;
use crate::player::Player;
use crate::recording::Recording;
use crate::scripts::export;
use crate::state::keys::Effect;
use crate::state::{App, Screen, World};
use crate::tail::Tail;
use crate::terminal::{self, Screen as Tty};
use crate::view::{self, Palette, Scene};

/// Longest wait for a key: how soon a signal is heard.
const KEY_WAIT: Duration = Duration::from_millis(100);
/// Time between two questions to the run store.
const ASK_EVERY: Duration = Duration::from_secs(2);

/// Where what is shown comes from.
enum Source {
    Live { feed: Feed, tail: Tail, store: Store, asked: Option<(Screen, Instant)>, steps_at: u64 },
    Replay { player: Player, played: Instant },
}

/// Shows a running cluster until the person leaves.
///
/// # Errors
/// [`InspectError`]: no run, nothing up, no terminal.
pub fn watch(run: &RunDir, colour: bool) -> Result<(), InspectError> {
    let_there_be_a_terminal()?;
    crate::feed::check(run)?;
    if !is_up(run) && !answers(run)? {
        return Err(InspectError::NotUp(run.path().to_owned()));
    }
    let source = Source::Live {
        feed: Feed::attach(run)?,
        tail: Tail::new(&run.events()),
        store: Store::open(&run.store())?,
        asked: None,
        steps_at: u64::MAX,
    };
    let name = run.path().file_name().map_or_else(String::new, |n| n.to_string_lossy().into());
    show(source, &name, colour)
}

/// Shows a recording until the person leaves.
///
/// # Errors
/// [`InspectError`]: no recording, no terminal.
pub fn replay(path: &Path, colour: bool) -> Result<(), InspectError> {
    let player = Player::new(Recording::open(path)?);
    let_there_be_a_terminal()?;
    let name = player.run().to_owned();
    show(Source::Replay { player, played: Instant::now() }, &name, colour)
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
fn answers(run: &RunDir) -> Result<bool, InspectError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    Ok(runtime.block_on(async {
        match crate::feed::Session::open(run).await {
            Ok(session) => {
                session.close().await;
                true
            }
            // It does, and has to be asked again.
            Err(InspectError::Refused { .. }) => true,
            Err(_) => false,
        }
    }))
}

fn show(mut source: Source, title: &str, colour: bool) -> Result<(), InspectError> {
    let mut world = World::new();
    let mut app = App::new(title);
    app.is_replay = matches!(source, Source::Replay { .. });
    let mut link = Link::Connecting { reason: None };
    let palette = Palette::new(colour);
    let mut screen = Tty::open()?;
    let mut drawn: Option<Instant> = None;
    while !screen.must_leave() {
        source.pump(&mut world, &mut app, &mut link)?;
        let every = Duration::from_millis(app.refresh_ms);
        if drawn.is_none_or(|at| at.elapsed() >= every) {
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
            let Event::Key(key) = event::read()? else { continue };
            if key.kind == KeyEventKind::Release {
                continue;
            }
            match app.key(key, &world) {
                Effect::None => {}
                Effect::Detach => return Ok(()),
                Effect::Export => {
                    let says = match export::write(&app, &world, Path::new(".")) {
                        Ok(path) => format!("written to {}", path.display()),
                        Err(error) => format!("cannot be written: {error}"),
                    };
                    app.say(says, world.now_ms());
                }
                Effect::Seek(by_ms) => source.seek(by_ms, &mut world)?,
                Effect::Halt => source.halt(&mut world),
            }
        }
    }
    Ok(())
}

impl Source {
    fn pump(
        &mut self,
        world: &mut World,
        app: &mut App,
        link: &mut Link,
    ) -> Result<(), InspectError> {
        let before = app.list().follow.then(|| app.row_key(world)).flatten();
        match self {
            Self::Live { feed, tail, store, asked, steps_at } => {
                take_answers(store, app);
                ask(store, app, world, asked, steps_at);
                if app.paused {
                    return Ok(());
                }
                if let Some(seen) = feed.take() {
                    *link = seen.link;
                    if let Some(frame) = seen.frame {
                        world.fold(frame);
                    }
                }
                tail.read(&mut world.history);
            }
            Self::Replay { player, played } => {
                let passed = played.elapsed();
                *played = Instant::now();
                player.pass(u64::try_from(passed.as_millis()).unwrap_or(0), world)?;
                *link = player.link();
            }
        }
        app.follow(before, world);
        Ok(())
    }

    /// What is shown ages, whether anything comes or not.
    fn tick(&self, world: &mut World, app: &App) {
        if matches!(self, Self::Live { .. }) && !app.paused {
            world.tick(now_ms());
        }
    }

    fn seek(&mut self, by_ms: i64, world: &mut World) -> Result<(), InspectError> {
        match self {
            Self::Live { .. } => Ok(()),
            Self::Replay { player, .. } => player.seek(by_ms, world),
        }
    }

    fn halt(&mut self, world: &mut World) {
        if let Self::Replay { player, .. } = self {
            player.toggle(world);
        }
    }
}

/// Asks for what the visible screen shows and nothing else.
fn ask(
    store: &Store,
    app: &App,
    world: &World,
    asked: &mut Option<(Screen, Instant)>,
    steps_at: &mut u64,
) {
    let is_due = asked.is_none_or(|(screen, at)| screen != app.screen || at.elapsed() >= ASK_EVERY);
    if !is_due {
        return;
    }
    let step = world.progress().map_or(0, |progress| progress.step);
    let ask = match app.screen {
        Screen::Rollouts => Ask::Over,
        Screen::Learner if *steps_at != step => Ask::Steps,
        Screen::Episode => match &app.opened {
            Some(opened) if !matches!(opened.transcript, Some(Ok(Some(_)))) => {
                Ask::Transcript(opened.episode)
            }
            _ => return,
        },
        _ => return,
    };
    if store.ask(ask) {
        *asked = Some((app.screen, Instant::now()));
        if ask == Ask::Steps {
            *steps_at = step;
        }
    }
}

fn take_answers(store: &Store, app: &mut App) {
    while let Some(answer) = store.answer() {
        match answer {
            Answer::Over(Ok(over)) => app.archive.over = over,
            Answer::Steps(Ok(steps)) => app.archive.steps = steps,
            Answer::Over(Err(error)) | Answer::Steps(Err(error)) => {
                app.archive.error = Some(error);
                continue;
            }
            Answer::Transcript(episode, found) => {
                if let Some(opened) = app.opened.as_mut().filter(|o| o.episode == episode) {
                    opened.transcript = Some(found);
                }
                continue;
            }
        }
        app.archive.error = None;
    }
}
