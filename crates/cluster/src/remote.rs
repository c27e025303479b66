//! Nodes on other machines, over the system's ssh, and in containers of this one. ssh's
//! configuration, agent, jump hosts and known hosts count, and nothing is asked for.
//!
//! - [`about`]: what a program says of itself and of the machine it runs on
//! - `container`: one node in a container of this machine
//! - [`ssh`]: one machine: reaching it, the program there
//! - [`mod@phase`]: how far a node has come, on disk for whoever watches
//! - [`supervise`]: one node, from the first connection to its end
//!
//! The host process starts one process of this machine for each such node; what that one does is
//! here. The node is told how to join on its standard input, never on a command line, and ends with it.

pub mod about;
mod container;
pub mod phase;
pub mod ssh;
pub mod supervise;

use std::time::Duration;

pub use about::About;
pub use container::{is_container, look as look_at_container};
pub use phase::{Phase, phase};
pub use ssh::{Machine, RemoteError};
pub use supervise::run;

/// The binary's hidden subcommand for [`run`]; called with `--run-dir DIR --name NAME`.
pub const REMOTE_SUBCOMMAND: &str = "remote";
/// The binary's hidden subcommand that prints an [`About`].
pub const ABOUT_SUBCOMMAND: &str = "about";
/// How long a node that was started over ssh may hear nothing from whoever started it.
pub const TIED_SILENCE_MAX: Duration = Duration::from_secs(20);
