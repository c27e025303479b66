//! The adapter as it is sent to engines.

use crrl_model::{AdapterError, AdapterWeights, FileDtype};
use crrl_types::{AdapterManifest, AdapterVersion, Digest};

use crate::error::LearnerError;
use crate::parameters::Parameters;

/// What a header has beside the names of its tensors, at most: the shape of the adapter in its metadata.
const HEADER_BYTES: u64 = 1024;
/// What it says of a tensor beside its name, at most.
const ENTRY_BYTES: u64 = 160;

/// Bytes of an adapter and what they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published {
    /// What the bytes are.
    pub manifest: AdapterManifest,
    /// One safetensors file.
    pub bytes: Vec<u8>,
}

/// Bytes of an adapter of these factors once packed in `dtype`, a little more than it takes.
pub(crate) fn bytes_of(factors: &Parameters, dtype: FileDtype) -> u64 {
    let names: u64 = factors.list.iter().map(|f| f.name.len() as u64 + ENTRY_BYTES).sum();
    factors.len() as u64 * dtype.size() as u64 + names + HEADER_BYTES
}

/// Packs an adapter, rounded to `dtype`.
///
/// # Errors
/// When a value is not finite, or would not be once rounded: such an adapter never leaves the learner.
pub(crate) fn pack(
    weights: &AdapterWeights,
    dtype: FileDtype,
    version: AdapterVersion,
    base: Digest,
) -> Result<Published, LearnerError> {
    if let Some(name) = weights.first_not_finite() {
        return Err(AdapterError::NotFinite { name: name.to_owned() }.into());
    }
    if let Some(name) = weights.first_not_finite_as(dtype) {
        let (name, dtype) = (name.to_owned(), dtype.file_name());
        return Err(AdapterError::Overflow { name, dtype }.into());
    }
    let bytes = weights.to_bytes(dtype);
    let manifest = weights.manifest(&bytes, dtype, version, base);
    Ok(Published { manifest, bytes })
}
