//! One file per subcommand. A file parses its arguments, calls the crate that does the work, and
//! prints what came of it.

pub(crate) mod about;
pub(crate) mod adapters;
pub(crate) mod audit;
pub(crate) mod chaos;
pub(crate) mod cluster;
pub(crate) mod config;
pub(crate) mod dashboard;
pub(crate) mod doctor;
pub(crate) mod eval;
pub(crate) mod export;
pub(crate) mod failure;
pub(crate) mod host;
pub(crate) mod inspect;
pub(crate) mod logging;
pub(crate) mod model;
pub(crate) mod node;
pub(crate) mod place;
pub(crate) mod quickstart;
pub(crate) mod remote;
pub(crate) mod report;
pub(crate) mod reward;
pub(crate) mod sft;
pub(crate) mod tasks;
pub(crate) mod tls;
pub(crate) mod train;
