//! Attempts at one task, until they are ready to be trained on.

use std::collections::BTreeSet;

use crrl_types::{AdapterVersion, EpisodeId, GroupId, TaskId};

use super::{Coordinator, Effect, Stage};
use crate::ledger::{Broken, Entry, Outcome, State, Transition};
use crate::plan::{Phase, StalePolicy, Train};

/// Attempts that earned this close to each other earned the same.
const EQUAL_REWARD: f64 = 1e-9;

/// Smallest group that says anything: attempts are compared with each other.
const USABLE_MIN: usize = 2;

/// Place of a group among those that wait for a batch: those with the oldest token first.
pub(super) type Ready = (Option<AdapterVersion>, GroupId);

/// A group that is not yet in a batch.
#[derive(Debug, Clone)]
pub(super) struct Group {
    pub(super) task: TaskId,
    pub(super) ordinal: u64,
    pub(super) members: Vec<EpisodeId>,
    /// All its episodes have ended and it has signal: it waits for a batch, with this oldest token.
    pub(super) ready: Option<Ready>,
    pub(super) refilled: bool,
    /// Members that could not be rolled out, or in which nothing was generated.
    pub(super) failed: usize,
    /// Attempts under way that the group is trained on without.
    pub(super) late: Vec<EpisodeId>,
}

impl Group {
    pub(super) fn new(task: TaskId, ordinal: u64) -> Self {
        Self {
            task,
            ordinal,
            members: Vec::new(),
            ready: None,
            refilled: false,
            failed: 0,
            late: Vec::new(),
        }
    }
}

impl Coordinator {
    pub(super) fn train(&self) -> Option<&Train> {
        match self.plan.phases.get(self.phase) {
            Some(Phase::Train(train)) => Some(train),
            _ => None,
        }
    }

    /// Makes new groups as far ahead as staleness allows.
    pub(super) fn plan_training(&mut self, out: &mut Vec<Effect>) -> Result<(), Broken> {
        let Some(train) = self.train() else { return Ok(()) };
        let per_step = u64::from(train.groups_per_step);
        let ahead = if train.sync { 1 } else { train.run_ahead().saturating_add(1) };
        let size = train.group_size;
        let Stage::Training(training) = &self.stage else { return Ok(()) };
        // Never more than the steps that are left can use.
        let steps_left = training.last_step.saturating_sub(self.learner.committed);
        let bound = per_step.saturating_mul(ahead.min(steps_left));
        let in_training: u64 = self.batches.values().filter(|b| !b.committed).count() as u64;
        let mut outstanding = self.groups.len() as u64 + in_training * per_step;
        let phase = self.phase as u32;
        // Groups are entered in the ledger when somebody could work on them soon.
        let mut queue_room = (self.nodes.capacity() + size as usize).saturating_sub(self.queued());
        // The last of one pass over the tasks and the first of the next may be quarantined, all but one
        // of each.
        let passes_max = 2 * self.tasks[self.phase].len();
        let mut passes = passes_max;
        while outstanding < bound && queue_room >= size as usize {
            let Stage::Training(training) = &mut self.stage else { return Ok(()) };
            let ordinal = self.ordinals[self.phase];
            let index = training.cursor.task(ordinal);
            self.ordinals[self.phase] += 1;
            let Some(task) = index.and_then(|index| self.tasks[self.phase].get(index)).cloned()
            else {
                return Ok(());
            };
            if self.quarantined.contains_key(&task) {
                passes -= 1;
                if passes == 0 {
                    let why = "every task of the phase is quarantined: see the ledger".to_owned();
                    self.end_run(why, out);
                    return Ok(());
                }
                continue;
            }
            passes = passes_max;
            let group = self.next_group;
            self.next_group = group.next();
            self.groups.insert(group, Group::new(task.clone(), ordinal));
            for sample in 0..size {
                self.enter(phase, ordinal, group, &task, sample, out);
            }
            queue_room -= size as usize;
            outstanding += 1;
        }
        Ok(())
    }

    /// Enters one episode of a group in the ledger.
    pub(super) fn enter(
        &mut self,
        phase: u32,
        ordinal: u64,
        group: GroupId,
        task: &TaskId,
        sample: u32,
        out: &mut Vec<Effect>,
    ) -> EpisodeId {
        let evaluation = matches!(self.stage, Stage::Evaluating(_));
        let entry = self.ledger.create((phase, ordinal, group), task, sample, evaluation).clone();
        self.queue.insert(entry.episode);
        if let Some(group) = self.groups.get_mut(&group) {
            group.members.push(entry.episode);
        }
        let episode = entry.episode;
        out.push(Effect::Record(super::Record::Episode(Box::new(entry))));
        episode
    }

