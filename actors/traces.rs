//! A run's traces, from what its folder holds. Reads and decides nothing.

use std::io;

use crrl_cluster::RunDir;
use crrl_config::Role;
use crrl_control::plan::PLAN_FILE;
use crrl_store::{AttemptTiming, OutcomeRow, Reader, StoreError};
use crrl_telemetry::otlp::episode::{Attempt, Outcome};
use crrl_telemetry::otlp::{History, RunFacts, RunId, Span, Told, episode, step};
use crrl_types::{Event, NodeName};

/// Longest line of a history that is read.
const LINE_BYTES_MAX: usize = 1 << 20;

/// Why there are no traces.
#[derive(Debug, thiserror::Error)]
pub enum TracesError {
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The history, or the plan.
    #[error("cannot read {path}: {source}")]
    File {
        /// Which.
        path: String,
        /// What the system said.
        source: io::Error,
    },
}

/// The lines of a history that is written to.
pub struct Lines<R> {
    reader: R,
    line: Vec<u8>,
    whole: bool,
}

impl<R: io::BufRead> Lines<R> {
    /// From here on.
    pub fn new(reader: R) -> Self {
        Self { reader, line: Vec::new(), whole: false }
    }

    /// The next line that is whole; none while there is none.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn next_line(&mut self) -> io::Result<Option<&[u8]>> {
        if std::mem::take(&mut self.whole) {
            self.line.clear();
        }
        self.reader.read_until(b'\n', &mut self.line)?;
        self.whole = self.line.ends_with(b"\n") || self.line.len() > LINE_BYTES_MAX;
        Ok(self.whole.then_some(&self.line[..]))
    }
}

/// Makes spans of what the history tells.
pub struct Traces {
    facts: RunFacts,
    reader: Reader,
    history: History,
}

impl Traces {
    /// The traces of a run whose history begins with this line.
    ///
    /// # Errors
    /// [`TracesError`].
    pub fn open(run: &RunDir, first_line: &[u8]) -> Result<Self, TracesError> {
        let path = run.path().join(PLAN_FILE);
        let plan = std::fs::read(&path);
        let plan =
            plan.map_err(|source| TracesError::File { path: path.display().to_string(), source })?;
        let facts = facts(run, RunId::of(&plan, first_line));
        Ok(Self { facts, reader: Reader::open(&run.store())?, history: History::default() })
    }

    /// What every span says of the run.
    #[must_use]
    pub fn facts(&self) -> &RunFacts {
        &self.facts
    }

    /// The next line; one that is damaged tells nothing.
    pub fn line(&mut self, line: &[u8]) -> Vec<Told> {
        let event = serde_json::from_slice::<Event>(line);
        event.map(|event| self.history.line(&event)).unwrap_or_default()
    }

    /// What has not been told, where the history ends.
    pub fn rest(&mut self) -> Vec<Told> {
        std::mem::take(&mut self.history).rest()
    }

    /// The spans of what was told.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn spans(&self, told: &Told) -> Result<Vec<Span>, StoreError> {
        match told {
            Told::Episode(story) => {
                let timings = self.reader.timings(story.episode)?;
                let attempts: Vec<_> = timings.into_iter().map(attempt).collect();
                let outcome = self.reader.outcome(story.episode)?.map(outcome);
                Ok(episode::spans(&self.facts, story, &attempts, outcome.as_ref()))
            }
            Told::Step(story) => {
                let metrics = self.reader.metrics_of(story.step)?;
                Ok(step::spans(&self.facts, story, &metrics))
            }
        }
    }
}

fn attempt(AttemptTiming { attempt, node, timing }: AttemptTiming) -> Attempt {
    Attempt { attempt, node, timing }
}

fn outcome(row: OutcomeRow) -> Outcome {
    let OutcomeRow { node, finish, reward, temperature, wall_ms } = row;
    Outcome { node, finish, reward, temperature, wall_ms }
}

/// Of a run whose configuration is gone the nodes are called by their roles.
fn facts(run: &RunDir, id: RunId) -> RunFacts {
    let last =
        |path: &std::path::Path| path.file_name().map(|name| name.to_string_lossy().into_owned());
    let config = run.config().ok();
    let nodes = config.as_ref().map(|config| config.nodes()).unwrap_or_default();
    let of = |role: Role, otherwise: &str| -> NodeName {
        let node = nodes.iter().find(|node| node.roles.contains(&role));
        node.map_or(otherwise, |node| node.name.as_str()).into()
    };
    RunFacts {
        id,
        name: last(run.path()).unwrap_or_else(|| "run".to_owned()),
        model: config
            .and_then(|config| last(&config.model.path))
            .unwrap_or_else(|| "policy".into()),
        learner: of(Role::Learner, "learner"),
        parameter_server: of(Role::ParameterServer, "parameter-server"),
    }
}
