//! Episodes, batches and steps: is everything there, and does it count once (I1, I2, I7).

use std::collections::BTreeMap;

use crrl_types::{EpisodeId, Step};

use super::cases::{Cases, Standing};
use super::{Court, Invariant, Known};
use crate::plan::Phase;

/// The ledger's file, for evidence.
const FILE: &str = "run.sqlite";

pub(super) fn judge(known: &Known, cases: &Cases, lines: u64, court: &mut Court) {
    accounted_for(known, cases, lines, court);
    once(known, cases, court);
    fresh(known, cases, court);
}

fn accounted_for(known: &Known, cases: &Cases, lines: u64, court: &mut Court) {
    let evidence = format!("{FILE} episodes");
    if cases.ledger().len() as u64 != cases.rows {
        let what = "an episode is in the ledger more than once".to_owned();
        court.against(Invariant::I1, what, evidence.clone());
    }
    // Ids are given out one after the other, and every one is made durable.
    let mut expected = 0;
    for id in cases.ledger().iter().map(|case| case.episode) {
        if id.0 > expected && !known.skips(EpisodeId(expected), EpisodeId(id.0 - 1)) {
            let what = match id.0 - expected {
                1 => format!("episode {expected} is missing"),
                more => format!("episodes {expected} to {} are missing", expected + more - 1),
            };
            court.against(Invariant::I1, what, evidence.clone());
        }
        expected = id.0 + 1;
    }
    let mut states: BTreeMap<&str, u64> = BTreeMap::new();
    for case in cases.ledger() {
        let name = case.standing.name();
        *states.entry(name).or_default() += 1;
        if known.setting.complete && !case.standing.is_terminal() {
            let what = format!("the run is over and episode {} is {name}", case.episode);
            court.against(Invariant::I1, what, evidence.clone());
        }
    }
    let states: Vec<String> = states.iter().map(|(state, n)| format!("{n} {state}")).collect();
    court.looked_at(
        Invariant::I1,
        format!(
            "{} episodes ({}); {} of them in {lines} lines of history",
            cases.ledger().len(),
            if states.is_empty() { "none".to_owned() } else { states.join(", ") },
            cases.named(),
        ),
    );
}

/// Every episode of a batch, and the batch; by episode, and in the order of batches.
fn batched(known: &Known) -> Vec<(EpisodeId, Step)> {
    let batches = known.setting.batches.iter();
    let mut batched: Vec<(EpisodeId, Step)> =
        batches.flat_map(|batch| batch.episodes.iter().map(|id| (*id, batch.step))).collect();
    batched.sort_by_key(|(id, _)| *id);
    batched
}

fn once(known: &Known, cases: &Cases, court: &mut Court) {
    let batched = batched(known);
    for pair in batched.windows(2) {
        if let [(id, other), (again, step)] = pair
            && id == again
        {
            let what = format!("episode {id} is in the batches of steps {other} and {step}");
            court.against(Invariant::I2, what, format!("{FILE} batches, step {step}"));
        }
    }
    for batch in &known.setting.batches {
        for id in &batch.episodes {
            let standing = cases.get(*id).map(|case| case.standing);
            let fits = match standing {
                Some(Standing::Trained(step)) => batch.committed && step == batch.step,
                Some(Standing::Batched(step)) => !batch.committed && step == batch.step,
                Some(Standing::Dropped { left_out }) => left_out,
                _ => false,
            };
            if !fits {
                let committed = if batch.committed { "committed" } else { "open" };
                let state = standing.map_or("missing", Standing::name);
                let what = format!(
                    "episode {id} is {state} and in the {committed} batch of step {}",
                    batch.step
                );
                court.against(Invariant::I2, what, format!("{FILE} batches, step {}", batch.step));
            }
        }
    }
    for case in cases.ledger() {
        if let Standing::Trained(step) | Standing::Batched(step) = case.standing {
            // Of two batches the later one counts.
            let after = batched.partition_point(|(id, _)| *id <= case.episode);
            let found = after.checked_sub(1).map(|at| batched[at]);
            if found != Some((case.episode, step)) {
                let what = format!(
                    "episode {} is {} in step {step}, whose batch does not name it",
                    case.episode,
                    case.standing.name()
                );
                court.against(Invariant::I2, what, format!("{FILE} episodes and batches"));
            }
        }
    }
    let committed = known.committed();
    for step in (1..=committed.0).map(Step) {
        match known.batch(step) {
            Some(batch) if batch.committed => {}
            found => {
                let is = if found.is_some() { "is not committed" } else { "is missing" };
                let what = format!("step {committed} is committed and step {step} {is}");
                court.against(Invariant::I2, what, format!("{FILE} batches"));
            }
        }
    }
    for checkpoint in known.setting.checkpoints.here() {
        let Ok(held) = &checkpoint.holds else { continue };
        let Some(batch) = known.batch(held.step) else {
            if held.step > Step(0) {
                let what = format!("step {} has a checkpoint and no batch", held.step);
                court.against(Invariant::I2, what, format!("checkpoints/{}", checkpoint.name));
            }
            continue;
        };
        // What the ledger does not know of it must not have counted again.
        let counts = |id: EpisodeId| {
            let standing = cases.get(id).map(|case| case.standing);
            matches!(standing, Some(Standing::Trained(_) | Standing::Batched(_)))
        };
        let strange = held.consumed.iter().filter(|id| !batch.episodes.contains(id));
        for id in strange.filter(|id| !known.is_unknown(batch) || counts(**id)) {
            let what =
                format!("episode {id} went into step {}, whose batch does not name it", held.step);
            court.against(Invariant::I2, what, format!("checkpoints/{}", checkpoint.name));
        }
    }
    court.looked_at(
        Invariant::I2,
        format!(
            "{} episodes in {} batches, {committed} committed",
            batched.chunk_by(|(a, _), (b, _)| a == b).count(),
            known.setting.batches.len()
        ),
    );
}

fn fresh(known: &Known, cases: &Cases, court: &mut Court) {
    let mut seen = 0_u64;
    let mut worst = 0;
    for batch in &known.setting.batches {
        let bound = match known.setting.plan.phases.get(batch.phase as usize) {
            Some(Phase::Train(train)) => train.staleness_bound(),
            _ => {
                let what = format!(
                    "the batch of step {} is of phase {}, which trains nothing by the plan",
                    batch.step, batch.phase
                );
                court.against(Invariant::I7, what, format!("{FILE} batches, plan.json"));
                continue;
            }
        };
        for id in &batch.episodes {
            let Some(oldest) = cases.get(*id).and_then(|case| case.oldest?) else { continue };
            seen += 1;
            let behind = batch.version.0.saturating_sub(oldest.0);
            worst = worst.max(behind);
            let late = bound.is_some_and(|bound| behind > bound);
            if late || oldest > batch.version {
                let what = format!(
                    "episode {id} has tokens of adapter {oldest} and went into step {}, made at \
                     adapter {}; {} versions are allowed",
                    batch.step,
                    batch.version,
                    bound.unwrap_or(u64::MAX)
                );
                court.against(Invariant::I7, what, format!("{FILE} episodes and batches"));
            }
        }
    }
    court.looked_at(
        Invariant::I7,
        format!("{seen} episodes in batches, the stalest {worst} versions behind"),
    );
}
