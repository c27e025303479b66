//! What is durable at the coordinator.

use std::collections::BTreeMap;

use crrl_control::audit::Transcript;
use crrl_control::coordinator::{BatchRow, JournalFound, ROLLBACK_STEPS_MAX};
use crrl_control::ledger::{Entry, State, Totals};
use crrl_control::results::Results;
use crrl_control::wire::Serving;
use crrl_control::{Record, Recovered};
use crrl_types::{AdapterVersion, EpisodeId, Event, GroupId, Step, TaskId};

/// What is durable at the coordinator.
#[derive(Default)]
pub(crate) struct Disk {
    pub(crate) episodes: BTreeMap<EpisodeId, Entry>,
    pub(super) batches: BTreeMap<u64, BatchRow>,
    pub(super) published: BTreeMap<AdapterVersion, Serving>,
    pub(super) quarantined: BTreeMap<TaskId, String>,
    phase: u32,
    pinned: Option<(Serving, EpisodeId)>,
    pub(crate) results: Results,
    pub(super) steps: BTreeMap<Step, AdapterVersion>,
    pub(super) transcripts: BTreeMap<EpisodeId, Transcript>,
    pub(super) history: Vec<Event>,
    /// Of episodes under way: the lease that wrote last, and what has happened.
    pub(super) journals: BTreeMap<EpisodeId, (u32, Vec<Turn>)>,
}

impl Disk {
    pub(super) fn write(&mut self, record: Record) {
        match record {
            Record::Episode(entry) => drop(self.episodes.insert(entry.episode, *entry)),
            Record::Batch(row) => drop(self.batches.insert(row.step.0, row)),
            Record::Published(serving) => drop(self.published.insert(serving.version, serving)),
            Record::Phase(phase) => self.phase = phase,
            Record::Pinned(serving, first) => self.pinned = serving.map(|s| (s, first)),
            Record::Quarantined(task, why) => drop(self.quarantined.insert(task, why)),
            Record::Released(task) => drop(self.quarantined.remove(&task)),
            Record::Step { step, version, .. } => drop(self.steps.insert(step, version)),
        }
    }

    fn totals(&self, of: impl Fn(&Entry) -> bool) -> Totals {
        let mut totals = Totals::default();
        for entry in self.episodes.values().filter(|entry| of(entry)) {
            totals.created += 1;
            match entry.state {
                State::Trained(..) => totals.trained += 1,
                State::Measured(_) => totals.measured += 1,
                State::Dropped(_) => totals.dropped += 1,
                State::Failed(_) => totals.failed += 1,
                State::Quarantined(_) => totals.quarantined += 1,
                _ => {}
            }
        }
        totals
    }

    pub(super) fn recovered(&self) -> Recovered {
        let first =
            self.batches.keys().next_back().map_or(0, |s| s.saturating_sub(ROLLBACK_STEPS_MAX - 1));
        let wanted = |entry: &&Entry| match &entry.state {
            State::Trained(step, _) => step.0 >= first,
            state if state.is_terminal() => self.pinned.is_some() && entry.phase == self.phase,
            _ => true,
        };
        let mut ordinals = BTreeMap::new();
        for entry in self.episodes.values() {
            let slot = ordinals.entry(entry.phase).or_insert(0);
            *slot = (entry.ordinal + 1).max(*slot);
        }
        let next = |max: Option<u64>| max.map_or(0, |max| max + 1);
        Recovered {
            phase: self.phase,
            pinned: self.pinned,
            entries: self.episodes.values().filter(wanted).cloned().collect(),
            batches: self.batches.range(first..).map(|(_, row)| row.clone()).collect(),
            published: self.published.values().copied().collect(),
            quarantined: self.quarantined.clone(),
            totals: self.totals(|_| true),
            phase_totals: self.totals(|entry| entry.phase == self.phase),
            next_episode: EpisodeId(next(self.episodes.keys().next_back().map(|id| id.0))),
            next_group: GroupId(next(self.episodes.values().map(|e| e.group.0).max())),
            ordinals,
            results: self.results.clone(),
            journals: self.journals.iter().map(|(id, kept)| (*id, found(kept))).collect(),
            sealed: Step(0),
            open: None,
        }
    }
}

/// Something that has happened in an episode: no two are the same, and each knows its adapter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Turn {
    pub(crate) mark: u64,
    pub(crate) version: AdapterVersion,
}

fn found((attempt, turns): &(u32, Vec<Turn>)) -> JournalFound {
    let oldest = turns.iter().map(|turn| turn.version).min();
    JournalFound { attempt: *attempt, entries: turns.len() as u32, oldest }
}
