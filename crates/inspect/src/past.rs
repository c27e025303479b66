//! What a run that is not up came to, as its folder tells.

use crrl_cluster::host::{self, NodeProcess};
use crrl_cluster::{RunDir, order_log};
use crrl_store::{Reader, StoreError};
use crrl_types::{Deed, deed};
use serde::Serialize;

/// A run that is not up.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct Past {
    /// Steps that are durable.
    pub step: u64,
    /// Steps there were to be; 0 where nothing tells.
    pub steps: u64,
    /// The last adapter that was published.
    pub adapter: Option<u64>,
    /// Episodes by their state, the most frequent first.
    pub episodes: Vec<(String, u64)>,
    /// Its processes, as their host wrote them down last.
    pub processes: Vec<NodeProcess>,
    /// Faults that were injected into it, and orders, oldest first.
    pub deeds: Vec<Deed>,
    /// Why its store, or its log of orders, could not be read.
    pub problem: Option<String>,
}

impl Past {
    /// Reads what there is.
    #[must_use]
    pub fn read(run: &RunDir) -> Self {
        let mut past = Self {
            steps: run.config().map_or(0, |config| config.run.steps),
            processes: host::state(run).map(|state| state.nodes).unwrap_or_default(),
            ..Self::default()
        };
        match order_log::read(run) {
            Ok(records) => past.deeds = deed::deeds(records),
            Err(error) => past.problem = Some(format!("{}: {error}", run.orders().display())),
        }
        if let Err(error) = past.count(run) {
            past.problem = Some(error.to_string());
        }
        past
    }

    fn count(&mut self, run: &RunDir) -> Result<(), StoreError> {
        let reader = Reader::open(&run.store())?;
        self.step = reader.last_committed()?.map_or(0, |step| step.0);
        self.adapter = reader.published()?.last().map(|(version, _)| version.0);
        for count in reader.counts()? {
            match self.episodes.iter_mut().find(|(state, _)| *state == count.state) {
                Some((_, held)) => *held += count.episodes,
                None => self.episodes.push((count.state, count.episodes)),
            }
        }
        self.episodes.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        Ok(())
    }

    /// Whether it made all its steps.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.steps > 0 && self.step >= self.steps
    }

    /// How far it came, in words.
    #[must_use]
    pub fn phase(&self) -> String {
        match (self.is_complete(), self.steps) {
            (true, _) => format!("the run is over: {} steps", self.steps),
            (false, 0) => format!("the run is not up: step {}", self.step),
            (false, steps) => format!("the run is not up: step {} of {steps}", self.step),
        }
    }
}
