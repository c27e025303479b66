//! Who is there, with what adapter and how much room.

use std::collections::BTreeSet;
use std::time::Duration;

use crrl_types::{AdapterVersion, Digest, EpisodeId, EventKind, NodeName, TaskId};

use super::{Coordinator, Effect, Loss, Record};
use crate::ledger::{Broken, Lease, Transition, leases};
use crate::wire::{Held, Serving, Wire};

/// Episodes one node may hold at once, whatever it asks for.
pub(super) const CAPACITY_MAX: u32 = 4096;

/// So many nodes lost within [`LOST_TOGETHER`] died of something else than their tasks: a rack, a
/// switch. A task that kills is on fewer before it is quarantined.
const LOST_TOGETHER_MAX: usize = 16;

/// How close together losses are one.
const LOST_TOGETHER: Duration = Duration::from_secs(10);

/// What a lost node was working on is not handed out before no other was lost for this long: others
/// may have been cut off in the same moment, and are noticed one after the other, as the last word of
/// each was heard.
const LOSS_SETTLES: Duration = Duration::from_millis(300);

/// It is not held back for longer than this after the first of them was noticed.
const HELD_BACK_MAX: Duration = Duration::from_millis(700);

/// A message is not longer than this under way on a connection that lives.
const JOIN_OVERLAP: Duration = Duration::from_secs(2);

/// How long a node of the run's own may take to load its model before another's word on it is taken.
const FIRST_WORD_MAX: Duration = Duration::from_secs(300);

/// Where it stands with a node whose word on what it holds was not final.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asked {
    /// It will be asked.
    At(Duration),
    /// It was, and has not answered.
    Already,
}

/// What nodes that were lost together were working on: whoever would get it next may be lost as well,
/// and not be missed yet. It is out of the queue, so that nobody looks at it until then.
#[derive(Debug, Clone)]
pub(super) struct HeldBack {
    /// When the first of the losses was noticed.
    since: Duration,
    /// When it is handed out again.
    pub(super) until: Duration,
    pub(super) episodes: BTreeSet<EpisodeId>,
}

impl Coordinator {
    #[expect(clippy::too_many_arguments, reason = "the fields of one message")]
    pub(super) fn join(
        &mut self,
        from: &NodeName,
        incarnation: u64,
        capacity: u32,
        holding: &[Held],
        serving: Option<Serving>,
        now: Duration,
        out: &mut Vec<Effect>,
    ) -> Result<(), Broken> {
        let (was_up, life) =
            self.nodes.get(from).map_or((false, incarnation), |node| (node.up, node.incarnation));
        if was_up && incarnation < life {
            // A message of an earlier life that was under way for long.
            return Ok(());
        }
        // A node that has lost its folder counts its lives anew. What it had in a later one was released when
        // it was lost, and is fenced by the number of the lease, not of the life.
        let restarted = incarnation != life;
        let again = was_up && !restarted;
        if !again {
            out.push(Effect::Event(EventKind::NodeUp { peer: from.clone(), incarnation }));
        }
        let accused = self.nodes.change(from, |node| {
            node.incarnation = incarnation;
            node.up = true;
            node.capacity = capacity.min(CAPACITY_MAX);
            if !again {
                node.serving = None;
            }
            std::mem::take(&mut node.accused)
        });
        if let Some(serving) = serving {
            self.activated(from, serving, out);
        }
        if !restarted {
            // It was only out of reach: none of its tasks killed it.
            self.acquit(&accused, &(from.clone(), incarnation), out);
        }
        let held: BTreeSet<Held> = holding.iter().copied().collect();
        let mut kept = held.clone();
        if again {
            // It joins a second time on one connection: what was handed out a moment ago was
            // still under way to it when it said what it holds.
            kept.extend(self.leased_since(from, now.saturating_sub(JOIN_OVERLAP)));
        }
        self.ask_once_more(from, kept.len() > held.len(), now);
        self.release_all_but(from, &kept, "not held after a rejoin", out)?;
        for held in held {
            self.rejoin_lease(from, held, now, out)?;
        }
        Ok(())
    }

    /// What was under way to a node that joined again may have come to an actor that is no more: it is
    /// asked what it holds once nothing can be under way any longer. Its answer is not doubted.
    fn ask_once_more(&mut self, name: &NodeName, in_doubt: bool, now: Duration) {
        let was_asked = self.asked.remove(name) == Some(Asked::Already);
        if in_doubt && !was_asked {
            self.asked.insert(name.clone(), Asked::At(now + JOIN_OVERLAP));
        }
    }

