//! What actors are doing, read off counters: an actor that hangs is seen hanging.
//!
//! A [`Probe`] around an actor has the same messages and the same state. It notes which message the
//! actor is at and since when; whoever sends to it from elsewhere does so with [`Watched::pass`]. What is
//! sent to an earlier life of the actor, or to one that has ended, counts for nothing.
//! Reading asks nobody. A probe also keeps its actor from the next message while somebody has it
//! suspended ([`crate::gate`]), shows messages to whoever traces them ([`crate::tap`]), and publishes
//! what the actor shows of its state ([`crate::slot`]).
//!
//! What a node has beside its actors (threads, pools) is among its [`crate::rows`].

use std::any::Any;
use std::borrow::Cow;
use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::panic::{AssertUnwindSafe, resume_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use crrl_types::NodeName;
use crrl_types::actor::{ActorReport, ActorState};
use futures::FutureExt as _;
use ractor::{Actor, ActorProcessingErr, ActorRef, Message, SupervisionEvent};
use serde_json::Value;
use tokio::sync::watch;

use crate::behind::Behind;
use crate::gate::Gate;
use crate::peer::lock;
use crate::router::kind;
use crate::rows::Row;
use crate::slot::{Shown, Slot};
use crate::tap::{Sight, Taps};

/// Messages that are timed one by one; of those behind them, runs of neighbours are.
const WAITING_TIMED_MAX: usize = 4096;
/// Characters of the reason an actor failed with.
pub(crate) const FAILURE_CHARS_MAX: usize = 300;

/// The probes of one node, by the actors' names. Cloning gives another handle to the same.
#[derive(Debug, Clone, Default)]
pub struct Probes {
    table: Arc<Mutex<Table>>,
    hang: Hang,
    taps: Taps,
}

/// A time in which actors take no message, on purpose. Cloning gives another handle to the same.
#[derive(Debug, Clone, Default)]
pub struct Hang(Arc<HangUntil>);

#[derive(Debug, Default)]
struct HangUntil {
    until: watch::Sender<Option<Instant>>,
    held: AtomicU64,
}

impl Hang {
    /// Actors take no message for so long. Messages pile up and are handled afterwards.
    pub fn begin(&self, time: Duration) {
        self.hold_until(Instant::now() + time);
    }

    /// Actors take no message until then, whatever was said before. From a time that is past they go on at
    /// once, those that are held up already too.
    pub fn hold_until(&self, at: Instant) {
        self.0.until.send_replace(Some(at));
    }

    /// Messages that were held up so far.
    #[must_use]
    pub fn held(&self) -> u64 {
        self.0.held.load(Ordering::Acquire)
    }

    /// Whether it goes on.
    #[must_use]
    pub fn goes_on(&self) -> bool {
        time_to(*self.0.until.borrow()).is_some()
    }

    async fn over(&self) {
        if !self.goes_on() {
            return;
        }
        self.0.held.fetch_add(1, Ordering::AcqRel);
        let mut until = self.0.until.subscribe();
        loop {
            let at = *until.borrow_and_update();
            let Some(left) = time_to(at) else { return };
            // Its end may be brought forward.
            let _ = tokio::time::timeout(left, until.changed()).await;
        }
    }
}

fn time_to(at: Option<Instant>) -> Option<Duration> {
    at?.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())
}

#[derive(Debug, Default)]
struct Table {
    by_name: BTreeMap<String, Watched>,
    order: Vec<String>,
    /// What is watched beside the actors.
    rows: Vec<Arc<dyn Row>>,
}

/// What is known of one actor, in one of its lives. Cloning gives another handle to the same.
#[derive(Debug, Clone)]
pub struct Watched {
    seen: Arc<Mutex<Seen>>,
    /// Which life of the actor this is of: how often it had been started again by then.
    life: u32,
    gate: Gate,
    taps: Taps,
    slot: Slot,
    /// Whether it only passes on what is for others: no trace shows that twice.
    carries: bool,
}

/// A message that waits for an actor.
#[derive(Debug)]
struct Waiting {
    at: Instant,
    /// Its kind and its sender, if somebody looked when it came.
    what: Option<Box<Letter>>,
}

/// What is told of a message from elsewhere.
#[derive(Debug)]
pub struct Letter {
    /// Its kind.
    pub message: String,
    /// Its sender, where it has one.
    pub from: Option<NodeName>,
}

