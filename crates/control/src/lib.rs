//! The cluster's decisions as pure state machines: time and randomness are passed in, effects are
//! returned. Thin actors carry them out; a seeded simulation can run the very same code.
//!
//! - [`wire`]: the messages nodes exchange
//!
//! This crate never does I/O and never reads a clock.

pub mod wire;