    /// When a node is to be asked what it holds.
    pub(super) fn next_question(&self) -> Option<Duration> {
        let at = |asked: &Asked| match asked {
            Asked::At(at) => Some(*at),
            Asked::Already => None,
        };
        self.asked.values().filter_map(at).min()
    }

    /// Asks nodes whose time has come what they hold.
    pub(super) fn ask_what_is_held(&mut self, now: Duration, out: &mut Vec<Effect>) {
        for (name, asked) in &mut self.asked {
            if matches!(asked, Asked::At(at) if *at <= now) {
                *asked = Asked::Already;
                out.push(Effect::Send(name.clone(), Wire::JoinWanted));
            }
        }
    }

    /// A life of a node did not end by these tasks. Those in quarantine that it is no longer held
    /// against often enough are handed out again.
    fn acquit(&mut self, tasks: &BTreeSet<TaskId>, life: &(NodeName, u64), out: &mut Vec<Effect>) {
        for task in tasks {
            let Some(killed) = self.kills.get_mut(task) else { continue };
            killed.remove(life);
            let left = killed.len();
            if left == 0 {
                self.kills.remove(task);
            }
            if left < self.plan.limits.kills_max as usize {
                self.let_out(task, out);
            }
        }
    }

    /// Leases of a node that were given after `since`.
    fn leased_since(&self, name: &NodeName, since: Duration) -> Vec<Held> {
        let leases = self.nodes.get(name).map(|node| &node.leases);
        leases
            .into_iter()
            .flatten()
            .filter_map(|id| self.lease_of(*id, name))
            .filter(|(_, lease)| lease.deadline.saturating_sub(self.lease()) > since)
            .map(|(held, _)| held)
            .collect()
    }

    /// The lease a node has on an episode.
    fn lease_of(&self, episode: EpisodeId, name: &NodeName) -> Option<(Held, &Lease)> {
        let lease = leases(self.ledger.get(episode)?).find(|lease| lease.node == *name)?;
        Some((Held { episode, attempt: lease.attempt }, lease))
    }

    /// A node says it holds a lease: it goes on with it if the lease is the current one.
    fn rejoin_lease(
        &mut self,
        from: &NodeName,
        held: Held,
        now: Duration,
        out: &mut Vec<Effect>,
    ) -> Result<(), Broken> {
        let Held { episode, attempt } = held;
        if self.is_current(from, held) {
            let deadline = now + self.lease();
            self.transit(episode, Transition::Resume { attempt, deadline }, out)?;
            self.nodes.lease(from, episode);
        } else if !self.holds_result(episode, from, attempt) {
            let reason = "the lease is no longer yours".to_owned();
            out.push(Effect::Send(from.clone(), Wire::Cancel { episode, attempt, reason }));
        }
        // Otherwise the result is here: the node sends it again and is told so.
        Ok(())
    }

    pub(super) fn set_capacity(&mut self, from: &NodeName, capacity: u32) {
        if self.nodes.get(from).is_some() {
            self.nodes.change(from, |node| node.capacity = capacity.min(CAPACITY_MAX));
        }
    }

    pub(super) fn node_down(
        &mut self,
        name: &NodeName,
        reason: &str,
        loss: Loss,
        now: Duration,
        out: &mut Vec<Effect>,
    ) -> Result<(), Broken> {
        self.learner_down(name, loss, out);
        self.asked.remove(name);
        if self.nodes.get(name).is_none() {
            out.push(Effect::Event(EventKind::NodeDown {
                peer: name.clone(),
                reason: reason.to_owned(),
            }));
        }
        if self.nodes.get(name).is_none_or(|node| !node.up) {
            return Ok(());
        }
        let (incarnation, leases) = self.nodes.change(name, |node| {
            node.up = false;
            node.serving = None;
            (node.incarnation, node.leases.clone())
        });
        let life = (name.clone(), incarnation);
        out.push(Effect::Event(EventKind::NodeDown {
            peer: name.clone(),
            reason: reason.to_owned(),
        }));
        let tasks: BTreeSet<TaskId> = leases
            .iter()
            .filter_map(|id| self.ledger.get(*id))
            .map(|entry| entry.task.clone())
            .collect();
        self.release_all_but(name, &BTreeSet::new(), reason, out)?;
        if loss == Loss::Planned {
            return Ok(());
        }
        self.hold_back(leases, now);
        if self.is_one_of_many(name, now) {
            self.forgive(out);
            return Ok(());
        }
        self.nodes.change(name, |node| node.accused.extend(tasks.iter().cloned()));
        for task in tasks {
            let killed = self.kills.entry(task.clone()).or_default();
            killed.insert(life.clone());
            let killed = killed.len();
            if killed >= self.plan.limits.kills_max as usize {
                self.quarantine(&task, killed, out)?;
            }
        }
        Ok(())
    }

