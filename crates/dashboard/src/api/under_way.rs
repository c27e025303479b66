//! An episode under way: its turns as they become durable, their tokens, and the rest of texts that were cut.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, State};
use axum::response::IntoResponse;
use axum::response::sse::{KeepAlive, Sse};
use crrl_inspect::archive;
use crrl_inspect::pieces::Pieces;
use crrl_inspect::state::transcript::{Fate, Journal};
use crrl_store::Reader;
use crrl_types::EpisodeId;

use super::episode::{Of, WhichText};
use super::{Problem, no_such, reading};
use crate::excerpt::{self, Excerpt};
use crate::followers::Follower;
use crate::run::Run;
use crate::server::Shared;

/// A line is sent at least this often, so that both ends notice when the other is gone.
const KEEP_ALIVE: Duration = Duration::from_secs(10);
/// Entries of a journal that are read at one time.
const ENTRIES_MAX: u32 = 64;
/// Pieces of a journal that are read for one text.
const PAGES_MAX: usize = 256;

/// `GET /api/runs/N/episodes/ID/follow`
pub(crate) async fn follow(
    State(shared): State<Arc<Shared>>,
    Path((number, id)): Path<(usize, u64)>,
) -> Result<impl IntoResponse, Problem> {
    let run = super::run(&shared, number)?;
    if !run.is_watched() {
        let says = "no cluster is up, so no episode is under way; \
                    /api/runs/N/episodes/ID has what one left behind";
        return Err(Problem::missing(says));
    }
    let id = EpisodeId(id);
    reading(&shared, move || run.store()?.episode(id)?.ok_or_else(|| no_such(id))).await?;
    let follower = Follower::new(&shared, number, id)?;
    Ok(Sse::new(follower.events()).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)))
}

/// The journal of an episode that left no transcript yet: up to this turn, or all of it.
fn journal(
    run: &Run,
    store: &Reader,
    id: EpisodeId,
    turn: Option<usize>,
) -> Result<Journal, Problem> {
    let mut journal = Journal::default();
    for _ in 0..PAGES_MAX {
        let known = (journal.attempt, journal.entries);
        let page = archive::journal(store, id, known, ENTRIES_MAX, || run.tokenizer())?;
        let is_last = page.entries.len() < ENTRIES_MAX as usize;
        journal.add(page.attempt, page.first, page.entries);
        // The turn after it is there, so nothing of it is missing.
        let last = (journal.forgotten + journal.turns.len()).saturating_sub(1);
        if is_last || turn.is_some_and(|turn| last > turn) {
            break;
        }
    }
    Ok(journal)
}

/// The tokens of a turn of an episode that left no transcript yet.
pub(super) fn tokens(
    run: &Run,
    store: &Reader,
    id: EpisodeId,
    turn: usize,
) -> Result<Option<Pieces>, Problem> {
    let journal = journal(run, store, id, Some(turn))?;
    let at = turn.checked_sub(journal.forgotten);
    Ok(at.and_then(|at| journal.turns.into_iter().nth(at)).map(|turn| turn.tokens))
}

/// A text of an episode that left no transcript yet, out of its journal.
pub(super) fn text(
    run: &Run,
    store: &Reader,
    id: EpisodeId,
    which: &WhichText,
) -> Result<Option<Excerpt>, Problem> {
    let last = (!matches!(which.of, Of::Patch)).then_some(which.turn);
    let journal = journal(run, store, id, last)?;
    let turn = which.turn.checked_sub(journal.forgotten).and_then(|at| journal.turns.get(at));
    let call = turn.and_then(|turn| turn.calls.get(which.call));
    let found = match which.of {
        Of::Turn => turn.map(|turn| &turn.text),
        Of::Arguments => call.map(|call| &call.arguments),
        Of::Output => call.and_then(|call| match &call.fate {
            Fate::Waiting => None,
            Fate::Refused(output) | Fate::Answered { output, .. } => Some(output),
        }),
        Of::Patch => journal.change.as_ref(),
        Of::Reference | Of::Statement => None,
    };
    Ok(found.map(|text| excerpt::more(text, which.from)))
}
