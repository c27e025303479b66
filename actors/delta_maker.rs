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

#[cfg(test)]
mod tests {
    use crrl_model::{AdapterTensor, AdapterWeights, FileDtype, LoraConfig};
    use crrl_types::AdapterVersion;
    use rand::{Rng as _, SeedableRng as _};
    use rand_chacha::ChaCha8Rng;

    use super::*;

    /// An adapter of one matrix, and the one after it: each value has moved by at most a ten thousandth.
    fn pair() -> [AdapterWeights; 2] {
        let seed = 5;
        println!("seed {seed}");
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let values: Vec<f32> = (0..64 * 512).map(|_| rng.random_range(-0.04_f32..0.04)).collect();
        let moved = values.iter().map(|value| value + rng.random_range(-1e-4_f32..1e-4)).collect();
        [values, moved].map(|values| AdapterWeights {
            config: LoraConfig { rank: 64, ..LoraConfig::default() },
            tensors: vec![AdapterTensor { name: "a".into(), shape: [64, 512], values }],
        })
    }

    fn packed(weights: &AdapterWeights, dtype: FileDtype) -> (AdapterManifest, Vec<u8>) {
        let bytes = weights.to_bytes(dtype);
        (weights.manifest(&bytes, dtype, AdapterVersion(1), Digest::default()), bytes)
    }

    #[test]
    fn adapters_of_either_type_have_a_difference_and_the_one_in_bf16_is_the_smaller() {
        let [before, after] = pair();
        let lengths = [FileDtype::F32, FileDtype::Bf16].map(|dtype| {
            let (_, base) = packed(&before, dtype);
            let (manifest, new) = packed(&after, dtype);
            let (offer, difference) = make(&base, &new, &manifest).expect("of one length");
            assert_eq!((offer.base, offer.payload), (Digest::of(&base), Payload::of(&difference)));
            assert_eq!(delta::decode(&base, &difference).expect("just made"), new);
            let cost = measure(&base, &new, &manifest).expect("of one length");
            let ratio = difference.len() as f64 / new.len() as f64;
            assert!((cost.ratio - ratio).abs() < 1e-9 && ratio < 0.9, "{dtype:?}: {cost:?}");
            difference.len()
        });
        assert!(lengths[1] * 2 < lengths[0], "{lengths:?}");
    }

    #[test]
    fn between_two_types_there_is_no_difference() {
        let [before, after] = pair();
        let (_, base) = packed(&before, FileDtype::F32);
        let (manifest, new) = packed(&after, FileDtype::Bf16);
        assert!(make(&base, &new, &manifest).is_none());
        assert!(measure(&base, &new, &manifest).is_none());
    }
}