    /// What a node that was lost was working on waits a moment.
    fn hold_back(&mut self, episodes: BTreeSet<EpisodeId>, now: Duration) {
        self.queue_held(now);
        let begin = || HeldBack { since: now, until: now, episodes: BTreeSet::new() };
        let held = self.held_back.get_or_insert_with(begin);
        held.until = (now + LOSS_SETTLES).min(held.since + HELD_BACK_MAX);
        held.episodes.extend(episodes.into_iter().filter(|episode| self.queue.remove(episode)));
    }

    /// Queues what was held back once its time has come.
    pub(super) fn queue_held(&mut self, now: Duration) {
        if let Some(held) = self.held_back.take_if(|held| held.until <= now) {
            self.queue.extend(held.episodes);
        }
    }

    pub(super) fn is_held_back(&self, episode: EpisodeId) -> bool {
        self.held_back.as_ref().is_some_and(|held| held.episodes.contains(&episode))
    }

    /// Episodes without a node, those that are held back among them.
    pub(super) fn queued(&self) -> usize {
        self.queue.len() + self.held_back.as_ref().map_or(0, |held| held.episodes.len())
    }

    /// Whether a node lost now is one of many that were lost together.
    fn is_one_of_many(&mut self, name: &NodeName, now: Duration) -> bool {
        self.lost.push_back((now, name.clone()));
        while self.lost.len() > LOST_TOGETHER_MAX {
            self.lost.pop_front();
        }
        let first = self.lost.front().map_or(now, |(at, _)| *at);
        self.lost.len() == LOST_TOGETHER_MAX && now.saturating_sub(first) < LOST_TOGETHER
    }

    /// Takes back what the loss of many nodes was held against tasks before there were many.
    fn forgive(&mut self, out: &mut Vec<Effect>) {
        for (_, name) in self.lost.clone() {
            let Some(life) = self.nodes.get(&name).map(|node| (name.clone(), node.incarnation))
            else {
                continue;
            };
            let accused = self.nodes.change(&name, |node| std::mem::take(&mut node.accused));
            self.acquit(&accused, &life, out);
        }
    }

    fn release_all_but(
        &mut self,
        name: &NodeName,
        held: &BTreeSet<Held>,
        reason: &str,
        out: &mut Vec<Effect>,
    ) -> Result<(), Broken> {
        let leases = self.nodes.get(name).map(|node| node.leases.clone()).unwrap_or_default();
        for episode in leases {
            if let Some((lease, _)) = self.lease_of(episode, name)
                && !held.contains(&lease)
            {
                self.release(lease, reason, out)?;
            }
        }
        Ok(())
    }

    pub(super) fn activated(&mut self, from: &NodeName, serving: Serving, out: &mut Vec<Effect>) {
        let is_believed = self.awaited.as_ref().is_none_or(|(names, _)| names.contains(from));
        if serving.version == AdapterVersion(0) && is_believed {
            self.take_first_word(serving, out);
        }
        // A node never goes back within one life: that is old news.
        if let Some(node) = self.nodes.get(from)
            && node.serving.is_none_or(|held| held.version < serving.version)
        {
            self.nodes.change(from, |node| node.serving = Some(serving));
            let Serving { version, digest } = serving;
            out.push(Effect::Event(EventKind::Activated { peer: from.clone(), version, digest }));
        }
    }

    /// No adapter at all: nobody publishes it, so the first node's word is taken, and the others must
    /// agree with it.
    fn take_first_word(&mut self, serving: Serving, out: &mut Vec<Effect>) {
        if !self.published.contains_key(&serving.version) {
            self.awaited = None;
            self.publish(serving, out);
        }
    }

