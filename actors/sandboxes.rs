//! The pool of sandboxes of a rollout node: lease, return, reap; and the templates they are opened
//! from, one for each task, kept as long as they are of use.
//!
//! A sandbox serves one episode and is never used again. A lease that is dropped instead of closed
//! (a cancelled or panicking episode) is closed all the same, by a task of its own.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crrl_agent::Invocation;
use crrl_cluster::{Row, Shown};
use crrl_machine::disk;
use crrl_sandbox::{LocalBackend, Sandbox, SandboxError, Template};
use crrl_types::actor::{ActorReport, ActorState};
use crrl_types::{Digest, EpisodeId, Task};
use serde_json::json;
use tokio::sync::{OnceCell, OwnedSemaphorePermit, Semaphore};

/// Characters of the reason a sandbox could not be had.
const FAILURE_CHARS_MAX: usize = 300;

/// A sandbox could not be had.
#[derive(Debug, thiserror::Error)]
pub enum LeaseError {
    /// The task's base could not be laid out.
    #[error("its base cannot be laid out: {0}")]
    Base(String),
    /// The sandbox could not be opened.
    #[error("no sandbox: {0}")]
    Open(String),
    /// It took too long.
    #[error("no sandbox within {0:?}")]
    Timeout(Duration),
    /// The node is shutting down.
    #[error("the pool of sandboxes is closed")]
    Closed,
}

/// A tool call could not be carried out, through no fault of the policy's.
#[derive(Debug, thiserror::Error)]
#[error("sandbox: {0}")]
pub struct ToolError(String);

/// What the policy changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Changed {
    /// The diff, empty where nothing was changed.
    Diff(String),
    /// More than is compared, and in what respect.
    TooMuch(String),
}

/// Bounds of the pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolOptions {
    /// Sandboxes open at once; further leases wait.
    pub sandboxes_max: usize,
    /// Templates kept; the least recently used goes first. At least the tasks in flight at once.
    pub templates_max: usize,
    /// Folder the templates are kept in.
    pub cache: PathBuf,
}

/// The pool. Cloning shares it.
#[derive(Clone)]
pub struct Sandboxes(Arc<Pool>);

struct Pool {
    backend: LocalBackend,
    options: PoolOptions,
    places: Arc<Semaphore>,
    templates: Mutex<Templates>,
    counts: Counts,
    holders: Holders,
}

/// Who has the places, in the order they were taken. Cloning shares it.
#[derive(Debug, Clone, Default)]
struct Holders(Arc<Mutex<Held>>);

#[derive(Debug, Default)]
struct Held {
    /// By a number that grows with every place that is taken.
    by_number: BTreeMap<u64, (EpisodeId, Instant)>,
    taken: u64,
}

impl Holders {
    fn held(&self) -> MutexGuard<'_, Held> {
        // Nothing panics under the lock that could leave the map half written.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The episode has a place until what is returned is dropped.
    fn take(&self, episode: EpisodeId) -> Holding {
        let mut held = self.held();
        held.taken += 1;
        let number = held.taken;
        held.by_number.insert(number, (episode, Instant::now()));
        Holding { holders: self.clone(), number }
    }

    /// Who has had a place for longest, and for how long.
    fn oldest(&self) -> Option<(EpisodeId, Duration)> {
        let held = self.held();
        let (episode, since) = held.by_number.values().next()?;
        Some((*episode, since.elapsed()))
    }
}

#[derive(Debug)]
struct Holding {
    holders: Holders,
    number: u64,
}

impl Drop for Holding {
    fn drop(&mut self) {
        self.holders.held().by_number.remove(&self.number);
    }
}

/// What is counted for whoever watches.
struct Counts {
    began: Instant,
    waiting: AtomicU32,
    waiting_max: AtomicU32,
    opened: AtomicU64,
    failed: AtomicU64,
    last_failure: Mutex<Option<String>>,
}

impl Counts {
    fn new() -> Self {
        Self {
            began: Instant::now(),
            waiting: AtomicU32::new(0),
            waiting_max: AtomicU32::new(0),
            opened: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            last_failure: Mutex::default(),
        }
    }

    /// Somebody waits for a place until what is returned is dropped.
    fn one_waits(&self) -> Waits<'_> {
        let waiting = self.waiting.fetch_add(1, Ordering::Relaxed) + 1;
        self.waiting_max.fetch_max(waiting, Ordering::Relaxed);
        Waits(&self.waiting)
    }

    fn note(&self, leased: &Result<Lease, LeaseError>) {
        match leased {
            Ok(_) => {
                self.opened.fetch_add(1, Ordering::Relaxed);
            }
            Err(error) => {
                self.failed.fetch_add(1, Ordering::Relaxed);
                let why = error.to_string().chars().take(FAILURE_CHARS_MAX).collect();
                *self.why_not() = Some(why);
            }
        }
    }

    fn why_not(&self) -> MutexGuard<'_, Option<String>> {
        self.last_failure.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Waits<'a>(&'a AtomicU32);

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[derive(Default)]
struct Templates {
    kept: HashMap<Digest, Kept>,
    uses: u64,
}

