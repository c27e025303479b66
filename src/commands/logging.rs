//! Structured lines on stderr, one a fact; `CRRL_LOG` sets the level (`info`, `crrl_actors=debug`).

use tracing_subscriber::EnvFilter;

/// Starts logging of a process that has no person in front of it.
pub(crate) fn to_stderr() {
    let filter = EnvFilter::try_from_env("CRRL_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    // A second start in one process changes nothing.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .try_init();
}
