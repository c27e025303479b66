//! What a thread of its own is doing, read off atomics: a thread that hangs is seen hanging.
//!
//! The thread notes the phase it is in and when it came into it, in one word, so that a reader never
//! sees the phase of one moment with the time of another. Whoever gives it work says so with
//! [`Worker::sent`]. Reading asks nobody and waits for nobody.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use crrl_types::actor::{ActorReport, ActorState};

use crate::peer::lock;
use crate::probe::FAILURE_CHARS_MAX;
use crate::rows::Row;
use crate::slot::Shown;

/// Bits of the word that hold the time, microseconds since [`Inner::born`]: nine years.
const TIME_BITS: u32 = 48;
/// Above them, which life of the thread it is of.
const LIFE_BITS: u32 = 8;
/// Between two pieces of work.
const IDLE: u64 = 0;
/// Phases are numbered from here.
const FIRST: u64 = 1;
/// Begun, and in no phase yet.
const STARTING: u64 = 253;
/// Ended by itself.
const STOPPED: u64 = 254;
/// Ended with a reason.
const FAILED: u64 = 255;
/// No piece of work waits.
const NOBODY: u64 = u64::MAX;

/// A thread, as others see it. Cloning gives another handle to the same.
#[derive(Debug, Clone)]
pub struct Worker(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    name: &'static str,
    kind: &'static str,
    parent: &'static str,
    phases: &'static [&'static str],
    /// Times are counted from here.
    born: Instant,
    /// The phase, the life, and since when.
    at: AtomicU64,
    started_us: AtomicU64,
    starts: AtomicU32,
    waiting: AtomicI64,
    waiting_max: AtomicU32,
    /// Since when the piece of work that is next has waited at least; [`NOBODY`] where none does.
    next_us: AtomicU64,
    handled: AtomicU64,
    busy_us: AtomicU64,
    last_failure: Mutex<Option<String>>,
}