struct Kept {
    /// Filled once by whoever comes first; a group's other attempts wait for it.
    template: Arc<OnceCell<Arc<Template>>>,
    used: u64,
}

impl Sandboxes {
    /// A pool over a backend.
    #[must_use]
    pub fn new(backend: LocalBackend, options: PoolOptions) -> Self {
        let places = Arc::new(Semaphore::new(options.sandboxes_max));
        let (templates, counts) = (Mutex::default(), Counts::new());
        let holders = Holders::default();
        Self(Arc::new(Pool { backend, options, places, templates, counts, holders }))
    }

    /// Waits while all places are taken, then takes one for this episode.
    ///
    /// # Errors
    /// When the pool is closed.
    pub async fn place(&self, episode: EpisodeId) -> Result<Place, LeaseError> {
        let places = Arc::clone(&self.0.places);
        let _waits = self.0.counts.one_waits();
        let permit = places.acquire_owned().await.map_err(|_| LeaseError::Closed)?;
        Ok(Place { _holding: self.0.holders.take(episode), _permit: permit })
    }

    /// Opens a sandbox with the task's base in it.
    ///
    /// # Errors
    /// When the base cannot be laid out or the sandbox cannot be opened.
    pub async fn lease(&self, place: Place, task: &Task) -> Result<Lease, LeaseError> {
        let leased = self.lease_now(place, task).await;
        self.0.counts.note(&leased);
        leased
    }

    async fn lease_now(&self, place: Place, task: &Task) -> Result<Lease, LeaseError> {
        let template = self.0.template(task).await?;
        let sandbox = self.0.backend.open(&template).await;
        let sandbox = sandbox.map_err(|error| LeaseError::Open(error.to_string()))?;
        Ok(Lease { sandbox: Some(sandbox), _template: template, place: Some(place) })
    }

    /// Sandboxes open now.
    #[must_use]
    pub fn open(&self) -> usize {
        self.0.options.sandboxes_max - self.0.places.available_permits()
    }

    /// Sandboxes that may be open at once.
    #[must_use]
    pub fn open_max(&self) -> usize {
        self.0.options.sandboxes_max
    }

    /// Templates kept now.
    #[must_use]
    pub fn templates(&self) -> usize {
        self.0.templates().kept.len()
    }
}

/// How long the oldest has waited is not told here: whoever waits is an episode, and says so itself. Who has
/// had a place for longest is, while somebody waits for one, as what the pool is at. For how long it has had
/// it is in words: the number beside them is how long an actor has been at a message, and the pool is at none.
impl Row for Sandboxes {
    fn name(&self) -> &str {
        "sandboxes"
    }

    fn report(&self) -> ActorReport {
        let counts = &self.0.counts;
        let waiting = counts.waiting.load(Ordering::Relaxed);
        let oldest = self.0.holders.oldest().filter(|_| waiting > 0);
        ActorReport {
            name: self.name().to_owned(),
            kind: "SandboxPool".to_owned(),
            parent: Some("rollout".to_owned()),
            state: if self.open() > 0 { ActorState::Busy } else { ActorState::Idle },
            waiting,
            waiting_max: counts.waiting_max.load(Ordering::Relaxed),
            handling: oldest.map(|(episode, held)| (taken(episode, held), 0)),
            handled: counts.opened.load(Ordering::Relaxed),
            last_failure: counts.why_not().clone(),
            up_ms: ms(counts.began.elapsed()),
            ..ActorReport::default()
        }
    }

    fn snapshot(&self) -> Shown {
        let counts = &self.0.counts;
        let oldest = self.0.holders.oldest();
        Shown::now(&json!({
            "open": self.open(),
            "open_max": self.open_max(),
            "oldest": oldest.map(|(episode, held)| json!({ "episode": episode, "held_ms": ms(held) })),
            "waiting": counts.waiting.load(Ordering::Relaxed),
            "waiting_max": counts.waiting_max.load(Ordering::Relaxed),
            "opened": counts.opened.load(Ordering::Relaxed),
            "failed": counts.failed.load(Ordering::Relaxed),
            "last_failure": *counts.why_not(),
            "templates": self.templates(),
            "templates_max": self.0.options.templates_max,
        }))
    }
}

/// Who has had a place for longest, and for how long.
fn taken(episode: EpisodeId, held: Duration) -> String {
    format!("episode {episode}, for {} s", held.as_secs())
}

fn ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

impl Pool {
    fn templates(&self) -> MutexGuard<'_, Templates> {
        // Nothing panics under the lock that could leave the map half written.
        self.templates.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn template(&self, task: &Task) -> Result<Arc<Template>, LeaseError> {
        let key = key(task)?;
        let cell = self.templates().get(key, self.options.templates_max);
        let made = cell.get_or_try_init(|| make_template(task.clone(), self.options.cache.clone()));
        match made.await {
            Ok(template) => Ok(Arc::clone(template)),
            Err(error) => {
                self.templates().kept.remove(&key);
                Err(error)
            }
        }
    }
}