#[derive(Debug)]
struct Seen {
    name: String,
    kind: String,
    parent: Option<String>,
    state: ActorState,
    since: Instant,
    waiting: VecDeque<Waiting>,
    /// Those beyond [`WAITING_TIMED_MAX`].
    behind: Behind,
    waiting_max: u32,
    handled: u64,
    busy: Duration,
    handling: Option<(Cow<'static, str>, Instant)>,
    restarts: u32,
    last_failure: Option<String>,
    hang: Hang,
}

impl Seen {
    fn waiting_now(&self) -> u32 {
        (self.waiting.len() as u32).saturating_add(self.behind.messages)
    }

    fn has_ended(&self) -> bool {
        matches!(self.state, ActorState::Stopped | ActorState::Failed)
    }

    /// What waits for it is lost.
    fn forget_waiting(&mut self) {
        self.waiting.clear();
        self.behind = Behind::default();
    }

    /// It has ended, in this state; what waited for it is lost with it.
    fn end(&mut self, state: ActorState) {
        self.state = state;
        self.forget_waiting();
    }

    /// Why it ended last; gives what was told before.
    fn because(&mut self, why: &str) -> Option<String> {
        self.last_failure.replace(shortened(why))
    }
}

/// As much of a reason as is told.
fn shortened(why: &str) -> String {
    why.chars().take(FAILURE_CHARS_MAX).collect()
}

impl Probes {
    /// What keeps these actors from their messages on purpose.
    #[must_use]
    pub fn hang(&self) -> &Hang {
        &self.hang
    }

    /// Where traces of these actors hang.
    #[must_use]
    pub fn taps(&self) -> &Taps {
        &self.taps
    }

    /// The actor of this name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<Watched> {
        lock(&self.table).by_name.get(name).cloned()
    }

    /// The actor of this name is about to be started (again) under `parent`.
    #[must_use]
    pub fn starting(&self, name: &str, kind: &str, parent: Option<&str>) -> Watched {
        self.enter(name, kind, parent, false)
    }

    /// As [`Probes::starting`], of an actor that only passes on what is for others and goes with its
    /// node.
    #[must_use]
    pub(crate) fn carrying(&self, name: &str, kind: &str) -> Watched {
        self.enter(name, kind, None, true)
    }

    /// Something is watched beside the actors from now on, in the place of what had its name.
    pub fn add(&self, row: Arc<dyn Row>) {
        let mut table = lock(&self.table);
        table.rows.retain(|held| held.name() != row.name());
        table.rows.push(row);
    }

    /// What is watched beside the actors under this name.
    #[must_use]
    pub fn row(&self, name: &str) -> Option<Arc<dyn Row>> {
        lock(&self.table).rows.iter().find(|row| row.name() == name).cloned()
    }

    /// What an actor, or what is beside the actors, has published of its state; none where there is
    /// nothing of this name.
    #[must_use]
    pub fn snapshot(&self, name: &str) -> Option<Shown> {
        match self.get(name) {
            Some(watched) => Some(watched.slot.show()),
            None => Some(self.row(name)?.snapshot()),
        }
    }

    fn enter(&self, name: &str, kind: &str, parent: Option<&str>, carries: bool) -> Watched {
        let mut table = lock(&self.table);
        if let Some(watched) = table.by_name.get_mut(name) {
            // A new one is not held up for what the one before was.
            watched.gate.open();
            watched.life += 1;
            let mut seen = lock(&watched.seen);
            seen.restarts = watched.life;
            seen.state = ActorState::Starting;
            seen.since = Instant::now();
            seen.forget_waiting();
            seen.handling = None;
            drop(seen);
            return watched.clone();
        }
        let seen = Seen {
            name: name.to_owned(),
            kind: kind.to_owned(),
            parent: parent.map(str::to_owned),
            state: ActorState::Starting,
            since: Instant::now(),
            waiting: VecDeque::new(),
            behind: Behind::default(),
            waiting_max: 0,
            handled: 0,
            busy: Duration::ZERO,
            handling: None,
            restarts: 0,
            last_failure: None,
            hang: self.hang.clone(),
        };
        let (seen, taps) = (Arc::new(Mutex::new(seen)), self.taps.clone());
        let (gate, slot) = (Gate::default(), Slot::default());
        let watched = Watched { seen, life: 0, gate, taps, slot, carries };
        table.order.push(name.to_owned());
        table.by_name.insert(name.to_owned(), watched.clone());
        watched
    }

