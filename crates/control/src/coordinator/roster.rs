//! Rollout nodes, and which of them has room for what.
//!
//! Kept sorted as it changes, so that a choice costs the same however many nodes there are. Decides
//! nothing by itself: who is eligible is asked of the caller.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use crrl_types::{AdapterVersion, Digest, EpisodeId, NodeName, TaskId};

use crate::ledger::Broken;
use crate::wire::Serving;

/// A rollout node.
#[derive(Debug, Clone, Default)]
pub(super) struct Node {
    pub(super) incarnation: u64,
    pub(super) up: bool,
    pub(super) capacity: u32,
    pub(super) serving: Option<Serving>,
    pub(super) leases: BTreeSet<EpisodeId>,
    /// Tasks it was working on when it was lost in this life.
    pub(super) accused: BTreeSet<TaskId>,
}

impl Node {
    pub(super) fn room(&self) -> usize {
        if self.up { (self.capacity as usize).saturating_sub(self.leases.len()) } else { 0 }
    }
}

/// Order of an adapter among those served.
type Adapter = (AdapterVersion, Digest);

fn adapter(serving: Serving) -> Adapter {
    (serving.version, serving.digest)
}

/// All rollout nodes.
#[derive(Debug, Clone, Default)]
pub(super) struct Roster {
    nodes: BTreeMap<NodeName, Node>,
    totals: Totals,
}

/// What is known of all nodes together.
#[derive(Debug, Clone, Default, PartialEq)]
struct Totals {
    /// Nodes with room, by the adapter they serve; most room first, then by name.
    free: BTreeMap<Adapter, BTreeSet<(Reverse<usize>, NodeName)>>,
    /// Nodes that are there, by the version they serve.
    serving: BTreeMap<Option<AdapterVersion>, usize>,
    up: usize,
    capacity: usize,
    leases: usize,
}

impl Totals {
    fn add(&mut self, name: &NodeName, node: &Node) {
        self.leases += node.leases.len();
        if !node.up {
            return;
        }
        self.up += 1;
        self.capacity += node.capacity as usize;
        *self.serving.entry(node.serving.map(|s| s.version)).or_default() += 1;
        if let Some(serving) = node.serving
            && node.room() > 0
        {
            let place = (Reverse(node.room()), name.clone());
            self.free.entry(adapter(serving)).or_default().insert(place);
        }
    }

    fn subtract(&mut self, name: &NodeName, node: &Node) {
        self.leases -= node.leases.len();
        if !node.up {
            return;
        }
        self.up -= 1;
        self.capacity -= node.capacity as usize;
        let version = node.serving.map(|s| s.version);
        if let Some(count) = self.serving.get_mut(&version) {
            *count -= 1;
            if *count == 0 {
                self.serving.remove(&version);
            }
        }
        if let Some(serving) = node.serving
            && let Some(free) = self.free.get_mut(&adapter(serving))
        {
            free.remove(&(Reverse(node.room()), name.clone()));
            if free.is_empty() {
                self.free.remove(&adapter(serving));
            }
        }
    }
}

impl Roster {
    pub(super) fn get(&self, name: &NodeName) -> Option<&Node> {
        self.nodes.get(name)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&NodeName, &Node)> {
        self.nodes.iter()
    }

    /// Changes a node; one not heard of before is entered, not there and without room.
    pub(super) fn change<R>(&mut self, name: &NodeName, change: impl FnOnce(&mut Node) -> R) -> R {
        if let Some(node) = self.nodes.get_mut(name) {
            self.totals.subtract(name, node);
            let changed = change(node);
            self.totals.add(name, node);
            return changed;
        }
        let mut node = Node::default();
        let changed = change(&mut node);
        self.totals.add(name, &node);
        self.nodes.insert(name.clone(), node);
        changed
    }

    /// The node has a lease on an episode from now on.
    pub(super) fn lease(&mut self, name: &NodeName, episode: EpisodeId) {
        self.change(name, |node| node.leases.insert(episode));
    }

    /// The node has no lease on an episode any more.
    pub(super) fn unlease(&mut self, name: &NodeName, episode: EpisodeId) {
        self.change(name, |node| node.leases.remove(&episode));
    }

    /// Nodes that are there.
    pub(super) fn up(&self) -> usize {
        self.totals.up
    }

    /// Episodes all nodes that are there could hold at once.
    pub(super) fn capacity(&self) -> usize {
        self.totals.capacity
    }

