//! Server-sent events of an episode under way. Its journal is read from where the viewer got to, and only
//! once the viewer has taken what it was sent: one that does not read costs no reading, and the memory of what
//! one look found: nine turns at most, their texts cut, and the patch so far.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::response::sse::Event;
use crrl_inspect::archive::{self, Page};
use crrl_inspect::state::episodes::LiveRow;
use crrl_types::EpisodeId;
use futures::Stream;
use serde_json::{Value, json};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::api::{Problem, no_such, reading};
use crate::run::Run;
use crate::server::Shared;
use crate::under_way::Told;
use crate::watch::Pulses;

/// Episodes that are followed at one time.
pub const FOLLOWERS_MAX: usize = 8;
/// Time between two looks at a journal, as in the inspector.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Entries of a journal that are read at one look, each of a turn of its own at most; where there are more the
/// next look is at once.
const ENTRIES_MAX: u32 = 8;

/// Places for those who follow an episode.
#[derive(Debug, Clone)]
pub struct Followers(Arc<Semaphore>);

impl Default for Followers {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(FOLLOWERS_MAX)))
    }
}

impl Followers {
    /// One place, until it is dropped.
    ///
    /// # Errors
    /// All are taken.
    pub(crate) fn admit(&self) -> Result<OwnedSemaphorePermit, Problem> {
        Arc::clone(&self.0).try_acquire_owned().map_err(|_| {
            let says = "episodes are followed already; close one of their pages";
            Problem::busy(format!("{FOLLOWERS_MAX} {says}"))
        })
    }
}

/// Whether an episode in this state of the ledger is under way, or will be again.
pub(crate) fn is_under_way(state: &str) -> bool {
    matches!(state, "leased" | "queued")
}

/// Who follows one episode.
pub(crate) struct Follower {
    shared: Arc<Shared>,
    run: Arc<Run>,
    /// They end with the dashboard.
    pulses: Pulses,
    episode: EpisodeId,
    _place: OwnedSemaphorePermit,
    told: Told,
    waiting: VecDeque<Event>,
    now: Option<Value>,
    trouble: Option<String>,
    /// Whether there is more to read at once.
    is_behind: bool,
    is_over: bool,
}

/// What is found of an episode at one look.
struct Found {
    state: String,
    page: Page,
}

impl Follower {
    /// Follows an episode of the run of this number from its first turn on.
    ///
    /// # Errors
    /// No such run, or no place.
    pub(crate) fn new(
        shared: &Arc<Shared>,
        number: usize,
        episode: EpisodeId,
    ) -> Result<Self, Problem> {
        let run = crate::api::run(shared, number)?;
        Ok(Self {
            _place: shared.followers.admit()?,
            pulses: shared.runs[number].1.clone(),
            shared: Arc::clone(shared),
            run,
            episode,
            told: Told::default(),
            waiting: VecDeque::new(),
            now: None,
            trouble: None,
            is_behind: true,
            is_over: false,
        })
    }

    /// What it is sent.
    pub(crate) fn events(self) -> impl Stream<Item = Result<Event, Infallible>> + use<> {
        futures::stream::unfold(self, Self::next)
    }

    async fn next(mut self) -> Option<(Result<Event, Infallible>, Self)> {
        loop {
            if let Some(event) = self.waiting.pop_front() {
                return Some((Ok(event), self));
            }
            if self.is_over {
                return None;
            }
            if !std::mem::take(&mut self.is_behind) {
                tokio::time::sleep(LOOK_EVERY).await;
            }
            if self.pulses.has_changed().is_err() {
                return None;
            }
            self.look().await;
        }
    }

    async fn look(&mut self) {
        let (run, id, known) = (Arc::clone(&self.run), self.episode, self.told.known());
        let found = reading(&self.shared, move || find(&run, id, known)).await;
        let (is_off, row) = self.seen();
        match found {
            Ok(Found { state, page }) => {
                self.trouble = None;
                self.is_behind = page.entries.len() == ENTRIES_MAX as usize;
                for news in self.told.add(page) {
                    let (name, value) = news.into_parts();
                    self.say(name, &value);
                }
                let now = json!({ "state": state, "live": row });
                if self.now.as_ref() != Some(&now) {
                    self.say("now", &now);
                    self.now = Some(now);
                }
                // Not before everything was told of it.
                if !is_under_way(&state) && !self.is_behind {
                    self.say("over", &json!({ "state": state }));
                    self.is_over = true;
                }
            }
            Err(problem) => {
                let says = problem.to_string();
                if self.trouble.as_ref() != Some(&says) {
                    self.say("trouble", &json!({ "error": says }));
                }
                (self.trouble, self.now) = (Some(says), None);
            }
        }
        if is_off && !self.is_over && !self.is_behind {
            self.say("gone", &json!({}));
            self.is_over = true;
        }
    }

    /// Whether nobody is asked any more, and what is seen of the episode.
    fn seen(&self) -> (bool, Option<LiveRow>) {
        let seen = self.run.seen();
        let row = seen.world.live().iter().find(|row| row.episode == self.episode.0).cloned();
        (seen.link.is_none(), row)
    }

    fn say(&mut self, name: &str, value: &Value) {
        self.waiting.push_back(Event::default().event(name).data(value.to_string()));
    }
}

fn find(run: &Run, id: EpisodeId, known: (u32, u32)) -> Result<Found, Problem> {
    let store = run.store()?;
    let page = archive::journal(&store, id, known, ENTRIES_MAX, || run.tokenizer())?;
    let row = store.episode(id)?.ok_or_else(|| no_such(id))?;
    Ok(Found { state: row.state, page })
}
