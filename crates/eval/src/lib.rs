//! Statistics of evaluations: how good, and how sure.
//!
//! - [`interval`]: bootstrap confidence intervals, of a mean and of a paired difference
//! - [`clustered`]: the error of a mean of attempts that come in groups
//! - [`paired`]: paired tests: permutation, McNemar, Cohen's d
//! - [`outcome`]: episodes of one task set, task by task
//! - [`comparison`]: two evaluations of the same tasks, as table data
//!
//! Attempts at one task are not independent: everything here takes tasks or groups as its units,
//! never attempts.
//! Randomness is seeded and passed in; the same seed gives the same numbers on every machine.
//! This crate never does I/O.

pub mod clustered;
pub mod comparison;
pub mod interval;
pub mod outcome;
pub mod paired;

pub use clustered::{Cluster, clustered_error, half_width95};
pub use comparison::{Comparison, Row, compare};
pub use interval::{Interval, mean_bootstrap, paired_bootstrap};
pub use outcome::{Measured, TaskOutcomes};
pub use paired::{cohens_d, mcnemar_exact, paired_permutation};
