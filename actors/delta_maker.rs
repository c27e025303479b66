//! Deltas of real adapters: made where they pay, measured to know whether they do.

use std::time::Instant;

use bytes::Bytes;
use crrl_types::{AdapterManifest, Digest};
use crrl_weights::delta::{self, Word};
use crrl_weights::{DeltaCost, DeltaOffer, Payload};

/// The difference of an adapter from the one before; `None` where there can be none.
pub(crate) fn make(
    base: &[u8],
    new: &[u8],
    manifest: &AdapterManifest,
) -> Option<(DeltaOffer, Bytes)> {
    let difference = Bytes::from(delta::encode(base, new, word(manifest)?).ok()?);
    let payload = Payload::of(&difference);
    Some((DeltaOffer { base: Digest::of(base), payload }, difference))
}

/// Makes one, applies it, and looks at the clock.
pub(crate) fn measure(base: &[u8], new: &[u8], manifest: &AdapterManifest) -> Option<DeltaCost> {
    let bytes = new.len() as f64;
    let started = Instant::now();
    let difference = delta::encode(base, new, word(manifest)?).ok()?;
    let encode_bytes_per_s = bytes / started.elapsed().as_secs_f64();
    let started = Instant::now();
    let made = delta::decode(base, &difference).ok()?;
    let decode_bytes_per_s = bytes / started.elapsed().as_secs_f64();
    if made != new {
        tracing::warn!("a delta did not give the adapter it was made of; none is used");
        return None;
    }
    let ratio = difference.len() as f64 / bytes;
    Some(DeltaCost { ratio, encode_bytes_per_s, decode_bytes_per_s })
}

/// Of the first tensor: an adapter has one type.
fn word(manifest: &AdapterManifest) -> Option<Word> {
    manifest.tensors.first().and_then(|tensor| Word::of(&tensor.dtype))
}
