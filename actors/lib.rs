//! The supervision tree: one actor per file, thin over pure state machines and over the engine, the
//! sandbox and the learner.
//!
//! Mesh, router, supervisor and host know no tensor and live in `crrl-cluster`; they are named here
//! so that an actor finds everything in one place.

pub use crrl_cluster::{host, mesh, restart, router, supervisor};
