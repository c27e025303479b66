//! `cluster.toml`: every option of a run, its default and its check.
//!
//! - [`sections`]: the options, one struct a section, unknown keys rejected
//! - [`faults`]: scenarios of things that go wrong, by name and from files
//! - [`mod@load`]: file, environment and flags into one resolved configuration, with errors that name
//!   line, column and the nearest key
//! - [`mod@validate`]: the checks that involve more than one key, once
//!
//! Precedence: flag, environment, file, default. This crate never starts anything and never
//! touches a path beyond reading the file it is given.

pub mod faults;
pub mod load;
pub mod sections;
pub mod validate;

pub use load::{ConfigError, Overrides, load, parse};
pub use validate::{is_node_name, renew, unsayable};

pub use sections::{
    AdapterDtype, AgentSection, CERTIFICATE_HOURS, ClusterConfig, ClusterSection, EngineSection,
    LearnerSection, LoraSection, ModelSection, Node, Objective, Role, RolloutSection, RunSection,
    SandboxSection, Schedule, TasksSection,
};