    /// Every actor, in the order they were first started; then what is beside them, and last who only
    /// passes on what is for others.
    #[must_use]
    pub fn report(&self) -> Vec<ActorReport> {
        let (watched, rows) = {
            let table = lock(&self.table);
            let watched = table.order.iter().filter_map(|name| table.by_name.get(name).cloned());
            (watched.collect::<Vec<_>>(), table.rows.clone())
        };
        let of =
            |carries| watched.iter().filter(move |w| w.carries == carries).map(Watched::report);
        of(false).chain(rows.iter().map(|row| row.report())).chain(of(true)).collect()
    }
}

impl Watched {
    /// What is seen of the actor, as long as it is in the life this handle is of.
    fn current(&self) -> Option<MutexGuard<'_, Seen>> {
        let seen = lock(&self.seen);
        (seen.restarts == self.life).then_some(seen)
    }

    /// Sends the actor something from elsewhere. It waits from now on; where the actor has ended and does
    /// not get it, nothing does.
    ///
    /// # Errors
    /// In words: the actor has ended.
    pub fn pass<T, M: Message>(
        &self,
        to: &ActorRef<M>,
        what: T,
        letter: impl FnOnce(&T) -> Letter,
        wrap: impl FnOnce(T) -> M,
    ) -> Result<(), String> {
        let is_counted = self.count(|| letter(&what));
        to.cast(wrap(what)).map_err(|error| {
            if is_counted {
                self.not_got();
            }
            error.to_string()
        })
    }

    /// A message that is on its way, and that a test delivers by itself.
    #[cfg(test)]
    fn sent(&self, what: impl FnOnce() -> Letter) {
        self.count(what);
    }

    /// Counts a message that is on its way; whether it was counted. What it is, is asked only where
    /// somebody looks.
    fn count(&self, what: impl FnOnce() -> Letter) -> bool {
        let what = self.taps.is_on().then(|| Box::new(what()));
        let Some(mut seen) = self.current().filter(|seen| !seen.has_ended()) else { return false };
        if let Some(letter) = &what {
            let Letter { message, from } = letter.as_ref();
            let sight = Sight { actor: &seen.name, message, from: from.as_ref(), took: None };
            self.taps.see(sight);
        }
        if seen.waiting.len() < WAITING_TIMED_MAX {
            seen.waiting.push_back(Waiting { at: Instant::now(), what });
        } else {
            seen.behind.push(Instant::now());
        }
        seen.waiting_max = seen.waiting_max.max(seen.waiting_now());
        true
    }

    /// A message that was counted did not reach the actor: the last of those that wait is none.
    fn not_got(&self) {
        let Some(mut seen) = self.current() else { return };
        if !seen.behind.take_back() {
            seen.waiting.pop_back();
        }
    }

    /// The actor is at a message until what is returned is dropped.
    fn begin(&self, kind: Cow<'static, str>, from_elsewhere: bool) -> AtMessage<'_> {
        let mut what = None;
        if let Some(mut seen) = self.current() {
            if from_elsewhere {
                what = seen.waiting.pop_front().and_then(|waiting| waiting.what);
                if let Some(at) = seen.behind.pop() {
                    seen.waiting.push_back(Waiting { at, what: None });
                }
            }
            seen.state = ActorState::Busy;
            seen.handling = Some((kind, Instant::now()));
        }
        AtMessage { watched: self, what, ended: None }
    }

    /// The actor takes no message until [`Watched::resume`], or for so long at most.
    pub fn suspend(&self, time: Duration) {
        self.gate.shut(Instant::now() + time);
    }

    /// The actor takes messages again; whether it did not.
    pub fn resume(&self) -> bool {
        self.gate.open()
    }

    /// Whether it only passes on what is for others.
    #[must_use]
    pub fn carries(&self) -> bool {
        self.carries
    }

    /// Whether somebody starts it again: all but a supervisor at the root, and who goes with the node.
    #[must_use]
    pub fn has_parent(&self) -> bool {
        lock(&self.seen).parent.is_some()
    }

    /// What is told of the actor's end, if it is ended from outside; gives what was told before.
    pub fn ended(&self, why: &str) -> Option<String> {
        lock(&self.seen).because(why)
    }

    /// It was not ended from outside after all: what is told is what was told before, unless something else
    /// has come about since.
    pub fn not_ended(&self, why: &str, before: Option<String>) {
        let mut seen = lock(&self.seen);
        if seen.last_failure.as_deref() == Some(&*shortened(why)) {
            seen.last_failure = before;
        }
    }

    /// It was ended from outside and stays away, and why; nothing where it was started again meanwhile.
    pub fn stopped(&self, why: &str) {
        if let Some(mut seen) = self.current() {
            seen.end(ActorState::Stopped);
            seen.because(why);
        }
    }

    /// What holds it up. Nothing does a supervisor: whoever ends beside it must be started again.
    fn hang(&self) -> Option<Hang> {
        let seen = lock(&self.seen);
        seen.parent.is_some().then(|| seen.hang.clone())
    }

    /// Shows a message that was handled to whoever looks.
    fn handled(&self, kind: &str, letter: Option<&Letter>, took: Duration) {
        let actor = lock(&self.seen).name.clone();
        let (message, from) = match letter {
            Some(Letter { message, from }) => (message.as_str(), from.as_ref()),
            None => (kind, None),
        };
        self.taps.see(Sight { actor: &actor, message, from, took: Some(took) });
    }

    /// It waits for messages.
    fn idle(&self) {
        if let Some(mut seen) = self.current() {
            seen.state = ActorState::Idle;
        }
    }

    /// It has ended by itself.
    fn over(&self) {
        if let Some(mut seen) = self.current() {
            seen.end(ActorState::Stopped);
        }
    }

    fn failed(&self, why: &str) {
        if let Some(mut seen) = self.current() {
            seen.end(ActorState::Failed);
            seen.because(why);
        }
    }

    /// Does a piece of the actor's work and keeps why it failed. A panic goes on to whoever supervises
    /// the actor; nothing of the actor is used after it.
    async fn done<T>(
        &self,
        work: impl Future<Output = Result<T, ActorProcessingErr>> + Send,
    ) -> Result<T, ActorProcessingErr> {
        match AssertUnwindSafe(work).catch_unwind().await {
            Ok(done) => done.inspect_err(|error| self.failed(&error.to_string())),
            Err(panic) => {
                self.failed(&format!("panicked: {}", words(&*panic)));
                resume_unwind(panic)
            }
        }
    }

    fn report(&self) -> ActorReport {
        let seen = lock(&self.seen);
        let is_held = !seen.has_ended() && self.gate.is_shut();
        let state = if is_held { ActorState::Suspended } else { seen.state };
        let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        ActorReport {
            name: seen.name.clone(),
            kind: seen.kind.clone(),
            parent: seen.parent.clone(),
            state,
            waiting: seen.waiting_now(),
            waiting_max: seen.waiting_max,
            oldest_ms: seen.waiting.front().map_or(0, |first| ms(first.at.elapsed())),
            handled: seen.handled,
            busy_ms: ms(seen.busy),
            handling: seen.handling.as_ref().map(|(kind, at)| (kind.to_string(), ms(at.elapsed()))),
            restarts: seen.restarts,
            last_failure: seen.last_failure.clone(),
            up_ms: ms(seen.since.elapsed()),
        }
    }
}

