//! Episodes that were entered after the copy was made, and numbers that are left out because nobody
//! knows whether they were.

use std::collections::{BTreeMap, BTreeSet};

use crrl_types::{EpisodeId, GroupId, TaskId};

use super::{LOST, Work, end_of, outcome_of, phase_of_step};
use crate::ledger::{Entry, State};
use crate::plan::Phase;

/// Why there is an episode that was never entered: it stands for the numbers before it.
pub(super) const SKIPPED: &str = "its number and those before it may have been given out, and what \
                                  would say so was lost with a damaged ledger";

/// Stands for the task of an episode that was never handed out, so that nobody wrote it down.
const UNKNOWN_TASK: &str = "(unknown)";

/// Numbers that can be given out in the second for which the history may not be on its disk, by far.
const GIVEN_IN_A_SECOND_MAX: u64 = 1 << 12;

/// Numbers that can be given out in the time the history misses, where it misses more.
const GIVEN_UNTOLD_MAX: u64 = 1 << 20;

/// Numbers in a row that nothing names and that are taken for episodes that never had a node; more are
/// left out.
const GAP_MAX: u64 = 1 << 10;

/// A number this far past the copy's last is a damaged line's.
const JUMP_MAX: u64 = 1 << 32;

/// What an episode that was never handed out is entered beside.
struct Beside {
    group: GroupId,
    task: TaskId,
    samples: BTreeMap<GroupId, u32>,
}

impl Work<'_> {
    /// Enters them: nothing is left of what they said.
    pub(super) fn new_episodes(&mut self) {
        let next = self.copy.next_episode;
        let bound = EpisodeId(next.0.saturating_add(JUMP_MAX));
        let named = self.told.lives.keys().chain(self.trained.keys()).copied();
        let named: BTreeSet<EpisodeId> =
            named.filter(|episode| (next..=bound).contains(episode)).collect();
        let (group, task) = (self.copy.next_group, TaskId::from(UNKNOWN_TASK));
        let mut beside = Beside { group, task, samples: BTreeMap::new() };
        let mut at = next;
        for episode in named {
            if episode.0 - at.0 > GAP_MAX {
                self.skipped.push((at, EpisodeId(episode.0 - 1)));
                at = episode;
            }
            for between in (at.0..=episode.0).map(EpisodeId) {
                self.new_episode(between, &mut beside);
            }
            at = episode.next();
        }
        self.skip_from(at);
    }

    fn new_episode(&mut self, episode: EpisodeId, beside: &mut Beside) {
        let told = self.told;
        let life = told.lives.get(&episode);
        if let Some((group, task)) = life.and_then(|life| life.of.clone()) {
            (beside.group, beside.task) = (group, task);
        }
        let (group, task) = (beside.group, beside.task.clone());
        let step = self.trained.get(&episode).copied();
        let phase = step.and_then(|step| phase_of_step(self.plan, step));
        let phase = phase.unwrap_or_else(|| self.phase_of_task(&task));
        let state = match step {
            Some(step) => State::Trained(step, outcome_of(life)),
            None => end_of(life).unwrap_or_else(|| State::Dropped(LOST.to_owned())),
        };
        // A restoration that did not come to its end may have told of one that stands for others.
        if !matches!(&state, State::Dropped(reason) if reason == SKIPPED) {
            self.lost.insert(episode);
        }
        let sample = beside.samples.entry(group).or_default();
        let entry = Entry {
            ordinal: self.ordinal(phase, group, &task),
            sample: *sample,
            attempt: life.map_or(0, |life| life.attempt),
            node: life.and_then(|life| life.node.clone()),
            ..self.entry(episode, group, task, phase, state)
        };
        *sample += 1;
        self.write(entry, life);
    }

    /// Leaves numbers out. The last of them becomes an episode, from which a ledger counts on.
    fn skip_from(&mut self, first: EpisodeId) {
        let told = self.told.last().unwrap_or_default();
        let misses_more = self.told.unread > 0 || !self.unknown.is_empty() || told.next() < self.to;
        let count = if misses_more { GIVEN_UNTOLD_MAX } else { GIVEN_IN_A_SECOND_MAX };
        let last = EpisodeId(first.0.saturating_add(count));
        self.skipped.push((first, EpisodeId(last.0 - 1)));
        // Every group has an episode of its own at least: there are no more of them.
        let groups = last.0.saturating_sub(self.copy.next_episode.0);
        let group = GroupId(self.copy.next_group.0.saturating_add(groups));
        // Tasks go on where they were: its place is the first of a phase that has begun, and taken.
        let has_begun = self.copy.ordinals.contains_key(&(self.phase as u32));
        let phase = if has_begun { self.phase } else { 0 };
        let (task, state) = (TaskId::from(UNKNOWN_TASK), State::Dropped(SKIPPED.to_owned()));
        self.write(self.entry(last, group, task, phase, state), None);
        self.next = last.next();
    }

    fn entry(
        &self,
        episode: EpisodeId,
        group: GroupId,
        task: TaskId,
        phase: usize,
        state: State,
    ) -> Entry {
        Entry {
            episode,
            group,
            phase: phase as u32,
            ordinal: 0,
            sample: 0,
            evaluation: matches!(self.plan.phases.get(phase), Some(Phase::Evaluate(_))),
            attempt: 0,
            node: None,
            task,
            state,
        }
    }

    /// The first phase from the copy's on that works on a task.
    fn phase_of_task(&self, task: &TaskId) -> usize {
        let first = self.copy.phase as usize;
        let mut phases = self.tasks.iter().enumerate().skip(first);
        let found = phases.find(|(_, tasks)| tasks.contains(task)).map(|(index, _)| index);
        found.unwrap_or(first).min(self.plan.phases.len() - 1)
    }

    /// Which group of its phase it was: tasks go on behind the last one.
    fn ordinal(&self, phase: usize, group: GroupId, task: &TaskId) -> u64 {
        if let Some(Phase::Evaluate(_)) = self.plan.phases.get(phase) {
            let at = self.tasks[phase].iter().position(|id| id == task);
            return at.unwrap_or(0) as u64;
        }
        let next = self.copy.ordinals.get(&(phase as u32)).copied().unwrap_or(0);
        next.saturating_add(group.0.saturating_sub(self.copy.next_group.0))
    }
}