    /// Decides on groups all of whose episodes have ended.
    pub(super) fn settle_groups(&mut self, out: &mut Vec<Effect>) -> Result<(), Broken> {
        for id in std::mem::take(&mut self.unsettled) {
            let has_ended =
                self.groups.get(&id).filter(|group| group.ready.is_none()).is_some_and(|group| {
                    let mut members = group.members.iter().filter_map(|id| self.ledger.get(*id));
                    members.all(|entry| !entry.state.is_open())
                });
            if has_ended {
                self.settle(id, out)?;
            }
        }
        Ok(())
    }

    pub(super) fn settle(&mut self, id: GroupId, out: &mut Vec<Effect>) -> Result<(), Broken> {
        let silent: Vec<EpisodeId> = self
            .usable(id)
            .filter(|(_, outcome)| outcome.generated == 0)
            .map(|(entry, _)| entry.episode)
            .collect();
        self.note_silent(id, silent.len());
        for episode in silent {
            self.transit(episode, Transition::Drop("nothing was generated".into()), out)?;
        }
        let rewards: Vec<f64> = self.usable(id).map(|(_, outcome)| outcome.reward).collect();
        let solved = self.usable(id).filter(|(_, outcome)| outcome.success).count();
        self.since_step.attempts += rewards.len() as u64;
        self.since_step.earned += rewards.iter().sum::<f64>();
        self.since_step.solved += solved as u64;
        if rewards.len() < USABLE_MIN {
            let failed = self.groups.get(&id).is_some_and(|g| g.failed == g.members.len());
            let reason = format!("{} attempts of its group came back", rewards.len());
            self.drop_members(id, &reason, out)?;
            if failed {
                self.nothing_came_back(out);
            }
            return Ok(());
        }
        let skip = self.train().is_some_and(|train| train.skip_equal_groups);
        let equal = rewards.iter().all(|reward| (reward - rewards[0]).abs() < EQUAL_REWARD);
        let per_step = self.train().map_or(1, |train| u64::from(train.groups_per_step));
        let bound = per_step * u64::from(self.plan.limits.equal_steps_max);
        let Stage::Training(training) = &mut self.stage else { return Ok(()) };
        training.failed_in_a_row = 0;
        if !(skip && equal) {
            training.equal_in_a_row = 0;
            let place = (self.oldest(id), id);
            if let Some(group) = self.groups.get_mut(&id) {
                group.ready = Some(place);
                self.ready.insert(place);
            }
            return Ok(());
        }
        training.equal_in_a_row += 1;
        training.equal_groups += 1;
        self.since_step.equal_groups += 1;
        let in_a_row = training.equal_in_a_row;
        self.drop_members(id, "all attempts earned the same", out)?;
        if in_a_row >= bound {
            let error = format!(
                "in each of the last {in_a_row} groups all attempts earned the same (here \
                 {:.3}), so there is nothing to learn from: take easier or harder tasks, a \
                 higher temperature, or larger groups",
                rewards[0]
            );
            self.end_run(error, out);
        }
        Ok(())
    }

    /// Attempts whose first turn never came count as not rolled out: where all are such, the run would
    /// never step.
    fn note_silent(&mut self, id: GroupId, silent: usize) {
        if let Some(group) = self.groups.get_mut(&id).filter(|_| silent > 0) {
            group.failed += silent;
            let task = &group.task;
            self.last_failure = format!("{task}: nothing was generated within agent.time_max_s");
        }
    }

    /// Another group was lost whole. Were it to go on, the run would never step and never end.
    fn nothing_came_back(&mut self, out: &mut Vec<Effect>) {
        let Stage::Training(training) = &mut self.stage else { return };
        training.failed_in_a_row += 1;
        let in_a_row = training.failed_in_a_row;
        if in_a_row >= u64::from(self.plan.limits.failed_groups_max) {
            let error = format!(
                "of the last {in_a_row} groups not one attempt could be rolled out, the last \
                 because: {}",
                self.last_failure
            );
            self.end_run(error, out);
        }
    }

    /// The members of a group that have a result.
    pub(super) fn usable(&self, id: GroupId) -> impl Iterator<Item = (&Entry, &Outcome)> {
        let members = self.groups.get(&id).map_or(&[][..], |group| &group.members);
        members.iter().filter_map(|id| self.ledger.get(*id)).filter_map(|entry| {
            if let State::Finished(outcome) = &entry.state { Some((entry, outcome)) } else { None }
        })
    }

    /// Oldest token of what is left of a group.
    pub(super) fn oldest(&self, id: GroupId) -> Option<AdapterVersion> {
        self.usable(id).filter_map(|(_, outcome)| outcome.oldest).min()
    }

    /// Leaves out everything of a group that is not over.
    pub(super) fn drop_group(
        &mut self,
        id: GroupId,
        reason: &str,
        out: &mut Vec<Effect>,
    ) -> Result<(), Broken> {
        while self.groups.contains_key(&id) {
            self.drop_members(id, reason, out)?;
        }
        Ok(())
    }