impl Worker {
    /// A thread that was not started yet, with the actor it works for. `phases` are the names of what
    /// it does; [`WorkerThread::enter`] and [`WorkerThread::work`] take their places in that list.
    #[must_use]
    pub fn new(
        name: &'static str,
        kind: &'static str,
        parent: &'static str,
        phases: &'static [&'static str],
    ) -> Self {
        Self(Arc::new(Inner {
            name,
            kind,
            parent,
            phases,
            born: Instant::now(),
            at: AtomicU64::new(STARTING << (TIME_BITS + LIFE_BITS)),
            started_us: AtomicU64::new(0),
            starts: AtomicU32::new(0),
            waiting: AtomicI64::new(0),
            waiting_max: AtomicU32::new(0),
            next_us: AtomicU64::new(NOBODY),
            handled: AtomicU64::new(0),
            busy_us: AtomicU64::new(0),
            last_failure: Mutex::default(),
        }))
    }

    /// The thread begins, or another in its place; whatever the one before still does is not told of
    /// any more. Gives the thread's own end.
    #[must_use]
    pub fn starting(&self) -> WorkerThread {
        let inner = &self.0;
        let life = u64::from(inner.starts.fetch_add(1, Ordering::AcqRel) + 1) % (1 << LIFE_BITS);
        inner.waiting.store(0, Ordering::Release);
        inner.next_us.store(NOBODY, Ordering::Release);
        inner.started_us.store(self.now_us(), Ordering::Release);
        inner.at.store(self.word(STARTING, life), Ordering::Release);
        WorkerThread { worker: self.clone(), life, is_at_work: Arc::default() }
    }

    /// A piece of work is on its way to it.
    pub fn sent(&self) {
        let inner = &self.0;
        let before = inner.waiting.fetch_add(1, Ordering::AcqRel);
        if before <= 0 {
            inner.next_us.store(self.now_us(), Ordering::Release);
        }
        let waiting = u32::try_from(before.saturating_add(1)).unwrap_or(0);
        inner.waiting_max.fetch_max(waiting, Ordering::Relaxed);
    }

    /// That piece of work was not sent after all.
    pub fn unsent(&self) {
        let inner = &self.0;
        let next = inner.next_us.load(Ordering::Acquire);
        // What else waits has waited for as long as before.
        if inner.waiting.fetch_sub(1, Ordering::AcqRel) <= 1 {
            let order = (Ordering::AcqRel, Ordering::Relaxed);
            let _ = inner.next_us.compare_exchange(next, NOBODY, order.0, order.1);
        }
    }

    fn one_less(&self) {
        let inner = &self.0;
        let next = inner.next_us.load(Ordering::Acquire);
        let is_last = inner.waiting.fetch_sub(1, Ordering::AcqRel) <= 1;
        // How long the one behind it has waited before is not known.
        let then = if is_last { NOBODY } else { self.now_us() };
        // One that was sent in between has noted itself.
        let _ = inner.next_us.compare_exchange(next, then, Ordering::AcqRel, Ordering::Relaxed);
    }

    fn now_us(&self) -> u64 {
        u64::try_from(self.0.born.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    fn word(&self, code: u64, life: u64) -> u64 {
        let time = self.now_us() % (1 << TIME_BITS);
        (((code << LIFE_BITS) | life) << TIME_BITS) | time
    }
}

/// A thread's own end of a [`Worker`]. Cloning gives another handle to the same.
#[derive(Debug, Clone)]
pub struct WorkerThread {
    worker: Worker,
    life: u64,
    /// Whether its phases are those of a piece of work. What it does beside, like loading a model, would
    /// spoil how long its work takes on the average.
    is_at_work: Arc<AtomicBool>,
}

impl WorkerThread {
    /// It does something else from now on.
    pub fn enter(&self, phase: usize) {
        // More phases than fit are none of ours.
        self.set((FIRST + phase as u64).min(STARTING - 1));
    }

    /// It waits for work.
    pub fn idle(&self) {
        self.set(IDLE);
    }

    /// It has taken a piece of work.
    pub fn taken(&self) {
        if self.is_of(self.worker.0.at.load(Ordering::Acquire)) {
            self.worker.one_less();
        }
    }

    /// It is at a piece of work, which begins with this phase, until what is returned is dropped.
    pub fn work(&self, phase: usize) -> AtWork<'_> {
        self.enter(phase);
        self.is_at_work.store(true, Ordering::Release);
        AtWork { thread: self }
    }

    /// It has ended in good order.
    pub fn stopped(&self) {
        self.set(STOPPED);
    }

    /// It has ended, and why.
    pub fn failed(&self, why: &str) {
        if self.is_of(self.worker.0.at.load(Ordering::Acquire)) {
            let why = why.chars().take(FAILURE_CHARS_MAX).collect();
            *lock(&self.worker.0.last_failure) = Some(why);
        }
        self.set(FAILED);
    }

    /// Whether a word is this life's, and not that of a thread in its place.
    fn is_of(&self, word: u64) -> bool {
        (word >> TIME_BITS) % (1 << LIFE_BITS) == self.life
    }

    /// Counts the phase that was left: a piece of work of many phases is seen at work before it is done.
    fn count(&self, left: u64, entered: u64) {
        let is_phase = (FIRST..STARTING).contains(&(left >> (TIME_BITS + LIFE_BITS)));
        if is_phase && self.is_at_work.load(Ordering::Acquire) {
            let at_us = |word: u64| word % (1 << TIME_BITS);
            let us = at_us(entered).saturating_sub(at_us(left));
            self.worker.0.busy_us.fetch_add(us, Ordering::AcqRel);
        }
    }

    fn set(&self, code: u64) {
        let at = &self.worker.0.at;
        let word = self.worker.word(code, self.life);
        let mut held = at.load(Ordering::Acquire);
        while self.is_of(held) {
            match at.compare_exchange_weak(held, word, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return self.count(held, word),
                Err(other) => held = other,
            }
        }
    }
}

impl Row for Worker {
    fn name(&self) -> &str {
        self.0.name
    }

