//! Puts one change into a transaction.

use crrl_types::Trajectory;
use rusqlite::{Result, Transaction, params};

use crate::row::{EpisodeRow, Op};

/// SQLite's integers are signed; the store's numbers never reach 2^63.
pub(crate) fn int(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn json<T: serde::Serialize>(value: &T) -> Result<String> {
    serde_json::to_string(value).map_err(|e| rusqlite::Error::ToSqlConversionFailure(e.into()))
}

pub(crate) fn apply(transaction: &Transaction<'_>, op: &Op) -> Result<()> {
    match op {
        Op::Episode(row) => episode(transaction, row),
        Op::Trajectory(trajectory) => self::trajectory(transaction, trajectory),
        Op::Batch(row) => {
            let episodes: Vec<u8> = row.episodes.iter().flat_map(|id| id.0.to_le_bytes()).collect();
            transaction
                .prepare_cached("INSERT OR REPLACE INTO batches VALUES (?, ?, ?, ?, ?)")?
                .execute(params![
                    int(row.step.0),
                    row.phase,
                    int(row.version.0),
                    row.committed,
                    episodes
                ])
                .map(drop)
        }
        Op::Step(row) => {
            transaction
                .prepare_cached("INSERT OR REPLACE INTO steps VALUES (?, ?)")?
                .execute(params![int(row.step.0), int(row.version.0)])?;
            let mut insert =
                transaction.prepare_cached("INSERT OR REPLACE INTO metrics VALUES (?, ?, ?)")?;
            // SQLite has no NaN: a number that is not finite is left out.
            for (name, value) in row.metrics.iter().filter(|(_, value)| value.is_finite()) {
                insert.execute(params![int(row.step.0), name, value])?;
            }
            Ok(())
        }
        Op::Published(version, digest) => transaction
            .prepare_cached("INSERT OR REPLACE INTO published VALUES (?, ?)")?
            .execute(params![int(version.0), digest.to_string()])
            .map(drop),
        Op::Quarantined(task, reason) => transaction
            .prepare_cached("INSERT OR REPLACE INTO quarantined VALUES (?, ?)")?
            .execute(params![task.as_str(), reason])
            .map(drop),
        Op::Released(task) => transaction
            .prepare_cached("DELETE FROM quarantined WHERE task = ?")?
            .execute(params![task.as_str()])
            .map(drop),
        Op::Turns { episode, attempt, first, entries } => {
            let mut insert = transaction
                .prepare_cached("INSERT OR REPLACE INTO journals VALUES (?, ?, ?, ?)")?;
            for (entry, number) in entries.iter().zip(i64::from(*first)..) {
                insert.execute(params![int(episode.0), number, attempt, json(entry)?])?;
            }
            Ok(())
        }
        Op::Timed { episode, attempt, node, timing } => transaction
            .prepare_cached("INSERT OR REPLACE INTO timings VALUES (?, ?, ?, ?)")?
            .execute(params![int(episode.0), attempt, node.as_str(), json(timing)?])
            .map(drop),
        Op::ForgetTurns(episode) => transaction
            .prepare_cached("DELETE FROM journals WHERE episode = ?")?
            .execute([int(episode.0)])
            .map(drop),
        Op::Meta(key, value) => transaction
            .prepare_cached("INSERT OR REPLACE INTO meta VALUES (?, ?)")?
            .execute(params![key, value])
            .map(drop),
    }
}

fn episode(transaction: &Transaction<'_>, row: &EpisodeRow) -> Result<()> {
    transaction
        .prepare_cached(
            "INSERT OR REPLACE INTO episodes VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        )?
        .execute(params![
            int(row.episode.0),
            int(row.group.0),
            row.task.as_str(),
            row.phase,
            int(row.ordinal),
            row.sample,
            row.evaluation,
            row.attempt,
            row.node.as_ref().map(|node| node.as_str()),
            row.state,
            row.reason,
            row.reward,
            row.success,
            row.oldest.map(|version| int(version.0)),
            row.generated,
            row.step.map(|step| int(step.0)),
        ])
        .map(drop)
}

fn trajectory(transaction: &Transaction<'_>, trajectory: &Trajectory) -> Result<()> {
    let tokens: Vec<u8> = trajectory.tokens.iter().flat_map(|id| id.to_le_bytes()).collect();
    let generated: Vec<u8> = trajectory.generated.iter().map(|g| u8::from(*g)).collect();
    let logprobs: Vec<u8> = trajectory.logprobs.iter().flat_map(|p| p.to_le_bytes()).collect();
    let episode = int(trajectory.episode.0);
    transaction
        .prepare_cached(
            "INSERT OR REPLACE INTO trajectories VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        )?
        .execute(params![
            episode,
            int(trajectory.group.0),
            trajectory.task.as_str(),
            trajectory.node.as_str(),
            tokens,
            generated,
            logprobs,
            json(&trajectory.adapters)?,
            json(&trajectory.finish)?,
            trajectory.diff,
            json(&trajectory.reward)?,
            f64::from(trajectory.temperature),
            int(trajectory.wall_ms),
        ])?;
    transaction.prepare_cached("DELETE FROM turns WHERE episode = ?")?.execute([episode])?;
    let mut insert = transaction.prepare_cached("INSERT INTO turns VALUES (?, ?, ?, ?, ?)")?;
    for (turn, number) in trajectory.turns.iter().zip(0_i64..) {
        insert.execute(params![episode, number, turn.text, turn.tokens, json(&turn.tools)?])?;
    }
    Ok(())
}