    /// Names the nodes whose word on the base model is taken before that of others, who may have brought
    /// a model of their own. Others are believed where none is named, or none of them says anything for
    /// long. A run that knows keeps to it.
    pub fn believe_first(&mut self, names: BTreeSet<NodeName>, now: Duration) {
        if !names.is_empty() && !self.published.contains_key(&AdapterVersion(0)) {
            self.awaited = Some((names, now + FIRST_WORD_MAX));
        }
    }

    /// Nobody of those that were to say first what the base model is has said so: whoever else has is
    /// believed.
    pub(super) fn believe_others(&mut self, now: Duration, out: &mut Vec<Effect>) {
        if self.awaited.take_if(|(_, until)| *until <= now).is_none() {
            return;
        }
        let is_base = |serving: &Serving| serving.version == AdapterVersion(0);
        let said = self.nodes.iter().find_map(|(_, node)| node.serving.filter(is_base));
        if let Some(serving) = said {
            self.take_first_word(serving, out);
        }
    }

    pub(super) fn publish(&mut self, serving: Serving, out: &mut Vec<Effect>) {
        let Serving { version, digest } = serving;
        if self.published.get(&version) == Some(&digest) {
            return;
        }
        // A version that was published once keeps its digest, whoever says otherwise.
        if version == AdapterVersion(0) || !self.published.contains_key(&version) {
            // News that was overtaken still proves tokens, but is not what happened last.
            let newest = self.published.keys().next_back().is_none_or(|last| *last <= version);
            self.published.insert(version, digest);
            if newest {
                out.push(Effect::Event(EventKind::Published { version, digest }));
            }
            out.push(Effect::Record(Record::Published(serving)));
        }
    }

    /// The adapter a version was published as.
    pub(super) fn digest_of(&self, version: AdapterVersion) -> Option<Digest> {
        self.published.get(&version).copied()
    }

    /// The adapter the learner trains: what is newest and known to be.
    pub(super) fn current(&self) -> AdapterVersion {
        self.learner.version.unwrap_or_else(|| {
            self.published.keys().next_back().copied().unwrap_or(AdapterVersion(0))
        })
    }

    /// Whether a node serves what was published under that version.
    pub(super) fn is_proven(&self, serving: Serving) -> bool {
        self.digest_of(serving.version) == Some(serving.digest)
    }

    /// Whether the episode ended well in the hands of this lease.
    pub(super) fn holds_result(&self, episode: EpisodeId, from: &NodeName, attempt: u32) -> bool {
        match self.ledger.get(episode) {
            Some(entry) => {
                !entry.state.is_open()
                    && entry.attempt == attempt
                    && entry.node.as_ref() == Some(from)
            }
            // Over and forgotten.
            None => self.ledger.was_created(episode),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::coordinator::Input;
    use crate::plan::{Evaluate, Phase, Plan};

    #[test]
    fn what_is_held_back_is_counted_and_nobody_looks_at_it() {
        let evaluate = Phase::Evaluate(Evaluate {
            label: "before".into(),
            tasks: "tasks".into(),
            tasks_max: 0,
            samples: 1,
            sampling: Default::default(),
        });
        let tasks = (0..8).map(|at| format!("task-{at}").as_str().into()).collect();
        let plan = Plan::new(1, vec![evaluate]);
        let mut machine = Coordinator::new(plan, vec![tasks]).expect("a good plan");
        let mut say = |input, ms| {
            machine.handle(input, Duration::from_millis(ms)).expect("sound");
            machine.check().expect("sound");
            let held = machine.held_back.as_ref().map_or(0, |held| held.episodes.len());
            (machine.queue.len(), held, machine.status().queued)
        };
        let serving = Some(Serving { version: AdapterVersion(0), digest: Digest::default() });
        let (from, holding) = (NodeName::from("a"), Vec::new());
        let join = Input::Join { from, incarnation: 1, capacity: 4, holding, serving };
        let (waiting, held, told) = say(join, 1);
        assert_eq!((held, told as usize), (0, waiting));
        let (node, reason) = (NodeName::from("a"), "gone".to_owned());
        let lost = say(Input::NodeDown { node, reason, loss: Loss::Unplanned }, 1000);
        assert_eq!(lost, (waiting, 4, told + 4), "out of the queue, and still to be done");
        assert_eq!(say(Input::Timer, 2000), (waiting + 4, 0, told + 4), "its time has come");
    }
}
