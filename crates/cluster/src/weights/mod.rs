//! Adapters between nodes: whoever wants one fetches its chunks, from a node near by if one is named,
//! else from the parameter server; whoever has chunks gives them to others.
//!
//! - [`depot`]: the chunks a node holds
//! - [`serve`]: gives them to whoever may have them
//! - [`fetch`]: gets what is missing
//! - [`feed`]: published adapters, for people's tools
//!
//! Every chunk is verified against its hash in the offer, which comes from the parameter server: it
//! does not matter who a chunk comes from. Fetching has connections of its own, so that it delays
//! neither control messages nor batches.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crrl_transport::{Connection, Endpoint, Pacing};
use crrl_types::{Digest, NodeName};
use serde::{Deserialize, Serialize};

pub mod depot;
pub mod feed;
pub mod fetch;
pub(crate) mod serve;

pub use depot::{Depot, Given};
pub use feed::AdapterFeed;
pub use fetch::FetchError;

use crate::peer::lock;

/// Longest request: a thousand ranges.
const REQUEST_BYTES_MAX: usize = 64 * 1024;
/// Longest answer.
const ANSWER_BYTES_MAX: usize = 4096;

/// What a stream begins with.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Request {
    /// The chunks in these ranges (first, one past the last), in that order, one after the other.
    Fetch { digest: Digest, ranges: Vec<(u32, u32)> },
    /// What is published, now and from now on: one frame an offer.
    Follow,
}

/// What comes back first.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Answer {
    /// The chunks, or the offers, follow.
    Coming,
    /// This node has never heard of it.
    Unknown,
    /// The certificate does not allow it, or the request makes no sense.
    Refused(String),
}

/// What a node needs to fetch and to serve. Cloning gives another handle to the same.
#[derive(Clone)]
pub struct Weights(Arc<Inner>);

struct Inner {
    name: NodeName,
    endpoint: Endpoint,
    depot: Depot,
    /// Silence after which a source is left for the next.
    patience: Duration,
    /// Connections to nodes that were fetched from, kept for the next adapter.
    connections: Mutex<HashMap<NodeName, Connection>>,
    /// What leaves this node for all others together.
    pacing: Mutex<Pacing>,
    started: Instant,
}

impl Weights {
    /// Fetches and serves under this name, over that endpoint. A source that is silent for longer than
    /// `patience` is left for the next.
    #[must_use]
    pub fn new(name: NodeName, endpoint: Endpoint, patience: Duration) -> Self {
        let pacing = Mutex::new(Pacing::new(endpoint.options().bulk_bytes_per_s, Duration::ZERO));
        let (depot, connections) = (Depot::default(), Mutex::default());
        Self(Arc::new(Inner {
            name,
            endpoint,
            depot,
            patience,
            connections,
            pacing,
            started: Instant::now(),
        }))
    }

    /// The chunks this node holds.
    #[must_use]
    pub fn depot(&self) -> &Depot {
        &self.0.depot
    }

    /// Keeps a connection for the next fetch.
    fn keep(&self, name: &NodeName, connection: Connection) {
        lock(&self.0.connections).insert(name.clone(), connection);
    }

    async fn close(&self, reason: &str) {
        self.0.endpoint.close(reason).await;
    }

    /// Waits until that many bytes may leave.
    async fn pace(&self, bytes: usize) {
        let wait = lock(&self.0.pacing).take(bytes, self.0.started.elapsed());
        // A timer cannot wait for less than about a millisecond; shorter waits add up in the bucket.
        if wait >= Duration::from_millis(1) {
            tokio::time::sleep(wait).await;
        }
    }
}

impl std::fmt::Debug for Weights {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Weights").field("name", &self.0.name).finish_non_exhaustive()
    }
}

/// Neighbouring numbers as ranges. `indices` ascends.
fn ranges(indices: &[usize]) -> Vec<(u32, u32)> {
    let mut ranges: Vec<(u32, u32)> = Vec::new();
    for index in indices {
        // A payload has a thousand chunks at most.
        let index = u32::try_from(*index).unwrap_or(u32::MAX);
        match ranges.last_mut() {
            Some((_, end)) if *end == index => *end += 1,
            _ => ranges.push((index, index.saturating_add(1))),
        }
    }
    ranges
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_are_asked_for_together() {
        assert_eq!(ranges(&[0, 1, 2, 5, 7, 8]), [(0, 3), (5, 6), (7, 9)]);
        assert_eq!(ranges(&[]), []);
    }
}
