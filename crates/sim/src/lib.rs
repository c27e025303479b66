//! A cluster in one thread, for tests: its time, its network, its disks and its randomness follow
//! from a seed, so that whatever goes wrong goes wrong again.
//!
//! - [`os`]: the calls of the operating system that a simulated thread finds replaced
//! - [`machine`]: one node's tokio runtime, run step by step, and killed
//! - [`network`]: UDP between machines
//! - [`rules`]: what becomes of a packet
//! - [`disk`]: what a machine finds on its disk after a crash
//! - [`record`]: what happened, and its digest
//! - [`batch`]: many seeds, each in a process of its own
//!
//! Nothing here knows what the machines do. Nothing of the product knows that it is simulated,
//! beyond the sockets and the writing hand it is lent.

pub mod batch;
pub mod disk;
pub mod machine;
pub mod network;
pub mod os;
pub mod record;
pub mod rules;

pub use machine::Machine;
pub use network::Network;
pub use record::Record;
pub use rules::{Packet, Verdict};

/// Random numbers of a simulation: all from its seed.
pub type Rng = rand_chacha::ChaCha8Rng;
