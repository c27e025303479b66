//! What a node gets of its machine and what a fault may change of it: the disk and the wall clock.
//!
//! - [`disk`]: called before everything that must not be lost is written, and where there is no room
//! - [`clock`]: the time of day, for people and certificates; never for leases, which count from a start
//! - [`faults`]: what goes wrong with either on purpose, and ends by itself
//! - [`lock`]: a file that one process at a time holds locked
//! - [`stop`]: a wish that what takes long ends
//!
//! One for each process, since a process is a node. Without a fault it costs one look at a flag.

pub mod clock;
pub mod disk;
pub mod faults;
pub mod lock;
pub mod stop;

pub use faults::Faults;
pub use lock::Lock;
pub use stop::Stop;
