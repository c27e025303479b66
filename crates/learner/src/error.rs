//! What can go wrong when training.

use std::io::ErrorKind;
use std::path::PathBuf;

use crrl_machine::Stop;
use crrl_model::ModelDirError;
use crrl_model::peft::PeftError;

/// A learner that cannot be made, or a step that cannot be taken.
#[derive(Debug, thiserror::Error)]
pub enum LearnerError {
    /// An option has a value that makes no sense.
    #[error("learner option {name} is {value}; {expected}")]
    Option {
        /// The option.
        name: &'static str,
        /// Its value.
        value: f64,
        /// What it may be.
        expected: &'static str,
    },
    /// The objective refuses its parameters or the batch.
    #[error(transparent)]
    Objective(#[from] crrl_rl::objective::ObjectiveError),
    /// The model folder.
    #[error(transparent)]
    Model(#[from] ModelDirError),
    /// An adapter to start from.
    #[error(transparent)]
    Adapter(#[from] crrl_model::AdapterError),
    /// A PEFT folder.
    #[error(transparent)]
    Peft(#[from] PeftError),
    /// An example the model cannot read.
    #[error("example {index}: {problem}")]
    Example {
        /// Its place in the batch.
        index: usize,
        /// What is wrong with it.
        problem: String,
    },
    /// A device this build does not have.
    #[error("device {0:?} is not in this build; cpu is{hint}", hint = if cfg!(feature = "cuda") {
        ", and cuda"
    } else {
        "; build with --features cuda for an NVIDIA GPU"
    })]
    Device(String),
    /// A forward or backward pass failed even with the smallest micro-batch.
    #[error("a pass over {tokens} tokens failed: {reason}; set micro_batch_tokens lower")]
    Pass {
        /// Tokens of the pass.
        tokens: usize,
        /// What it panicked with.
        reason: String,
    },
    /// A checkpoint file cannot be read or written.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A checkpoint that is damaged or belongs to another run.
    #[error("checkpoint {path}: {reason}")]
    Checkpoint {
        /// Its folder.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// An adapter was asked of a learner that trains all weights.
    #[error("this learner trains every weight: it has no adapter to publish")]
    NoAdapter,
    /// Somebody wanted it to stop.
    #[error("it was told to stop")]
    Stopped,
}

impl LearnerError {
    /// Goes on unless somebody wanted it to stop.
    ///
    /// # Errors
    /// [`LearnerError::Stopped`]: somebody did.
    pub fn stopped_by(stop: &Stop) -> Result<(), Self> {
        if stop.is_wanted() { Err(Self::Stopped) } else { Ok(()) }
    }

    /// Whether the same may work when it is tried again. Options, shapes and a checkpoint of another run stay
    /// what they are, and a file that is not there does not come by itself; what else the system says of a
    /// file may pass. So may whatever a pass failed of: another process holds the memory for a moment, or the
    /// device wants a fresh process.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Io { .. } | Self::Pass { .. } | Self::Stopped => true,
            Self::Model(ModelDirError::Io { source, .. })
            | Self::Peft(PeftError::Io { source, .. }) => source.kind() != ErrorKind::NotFound,
            Self::Model(_)
            | Self::Peft(_)
            | Self::Option { .. }
            | Self::Objective(_)
            | Self::Adapter(_)
            | Self::Example { .. }
            | Self::Device(_)
            | Self::Checkpoint { .. }
            | Self::NoAdapter => false,
        }
    }
}
