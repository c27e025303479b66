//! The run store: what a run must not forget, in one SQLite file, and its history in one
//! append-only file.
//!
//! - [`row`]: what is stored, as plain rows
//! - [`writer`]: one thread that writes, in batches, and says so when it is durable
//! - [`read`]: for reports, and for a run that goes on
//! - [`journal`]: what has happened in episodes that are under way
//! - [`timing`]: when attempts did what, for traces
//! - [`page`]: for people who leaf through episodes
//! - [`copies`]: last good copies of the store, and going back to one
//! - [`copier`]: makes them while a run goes on
//! - [`Stop`]: how whoever reads all of a store is told to stop
//! - [`environment`]: on what a run was started, in `environment.jsonl`
//! - [`event_log`]: the history, in `events.jsonl`
//! - [`schema`]: tables and their version
//! - [`error`]: what can go wrong with a disk, and what to do
//!
//! This crate decides nothing: what a row means is the coordinator's business.

pub mod copier;
pub mod copies;
pub mod environment;
pub mod error;
pub mod event_log;
pub mod journal;
pub mod page;
pub mod read;
pub mod row;
pub mod schema;
mod stop;
pub mod timing;
mod write;
pub mod writer;

pub use copier::Copier;
pub use copies::{Copies, GoodCopy};
pub use crrl_machine::Stop;
pub use environment::Environment;
pub use error::StoreError;
pub use event_log::EventLog;
pub use journal::JournalRow;
pub use page::{EpisodePage, EpisodeQuery, Facet, Order};
pub use read::{Reader, StateCount};
pub use row::{BatchRow, EpisodeRow, Op, StepRow};
pub use timing::{AttemptTiming, OutcomeRow};
pub use writer::{Hand, Options, Work, Writer, WriterClosed, settled};
