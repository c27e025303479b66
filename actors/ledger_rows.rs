//! Between the coordinator's records and the run store's rows, both ways. Decides nothing.

use std::collections::BTreeMap;

use crrl_control::coordinator::{BatchRow, ROLLBACK_STEPS_MAX, Record, Recovered};
use crrl_control::ledger::{Entry, Lease, Leases, Outcome, State, Totals};
use crrl_control::restore::Restored;
use crrl_control::results::Results;
use crrl_control::wire::Serving;
use crrl_store::{EpisodeRow, Op, Reader, StoreError};
use crrl_types::{EpisodeId, Step};

use crate::journals::Journals;

/// Keys of the store's `meta` table.
const PHASE: &str = "phase";
const PINNED: &str = "pinned";
const RESULTS: &str = "results";
const RESTORED: &str = "restored";

/// Why a run cannot be read back.
#[derive(Debug, thiserror::Error)]
pub enum RecoverRowsError {
    /// The store itself.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A row that makes no sense.
    #[error(
        "the run store's {what} makes no sense: {detail}; it was written by another build, or damaged: \
         `crrl train --resume {last_good}` goes on from the last good copy of it",
        last_good = crrl_store::error::LAST_GOOD
    )]
    Row {
        /// Which.
        what: String,
        /// Why.
        detail: String,
    },
}

/// The change of the store that makes a record durable.
#[must_use]
pub fn op(record: Record) -> Op {
    match record {
        Record::Episode(entry) => Op::Episode(Box::new(row(*entry))),
        Record::Batch(BatchRow { step, phase, version, committed, episodes }) => {
            Op::Batch(crrl_store::BatchRow { step, phase, version, committed, episodes })
        }
        Record::Published(Serving { version, digest }) => Op::Published(version, digest),
        Record::Step { step, version, metrics } => {
            Op::Step(crrl_store::StepRow { step, version, metrics })
        }
        Record::Phase(phase) => Op::Meta(PHASE.to_owned(), phase.to_string()),
        Record::Pinned(serving, first) => {
            let value = serving.map(|serving| (serving, first));
            let text = serde_json::to_string(&value).expect("plain numbers and a digest");
            Op::Meta(PINNED.to_owned(), text)
        }
        Record::Quarantined(task, reason) => Op::Quarantined(task, reason),
        Record::Released(task) => Op::Released(task),
    }
}

/// The change of the store that makes results durable, with the phase that they are of: the file
/// of results is written after it, and a crash may come between.
#[must_use]
pub fn results(results: &Results) -> Op {
    let text = serde_json::to_string(results).expect("string keys only");
    Op::Meta(RESULTS.to_owned(), text)
}

/// The change of the store that keeps every time it was restored.
#[must_use]
pub fn restored_op(restored: &[Restored]) -> Op {
    let text = serde_json::to_string(restored).expect("plain numbers and names");
    Op::Meta(RESTORED.to_owned(), text)
}

/// Every time the store was restored from a copy, in order.
///
/// # Errors
/// The store cannot be read, or makes no sense.
pub fn restored(reader: &Reader) -> Result<Vec<Restored>, RecoverRowsError> {
    let Some(text) = reader.meta(RESTORED)? else { return Ok(Vec::new()) };
    serde_json::from_str(&text).map_err(|error| RecoverRowsError::Row {
        what: RESTORED.to_owned(),
        detail: error.to_string(),
    })
}

fn row(entry: Entry) -> EpisodeRow {
    let outcome = entry.state.outcome().copied();
    let step = match &entry.state {
        State::Batched(step, _) | State::Trained(step, _) => Some(*step),
        _ => None,
    };
    let reason = match &entry.state {
        State::Dropped(reason) | State::Failed(reason) | State::Quarantined(reason) => {
            Some(reason.clone())
        }
        _ => None,
    };
    EpisodeRow {
        episode: entry.episode,
        group: entry.group,
        task: entry.task,
        phase: entry.phase,
        ordinal: entry.ordinal,
        sample: entry.sample,
        evaluation: entry.evaluation,
        attempt: entry.attempt,
        node: entry.node,
        state: entry.state.name().to_owned(),
        reason,
        reward: outcome.map(|o| o.reward),
        success: outcome.map(|o| o.success),
        oldest: outcome.and_then(|o| o.oldest),
        generated: outcome.map(|o| o.generated),
        step,
    }
}

