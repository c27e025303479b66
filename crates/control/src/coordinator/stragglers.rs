//! The long tail: attempts that take far longer than the others.
//!
//! A group may be trained on without its slowest members, and a slow attempt may be handed to a
//! second node. Both are off by default: they favour short episodes.

use std::collections::VecDeque;
use std::time::Duration;

use crrl_types::{EpisodeId, EventKind, GroupId, Late, NodeName};

use super::roster::Node;
use super::{Coordinator, Effect, Stage};
use crate::ledger::{Broken, Entry, Lease, Leases, State, Transition, leases};

/// Attempts the median is taken over.
const PACE_LEN: usize = 64;
/// Attempts there have to be before anything counts as slow.
const PACE_MIN: usize = 8;

/// How long the last attempts took.
#[derive(Debug, Clone, Default)]
pub(super) struct Pace(VecDeque<Duration>);

impl Pace {
    pub(super) fn note(&mut self, took: Duration) {
        if self.0.len() == PACE_LEN {
            self.0.pop_front();
        }
        self.0.push_back(took);
    }

    fn median(&self) -> Option<Duration> {
        if self.0.len() < PACE_MIN {
            return None;
        }
        let mut sorted: Vec<Duration> = self.0.iter().copied().collect();
        sorted.sort_unstable();
        Some(sorted[sorted.len() / 2])
    }
}

impl Coordinator {
    /// How long an attempt may take before a second node gets it too.
    fn patience(&self) -> Option<Duration> {
        let factor = self.train()?.stragglers.duplicate_after;
        (factor > 0.0).then_some(())?;
        Some(self.pace.median()?.mul_f64(factor))
    }

    /// When a lease was given.
    pub(super) fn since(&self, deadline: Duration) -> Duration {
        deadline.saturating_sub(self.lease())
    }

    /// The next time an attempt counts as slow while a second node could take it.
    pub(super) fn next_straggler(&self) -> Option<Duration> {
        let patience = self.patience()?;
        let free = self.queued() == 0 && self.nodes.capacity() > self.nodes.leases();
        let mut slow = self.ledger.leased().filter_map(alone);
        free.then(|| slow.next().map(|lease| self.since(lease.deadline) + patience))?
    }

    /// Hands slow attempts to a second node where one has room and nothing else to do.
    pub(super) fn duplicate_stragglers(
        &mut self,
        now: Duration,
        out: &mut Vec<Effect>,
    ) -> Result<(), Broken> {
        let Some(patience) = self.patience() else { return Ok(()) };
        if self.queued() > 0 {
            return Ok(());
        }
        let last = self.plan.limits.attempts_max;
        let slow: Vec<EpisodeId> = self
            .ledger
            .leased()
            .filter(|entry| entry.attempt < last && !entry.evaluation)
            .filter_map(|entry| Some((self.since(alone(entry)?.deadline), entry.episode)))
            .take_while(|(since, _)| now >= *since + patience)
            .map(|(_, episode)| episode)
            .collect();
        for episode in slow {
            let Some(entry) = self.ledger.get(episode).cloned() else { continue };
            let Some(to) = self.choose_second(&entry) else { break };
            let entries = self.go_along_from(episode, entry.attempt + 1);
            self.since_step.duplicated += 1;
            out.push(Effect::Event(EventKind::Duplicated { episode, to: to.clone() }));
            self.hand_out(episode, to, entries, now, out)?;
        }
        Ok(())
    }

    /// The node with most room that does not have the episode.
    fn choose_second(&self, entry: &Entry) -> Option<NodeName> {
        let fits = |node: &Node| {
            node.room() > 0 && node.serving.is_some_and(|serving| self.is_eligible(serving))
        };
        self.nodes
            .iter()
            .filter(|(name, node)| fits(node) && leases(entry).all(|lease| lease.node != **name))
            .max_by_key(|(_, node)| node.room())
            .map(|(name, _)| name.clone())
    }

    /// While the learner waits: groups that have enough attempts back are trained on without the
    /// others.
    pub(super) fn cut_groups(
        &mut self,
        missing: usize,
        out: &mut Vec<Effect>,
    ) -> Result<(), Broken> {
        let Some(train) = self.train() else { return Ok(()) };
        let (least, late) = (train.stragglers.group_min as usize, train.stragglers.late);
        if least == 0 {
            return Ok(());
        }
        let enough: Vec<GroupId> = self
            .groups
            .iter()
            .filter(|(id, group)| group.ready.is_none() && self.usable(**id).count() >= least)
            .map(|(id, _)| *id)
            .take(missing)
            .collect();
        for id in enough {
            self.cut_group(id, late, out)?;
        }
        Ok(())
    }

    fn cut_group(&mut self, id: GroupId, late: Late, out: &mut Vec<Effect>) -> Result<(), Broken> {
        let Some(group) = self.groups.get_mut(&id) else { return Ok(()) };
        let ledger = &self.ledger;
        let is_open = |id: &EpisodeId| ledger.get(*id).is_some_and(|e| e.state.is_open());
        let (open, back): (Vec<_>, Vec<_>) = group.members.iter().copied().partition(is_open);
        group.members = back;
        self.since_step.cut_groups += 1;
        match late {
            Late::Drop => {
                for episode in open {
                    let reason = "its group was trained on without it";
                    self.withdraw(episode, reason, out);
                    self.transit(episode, Transition::Drop(reason.to_owned()), out)?;
                }
            }
            // Some may have been carried before: a group that was refilled is cut again.
            Late::Carry => group.late.extend(open),
        }
        self.settle(id, out)
    }

    /// How long the attempt of a node took, for the median.
    pub(super) fn note_pace(&mut self, from: &NodeName, episode: EpisodeId, now: Duration) {
        if !matches!(self.stage, Stage::Training(_)) {
            return;
        }
        let lease = self.ledger.get(episode).and_then(|entry| {
            leases(entry).find(|lease| lease.node == *from).map(|lease| lease.deadline)
        });
        if let Some(deadline) = lease {
            let took = now.saturating_sub(self.since(deadline));
            self.pace.note(took);
        }
    }
}

/// The lease of an attempt that one node has.
fn alone(entry: &Entry) -> Option<&Lease> {
    match &entry.state {
        State::Leased(Leases { newest, elder: None }) => Some(newest),
        _ => None,
    }
}
