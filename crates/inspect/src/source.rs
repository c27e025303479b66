//! Where what is shown comes from: a cluster that is up, the folder of one that is not, a recording.

use std::time::{Duration, Instant};

use crrl_cluster::RunDir;
use crrl_types::{Order, Target, TraceRequest};

use crate::archive::{Answer, Ask, Store};
use crate::desk::{Desk, Heard};
use crate::error::InspectError;
use crate::feed::{Feed, now_ms};
use crate::frame::Link;
use crate::past::Past;
use crate::player::Player;
use crate::recording::Recording;
use crate::state::actors::ActorId;
use crate::state::history::{EventRow, History, PAST_EVENTS_MAX};
use crate::state::snapshot::Snapshot;
use crate::state::{App, Screen, World};
use crate::tail::Tail;

/// Time between two questions to the run store.
const ASK_EVERY: Duration = Duration::from_secs(2);
/// The same, of an episode under way that is looked at.
const JOURNAL_EVERY: Duration = Duration::from_millis(500);
/// Time between two questions for the snapshot of the actor that is looked at.
const SNAPSHOT_EVERY: Duration = Duration::from_secs(2);
/// Answers a desk gives that has been asked too much.
const TOO_MUCH: &str = "too much was asked already; try again in a moment";

/// Where what is shown comes from.
#[derive(Debug)]
pub enum Source {
    /// A cluster that is up.
    Live {
        /// Its board.
        feed: Feed,
        /// Its history.
        tail: Tail,
        /// Its store.
        shelf: Shelf,
        /// Orders and traces.
        desk: Desk,
        /// What the actor that is looked at has published.
        peek: Peek,
    },
    /// The folder of a run that is not up.
    Past {
        /// Its history.
        tail: Tail,
        /// Its store.
        shelf: Shelf,
    },
    /// A recording.
    Replay {
        /// What plays it.
        player: Player,
        /// Until when it was played.
        played: Instant,
    },
}

/// Asks for the snapshot of the actor of screen 4 while that is looked at. It has a desk of its own: a
/// node that does not answer keeps no order waiting.
#[derive(Debug)]
pub struct Peek {
    desk: Desk,
    asked: Option<(ActorId, Instant)>,
    /// Whether the answer is still to come.
    waits: bool,
}

/// The run store, and what was asked of it last.
#[derive(Debug)]
pub struct Shelf {
    store: Store,
    asked: Option<(Screen, Instant)>,
    steps_at: Option<u64>,
}

impl Source {
    /// A cluster that is up, or is starting; seen with a certificate of its folder, without a name
    /// with the operator's.
    ///
    /// # Errors
    /// No run there, no such certificate, or no thread to be had.
    pub fn live(run: &RunDir, who: Option<&str>) -> Result<Self, InspectError> {
        Ok(Self::Live {
            feed: Feed::attach(run, who)?,
            tail: Tail::new(&run.events()),
            shelf: Shelf::open(run)?,
            desk: Desk::open(run, who)?,
            peek: Peek { desk: Desk::open(run, who)?, asked: None, waits: false },
        })
    }

    /// A run that is not up.
    ///
    /// # Errors
    /// No thread to be had.
    pub fn past(run: &RunDir) -> Result<Self, InspectError> {
        Ok(Self::Past { tail: Tail::whole(&run.events()), shelf: Shelf::open(run)? })
    }

    /// A recording, from its beginning.
    #[must_use]
    pub fn replay(recording: Recording) -> Self {
        Self::Replay { player: Player::new(recording), played: Instant::now() }
    }

    /// What is seen before anything has come.
    pub fn begin(&self, run: Option<&RunDir>, world: &mut World, app: &mut App) -> Link {
        match self {
            Self::Live { .. } => Link::Connecting { reason: None },
            Self::Past { .. } => {
                world.history = History::of(PAST_EVENTS_MAX);
                let past = run.map(Past::read);
                let deeds = past.iter().flat_map(|past| &past.deeds);
                world.history.deeds = deeds.map(EventRow::of_deed).collect();
                app.past = past;
                Link::Past
            }
            Self::Replay { player, .. } => {
                app.is_replay = true;
                if let Some(says) = player.left_out() {
                    app.say(says);
                }
                player.link()
            }
        }
    }

