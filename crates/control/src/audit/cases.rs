//! What is known of every episode: by the ledger, the history and its transcript.
//!
//! The only part of an audit that grows with the run: less than a hundred bytes an episode, whatever
//! it generated.

use std::collections::BTreeMap;

use crrl_types::{AdapterVersion, EpisodeId, Step};

use super::history::Life;
use crate::coordinator::LEFT_OUT;
use crate::ledger::{Entry, State};

/// Where the ledger has an episode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    Queued,
    Leased,
    Finished,
    Batched(Step),
    Trained(Step),
    Measured,
    Dropped { left_out: bool },
    Failed,
    Quarantined,
}

impl Standing {
    fn of(state: &State) -> Self {
        match state {
            State::Queued => Self::Queued,
            State::Leased { .. } => Self::Leased,
            State::Finished(_) => Self::Finished,
            State::Batched(step, _) => Self::Batched(*step),
            State::Trained(step, _) => Self::Trained(*step),
            State::Measured(_) => Self::Measured,
            State::Dropped(reason) => Self::Dropped { left_out: reason == LEFT_OUT },
            State::Failed(_) => Self::Failed,
            State::Quarantined(_) => Self::Quarantined,
        }
    }

    /// Its name, as in the store.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Leased => "leased",
            Self::Finished => "finished",
            Self::Batched(_) => "batched",
            Self::Trained(_) => "trained",
            Self::Measured => "measured",
            Self::Dropped { .. } => "dropped",
            Self::Failed => "failed",
            Self::Quarantined => "quarantined",
        }
    }

    pub(super) fn is_terminal(self) -> bool {
        !matches!(self, Self::Queued | Self::Leased | Self::Finished | Self::Batched(_))
    }
}

/// One episode of the ledger.
#[derive(Debug, Clone)]
pub(super) struct Case {
    pub(super) episode: EpisodeId,
    pub(super) standing: Standing,
    /// The oldest adapter of its result, by the ledger; the outer `None` without a result.
    pub(super) oldest: Option<Option<AdapterVersion>>,
    pub(super) has_transcript: bool,
    /// What the history says; `None` if it never names the episode.
    pub(super) life: Option<Life>,
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Cases {
    /// By id.
    ledger: Vec<Case>,
    /// Episodes that only the history knows.
    strangers: BTreeMap<EpisodeId, Life>,
    /// Rows of the ledger.
    pub(super) rows: u64,
    /// Line of the history at which the coordinator started last: lines before it may be missing.
    pub(super) started: u64,
}

impl Cases {
    /// Enters an episode of the ledger. Cheap in the order of ids; a second row of one id replaces
    /// the first.
    pub(super) fn enter(&mut self, entry: &Entry) {
        self.rows += 1;
        let case = Case {
            episode: entry.episode,
            standing: Standing::of(&entry.state),
            oldest: entry.state.outcome().map(|outcome| outcome.oldest),
            has_transcript: false,
            life: None,
        };
        match self.place(entry.episode) {
            Ok(at) => self.ledger[at] = case,
            Err(at) => self.ledger.insert(at, case),
        }
    }

    fn place(&self, episode: EpisodeId) -> Result<usize, usize> {
        if self.ledger.last().is_none_or(|last| last.episode < episode) {
            return Err(self.ledger.len());
        }
        self.ledger.binary_search_by_key(&episode, |case| case.episode)
    }

    /// Those of the ledger, by id.
    pub(super) fn ledger(&self) -> &[Case] {
        &self.ledger
    }

    pub(super) fn get(&self, episode: EpisodeId) -> Option<&Case> {
        self.place(episode).ok().map(|at| &self.ledger[at])
    }

    pub(super) fn get_mut(&mut self, episode: EpisodeId) -> Option<&mut Case> {
        self.place(episode).ok().map(|at| &mut self.ledger[at])
    }

    /// What the history says of an episode, in the ledger or not.
    pub(super) fn life(&mut self, episode: EpisodeId) -> &mut Life {
        match self.place(episode) {
            Ok(at) => self.ledger[at].life.get_or_insert_default(),
            Err(_) => self.strangers.entry(episode).or_default(),
        }
    }

    /// What the history says of every episode it names.
    pub(super) fn lives_mut(&mut self) -> impl Iterator<Item = &mut Life> {
        let known = self.ledger.iter_mut().filter_map(|case| case.life.as_mut());
        known.chain(self.strangers.values_mut())
    }

    /// Episodes the history names.
    pub(super) fn named(&self) -> usize {
        self.ledger.iter().filter(|case| case.life.is_some()).count() + self.strangers.len()
    }
}
