//! The adapter as it is sent to engines.

use crrl_model::{AdapterWeights, FileDtype};
use crrl_types::{AdapterManifest, AdapterVersion, Digest};

use crate::error::LearnerError;

/// Bytes of an adapter and what they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published {
    /// What the bytes are.
    pub manifest: AdapterManifest,
    /// One safetensors file.
    pub bytes: Vec<u8>,
}

/// Packs an adapter.
///
/// # Errors
/// When a value is not finite: such an adapter never leaves the learner.
pub(crate) fn pack(
    weights: &AdapterWeights,
    dtype: FileDtype,
    version: AdapterVersion,
    base: Digest,
) -> Result<Published, LearnerError> {
    if let Some(name) = weights.first_not_finite() {
        return Err(crrl_model::AdapterError::NotFinite { name: name.to_owned() }.into());
    }
    let bytes = weights.to_bytes(dtype);
    let manifest = weights.manifest(&bytes, dtype, version, base);
    Ok(Published { manifest, bytes })
}
