//! Repair tasks: where they come from, how they are stored, checked and laid out on disk, and the
//! traces of an oracle that solves them.
//!
//! - [`task_set`]: task files, one JSON object a line
//! - [`split`]: which source file is on which side of the train, fine-tuning, held-out split
//! - [`source`]: Python files of a tree, read and parsed
//! - [`function`]: functions of a file, and the places in them where a bug can be put
//! - [`operators`]: the mutation operators
//! - [`statement`]: what the agent is told
//! - [`mod@mutate`]: tasks from working code, one injected bug each
//! - [`mod@mine`]: tasks from the bug-fix commits of a git history
//! - [`base`]: the tree an agent starts from, in memory and on disk
//! - [`mod@verify`]: whether a task holds what it promises
//! - [`mod@oracle`]: the shortest honest solution of a task as tool calls and their answers
//! - [`corpus`]: endless fresh traces over the functions of a tree; [`mod@careless`]: some of them
//!   worked on carelessly
//! - [`small_policy`]: the options of the shipped policy's tasks and traces
//! - [`stdlib`]: where this machine keeps Python's standard library
//!
//! This crate never runs the code of a task and never talks to a network. Git is the git program,
//! with a clean configuration, and only ever reads.

pub mod base;
pub mod careless;
pub mod corpus;
pub mod function;
mod git;
mod grep;
mod local_diff;
pub mod mine;
pub mod mutate;
pub mod operators;
pub mod oracle;
mod rename;
pub mod small_policy;
pub mod source;
pub mod split;
pub mod statement;
pub mod stdlib;
pub mod task_set;
pub mod verify;

pub use base::{BaseError, base_files, materialize};
pub use corpus::{Augment, Corpus, CorpusError, CorpusOptions, Trace, TraceStream};
pub use mine::{MineError, MineOptions, Mined, mine, mine_watched};
pub use mutate::{MutateError, MutateOptions, Mutated, mutate, mutate_watched};
pub use oracle::{Oracle, OracleOptions, OracleTurn, oracle};
pub use source::{SourceError, SourceOptions, SourceTree};
pub use split::SplitOptions;
pub use statement::Detail;
pub use stdlib::find_stdlib;
pub use task_set::{TaskSet, TaskSetError};
pub use verify::{Check, Verdict, patch_applies, verify};
