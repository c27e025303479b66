//! What the history says of the time after a copy of the ledger was made.

use std::collections::{BTreeMap, BTreeSet};

use crrl_types::{
    AdapterVersion, Digest, EpisodeId, Event, EventKind, GroupId, NodeName, Step, TaskId,
};

use super::committed;
use crate::coordinator::Recovered;

/// How an episode ended, as the history tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum End {
    Trained(Step),
    Dropped(String),
    Failed(String),
}

/// What the history says of one episode.
#[derive(Debug, Clone, Default)]
pub(super) struct Life {
    pub(super) of: Option<(GroupId, TaskId)>,
    pub(super) attempt: u32,
    pub(super) node: Option<NodeName>,
    /// Reward, and whether the task counts as solved.
    pub(super) result: Option<(f64, bool)>,
    pub(super) end: Option<End>,
}

/// The history, folded: of episodes only those that were not over when the copy was made, and later
/// ones.
#[derive(Debug)]
pub struct Told {
    open: BTreeSet<EpisodeId>,
    next: EpisodeId,
    after: Step,
    pub(super) lives: BTreeMap<EpisodeId, Life>,
    /// Steps that were made and not undone, and the adapter each made.
    pub(super) versions: BTreeMap<Step, AdapterVersion>,
    /// What was trained on in the steps after the copy's last, in order.
    pub(super) trained: BTreeMap<Step, Vec<EpisodeId>>,
    pub(super) published: BTreeMap<AdapterVersion, Digest>,
    /// What was said last of each task: why it is in quarantine, or that it was let out.
    pub(super) quarantined: BTreeMap<TaskId, Option<String>>,
    /// A restoration after which the coordinator has not started: its copy, its step and how many
    /// records were lost.
    pub(super) under_way: Option<(Step, Step, u64)>,
    /// Steps that one has undone.
    pub(super) undone: Vec<Step>,
    /// Lines that could not be read.
    pub unread: u64,
}

impl Told {
    /// Nothing yet, of a run whose ledger was copied like this.
    #[must_use]
    pub fn after(copy: &Recovered) -> Self {
        let open = copy.entries.iter().filter(|entry| !entry.state.is_terminal());
        Self {
            open: open.map(|entry| entry.episode).collect(),
            next: copy.next_episode,
            after: committed(copy),
            lives: BTreeMap::new(),
            versions: BTreeMap::new(),
            trained: BTreeMap::new(),
            published: BTreeMap::new(),
            quarantined: BTreeMap::new(),
            under_way: None,
            undone: Vec::new(),
            unread: 0,
        }
    }

    /// Takes the next event in.
    pub fn take(&mut self, event: &Event) {
        match &event.kind {
            EventKind::Dispatched { episode, group, task, to, attempt } => {
                self.change(*episode, |life| {
                    life.of = Some((*group, task.clone()));
                    life.attempt = life.attempt.max(*attempt);
                    life.node = Some(to.clone());
                });
            }
            EventKind::Finished { episode, reward, success } => {
                self.change(*episode, |life| life.result = Some((*reward, *success)));
            }
            EventKind::Trained { episode, step } => {
                self.change(*episode, |life| life.end = Some(End::Trained(*step)));
                if *step > self.after {
                    let trained = self.trained.entry(*step).or_default();
                    if !trained.contains(episode) {
                        trained.push(*episode);
                    }
                }
            }
            EventKind::Dropped { episode, reason } => {
                self.change(*episode, |life| life.end = Some(End::Dropped(reason.clone())));
            }
            EventKind::Failed { episode, reason } => {
                self.change(*episode, |life| life.end = Some(End::Failed(reason.clone())));
            }
            EventKind::RolledBack { step } => {
                if self.under_way.is_some() {
                    self.undone.push(*step);
                }
                self.versions.remove(step);
                self.trained.remove(step);
                for life in self.lives.values_mut() {
                    if life.end == Some(End::Trained(*step)) {
                        life.end = None;
                    }
                }
            }
            EventKind::Stepped { step, version } => {
                self.versions.insert(*step, *version);
            }
            EventKind::Published { version, digest } => {
                self.published.insert(*version, *digest);
            }
            EventKind::Quarantined { task, reason } => {
                self.quarantined.insert(task.clone(), Some(reason.clone()));
            }
            EventKind::Released { task } => {
                self.quarantined.insert(task.clone(), None);
            }
            // Told of one that did not come to its end once more: what it has undone stays undone.
            EventKind::Restored { copy, step, lost } => {
                self.under_way = Some((*copy, *step, *lost));
            }
            EventKind::Started => {
                self.under_way = None;
                self.undone.clear();
            }
            EventKind::NodeUp { .. }
            | EventKind::NodeDown { .. }
            | EventKind::LeaseLost { .. }
            | EventKind::Resumed { .. }
            | EventKind::Restarted { .. }
            | EventKind::Duplicated { .. }
            | EventKind::Activated { .. } => {}
        }
    }

    fn change(&mut self, episode: EpisodeId, change: impl FnOnce(&mut Life)) {
        if episode >= self.next || self.open.contains(&episode) {
            change(self.lives.entry(episode).or_default());
        }
    }

    /// The last step the history knows of.
    pub(super) fn last(&self) -> Option<Step> {
        self.versions.keys().next_back().copied()
    }

    /// What went into a step: only where its end is told as well, and every line could be read.
    pub(super) fn consumed(&self, step: Step) -> Option<&Vec<EpisodeId>> {
        let whole = self.unread == 0 && self.versions.contains_key(&step);
        self.trained.get(&step).filter(|_| whole)
    }
}
