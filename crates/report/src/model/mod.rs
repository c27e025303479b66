//! From facts to numbers: what a page draws and `--json` prints. Pure.
//!
//! - [`curve`]: points, smoothing, thinning
//! - [`attempts`]: reward and success of all attempts, with bands
//! - [`steps`]: the other curves by optimizer step
//! - [`training`]: what episodes did as training went on
//! - [`tally`]: names counted along an axis
//! - [`summary`]: how far the run got, and what was measured
//! - [`kinds`]: the same by kind of bug
//! - [`phases`]: the plan
//! - [`picks`]: which episodes are shown
//! - [`timeline`]: episodes and faults over wall time
//! - [`comparison`]: several runs side by side

pub mod attempts;
pub mod comparison;
pub mod curve;
pub mod kinds;
pub mod phases;
pub mod picks;
pub mod steps;
pub mod summary;
pub mod tally;
pub mod timeline;
pub mod training;

use crrl_store::Environment;
use serde::Serialize;

use crate::facts::{Facts, HostFact};

pub use comparison::Comparison;
pub use curve::{Band, Chart, Point, Series, Unit};
pub use tally::{Bar, Stack};

/// The numbers of one run.
#[derive(Debug, Clone, Serialize)]
pub struct Model {
    /// What the run is called.
    pub name: String,
    /// How far it got, and what was measured.
    pub summary: summary::Summary,
    /// Curves by optimizer step.
    pub steps: Vec<Chart>,
    /// Metrics that were 0 at every step, by their titles.
    pub all_zero: Vec<String>,
    /// Where the time of a step went.
    pub step_time: Option<Stack>,
    /// Curves of what episodes did.
    pub episodes: Vec<Chart>,
    /// Stacks of what episodes did.
    pub habits: Vec<Stack>,
    /// By kind of bug.
    pub kinds: kinds::Kinds,
    /// The episodes that are shown.
    pub picks: Vec<picks::Pick>,
    /// Episodes and faults over wall time.
    pub timeline: timeline::Timeline,
    /// Tasks in quarantine, and why.
    pub quarantined: Vec<(String, String)>,
    /// Seed of the plan.
    pub seed: u64,
    /// The plan.
    pub phases: Vec<phases::Phase>,
    /// The processes.
    pub host: Option<HostFact>,
    /// On what it was started, each time.
    pub environment: Vec<Environment>,
    /// `cluster.toml`.
    pub configuration: Option<String>,
    /// What could not be read or was left out.
    pub notes: Vec<String>,
}

impl Model {
    /// The numbers of a run.
    #[must_use]
    pub fn of(facts: &Facts) -> Self {
        let (steps, all_zero) = steps::charts(facts);
        let (episodes, habits) = training::of(facts);
        Self {
            name: facts.name.clone(),
            summary: summary::Summary::of(facts),
            steps,
            all_zero,
            step_time: steps::time(facts),
            episodes,
            habits,
            kinds: kinds::Kinds::of(facts),
            picks: facts.shown.iter().map(|shown| picks::Pick::of(facts, shown)).collect(),
            timeline: timeline::Timeline::of(facts),
            quarantined: facts
                .quarantined
                .iter()
                .map(|(task, reason)| (task.0.clone(), reason.clone()))
                .collect(),
            seed: facts.plan.seed,
            phases: phases::of(facts),
            host: facts.host.clone(),
            environment: facts.environment.clone(),
            configuration: facts.configuration.clone(),
            notes: facts.notes.clone(),
        }
    }
}

/// What a page is made of.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Of several runs: side by side.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub comparison: Option<Comparison>,
    /// Each run.
    pub runs: Vec<Model>,
}

impl Report {
    /// A report of these runs. Runs of one name are told apart by a number.
    #[must_use]
    pub fn of<F: std::borrow::Borrow<Facts>>(facts: &[F]) -> Self {
        let facts: Vec<&Facts> = facts.iter().map(std::borrow::Borrow::borrow).collect();
        let mut runs: Vec<Model> = facts.iter().map(|facts| Model::of(facts)).collect();
        for at in 1..runs.len() {
            let twins = runs[..at].iter().filter(|run| run.name == facts[at].name).count();
            if facts[..at].iter().any(|before| before.name == facts[at].name) {
                runs[at].name = format!("{} ({})", facts[at].name, twins + 1);
            }
        }
        let comparison = (runs.len() > 1).then(|| Comparison::of(&facts, &runs));
        Self { comparison, runs }
    }
}
