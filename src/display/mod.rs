//! What a person sees of a run while it runs: a live screen on a terminal, plain lines elsewhere.
//!
//! `progress` folds what the cluster reports, `screen` draws it, `lines` prints it; neither of the
//! two asks the cluster anything.

pub(crate) mod lines;
pub(crate) mod progress;
pub(crate) mod screen;
pub(crate) mod table;

pub(crate) use progress::{NodeLine, Progress};