    /// Leases of all nodes.
    pub(super) fn leases(&self) -> usize {
        self.totals.leases
    }

    /// Whether every node that is there serves this version.
    pub(super) fn all_serve(&self, version: AdapterVersion) -> bool {
        self.totals.serving.keys().all(|served| *served == Some(version))
    }

    /// A node with room that serves an eligible adapter: another than `last`; one of `knowing`; the
    /// one with most room; the first by name.
    pub(super) fn choose<'a>(
        &'a self,
        last: Option<&'a NodeName>,
        knowing: impl Iterator<Item = &'a NodeName>,
        is_eligible: impl Fn(Serving) -> bool,
    ) -> Option<&'a NodeName> {
        let place = |name: &'a NodeName| {
            let node = self.get(name)?;
            let fits = node.room() > 0 && node.serving.is_some_and(&is_eligible);
            fits.then_some((Reverse(node.room()), name))
        };
        let is_other = |name: &NodeName| last != Some(name);
        let knows = knowing.filter(|name| is_other(name)).filter_map(place).min();
        let best = || {
            self.totals
                .free
                .iter()
                .filter(|((version, digest), _)| {
                    is_eligible(Serving { version: *version, digest: *digest })
                })
                .filter_map(|(_, free)| free.iter().find(|(_, name)| is_other(name)))
                .map(|(room, name)| (*room, name))
                .min()
        };
        let again = || last.and_then(place);
        knows.or_else(best).or_else(again).map(|(_, name)| name)
    }

    pub(super) fn check(&self) -> Result<(), Broken> {
        let mut totals = Totals::default();
        for (name, node) in &self.nodes {
            totals.add(name, node);
        }
        if totals == self.totals {
            return Ok(());
        }
        Err(Broken(format!("nodes are {totals:?} and known as {:?}", self.totals)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn serving(version: u64) -> Serving {
        Serving { version: AdapterVersion(version), digest: Digest([version as u8; 32]) }
    }

    fn roster(nodes: &[(&str, u32, u64)]) -> Roster {
        let mut roster = Roster::default();
        for (name, capacity, version) in nodes {
            roster.change(&(*name).into(), |node| {
                (node.up, node.capacity) = (true, *capacity);
                node.serving = Some(serving(*version));
            });
        }
        roster
    }

    #[test]
    fn another_node_one_that_knows_the_task_most_room() {
        let roster = roster(&[("a", 2, 1), ("b", 3, 1), ("c", 9, 0)]);
        let names: Vec<NodeName> = ["a", "b", "c"].map(NodeName::from).to_vec();
        let is_new = |s: Serving| s.version == AdapterVersion(1);
        let choose = |last: Option<usize>, knowing: &[usize]| {
            let knowing = knowing.iter().map(|at| &names[*at]);
            roster.choose(last.map(|at| &names[at]), knowing, is_new).map(|name| name.0.clone())
        };
        assert_eq!(choose(None, &[]).as_deref(), Some("b"), "most room of those eligible");
        assert_eq!(choose(None, &[0, 2]).as_deref(), Some("a"), "it knows the task");
        assert_eq!(choose(Some(1), &[1]).as_deref(), Some("a"), "not again");
        let alone = roster.choose(Some(&names[2]), std::iter::empty(), |s| !is_new(s));
        assert_eq!(alone, Some(&names[2]), "again, if nobody else can");
        assert_eq!(roster.choose(None, std::iter::empty(), |_| false), None);
    }

    #[test]
    fn what_is_known_of_all_follows_every_change() {
        let mut roster = roster(&[("a", 2, 1), ("b", 3, 1)]);
        let (a, b): (NodeName, NodeName) = ("a".into(), "b".into());
        roster.lease(&a, EpisodeId(1));
        roster.lease(&a, EpisodeId(2));
        roster.check().expect("in step");
        assert_eq!((roster.up(), roster.capacity(), roster.leases()), (2, 5, 2));
        assert!(roster.all_serve(AdapterVersion(1)));
        roster.change(&b, |node| node.serving = Some(serving(2)));
        assert!(!roster.all_serve(AdapterVersion(1)));
        roster.change(&b, |node| node.up = false);
        roster.check().expect("in step");
        assert_eq!(roster.choose(None, std::iter::empty(), |_| true), None, "a is full, b is gone");
        roster.unlease(&a, EpisodeId(1));
        assert_eq!(roster.choose(None, std::iter::empty(), |_| true), Some(&a));
        roster.check().expect("in step");
    }
}
