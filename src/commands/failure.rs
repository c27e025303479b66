//! What a failed command says, and the code it exits with.

use std::io::Write as _;
use std::process::ExitCode;

use crrl_cluster::host::HostError;
use crrl_config::ConfigError;

/// Exit code of a usage or configuration error.
pub(crate) const USAGE: u8 = 2;
/// Exit code of something that could not be started here.
pub(crate) const PREFLIGHT: u8 = 4;
/// Exit code of any other failure.
pub(crate) const FAILED: u8 = 1;
/// Exit code of something that was done in part.
pub(crate) const PARTIAL: u8 = 5;
/// Exit code of a cluster that does not answer.
pub(crate) const UNREACHABLE: u8 = 6;
/// Exit code of a cluster that answers, and refuses.
pub(crate) const DENIED: u8 = 7;

/// Exit code of a command that a person stopped.
pub(crate) const INTERRUPTED: u8 = 130;

/// An error that carries its exit code.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub(crate) struct Coded {
    /// One of the codes above.
    pub(crate) code: u8,
    /// What happened, to what, and what to do.
    pub(crate) message: String,
}

impl Coded {
    pub(crate) fn usage(message: impl Into<String>) -> anyhow::Error {
        Self { code: USAGE, message: message.into() }.into()
    }

    pub(crate) fn preflight(message: impl Into<String>) -> anyhow::Error {
        Self { code: PREFLIGHT, message: message.into() }.into()
    }
}

/// A line for people. The terminal may be gone by now; that is no reason to panic.
pub(crate) fn say(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// A word of a command line as a shell takes it.
pub(crate) fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-./=,:+@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

/// The error and its causes, on one line each, none said twice.
pub(crate) fn describe(error: &anyhow::Error) -> String {
    let mut text = error.to_string();
    for cause in error.chain().skip(1).map(ToString::to_string) {
        if !text.contains(&cause) {
            text = format!("{text}\n  because: {cause}");
        }
    }
    text
}

/// A cluster that could not be brought up or down, with the code to exit with.
pub(crate) fn host_error(error: HostError) -> anyhow::Error {
    match error {
        HostError::Config(error) => error.into(),
        error @ (HostError::Prepare(_)
        | HostError::NotStarted { .. }
        | HostError::UpRuns { .. }) => Coded::preflight(error.to_string()),
        other => other.into(),
    }
}

/// The code of the first cause that has one; 1 otherwise.
pub(crate) fn exit_code(error: &anyhow::Error) -> ExitCode {
    for cause in error.chain() {
        if let Some(coded) = cause.downcast_ref::<Coded>() {
            return ExitCode::from(coded.code);
        }
        if cause.is::<ConfigError>() {
            return ExitCode::from(USAGE);
        }
    }
    ExitCode::FAILURE
}
