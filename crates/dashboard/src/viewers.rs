//! Server-sent events. A viewer gets the newest pulse whenever it has taken the last one: what it
//! missed is gone, so one that is slow costs one pulse of memory, and the run nothing.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::response::sse::{Event, KeepAlive, Sse};
use futures::Stream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::api::Problem;
use crate::watch::Pulses;

/// Viewers at one time; a page that is open is one.
pub const VIEWERS_MAX: usize = 16;
/// A line is sent at least this often, so that both ends notice when the other is gone.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// Places for viewers.
#[derive(Debug, Clone)]
pub struct Viewers(Arc<Semaphore>);

impl Default for Viewers {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(VIEWERS_MAX)))
    }
}

impl Viewers {
    /// Pulses for one more viewer, the present one at once.
    ///
    /// # Errors
    /// All places are taken.
    pub fn admit(
        &self,
        mut pulses: Pulses,
    ) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>> + use<>>, Problem> {
        let place = Arc::clone(&self.0).try_acquire_owned().map_err(|_| {
            Problem::busy(format!("{VIEWERS_MAX} pages are open already; close one of them"))
        })?;
        pulses.mark_changed();
        let stream = futures::stream::unfold((pulses, place), next);
        Ok(Sse::new(stream).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)))
    }
}

type State = (Pulses, OwnedSemaphorePermit);

async fn next((mut pulses, place): State) -> Option<(Result<Event, Infallible>, State)> {
    pulses.changed().await.ok()?;
    let event = Event::default().event("pulse").data(&**pulses.borrow_and_update());
    Some((Ok(event), (pulses, place)))
}
