//! A place where whatever the policy types may run: one sandbox for each episode, opened from a
//! template, with a fresh single-commit repository in it, and gone without a trace at its end.
//!
//! - [`options`]: limits, and where the launcher is
//! - [`template`]: a task's base, made once: our pristine copy and the agent's repository
//! - [`backend`]: starts sandboxes on this machine
//! - [`sandbox`]: the handle of one sandbox
//! - [`launcher`]: the separate process that builds the walls and lives inside them
//! - `frame`, `image`: what the two say to each other, and files as bytes
//! - `repository`: the agent's repository of one commit, and git with a clean configuration
//! - `diff`: the canonical diff, by our git, never by the agent's
//!
//! Whatever is read back from a sandbox is hostile: bounded, checked, never followed.

mod backend;
mod diff;
mod error;
mod frame;
mod image;
pub mod launcher;
mod options;
mod repository;
mod sandbox;
mod template;
#[doc(hidden)]
pub mod untrusted;

pub use backend::LocalBackend;
pub use diff::DiffError;
pub use error::{OpenError, SandboxError, Unavailable};
pub use frame::PatchOutcome;
pub use options::{Limits, Options};
pub use sandbox::{Applied, ExecOutput, Export, Sandbox};
pub use template::{Template, TemplateError};
