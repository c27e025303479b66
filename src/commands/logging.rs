//! Structured lines on stderr, one a fact; `CRRL_LOG` sets the level (`info`, `crrl_actors=debug`).

use std::sync::Arc;

use crrl_actors::log_level::LogLevel;
use tracing_subscriber::EnvFilter;

/// What is written without a word on it.
const USUAL: &str = "info";

/// Starts logging of a process that has no person in front of it. Gives what changes its level while it
/// runs; nothing where logging was started before.
pub(crate) fn to_stderr() -> Option<LogLevel> {
    let wanted = std::env::var("CRRL_LOG").unwrap_or_else(|_| USUAL.to_owned());
    let (wanted, filter) = match EnvFilter::try_new(&wanted) {
        Ok(filter) => (wanted, filter),
        Err(_) => (USUAL.to_owned(), EnvFilter::new(USUAL)),
    };
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .with_filter_reloading();
    let handle = log.reload_handle();
    log.try_init().ok()?;
    let set = move |filter: &str| {
        let filter = EnvFilter::try_new(filter).map_err(|error| error.to_string())?;
        handle.reload(filter).map_err(|error| error.to_string())
    };
    Some(LogLevel::new(&wanted, Arc::new(set)))
}
