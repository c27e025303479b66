//! Why nothing can be shown.

use std::path::PathBuf;

use crrl_cluster::OperatorError;
use crrl_store::StoreError;

/// Why `crrl inspect` ended without an answer.
#[derive(Debug, thiserror::Error)]
pub enum InspectError {
    /// The folder is no run's.
    #[error(
        "{path} is not the folder of a run: it has no cluster.toml; give the folder `crrl train` or \
         `crrl quickstart` named, or the configuration with -f",
        path = .0.display()
    )]
    NotARun(PathBuf),
    /// Nothing runs there.
    #[error(
        "no cluster is up in {path}; `crrl train` and `crrl quickstart` start one, `crrl report \
         {path}` shows what a run came to",
        path = .0.display()
    )]
    NotUp(PathBuf),
    /// The coordinator does not answer.
    #[error("the cluster of {path} does not answer: {source}", path = .path.display())]
    Unreachable {
        /// Folder of the run.
        path: PathBuf,
        /// What was tried.
        source: OperatorError,
    },
    /// The coordinator answers, and lets nobody more in.
    #[error("the cluster of {path} cannot be watched now: {says}", path = .path.display())]
    Refused {
        /// Folder of the run.
        path: PathBuf,
        /// What it said.
        says: String,
    },
    /// What was asked for makes no sense.
    #[error("{0}")]
    Usage(String),
    /// A recording cannot be read or written.
    #[error("{path}: {what}", path = .path.display())]
    Recording {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// The run store cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The terminal, or standard output, is gone.
    #[error("the terminal cannot be used: {0}")]
    Terminal(#[from] std::io::Error),
}

impl InspectError {
    /// The code `crrl` exits with.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::NotARun(_) | Self::Usage(_) | Self::Recording { .. } => 2,
            Self::NotUp(_) | Self::Unreachable { .. } | Self::Refused { .. } => 6,
            Self::Store(_) | Self::Terminal(_) => 1,
        }
    }
}
