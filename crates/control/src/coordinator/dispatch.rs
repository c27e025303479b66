//! Which episode goes where; leases, results, and what happens when a lease is lost.

use std::time::Duration;

use crrl_types::{EpisodeId, EventKind, NodeName, TaskId};

use super::input::Result as EpisodeResult;
use super::{Assign, Coordinator, Effect, Record, Stage};
use crate::ledger::{Broken, Entry, Lease, State, Transition, leases};
use crate::plan::{Phase, episode_seed};
use crate::wire::{Held, Serving, Wire};

impl Coordinator {
    pub(super) fn lease(&self) -> Duration {
        Duration::from_millis(self.plan.limits.lease_ms)
    }

    pub(super) fn expire_leases(
        &mut self,
        now: Duration,
        out: &mut Vec<Effect>,
    ) -> Result<(), Broken> {
        for (episode, Lease { node, attempt, .. }) in self.ledger.late(now) {
            let reason = "the lease has ended".to_owned();
            self.release(Held { episode, attempt }, &reason, out)?;
            out.push(Effect::Send(node, Wire::Cancel { episode, attempt, reason }));
        }
        Ok(())
    }

    /// Takes a lease back. Unless another node has the episode too, it is queued again, or has
    /// failed if it had its leases.
    pub(super) fn release(
        &mut self,
        held: Held,
        reason: &str,
        out: &mut Vec<Effect>,
    ) -> Result<(), Broken> {
        let Held { episode, attempt } = held;
        let Some(entry) = self.ledger.get(episode) else { return Ok(()) };
        let (given, task, group) = (entry.attempt, entry.task.clone(), entry.group);
        let Some(node) = leases(entry).find(|l| l.attempt == attempt).map(|l| l.node.clone())
        else {
            return Ok(());
        };
        let shared = leases(entry).count() > 1;
        self.nodes.unlease(&node, episode);
        out.push(Effect::Event(EventKind::LeaseLost { episode, from: node }));
        let next = if shared {
            Transition::Release { attempt }
        } else if let Some(why) = self.quarantined.get(&task) {
            Transition::Quarantine(why.clone())
        } else if given >= self.plan.limits.attempts_max {
            if let Some(group) = self.groups.get_mut(&group) {
                group.failed += 1;
            }
            self.last_failure = format!("{task}: {reason}");
            Transition::Fail(format!("{reason} (lease {given}, the last it gets)"))
        } else {
            Transition::Release { attempt }
        };
        self.transit(episode, next, out)?;
        Ok(())
    }

    /// Hands no attempt at a task out any more, and ends those that wait.
    pub(super) fn quarantine(
        &mut self,
        task: &TaskId,
        killed: usize,
        out: &mut Vec<Effect>,
    ) -> Result<(), Broken> {
        if self.quarantined.contains_key(task) {
            return Ok(());
        }
        let reason = format!("{killed} nodes died while they worked on {task}");
        self.quarantined.insert(task.clone(), reason.clone());
        out.push(Effect::Record(Record::Quarantined(task.clone(), reason.clone())));
        out.push(Effect::Event(EventKind::Quarantined {
            task: task.clone(),
            reason: reason.clone(),
        }));
        let open: Vec<EpisodeId> = self
            .ledger
            .entries()
            .filter(|entry| entry.task == *task && entry.state.is_open())
            .map(|entry| entry.episode)
            .collect();
        for episode in open {
            self.withdraw(episode, &reason, out);
            self.transit(episode, Transition::Quarantine(reason.clone()), out)?;
        }
        Ok(())
    }

    /// Hands attempts at a task out again, if it was in quarantine.
    pub(super) fn let_out(&mut self, task: &TaskId, out: &mut Vec<Effect>) {
        if self.quarantined.remove(task).is_some() {
            out.push(Effect::Record(Record::Released(task.clone())));
            out.push(Effect::Event(EventKind::Released { task: task.clone() }));
        }
    }

    /// Tells every node that works on an episode that the result is not wanted.
    pub(super) fn withdraw(&mut self, episode: EpisodeId, reason: &str, out: &mut Vec<Effect>) {
        let Some(entry) = self.ledger.get(episode) else { return };
        for Lease { node, attempt, .. } in leases(entry).cloned().collect::<Vec<_>>() {
            self.nodes.unlease(&node, episode);
            let reason = reason.to_owned();
            out.push(Effect::Send(node, Wire::Cancel { episode, attempt, reason }));
        }
    }

