//! How far a node on another machine has come: `nodes/NAME.phase` in the run folder.

use serde::{Deserialize, Serialize};

use crate::remote::about::clock_ms;
use crate::run_dir::{RunDir, RunDirError, write_atomic};

/// Where a node is on its way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Phase {
    /// The machine.
    pub host: String,
    /// In a few words: `connecting`, `copying the program`, `running`.
    pub what: String,
    /// Since when, in milliseconds since the Unix epoch.
    pub since_ms: u64,
    /// What went wrong last; none once it has run since.
    pub last_error: Option<String>,
    /// Whether it has run on that machine since the host was started.
    #[serde(default)]
    pub ran: bool,
}

/// The phase of a node, if it is on another machine and was started once.
#[must_use]
pub fn phase(run: &RunDir, node: &str) -> Option<Phase> {
    let bytes = std::fs::read(run.phase(node)).ok()?;
    serde_json::from_slice(&bytes).ok()
}

/// Writes the phases of one node.
#[derive(Debug)]
pub(crate) struct Phases {
    run: RunDir,
    node: String,
    last: Phase,
}

impl Phases {
    pub(crate) fn begin(run: &RunDir, node: &str, host: &str) -> Self {
        let before = phase(run, node).filter(|before| before.host == host);
        let ran = before.as_ref().is_some_and(|before| before.ran);
        let last_error = before.and_then(|before| before.last_error);
        let (host, what) = (host.to_owned(), String::new());
        let last = Phase { host, what, since_ms: 0, last_error, ran };
        Self { run: run.clone(), node: node.to_owned(), last }
    }

    pub(crate) fn enter(&mut self, what: impl Into<String>) {
        self.last.what = what.into();
        self.last.since_ms = clock_ms();
        tracing::info!(host = self.last.host, phase = self.last.what);
        self.write();
    }

    pub(crate) fn runs(&mut self) {
        self.last.last_error = None;
        self.last.ran = true;
        self.enter("running");
    }

    pub(crate) fn failed(&mut self, error: &str) {
        self.last.last_error = Some(error.to_owned());
        self.enter("failed");
    }

    /// A phase that cannot be written must not keep the node from running.
    fn write(&self) {
        let json = serde_json::to_vec(&self.last).expect("plain data has a text");
        if let Err(RunDirError { path, source, .. }) =
            write_atomic(&self.run.phase(&self.node), &json)
        {
            tracing::warn!(path = %path.display(), %source, "the phase is not written down");
        }
    }
}
