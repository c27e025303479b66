//! The mathematics of reinforcement learning for code repair, pure and deterministic.
//!
//! - [`advantage`]: an episode against the others of its group
//! - [`objective`]: the policy-gradient objectives in f64, with their gradient with respect to the
//!   log-probability of every token; the reference the tensor code is held against
//! - [`kl`]: estimates of the divergence from the reference policy
//! - [`staleness`]: which episodes are too old to train on
//! - [`overlong`]: the penalty for running to the token limit
//! - [`packing`]: micro-batches by length
//! - [`diff`]: reading unified diffs
//! - [`gestalt`]: Ratcliff-Obershelp similarity, equal to Python's difflib
//! - [`similarity`]: how alike two patches are
//! - [`reward`]: named components and their weights
//!
//! This crate never does I/O, never reads a clock, never draws a random number and knows no tensor.

pub mod advantage;
pub mod diff;
pub mod gestalt;
pub mod kl;
pub mod objective;
pub mod overlong;
pub mod packing;
pub mod reward;
pub mod similarity;
pub mod staleness;
