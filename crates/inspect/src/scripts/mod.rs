//! The same facts as data on stdout, for scripts and for agents.
//!
//! - [`query`]: one look: nodes, actors, tree, episodes
//! - [`orders`]: orders, and the log of them
//! - [`tracing`]: single messages
//! - [`actor`]: what one actor has published of its state
//! - [`schema`]: what all of these print
//! - [`watching`]: looks that go on: watch, diagnose, record
//! - [`table`]: aligned text
//! - [`export`]: what a screen shows, in a file

pub mod actor;
pub mod export;
pub mod orders;
pub mod query;
pub mod schema;
pub mod table;
pub mod tracing;
pub mod watching;

use std::io::{self, Write};

use crate::error::InspectError;

/// Writes a line. A reader that has gone away wants no more of them: `false`.
fn line(out: &mut dyn Write, text: &str) -> Result<bool, InspectError> {
    match writeln!(out, "{text}").and_then(|()| out.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Says something to people beside the data. Nothing depends on whether it is read.
pub(crate) fn remark(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}

fn json(value: &impl serde::Serialize) -> Result<String, InspectError> {
    serde_json::to_string(value).map_err(|error| io::Error::other(error).into())
}

/// A runtime for one command.
fn runtime() -> Result<tokio::runtime::Runtime, InspectError> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?)
}
