//! The supervision tree: one actor per file, thin over pure state machines and over the engine, the
//! sandbox and the learner.
//!
//! Mesh, router, supervisor and host know no tensor and live in `crrl-cluster`; they are named here
//! so that an actor finds everything in one place.

pub use crrl_cluster::{host, mesh, restart, router, supervisor};

pub mod adapter_shelf;
pub mod bombs;
pub mod chaos;
pub mod chat_codec;
pub mod coordinator;
pub mod courier;
pub mod curves;
mod delta_maker;
pub mod duty;
pub mod engine;
pub mod evidence;
pub mod gpus;
mod intake;
pub mod journals;
pub mod learner;
pub mod leave;
pub mod ledger_rows;
pub mod live;
pub mod log_level;
mod news;
pub mod node;
pub mod orders;
pub mod parameter_server;
pub mod repair;
pub mod report;
pub mod restore;
pub mod rollout;
mod run_files;
mod run_under_way;
pub mod sandboxes;
pub mod settings;
mod showcase;
pub mod slow_tools;
pub mod stopwatch;
pub mod task_file;
pub mod trace_sender;
pub mod traces;
pub mod trainer;
mod vitals;