    /// The same, but for what was carried of it.
    fn drop_members(
        &mut self,
        id: GroupId,
        reason: &str,
        out: &mut Vec<Effect>,
    ) -> Result<(), Broken> {
        let Some(group) = self.take_group(id) else { return Ok(()) };
        for episode in group.members {
            if self.ledger.get(episode).is_some_and(|entry| !entry.state.is_terminal()) {
                self.withdraw(episode, reason, out);
                self.transit(episode, Transition::Drop(reason.to_owned()), out)?;
            }
        }
        Ok(())
    }

    /// Takes a group out. What was carried of it stays, as a group of its own.
    pub(super) fn take_group(&mut self, id: GroupId) -> Option<Group> {
        let mut group = self.groups.remove(&id)?;
        if let Some(place) = group.ready {
            self.ready.remove(&place);
        }
        let members = std::mem::take(&mut group.late);
        if !members.is_empty() {
            let (task, ordinal) = (group.task.clone(), group.ordinal);
            let rest = Group { members, refilled: true, ..Group::new(task, ordinal) };
            self.groups.insert(id, rest);
            self.unsettled.insert(id);
        }
        Some(group)
    }

    /// Drops the episodes of ready groups that are too old for a learner at `version`, and decides
    /// what becomes of the rest.
    pub(super) fn drop_stale(
        &mut self,
        version: AdapterVersion,
        out: &mut Vec<Effect>,
    ) -> Result<(), Broken> {
        let Some(train) = self.train() else { return Ok(()) };
        let (policy, size) = (train.stale, train.group_size);
        let Some(bound) = train.staleness_bound() else { return Ok(()) };
        let is_stale = |oldest: AdapterVersion| version.0.saturating_sub(oldest.0) > bound;
        // Groups are in order of their oldest token: the stale ones are in front.
        let mut behind: Vec<GroupId> = self
            .ready
            .iter()
            .take_while(|(oldest, _)| oldest.is_none_or(is_stale))
            .map(|(_, id)| *id)
            .collect();
        behind.sort_unstable();
        for id in behind {
            let stale: Vec<(EpisodeId, u64)> = self
                .usable(id)
                .filter_map(|(entry, outcome)| {
                    let behind = version.0.saturating_sub(outcome.oldest?.0);
                    (behind > bound).then_some((entry.episode, behind))
                })
                .collect();
            for (episode, behind) in &stale {
                self.since_step.stale_episodes += 1;
                let reason = format!("stale: its oldest token is {behind} versions behind");
                self.transit(*episode, Transition::Drop(reason), out)?;
            }
            if stale.is_empty() {
                continue;
            }
            let Some(group) = self.groups.get_mut(&id) else { continue };
            if let Some(place) = group.ready.take() {
                self.ready.remove(&place);
            }
            if policy == StalePolicy::Refill && !group.refilled {
                group.refilled = true;
                let (task, ordinal) = (group.task.clone(), group.ordinal);
                let phase = self.phase as u32;
                // Past those of the group as it was made, however many are left: a sample is a seed.
                for sample in (size..).take(stale.len()) {
                    self.enter(phase, ordinal, id, &task, sample, out);
                }
            } else {
                self.settle(id, out)?;
            }
        }
        Ok(())
    }

    pub(super) fn check_groups(&self) -> Result<(), Broken> {
        let ready = self.groups.values().filter_map(|group| group.ready);
        if ready.collect::<BTreeSet<_>>() != self.ready {
            return Err(Broken(format!("groups known as ready: {:?}", self.ready)));
        }
        if self.is_over() {
            return Ok(()); // Nothing is decided any more.
        }
        self.check_members()?;
        for (id, group) in self.groups.iter().filter(|(id, _)| !self.unsettled.contains(id)) {
            let mut members = group.members.iter().filter_map(|id| self.ledger.get(*id));
            let has_ended = members.all(|entry| !entry.state.is_open());
            if has_ended != group.ready.is_some() {
                return Err(Broken(format!("group {id} has ended: {has_ended}, {group:?}")));
            }
        }
        Ok(())
    }

    /// Whatever is rolled out to be trained on is in one group, or nobody would ever decide on it.
    fn check_members(&self) -> Result<(), Broken> {
        let mut seen = BTreeSet::new();
        for (id, group) in &self.groups {
            for episode in group.members.iter().chain(&group.late) {
                if !seen.insert(*episode) {
                    return Err(Broken(format!(
                        "episode {episode} of group {id} is in two groups"
                    )));
                }
            }
        }
        let lost = self.ledger.entries().find(|entry| {
            let is_awaited = entry.state.is_open() || matches!(entry.state, State::Finished(_));
            is_awaited && !entry.evaluation && !seen.contains(&entry.episode)
        });
        lost.map_or(Ok(()), |entry| Err(Broken(format!("{entry:?} is in no group"))))
    }
}