    fn report(&self) -> ActorReport {
        let inner = &self.0;
        // Read before the word: a phase that is left in between is not counted twice.
        let busy_ms = inner.busy_us.load(Ordering::Acquire) / 1_000;
        let at = inner.at.load(Ordering::Acquire);
        let (code, since_us) = (at >> (TIME_BITS + LIFE_BITS), at % (1 << TIME_BITS));
        // Read after the word: a time in it is never later than now.
        let now_us = self.now_us();
        let ms_since = |us: u64| now_us.saturating_sub(us) / 1_000;
        let state = match code {
            IDLE => ActorState::Idle,
            STARTING => ActorState::Starting,
            STOPPED => ActorState::Stopped,
            FAILED => ActorState::Failed,
            _ => ActorState::Busy,
        };
        let is_alive = !matches!(state, ActorState::Stopped | ActorState::Failed);
        let waiting = inner.waiting.load(Ordering::Acquire);
        let waiting = if is_alive { u32::try_from(waiting).unwrap_or(0) } else { 0 };
        let next_us = inner.next_us.load(Ordering::Acquire);
        let handling = (state == ActorState::Busy).then(|| {
            let phase = usize::try_from(code - FIRST).ok().and_then(|at| inner.phases.get(at));
            (phase.copied().unwrap_or("something else").to_owned(), ms_since(since_us))
        });
        ActorReport {
            name: inner.name.to_owned(),
            kind: inner.kind.to_owned(),
            parent: Some(inner.parent.to_owned()),
            state,
            waiting,
            waiting_max: inner.waiting_max.load(Ordering::Relaxed),
            oldest_ms: if waiting > 0 && next_us != NOBODY { ms_since(next_us) } else { 0 },
            handled: inner.handled.load(Ordering::Acquire),
            busy_ms,
            handling,
            restarts: inner.starts.load(Ordering::Relaxed).saturating_sub(1),
            last_failure: lock(&inner.last_failure).clone(),
            up_ms: ms_since(inner.started_us.load(Ordering::Acquire)),
        }
    }

    fn snapshot(&self) -> Shown {
        Shown::Unsupported
    }
}

/// A thread at a piece of work; also where that ends in a panic.
#[must_use = "the work is over when this is dropped"]
#[derive(Debug)]
pub struct AtWork<'a> {
    thread: &'a WorkerThread,
}

