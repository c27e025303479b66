//! What scripts and the page ask for, as JSON. Every list is bounded, whatever is asked.
//!
//! - [`overview`]: which runs there are, how far each got, its pulse
//! - [`actors`]: actors and their tree, as the inspector sees them
//! - [`curves`]: curves over steps
//! - [`rollouts`]: episodes, a page at a time
//! - [`episode`]: one episode in full, text cut where it is long
//! - [`under_way`]: one that is not over, as it goes on
//! - [`faults`]: what went wrong, and the run's history
//! - [`compare`]: several runs side by side
//! - [`problem`]: why there is no answer

pub mod actors;
pub mod compare;
pub mod curves;
pub mod episode;
pub mod faults;
pub mod overview;
pub mod problem;
pub mod rollouts;
pub mod under_way;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::Query;
use axum::extract::rejection::QueryRejection;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use crrl_types::EpisodeId;
use serde::Serialize;

use crate::run::Run;
use crate::server::Shared;

pub use problem::Problem;

/// How long a request waits for others that read.
const TURN_TIMEOUT: Duration = Duration::from_secs(20);

/// An answer.
pub type Answer = Result<Json, Problem>;

/// What stands behind `?`; unknown names are refused in words.
type Asked<T> = Result<Query<T>, QueryRejection>;

/// A JSON text.
#[derive(Debug, Clone)]
pub struct Json(Vec<u8>);

impl Json {
    /// Writes a value.
    ///
    /// # Errors
    /// Never for what this crate answers with.
    pub fn of(value: &impl Serialize) -> Answer {
        serde_json::to_vec(value).map(Self).map_err(|error| Problem::failed(&error))
    }
}

impl IntoResponse for Json {
    fn into_response(self) -> Response {
        ([(CONTENT_TYPE, "application/json")], self.0).into_response()
    }
}

/// Every address.
pub(crate) fn routes() -> Router<Arc<Shared>> {
    Router::new()
        .route("/api/runs", get(overview::runs))
        .route("/api/runs/{run}", get(overview::run))
        .route("/api/runs/{run}/now", get(overview::now))
        .route("/api/runs/{run}/pulse", get(overview::pulse))
        .route("/api/runs/{run}/actors", get(actors::list))
        .route("/api/runs/{run}/actor", get(actors::one))
        .route("/api/runs/{run}/tree", get(actors::tree))
        .route("/api/runs/{run}/curves", get(curves::curves))
        .route("/api/runs/{run}/live", get(rollouts::live))
        .route("/api/runs/{run}/facets", get(rollouts::facets))
        .route("/api/runs/{run}/episodes", get(rollouts::list))
        .route("/api/runs/{run}/episodes/{episode}", get(episode::one))
        .route("/api/runs/{run}/episodes/{episode}/follow", get(under_way::follow))
        .route("/api/runs/{run}/episodes/{episode}/tokens", get(episode::tokens))
        .route("/api/runs/{run}/episodes/{episode}/text", get(episode::text))
        .route("/api/runs/{run}/faults", get(faults::faults))
        .route("/api/runs/{run}/history", get(faults::history))
        .route("/api/compare", get(compare::compare))
        .route("/api/{*rest}", get(nothing))
}

async fn nothing() -> Problem {
    Problem::missing("there is no such address; docs/DASHBOARD.md lists them")
}

/// What was asked for.
fn asked<T>(asked: Asked<T>) -> Result<T, Problem> {
    asked.map(|Query(asked)| asked).map_err(|error| Problem::usage(error.body_text()))
}

/// The run of this number.
pub(crate) fn run(shared: &Shared, number: usize) -> Result<Arc<Run>, Problem> {
    let found = shared.runs.get(number).map(|(run, _)| Arc::clone(run));
    found.ok_or_else(|| Problem::missing("there is no run of this number; /api/runs lists them"))
}

pub(crate) fn no_such(id: EpisodeId) -> Problem {
    Problem::missing(format!("there is no episode {id} in this run"))
}

/// Does what reads files where it holds nobody up, so many at one time.
pub(crate) async fn reading<T: Send + 'static>(
    shared: &Shared,
    work: impl FnOnce() -> Result<T, Problem> + Send + 'static,
) -> Result<T, Problem> {
    let turn = tokio::time::timeout(TURN_TIMEOUT, shared.readers.acquire()).await;
    let _turn = turn
        .map_err(|_| Problem::busy("others are reading; ask again"))?
        .map_err(|error| Problem::failed(&error))?;
    tokio::task::spawn_blocking(work).await.map_err(|error| Problem::failed(&error))?
}