    /// Whether this is a lease whose result counts.
    pub(super) fn is_current(&self, from: &NodeName, held: Held) -> bool {
        self.ledger.get(held.episode).is_some_and(|e| e.is_held_by(from, held.attempt))
    }

    pub(super) fn finished(
        &mut self,
        from: &NodeName,
        result: &EpisodeResult,
        now: Duration,
        out: &mut Vec<Effect>,
    ) -> Result<(), Broken> {
        let Held { episode, attempt } = result.held;
        if !self.is_current(from, result.held) {
            let answer = if self.holds_result(episode, from, attempt) {
                Wire::Ack { episode, attempt }
            } else {
                Wire::Cancel { episode, attempt, reason: "the lease is no longer yours".to_owned() }
            };
            out.push(Effect::Send(from.clone(), answer));
            return Ok(());
        }
        if let Some(reason) = &result.refused {
            return self.failed(from, result.held, reason, out);
        }
        if let Some(wrong) = self.unlike(result) {
            let reason = format!("{from} sent another attempt than it was given: {wrong}");
            return self.failed(from, result.held, &reason, out);
        }
        for adapter in &result.adapters {
            let Serving { version, digest } = *adapter;
            match self.digest_of(version) {
                // The news of its publication is still under way: the node sends it again.
                None => return Ok(()),
                Some(known) if known != digest => {
                    let reason = format!(
                        "{from} drew tokens under adapter {version} with digest {}, but {version} \
                         was published as {}",
                        digest.short(),
                        known.short()
                    );
                    return self.failed(from, result.held, &reason, out);
                }
                Some(_) => {}
            }
        }
        if let Stage::Evaluating(evaluating) = &self.stage
            && let Some(pinned) = evaluating.pinned
            && result.adapters.iter().any(|adapter| adapter.digest != pinned.digest)
        {
            let reason = format!("not drawn under adapter {} alone", pinned.version);
            return self.failed(from, result.held, &reason, out);
        }
        self.note_pace(from, episode, now);
        self.nodes.unlease(from, episode);
        if self.ledger.get(episode).is_some_and(|entry| entry.state == State::Queued) {
            self.transit(episode, Transition::Resume { attempt, deadline: Duration::MAX }, out)?;
        }
        self.withdraw_others(from, episode, out)?;
        let outcome = result.outcome;
        out.push(Effect::Keep(episode));
        let entry = self.transit(episode, Transition::Finish(outcome), out)?;
        // Whatever was lost with the task before did not die of it.
        self.kills.remove(&entry.task);
        out.push(Effect::Event(EventKind::Finished {
            episode,
            reward: outcome.reward,
            success: outcome.success,
        }));
        if entry.evaluation {
            self.transit(episode, Transition::Measure, out)?;
        }
        out.push(Effect::Send(from.clone(), Wire::Ack { episode, attempt }));
        Ok(())
    }

    /// What a result says of itself that is not so by the ledger and the plan. A learner could train on
    /// none of a batch with such a one in it.
    fn unlike(&self, result: &EpisodeResult) -> Option<String> {
        let entry = self.ledger.get(result.held.episode)?;
        let EpisodeResult { task, group, temperature, .. } = result;
        let wanted = self.plan.phases.get(entry.phase as usize)?.sampling().temperature;
        if *task != entry.task {
            Some(format!("it is at task {task} instead of {}", entry.task))
        } else if *group != entry.group {
            Some(format!("it is of group {group} instead of {}", entry.group))
        } else if *temperature != wanted {
            Some(format!("it was sampled at temperature {temperature} instead of {wanted}"))
        } else {
            None
        }
    }

    /// A result is here: whoever else works on the episode can stop.
    fn withdraw_others(
        &mut self,
        from: &NodeName,
        episode: EpisodeId,
        out: &mut Vec<Effect>,
    ) -> Result<(), Broken> {
        let Some(entry) = self.ledger.get(episode) else { return Ok(()) };
        let others: Vec<Lease> = leases(entry).filter(|l| l.node != *from).cloned().collect();
        for Lease { node, attempt, .. } in others {
            self.nodes.unlease(&node, episode);
            let reason = format!("{from} was first");
            out.push(Effect::Send(node, Wire::Cancel { episode, attempt, reason }));
            self.transit(episode, Transition::Release { attempt }, out)?;
        }
        Ok(())
    }

    pub(super) fn failed(
        &mut self,
        from: &NodeName,
        held: Held,
        reason: &str,
        out: &mut Vec<Effect>,
    ) -> Result<(), Broken> {
        if self.is_current(from, held) {
            // What it came to grief over may be in its past.
            self.forget_turns(held.episode, out);
            self.release(held, reason, out)?;
            self.nodes.unlease(from, held.episode);
        }
        let Held { episode, attempt } = held;
        out.push(Effect::Send(from.clone(), Wire::Ack { episode, attempt }));
        Ok(())
    }

