//! What can go wrong, for each operation.

use std::io;
use std::time::Duration;

/// Sandboxes cannot be had on this machine.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unavailable {
    /// A layer of isolation is missing.
    #[error(
        "the sandbox has no {layer}: {reason}; {remedy}, or set `run_without_isolation` to let \
         the policy's commands run as you"
    )]
    Layer {
        /// Which.
        layer: String,
        /// What the system said.
        reason: String,
        /// How to enable it.
        remedy: String,
    },
    /// The launcher did not start or said nothing sensible.
    #[error("the sandbox launcher {program} does not work: {reason}")]
    Launcher {
        /// The program.
        program: String,
        /// What happened.
        reason: String,
    },
}

impl Unavailable {
    pub(crate) fn layer(layer: &str, reason: String) -> Self {
        let remedy = match layer {
            "user namespace" => {
                "enable it with `sysctl -w user.max_user_namespaces=15000` and, where they exist, \
                 `kernel.unprivileged_userns_clone=1` and \
                 `kernel.apparmor_restrict_unprivileged_userns=0`"
            }
            "private /proc" => {
                "a container masks /proc: run it with an unmasked one (docker: \
                 `--security-opt systempaths=unconfined`)"
            }
            "Landlock" => "use Linux 6.2 or newer with `landlock` among the `lsm=` boot parameters",
            "seccomp filter" => "use a kernel built with CONFIG_SECCOMP_FILTER",
            "mounts" => {
                "allow mount(2) in user namespaces (docker: `--security-opt seccomp=unconfined`)"
            }
            _ => "see docs/SANDBOX.md",
        };
        Self::Layer { layer: layer.to_owned(), reason, remedy: remedy.to_owned() }
    }
}

/// A sandbox could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The launcher could not be started.
    #[error("start the sandbox launcher: {0}")]
    Spawn(#[source] io::Error),
    /// A layer that was there before is not there now.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
    /// The launcher spoke out of turn or not at all.
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
}

/// A sandbox failed. The policy's own failures are results, not errors, but for one:
/// [`Self::TooMuch`].
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// The policy changed more than is read back or compared. Its own doing: the sandbox is sound.
    #[error("too much was changed: {0}")]
    TooMuch(String),
    /// Its process has ended.
    #[error("the sandbox has ended")]
    Gone,
    /// It could not be talked to.
    #[error("talk to the sandbox: {0}")]
    Io(#[from] io::Error),
    /// No answer in time.
    #[error("no answer from the sandbox within {0:?}")]
    Timeout(Duration),
    /// Something that is not an answer.
    #[error("the sandbox broke its protocol: {0}")]
    Protocol(String),
    /// The launcher could not do it.
    #[error("{0}")]
    Failed(String),
    /// The diff.
    #[error(transparent)]
    Diff(#[from] crate::diff::DiffError),
}
