//! Episodes, batches and steps: is everything there, and does it count once (I1, I2, I7).

use std::collections::BTreeMap;

use crrl_types::{EpisodeId, Step};

use super::history::Account;
use super::{Court, Facts, Invariant, Known};
use crate::coordinator::LEFT_OUT;
use crate::ledger::State;
use crate::plan::Phase;

/// The ledger's file, for evidence.
const FILE: &str = "run.sqlite";

pub(super) fn judge(facts: &Facts, known: &Known<'_>, account: &Account, court: &mut Court) {
    accounted_for(facts, known, account, court);
    once(facts, known, court);
    fresh(facts, known, court);
}

fn accounted_for(facts: &Facts, known: &Known<'_>, account: &Account, court: &mut Court) {
    let evidence = format!("{FILE} episodes");
    if known.entries.len() != facts.entries.len() {
        let what = "an episode is in the ledger more than once".to_owned();
        court.against(Invariant::I1, what, evidence.clone());
    }
    // Ids are given out one after the other, and every one is made durable.
    let mut expected = 0;
    for id in known.entries.keys() {
        if id.0 > expected {
            let what = match id.0 - expected {
                1 => format!("episode {expected} is missing"),
                more => format!("episodes {expected} to {} are missing", expected + more - 1),
            };
            court.against(Invariant::I1, what, evidence.clone());
        }
        expected = id.0 + 1;
    }
    let mut states: BTreeMap<&str, u64> = BTreeMap::new();
    for entry in known.entries.values() {
        *states.entry(entry.state.name()).or_default() += 1;
        if facts.complete && !entry.state.is_terminal() {
            let what =
                format!("the run is over and episode {} is {}", entry.episode, entry.state.name());
            court.against(Invariant::I1, what, evidence.clone());
        }
    }
    let states: Vec<String> = states.iter().map(|(state, n)| format!("{n} {state}")).collect();
    court.looked_at(
        Invariant::I1,
        format!(
            "{} episodes ({}); {} of them in {} lines of history",
            known.entries.len(),
            if states.is_empty() { "none".to_owned() } else { states.join(", ") },
            account.len(),
            facts.history.len()
        ),
    );
}

fn once(facts: &Facts, known: &Known<'_>, court: &mut Court) {
    let mut batch_of: BTreeMap<EpisodeId, Step> = BTreeMap::new();
    for batch in &facts.batches {
        let evidence = || format!("{FILE} batches, step {}", batch.step);
        for id in &batch.episodes {
            if let Some(other) = batch_of.insert(*id, batch.step) {
                let what =
                    format!("episode {id} is in the batches of steps {other} and {}", batch.step);
                court.against(Invariant::I2, what, evidence());
            }
            let state = known.entries.get(id).map(|entry| &entry.state);
            let fits = match state {
                Some(State::Trained(step, _)) => batch.committed && *step == batch.step,
                Some(State::Batched(step, _)) => !batch.committed && *step == batch.step,
                Some(State::Dropped(reason)) => reason == LEFT_OUT,
                _ => false,
            };
            if !fits {
                let committed = if batch.committed { "committed" } else { "open" };
                let state = state.map_or("missing", State::name);
                let what = format!(
                    "episode {id} is {state} and in the {committed} batch of step {}",
                    batch.step
                );
                court.against(Invariant::I2, what, evidence());
            }
        }
    }
    for entry in known.entries.values() {
        if let State::Trained(step, _) | State::Batched(step, _) = &entry.state
            && batch_of.get(&entry.episode) != Some(step)
        {
            let what = format!(
                "episode {} is {} in step {step}, whose batch does not name it",
                entry.episode,
                entry.state.name()
            );
            court.against(Invariant::I2, what, format!("{FILE} episodes and batches"));
        }
    }
    let committed = known.committed();
    for step in (1..=committed.0).map(Step) {
        match known.batches.get(&step) {
            Some(batch) if batch.committed => {}
            found => {
                let is = if found.is_some() { "is not committed" } else { "is missing" };
                let what = format!("step {committed} is committed and step {step} {is}");
                court.against(Invariant::I2, what, format!("{FILE} batches"));
            }
        }
    }
    for checkpoint in &facts.checkpoints {
        let Ok(held) = &checkpoint.holds else { continue };
        let Some(batch) = known.batches.get(&held.step) else {
            if held.step > Step(0) {
                let what = format!("step {} has a checkpoint and no batch", held.step);
                court.against(Invariant::I2, what, format!("checkpoints/{}", checkpoint.name));
            }
            continue;
        };
        for id in held.consumed.iter().filter(|id| !batch.episodes.contains(id)) {
            let what =
                format!("episode {id} went into step {}, whose batch does not name it", held.step);
            court.against(Invariant::I2, what, format!("checkpoints/{}", checkpoint.name));
        }
    }
    court.looked_at(
        Invariant::I2,
        format!(
            "{} episodes in {} batches, {committed} committed",
            batch_of.len(),
            facts.batches.len()
        ),
    );
}

fn fresh(facts: &Facts, known: &Known<'_>, court: &mut Court) {
    let mut seen = 0_u64;
    let mut worst = 0;
    for batch in &facts.batches {
        let bound = match facts.plan.phases.get(batch.phase as usize) {
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
            let outcome = known.entries.get(id).and_then(|entry| entry.state.outcome());
            let Some(oldest) = outcome.and_then(|outcome| outcome.oldest) else { continue };
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
