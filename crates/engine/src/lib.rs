//! Samples tokens for many sequences at once.
//!
//! - [`engine`]: sequences in and out of the batch, forward passes, the adapter swap
//! - [`sequence`]: one sequence, its generation, the stamp on every token
//! - [`submission`]: checks of what is submitted
//! - [`prefix`]: prompts of closed sequences, kept under the adapter they were computed with
//! - [`adapter`]: verification of adapters, the back buffer
//! - [`network`]: the decoder on a concrete backend
//! - [`sampler`]: one token out of one row of logits
//! - [`stop_text`]: stop texts across token boundaries
//! - [`vocabulary`]: what is known of the tokenizer
//! - [`options`], [`error`], [`stats`]
//!
//! **Sequences.** [`Engine::open`] reserves a place, [`Engine::submit`] appends tokens and begins
//! a generation, [`Engine::step`] advances every sequence by one token or one chunk of its prompt,
//! [`Engine::close`] forgets it. Keys and values stay between generations, so a turn costs its new
//! tokens only. A group's attempts share their prompt: one computes it, the others copy.
//!
//! **Randomness.** One number a token from ChaCha8, keyed by the sampling seed and the position at
//! which the generation began. What else is in the batch has no part in it: the same seed, tokens
//! and weights give the same tokens in any company, up to the rounding of the matrix product (a
//! draw changes only if its number falls within that rounding of a boundary).
//!
//! **Adapters.** [`Engine::stage`] verifies and builds the back buffer; the next step swaps it in
//! before anything is computed, so a token is drawn entirely under the adapter it is stamped with,
//! except that keys and values of earlier tokens stay as they are unless
//! [`OnSwap::Recompute`] is chosen. A prefix computed under one adapter never serves a sequence
//! under another.
//!
//! This crate never reads a socket or spawns a thread; whoever owns an [`Engine`] steps it.

pub mod adapter;
pub mod engine;
pub mod error;
mod network;
pub mod options;
mod prefix;
mod sampler;
pub mod sequence;
pub mod stats;
mod stop_text;
pub mod submission;
pub mod vocabulary;

pub use adapter::{Adapter, AdapterLoader};
pub use engine::{Engine, Output, Serving};
pub use error::{LoadError, OpenError, ScoreError, StageError, SubmitError};
pub use options::{Device, InvalidOptions, OnSwap, Options};
pub use sequence::{Sampled, SeqId, Stop};
pub use stats::Stats;
pub use vocabulary::Vocabulary;
