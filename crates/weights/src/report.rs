//! How a transfer went, told by whoever fetched.

use crrl_types::NodeName;
use serde::{Deserialize, Serialize};

/// What came from one node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leg {
    /// From whom.
    pub from: NodeName,
    /// Bytes of chunks that were verified.
    pub bytes: u64,
    /// How long that took.
    pub micros: u64,
}

/// A node that did not give what it was asked for, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Blame {
    /// Who.
    pub node: NodeName,
    /// Why, in a few words.
    pub reason: String,
}

/// How a transfer went.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Report {
    /// What came from whom, in order.
    pub legs: Vec<Leg>,
    /// Who was left for another.
    pub blamed: Vec<Blame>,
}

impl Report {
    /// Bytes that travelled and were verified.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.legs.iter().map(|leg| leg.bytes).sum()
    }
}
