//! How an adapter travels: decided and computed here, sent elsewhere.
//!
//! - [`payload`]: bytes cut into chunks, each with its hash
//! - [`offer`]: what a node is told of an adapter before it has a byte of it
//! - [`delta`]: an adapter as its difference from an earlier one, without loss
//! - [`cost`]: what was measured of links and deltas, and whether a delta pays
//! - [`tree`]: who fetches from whom
//! - [`report`]: how a transfer went
//!
//! Pure: opens no socket and no file, reads no clock.

pub mod cost;
pub mod delta;
pub mod offer;
pub mod payload;
pub mod report;
pub mod tree;

pub use cost::{DeltaCost, Link};
pub use delta::DeltaError;
pub use offer::{DeltaOffer, Offer, Source};
pub use payload::Payload;
pub use report::{Blame, Leg, Report};