/// What a panic said.
fn words(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no reason given")
}

/// An actor at a message; also where the future that handles it is dropped half way.
struct AtMessage<'a> {
    watched: &'a Watched,
    /// What is known of the message, if somebody looked when it came.
    what: Option<Box<Letter>>,
    ended: Option<Instant>,
}

impl AtMessage<'_> {
    /// It is done with it; gives the time, which is looked at once.
    fn end(mut self) -> Instant {
        *self.ended.insert(Instant::now())
    }
}

impl Drop for AtMessage<'_> {
    fn drop(&mut self) {
        let now = self.ended.unwrap_or_else(Instant::now);
        // One that did not let go of its thread is done long after another took its place.
        let Some(mut seen) = self.watched.current() else { return };
        seen.handled += 1;
        if let Some((_, at)) = seen.handling.take() {
            seen.busy += now.saturating_duration_since(at);
        }
        if seen.state == ActorState::Busy {
            seen.state = ActorState::Idle;
        }
    }
}

/// What a message is called.
type NameOf<A> = fn(&<A as Actor>::Msg) -> Cow<'static, str>;
/// What an actor shows of its state.
type SnapshotOf<A> = fn(&<A as Actor>::State) -> Value;

/// An actor that is watched.
pub struct Probe<A: Actor> {
    inner: A,
    watched: Watched,
    hang: Option<Hang>,
    name_of: NameOf<A>,
    snapshot_of: Option<SnapshotOf<A>>,
}