impl Templates {
    fn get(&mut self, key: Digest, max: usize) -> Arc<OnceCell<Arc<Template>>> {
        self.uses += 1;
        let used = self.uses;
        if let Some(kept) = self.kept.get_mut(&key) {
            kept.used = used;
            return Arc::clone(&kept.template);
        }
        if self.kept.len() >= max.max(1)
            && let Some(oldest) =
                self.kept.iter().min_by_key(|(_, kept)| kept.used).map(|(k, _)| *k)
        {
            // Its files go when the last sandbox opened from it is closed.
            self.kept.remove(&oldest);
        }
        let template = Arc::new(OnceCell::new());
        self.kept.insert(key, Kept { template: Arc::clone(&template), used });
        template
    }
}

/// What decides a task's base: where it comes from, not what is asked.
fn key(task: &Task) -> Result<Digest, LeaseError> {
    let parts = (&task.instance_id, &task.repo, &task.base_commit, &task.base);
    let text = serde_json::to_vec(&parts).map_err(|error| LeaseError::Base(error.to_string()))?;
    Ok(Digest::of(&text))
}

/// Lays a task's base out and makes a template of it, off the async threads.
async fn make_template(task: Task, cache: PathBuf) -> Result<Arc<Template>, LeaseError> {
    let made = tokio::task::spawn_blocking(move || {
        // A node without room would otherwise fail one episode after the other.
        disk::until_room(&cache, || {
            let base = |error: &dyn std::fmt::Display| LeaseError::Base(error.to_string());
            disk::before_write().map_err(|error| base(&error))?;
            std::fs::create_dir_all(&cache).map_err(|error| base(&error))?;
            let folder = tempfile::tempdir_in(&cache).map_err(|error| base(&error))?;
            crrl_tasks::materialize(&task, folder.path()).map_err(|error| base(&error))?;
            Template::prepare(folder.path(), &cache).map_err(|error| base(&error)).map(Arc::new)
        })
    });
    made.await.unwrap_or_else(|panic| Err(LeaseError::Base(panic.to_string())))
}

/// A place in the pool that is somebody's: room for one sandbox. Dropping it gives it back.
#[derive(Debug)]
pub struct Place {
    _holding: Holding,
    _permit: OwnedSemaphorePermit,
}

/// A sandbox that is somebody's.
pub struct Lease {
    sandbox: Option<Sandbox>,
    /// Keeps the template's files.
    _template: Arc<Template>,
    place: Option<Place>,
}

impl Lease {
    /// Carries a tool call out; gives its output and whether it did what it was meant to.
    ///
    /// # Errors
    /// When the sandbox failed, not the call.
    pub async fn run(&mut self, invocation: &Invocation) -> Result<(String, bool), ToolError> {
        let sandbox = self.sandbox();
        let failed = |error: &dyn std::fmt::Display| ToolError(error.to_string());
        match invocation {
            Invocation::Shell { cmd } => {
                let ran = sandbox.exec(cmd).await.map_err(|error| failed(&error))?;
                Ok((ran.output, ran.ok))
            }
            Invocation::ApplyPatch { path, old, new } => {
                let applied = sandbox.apply_patch(path, old, new).await;
                let applied = applied.map_err(|error| failed(&error))?;
                Ok((applied.output, applied.ok))
            }
        }
    }

    /// What was changed, by our git against our pristine base.
    ///
    /// # Errors
    /// When the sandbox failed.
    pub async fn diff(&mut self) -> Result<Changed, ToolError> {
        match self.sandbox().diff().await {
            Ok(diff) => Ok(Changed::Diff(diff)),
            Err(error @ SandboxError::TooMuch(_)) => Ok(Changed::TooMuch(error.to_string())),
            Err(error) => Err(ToolError(error.to_string())),
        }
    }

    /// Ends the sandbox: everything in it is killed and removed.
    pub async fn close(mut self) {
        let (sandbox, place) = (self.sandbox.take(), self.place.take());
        end(sandbox, place).await;
    }

    fn sandbox(&mut self) -> &mut Sandbox {
        self.sandbox.as_mut().expect("taken only where the lease itself ends")
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let (sandbox, place) = (self.sandbox.take(), self.place.take());
        if sandbox.is_none() {
            return;
        }
        // Without a runtime the process is ending, and its sandboxes end with it.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(end(sandbox, place));
        }
    }
}

/// The place is free once the sandbox is gone.
async fn end(sandbox: Option<Sandbox>, place: Option<Place>) {
    if let Some(sandbox) = sandbox {
        sandbox.close().await;
    }
    drop(place);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_had_a_place_for_longest_is_known_until_it_is_given_back() {
        let holders = Holders::default();
        let oldest = || holders.oldest().map(|(episode, _)| episode);
        assert_eq!(oldest(), None);
        let first = holders.take(EpisodeId(17));
        // The same episode may have a second one: one is being ended, another opened.
        let second = holders.take(EpisodeId(4));
        let third = holders.take(EpisodeId(17));
        assert_eq!(oldest(), Some(EpisodeId(17)));
        drop(first);
        assert_eq!(oldest(), Some(EpisodeId(4)));
        drop((second, third));
        assert_eq!(oldest(), None);
    }
}
