//! Numbers for other people's tools. Everything a node counts goes through the `metrics` facade; what
//! is not asked for costs one look at an atomic.
//!
//! - [`names`]: every metric, with its unit: the one table; and the one of a step's numbers
//! - [`nodes`]: what a node says of itself once a second, as metrics
//! - [`vitals`]: what a node measures of itself and of its machine, as metrics
//! - [`prometheus`]: `GET /metrics` of a node
//! - [`tensorboard`]: curves of a run as event files
//! - [`lines`]: curves of a run as JSON lines
//! - [`otlp`]: traces of a run for OpenTelemetry
//!
//! This crate decides nothing and never blocks whoever counts.

pub mod lines;
pub mod names;
pub mod nodes;
pub mod otlp;
pub mod prometheus;
pub mod tensorboard;
pub mod vitals;

pub use lines::Lines;
pub use prometheus::ServeError;
pub use tensorboard::EventFile;
