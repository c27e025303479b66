//! The learner: from packed sequences to better weights.
//!
//! - [`options`]: what is trained, how, and how fast
//! - [`schedule`]: the learning rate of a step
//! - [`optimizer`]: AdamW on host memory, and clipping by the global norm
//! - [`parameters`]: the trainable weights by name
//! - [`example`]: what a step is given
//! - [`network`]: a decoder on a device, its graph, and its gradients
//! - [`learner`]: one step of supervised or reinforcement learning; [`report`]: what it says
//! - [`phase`]: what a step is at, for whoever watches it; [`Stop`]: the wish that it ends
//! - [`checkpoint`]: atomic folders of everything a resumed run needs
//! - [`publish`]: the adapter as it is sent
//! - [`feed`]: examples made by a producer thread
//!
//! Behind [`Learner`] is an enum of backends: no caller is generic. This crate never samples,
//! never speaks to another node and never chooses its data.

pub mod checkpoint;
mod error;
pub mod example;
pub mod feed;
pub mod learner;
pub mod network;
pub mod optimizer;
pub mod options;
pub mod parameters;
mod passes;
pub mod phase;
pub mod publish;
pub mod report;
pub mod schedule;

pub use checkpoint::{Checkpoint, Checkpoints};
pub use crrl_machine::Stop;
pub use error::LearnerError;
pub use example::{Episode, Example};
pub use feed::Feed;
pub use learner::Learner;
pub use options::{AdamW, Options, Schedule, Trainable};
pub use phase::Phase;
pub use report::{Accuracy, Report};