/// An episode of the ledger, from its row.
///
/// # Errors
/// The row makes no sense.
pub fn entry(row: EpisodeRow) -> Result<Entry, RecoverRowsError> {
    let bad = |detail: &str| RecoverRowsError::Row {
        what: format!("episode {} ({})", row.episode, row.state),
        detail: detail.to_owned(),
    };
    let outcome = || -> Result<Outcome, RecoverRowsError> {
        let reward = row.reward.ok_or_else(|| bad("it has no reward"))?;
        let success = row.success.unwrap_or(false);
        Ok(Outcome { reward, success, oldest: row.oldest, generated: row.generated.unwrap_or(0) })
    };
    let step = || row.step.ok_or_else(|| bad("it has no step"));
    let reason = || row.reason.clone().unwrap_or_default();
    let state = match row.state.as_str() {
        "queued" => State::Queued,
        "leased" => State::Leased(Leases::one(Lease {
            node: row.node.clone().ok_or_else(|| bad("it has no node"))?,
            attempt: row.attempt,
            deadline: std::time::Duration::ZERO,
        })),
        "finished" => State::Finished(outcome()?),
        "batched" => State::Batched(step()?, outcome()?),
        "trained" => State::Trained(step()?, outcome()?),
        "measured" => State::Measured(outcome()?),
        "dropped" => State::Dropped(reason()),
        "failed" => State::Failed(reason()),
        "quarantined" => State::Quarantined(reason()),
        _ => return Err(bad("no such state")),
    };
    Ok(Entry {
        episode: row.episode,
        group: row.group,
        task: row.task,
        phase: row.phase,
        ordinal: row.ordinal,
        sample: row.sample,
        evaluation: row.evaluation,
        attempt: row.attempt,
        node: row.node,
        state,
    })
}

/// A batch, from its row.
#[must_use]
pub fn batch(row: crrl_store::BatchRow) -> BatchRow {
    let crrl_store::BatchRow { step, phase, version, committed, episodes } = row;
    BatchRow { step, phase, version, committed, episodes }
}

fn add(totals: &mut Totals, state: &str, episodes: u64) {
    totals.created += episodes;
    match state {
        "trained" => totals.trained += episodes,
        "measured" => totals.measured += episodes,
        "dropped" => totals.dropped += episodes,
        "failed" => totals.failed += episodes,
        "quarantined" => totals.quarantined += episodes,
        _ => {}
    }
}

/// Everything a coordinator needs to go on with the run in this store. `of_file` are the results in
/// the run's file, for a store that has none.
///
/// # Errors
/// The store cannot be read, or makes no sense.
pub fn recover(
    reader: &Reader,
    of_file: Results,
    journals: &Journals,
) -> Result<Recovered, RecoverRowsError> {
    let bad = |what: &str, detail: String| RecoverRowsError::Row { what: what.to_owned(), detail };
    let phase = match reader.meta(PHASE)? {
        None => 0,
        Some(text) => text.parse::<u32>().map_err(|error| bad(PHASE, error.to_string()))?,
    };
    let pinned: Option<(Serving, EpisodeId)> = match reader.meta(PINNED)? {
        None => None,
        Some(text) => {
            serde_json::from_str(&text).map_err(|error| bad(PINNED, error.to_string()))?
        }
    };
    let results = match reader.meta(RESULTS)? {
        None => of_file,
        Some(text) => {
            serde_json::from_str(&text).map_err(|error| bad(RESULTS, error.to_string()))?
        }
    };
    let (mut totals, mut phase_totals) = (Totals::default(), Totals::default());
    for count in reader.counts()? {
        add(&mut totals, &count.state, count.episodes);
        if count.phase == phase {
            add(&mut phase_totals, &count.state, count.episodes);
        }
    }
    let batches = reader.last_batches(ROLLBACK_STEPS_MAX)?;
    let first = batches.first().map_or(Step(0), |batch| batch.step);
    let mut rows = reader.episodes_in(&["queued", "leased", "finished", "batched"])?;
    let trained = reader.episodes_since(first)?;
    rows.extend(trained.into_iter().filter(|row| row.state == "trained"));
    if pinned.is_some() {
        let over = |row: &EpisodeRow| {
            matches!(row.state.as_str(), "measured" | "dropped" | "failed" | "quarantined")
        };
        rows.extend(reader.episodes_of_phase(phase)?.into_iter().filter(over));
    }
    let (next_episode, next_group) = reader.next_ids()?;
    let restored = restored(reader)?;
    Ok(Recovered {
        phase,
        pinned,
        entries: rows.into_iter().map(entry).collect::<Result<_, _>>()?,
        batches: batches.into_iter().map(batch).collect(),
        published: reader
            .published()?
            .into_iter()
            .map(|(version, digest)| Serving { version, digest })
            .collect(),
        quarantined: BTreeMap::from_iter(reader.quarantined()?),
        totals,
        phase_totals,
        next_episode,
        next_group,
        ordinals: BTreeMap::from_iter(reader.ordinals()?),
        results,
        journals: journals.found(),
        sealed: restored.iter().map(Restored::sealed).max().unwrap_or_default(),
        open: restored.last().and_then(|last| last.open),
    })
}