    /// Takes in what has come.
    ///
    /// # Errors
    /// A recording cannot be read any more.
    pub fn pump(
        &mut self,
        world: &mut World,
        app: &mut App,
        link: &mut Link,
    ) -> Result<(), InspectError> {
        let before = app.list().follow.then(|| app.row_key(world)).flatten();
        match self {
            Self::Live { feed, tail, shelf, desk, peek } => {
                shelf.turn(app, world);
                hear(desk, app);
                peek.turn(app);
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
            Self::Past { tail, shelf } => {
                shelf.turn(app, world);
                tail.read(&mut world.history);
            }
            Self::Replay { player, played } => {
                let passed = played.elapsed();
                *played = Instant::now();
                player.pass(u64::try_from(passed.as_millis()).unwrap_or(0), world)?;
                player.tell(app);
                *link = player.link();
            }
        }
        app.follow(before, world);
        Ok(())
    }

    /// What is shown ages, whether anything comes or not.
    pub fn tick(&self, world: &mut World, app: &App) {
        if !matches!(self, Self::Replay { .. }) && !app.paused {
            world.tick(now_ms());
        }
    }

    /// Moves in a recording.
    ///
    /// # Errors
    /// It cannot be read any more.
    pub fn seek(&mut self, by_ms: i64, world: &mut World) -> Result<(), InspectError> {
        match self {
            Self::Live { .. } | Self::Past { .. } => Ok(()),
            Self::Replay { player, .. } => player.seek(by_ms, world),
        }
    }

    /// Plays a recording, or halts it.
    pub fn halt(&mut self, world: &mut World) {
        if let Self::Replay { player, .. } = self {
            player.toggle(world);
        }
    }

    /// Sends an order.
    pub fn order(&mut self, order: &Order, app: &mut App) {
        if let Self::Live { desk, .. } = self
            && !desk.order(order.clone())
        {
            app.order_answered(order, Err(TOO_MUCH.to_owned()));
        }
    }

    /// Begins a trace.
    pub fn trace(&mut self, request: &TraceRequest, app: &mut App) {
        if let Self::Live { desk, .. } = self
            && !desk.trace(request.clone())
        {
            app.trace_answered(request, Err(TOO_MUCH.to_owned()), now_ms());
        }
    }

    /// Ends the trace. One that goes on all the same ends by its own limits.
    pub fn end_trace(&mut self) {
        if let Self::Live { desk, .. } = self {
            let _ = desk.end_trace();
        }
    }
}

/// What became of orders and traces.
fn hear(desk: &mut Desk, app: &mut App) {
    for heard in desk.take() {
        match heard {
            Heard::Order { order, answer } => app.order_answered(&order, answer),
            Heard::Trace { request, answer } => app.trace_answered(&request, answer, now_ms()),
            Heard::Traced(traced) => app.traced(traced, now_ms()),
            // Asked by whoever has a desk for it.
            Heard::Snapshot { .. } => {}
        }
    }
}

impl Peek {
    /// Takes the answer, and asks again for what the visible screen shows.
    fn turn(&mut self, app: &mut App) {
        for heard in self.desk.take() {
            if let Heard::Snapshot { target, answer } = heard {
                self.waits = false;
                app.snapshot = Snapshot::of(&target, &answer);
            }
        }
        let Some(id) = app.actor.as_ref().filter(|_| app.screen == Screen::Actor && !app.paused)
        else {
            return;
        };
        let is_due = match &self.asked {
            Some((asked, at)) => asked != id || at.elapsed() >= SNAPSHOT_EVERY,
            None => true,
        };
        if is_due && !self.waits {
            self.waits = self.desk.snapshot(Target::actor(id.node.as_str(), id.name.as_str()));
            self.asked = Some((id.clone(), Instant::now()));
        }
    }
}

impl Shelf {
    fn open(run: &RunDir) -> Result<Self, InspectError> {
        Ok(Self { store: Store::open(run)?, asked: None, steps_at: None })
    }

    /// Takes the answers, and asks for what the visible screen shows and nothing else.
    fn turn(&mut self, app: &mut App, world: &World) {
        while let Some(answer) = self.store.answer() {
            take(answer, app);
        }
        let Some((ask, every)) = self.wanted(app, world) else { return };
        let is_due =
            self.asked.is_none_or(|(screen, at)| screen != app.screen || at.elapsed() >= every);
        if is_due && self.store.ask(ask) {
            self.asked = Some((app.screen, Instant::now()));
            if ask == Ask::Steps {
                self.steps_at = Some(step(world));
            }
        }
    }

    fn wanted(&self, app: &App, world: &World) -> Option<(Ask, Duration)> {
        match app.screen {
            Screen::Rollouts => Some((Ask::Over, ASK_EVERY)),
            Screen::Learner if self.steps_at != Some(step(world)) => Some((Ask::Steps, ASK_EVERY)),
            Screen::Episode => {
                let opened = app.opened.as_ref()?;
                let (episode, journal) = (opened.episode, &opened.journal);
                let is_live = world.live().iter().any(|row| row.episode == episode);
                match &opened.left {
                    Some(Ok(Some(left))) if left.is_final => None,
                    // The others of its group come back later, and then it is trained on.
                    Some(Ok(Some(_))) => Some((Ask::Transcript(episode), ASK_EVERY)),
                    _ if is_live => {
                        let (attempt, entries) = (journal.attempt, journal.entries);
                        Some((Ask::Journal { episode, attempt, entries }, JOURNAL_EVERY))
                    }
                    _ => Some((Ask::Transcript(episode), JOURNAL_EVERY)),
                }
            }
            _ => None,
        }
    }
}

fn step(world: &World) -> u64 {
    world.progress().map_or(0, |progress| progress.step)
}

fn take(answer: Answer, app: &mut App) {
    match answer {
        Answer::Over(Ok(over)) => app.archive.over = over,
        Answer::Steps(Ok(steps)) => app.archive.steps = steps,
        Answer::Over(Err(error)) | Answer::Steps(Err(error)) => {
            app.archive.error = Some(error);
            return;
        }
        Answer::Transcript(episode, found) => {
            if let Some(opened) = app.opened.as_mut().filter(|o| o.episode == episode) {
                // What was read stays where it cannot be read once more.
                let is_held = matches!(opened.left, Some(Ok(Some(_))));
                if found.is_ok() || !is_held {
                    opened.left = Some(found);
                }
            }
            return;
        }
        Answer::Journal(episode, found) => {
            if let Some(opened) = app.opened.as_mut().filter(|o| o.episode == episode) {
                match found {
                    Ok(page) => {
                        opened.unreadable = None;
                        opened.journal.add(page.attempt, page.first, page.entries);
                    }
                    Err(error) => opened.unreadable = Some(error),
                }
            }
            return;
        }
    }
    app.archive.error = None;
}