    /// Hands queued episodes out, oldest first, to nodes with room.
    pub(super) fn dispatch(&mut self, now: Duration, out: &mut Vec<Effect>) -> Result<(), Broken> {
        self.queue_held(now);
        if !self.may_dispatch() {
            return Ok(());
        }
        let mut next = EpisodeId(0);
        while let Some(episode) = self.queue.range(next..).next().copied() {
            next = episode.next();
            let Some(entry) = self.ledger.get(episode) else { continue };
            let Some(to) = self.choose(entry) else { break };
            let past = self.go_on_from(episode, out);
            self.hand_out(episode, to, past, now, out)?;
        }
        Ok(())
    }

    /// Gives a node a lease.
    pub(super) fn hand_out(
        &mut self,
        episode: EpisodeId,
        to: NodeName,
        past: u32,
        now: Duration,
        out: &mut Vec<Effect>,
    ) -> Result<(), Broken> {
        let deadline = now + self.lease();
        let entry = self.transit(episode, Transition::Lease { node: to.clone(), deadline }, out)?;
        self.nodes.lease(&to, episode);
        let Entry { group, task, attempt, phase, evaluation, sample, ordinal, .. } = entry;
        out.push(Effect::Event(EventKind::Dispatched {
            episode,
            group,
            task: task.clone(),
            to: to.clone(),
            attempt,
        }));
        let salt = if evaluation { 0 } else { (u64::from(phase) << 48) ^ (ordinal + 1) };
        let seed = episode_seed(self.plan.seed, &task, sample, salt);
        out.push(Effect::Assign(Assign {
            to,
            episode,
            attempt,
            group,
            phase,
            task,
            seed,
            evaluation,
            past,
        }));
        Ok(())
    }

    /// Whether anything may be handed out at all.
    fn may_dispatch(&self) -> bool {
        // A learner that starts from another adapter says so with its first request.
        let expected = self.plan.steps() > 0 && self.learner.version.is_none();
        let in_step = match &self.plan.phases.get(self.phase) {
            Some(Phase::Train(train)) if train.sync => self.nodes.all_serve(self.current()),
            _ => true,
        };
        !expected && in_step
    }

    /// Whether a node may work on this phase, by the adapter it serves.
    pub(super) fn is_eligible(&self, serving: Serving) -> bool {
        if !self.is_proven(serving) {
            return false;
        }
        match (&self.stage, self.plan.phases.get(self.phase)) {
            (Stage::Evaluating(evaluating), _) => {
                evaluating.pinned.is_some_and(|pinned| pinned.digest == serving.digest)
            }
            (Stage::Training(_), Some(Phase::Train(train))) => {
                serving.version.0 + train.run_ahead() >= self.current().0
            }
            _ => false,
        }
    }

    /// Another node than the last; one that works on the same group, which has the task's sandbox
    /// template and the prompt's keys and values already; then the one with most room.
    fn choose(&self, entry: &Entry) -> Option<NodeName> {
        let members = self.groups.get(&entry.group).map_or(&[][..], |group| &group.members);
        let knowing = members.iter().filter_map(|id| self.ledger.get(*id)?.node.as_ref());
        let is_eligible = |serving| self.is_eligible(serving);
        self.nodes.choose(entry.node.as_ref(), knowing, is_eligible).cloned()
    }

    pub(super) fn check_dispatch(&self) -> Result<(), Broken> {
        let broken = |what: String| Err(Broken(what));
        for entry in self.ledger.entries() {
            let queued = entry.state == State::Queued;
            let (waits, held) =
                (self.queue.contains(&entry.episode), self.is_held_back(entry.episode));
            if queued != (waits || held) || (waits && held) {
                return broken(format!("the queue and {entry:?}"));
            }
            let known = |lease: &Lease| {
                self.nodes.get(&lease.node).is_some_and(|n| n.leases.contains(&entry.episode))
            };
            if !leases(entry).all(known) {
                return broken(format!("a lease its node does not have: {entry:?}"));
            }
        }
        for (name, node) in self.nodes.iter() {
            for id in &node.leases {
                let entry = self.ledger.get(*id);
                if !entry.is_some_and(|entry| leases(entry).any(|lease| lease.node == *name)) {
                    return broken(format!("{name} has a lease on {id}: {entry:?}"));
                }
            }
        }
        self.nodes.check()
    }
}
