//! What really happened, as only the simulation can know: which results were made, and what the
//! learner's weights were made of.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crrl_sim::os;
use crrl_types::{EpisodeId, NodeName};

/// The truth. Cloning gives another handle to the same.
#[derive(Debug, Clone, Default)]
pub(crate) struct Truth(Arc<Mutex<Facts>>);

#[derive(Debug, Default)]
struct Facts {
    /// Tokens of every result that was ever made.
    results: BTreeMap<(EpisodeId, u32, NodeName), BTreeSet<Vec<u32>>>,
    /// What each step consumed when it was made last.
    steps: BTreeMap<u64, Vec<EpisodeId>>,
    /// When actors of a machine failed and were to be started again, in its present life.
    restarts: BTreeMap<(String, String), Vec<Duration>>,
    /// What must never be and was.
    violations: Vec<String>,
}

impl Truth {
    fn lock(&self) -> MutexGuard<'_, Facts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something is that must not be.
    pub(crate) fn violation(&self, what: String) {
        self.lock().violations.push(what);
    }

    /// Everything of that kind so far.
    pub(crate) fn violations(&self) -> Vec<String> {
        self.lock().violations.clone()
    }

    /// A machine begins a new life: restarts of its actors count anew.
    pub(crate) fn life_begins(&self, machine: &NodeName) {
        self.lock().restarts.retain(|(of, _), _| of != machine.as_str());
    }

    /// An actor is to be started again; how often that was within the last while.
    pub(crate) fn restarted(&self, machine: &str, actor: &str, window: Duration) -> usize {
        let mut facts = self.lock();
        let times = facts.restarts.entry((machine.to_owned(), actor.to_owned())).or_default();
        times.push(os::now());
        times.retain(|at| os::now() - *at < window);
        times.len()
    }

    /// A node has made a result.
    pub(crate) fn produced(&self, by: &NodeName, episode: EpisodeId, attempt: u32, tokens: &[u32]) {
        let key = (episode, attempt, by.clone());
        self.lock().results.entry(key).or_default().insert(tokens.to_vec());
    }

    /// Whether a node has made this very result.
    pub(crate) fn was_produced(
        &self,
        by: &NodeName,
        episode: EpisodeId,
        attempt: u32,
        tokens: &[u32],
    ) -> bool {
        let key = (episode, attempt, by.clone());
        self.lock().results.get(&key).is_some_and(|made| made.contains(tokens))
    }

    /// The learner is about to make a step of these.
    pub(crate) fn learner_makes(&self, step: u64, consumes: &[EpisodeId]) {
        let mut facts = self.lock();
        let before: BTreeSet<EpisodeId> =
            facts.steps.range(..step).flat_map(|(_, ids)| ids.iter().copied()).collect();
        let twice: Vec<_> = consumes.iter().filter(|id| before.contains(id)).collect();
        if !twice.is_empty() {
            facts.violations.push(format!("I2: step {step} trains again on {twice:?}"));
        }
        facts.steps.retain(|made, _| *made < step);
        facts.steps.insert(step, consumes.to_vec());
    }

    /// What each step consumed when it was made last: a learner that falls back makes it again.
    pub(crate) fn learner_steps(&self) -> BTreeMap<u64, Vec<EpisodeId>> {
        self.lock().steps.clone()
    }
}