impl Drop for AtWork<'_> {
    fn drop(&mut self) {
        self.thread.idle();
        self.thread.is_at_work.store(false, Ordering::Release);
        let inner = &self.thread.worker.0;
        if self.thread.is_of(inner.at.load(Ordering::Acquire)) {
            inner.handled.fetch_add(1, Ordering::AcqRel);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;
    use crate::probe::Probes;

    const PHASES: [&str; 2] = ["prefill", "decode"];

    fn until(probes: &Probes, what: impl Fn(&ActorReport) -> bool) -> ActorReport {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let report = probes.report().remove(0);
            if what(&report) {
                return report;
            }
            assert!(Instant::now() < deadline, "did not come about: {report:?}");
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    #[test]
    fn a_thread_that_hangs_is_seen_with_its_phase_and_what_waits_behind_it() {
        let worker = Worker::new("engine", "EngineThread", "rollout", &PHASES);
        let probes = Probes::default();
        probes.add(Arc::new(worker.clone()));
        assert_eq!(probes.report()[0].state, ActorState::Starting);
        let (jobs, inbox) = mpsc::channel();
        let (go, hangs) = mpsc::channel::<()>();
        let own = worker.starting();
        let thread = std::thread::spawn(move || {
            own.idle();
            while inbox.recv().is_ok() {
                own.taken();
                let _at_it = own.work(0);
                own.enter(1);
                let _ = hangs.recv();
            }
            own.stopped();
        });
        until(&probes, |seen| seen.state == ActorState::Idle);
        for _ in 0..3 {
            worker.sent();
            jobs.send(()).expect("it listens");
        }
        let is_hung = |seen: &ActorReport| seen.handling.as_ref().is_some_and(|(_, ms)| *ms >= 20);
        let seen = until(&probes, |seen| is_hung(seen) && seen.oldest_ms >= 20);
        assert_eq!((seen.state, seen.waiting, seen.handled), (ActorState::Busy, 2, 0));
        assert_eq!(seen.handling.map(|(phase, _)| phase).as_deref(), Some("decode"));
        assert_eq!((seen.kind.as_str(), seen.parent.as_deref()), ("EngineThread", Some("rollout")));
        (0..3).for_each(|_| go.send(()).expect("it hangs"));
        let seen = until(&probes, |seen| seen.handled == 3 && seen.state == ActorState::Idle);
        assert_eq!((seen.waiting, seen.oldest_ms, seen.handling), (0, 0, None));
        assert!(
            seen.busy_ms >= 20 && seen.waiting_max >= 2,
            "{} {}",
            seen.busy_ms,
            seen.waiting_max
        );
        drop(jobs);
        thread.join().expect("no panic");
        assert_eq!(probes.report()[0].state, ActorState::Stopped);
    }

    /// One that has been at its phase for a while.
    fn at_it_for(probes: &Probes, ms: u64) -> ActorReport {
        until(probes, |seen| seen.handling.as_ref().is_some_and(|(_, at)| *at >= ms))
    }

    #[test]
    fn a_piece_of_work_counts_phase_by_phase_and_what_is_none_does_not() {
        let worker = Worker::new("trainer", "TrainerThread", "learner", &PHASES);
        let probes = Probes::default();
        probes.add(Arc::new(worker.clone()));
        let own = worker.starting();
        own.enter(0);
        at_it_for(&probes, 20);
        own.idle();
        assert_eq!((worker.report().busy_ms, worker.report().handled), (0, 0), "it only loads");
        let at_it = own.work(0);
        let before = at_it_for(&probes, 20).handling.map_or(0, |(_, ms)| ms);
        // As a listener within the work says it.
        own.clone().enter(1);
        let seen = worker.report();
        assert!(seen.busy_ms >= before, "{} of {before} ms", seen.busy_ms);
        assert_eq!((seen.state, seen.handled), (ActorState::Busy, 0));
        at_it_for(&probes, 20);
        drop(at_it);
        let seen = worker.report();
        assert!(seen.busy_ms >= before + 20, "{} of {before} + 20 ms", seen.busy_ms);
        assert_eq!((seen.state, seen.handled), (ActorState::Idle, 1));
        own.enter(0);
        at_it_for(&probes, 20);
        own.idle();
        let then = worker.report();
        assert_eq!((then.busy_ms, then.handled), (seen.busy_ms, 1), "what comes after is none");
    }

    #[test]
    fn one_that_failed_says_why_and_another_in_its_place_is_a_restart() {
        let worker = Worker::new("trainer", "TrainerThread", "learner", &PHASES);
        let first = worker.starting();
        worker.sent();
        first.failed("out of memory");
        let seen = worker.report();
        assert_eq!((seen.state, seen.waiting, seen.restarts), (ActorState::Failed, 0, 0));
        let _second = worker.starting();
        let seen = worker.report();
        assert_eq!((seen.state, seen.waiting, seen.restarts), (ActorState::Starting, 0, 1));
        assert_eq!(seen.last_failure.as_deref(), Some("out of memory"));
    }

    #[test]
    fn one_that_has_not_ended_yet_says_nothing_for_the_one_in_its_place() {
        let worker = Worker::new("trainer", "TrainerThread", "learner", &PHASES);
        let first = worker.starting();
        let at_it = first.work(0);
        let second = worker.starting();
        second.idle();
        worker.sent();
        first.enter(1);
        first.taken();
        drop(at_it);
        first.failed("told to leave");
        let seen = worker.report();
        assert_eq!((seen.state, seen.waiting, seen.last_failure), (ActorState::Idle, 1, None));
        second.taken();
        let _at_it = second.work(1);
        let seen = worker.report();
        assert_eq!((seen.state, seen.waiting), (ActorState::Busy, 0));
        assert_eq!(seen.handling.map(|(phase, _)| phase).as_deref(), Some("decode"));
    }
}