impl<A: Actor> fmt::Debug for Probe<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Probe").field("watched", &self.watched).finish_non_exhaustive()
    }
}

impl<A: Actor> Probe<A> {
    /// Around an actor.
    #[must_use]
    pub fn new(inner: A, watched: Watched) -> Self
    where
        A::Msg: fmt::Debug,
    {
        Self::naming(inner, watched, |message| Cow::Owned(kind(message)))
    }

    /// Around an actor whose messages cannot be printed, or come in such numbers that a name should
    /// cost nothing.
    pub(crate) fn naming(inner: A, watched: Watched, name_of: NameOf<A>) -> Self {
        let hang = watched.hang();
        Self { inner, watched, hang, name_of, snapshot_of: None }
    }

    /// Publishes what the actor shows of its state, after a message and at most every
    /// [`crate::slot::PUBLISH_EVERY`]. `snapshot_of` gives counts, names and ages: it is called between
    /// two messages, and what it takes the actor loses.
    #[must_use]
    pub fn with_snapshot(mut self, snapshot_of: SnapshotOf<A>) -> Self {
        self.watched.slot.promise();
        self.snapshot_of = Some(snapshot_of);
        self
    }

    fn publish(&self, state: &A::State, now: Instant) {
        if let Some(snapshot_of) = self.snapshot_of
            && self.watched.slot.is_due(now)
        {
            self.watched.slot.publish(&snapshot_of(state));
        }
    }
}

impl<A: Actor> Actor for Probe<A> {
    type Msg = A::Msg;
    type State = A::State;
    type Arguments = A::Arguments;

    async fn pre_start(
        &self,
        myself: ActorRef<Self::Msg>,
        arguments: Self::Arguments,
    ) -> Result<Self::State, ActorProcessingErr> {
        let started = self.watched.done(self.inner.pre_start(myself, arguments)).await;
        if let Ok(state) = &started {
            self.publish(state, Instant::now());
        }
        started
    }

    async fn post_start(
        &self,
        myself: ActorRef<Self::Msg>,
        state: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        let started = self.watched.done(self.inner.post_start(myself, state)).await;
        // Until then it takes no message.
        if started.is_ok() {
            self.watched.idle();
        }
        started
    }

    async fn post_stop(
        &self,
        myself: ActorRef<Self::Msg>,
        state: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        let stopped = self.inner.post_stop(myself, state).await;
        self.watched.over();
        stopped
    }

    async fn handle(
        &self,
        myself: ActorRef<Self::Msg>,
        message: Self::Msg,
        state: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        let kind = (self.name_of)(&message);
        let from_elsewhere = matches!(&*kind, "Inbound" | "Peer");
        self.watched.gate.passed().await;
        let is_looked_at = self.watched.taps.is_on() && !self.watched.carries;
        let is_traced = is_looked_at.then(|| (kind.clone(), Instant::now()));
        let mut at = self.watched.begin(kind, from_elsewhere);
        if let Some(hang) = &self.hang {
            hang.over().await;
        }
        let handled = self.watched.done(self.inner.handle(myself, message, state)).await;
        if let Some((kind, began)) = is_traced {
            self.watched.handled(&kind, at.what.take().as_deref(), began.elapsed());
        }
        let now = at.end();
        if handled.is_ok() {
            self.publish(state, now);
        }
        handled
    }

    async fn handle_supervisor_evt(
        &self,
        myself: ActorRef<Self::Msg>,
        event: SupervisionEvent,
        state: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        let _at = self.watched.begin(Cow::Borrowed("Supervision"), false);
        self.watched.done(self.inner.handle_supervisor_evt(myself, event, state)).await
    }
}

#[cfg(test)]
#[path = "probe_tests.rs"]
mod tests;
