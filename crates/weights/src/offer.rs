//! What a node is told of an adapter before it has a byte of it.

use std::net::SocketAddr;

use crrl_types::{AdapterManifest, Digest, NodeName};
use serde::{Deserialize, Serialize};

use crate::payload::Payload;

/// An adapter that can be fetched: whole, or as its difference from an earlier one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offer {
    /// What it is.
    pub manifest: AdapterManifest,
    /// Its bytes.
    pub whole: Payload,
    /// What makes its bytes out of those of an earlier one, where that pays.
    pub delta: Option<DeltaOffer>,
}

/// A difference between two adapters.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeltaOffer {
    /// Digest of the earlier one.
    pub base: Digest,
    /// The difference, as [`crate::delta::encode`] writes it.
    pub payload: Payload,
}

/// A node chunks can be fetched from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// Who; its certificate must say the same.
    pub name: NodeName,
    /// Where it answers.
    pub address: SocketAddr,
}

impl Offer {
    /// An adapter that travels whole.
    #[must_use]
    pub fn whole(manifest: AdapterManifest, bytes: &[u8]) -> Self {
        Self { manifest, whole: Payload::of(bytes), delta: None }
    }

    /// Whether its parts go together; asked of everything that comes from outside.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        let delta = self.delta.as_ref().is_none_or(|delta| delta.payload.is_sound());
        self.whole.is_sound()
            && delta
            && self.whole.digest == self.manifest.digest
            && self.whole.bytes == self.manifest.bytes
    }
}
