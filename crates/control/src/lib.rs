//! The cluster's decisions as pure state machines: time and randomness are passed in, effects are
//! returned. Thin actors carry them out; a seeded simulation can run the very same code.
//!
//! - [`wire`]: the messages nodes exchange
//! - [`plan`]: what a run does, phase by phase (`plan.json`)
//! - [`results`]: what it found out (`results.json`)
//! - [`coordinator`]: tasks out on credit, results in, batches to the learner
//! - [`ledger`]: every episode's life
//! - [`parameter_server`]: what is published, and who gets it
//! - [`cursor`]: the order of tasks
//! - [`resilience`]: what a fault did to a run
//! - [`rights`]: what the role in a person's certificate allows
//! - [`trace`]: which messages a trace shows, and when it has had enough
//! - [`mod@restore`]: a ledger that is lost, made again from its last good copy
//! - [`mod@audit`]: whether a run kept its promises, from what it left behind
//!
//! This crate never does I/O and never reads a clock.

pub mod audit;
pub mod coordinator;
pub mod cursor;
pub mod ledger;
pub mod parameter_server;
pub mod plan;
pub mod resilience;
pub mod restore;
pub mod results;
pub mod rights;
pub mod trace;
pub mod wire;

pub use coordinator::{Coordinator, Effect, Input, Record, Recovered};
pub use plan::{Evaluate, Limits, PLAN_FILE, Phase, Plan, PlanError, StalePolicy, Train};
pub use results::{Attempt, Evaluation, RESULTS_FILE, Results, TaskResult, Training};
