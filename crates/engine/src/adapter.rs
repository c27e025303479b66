//! Adapters on their way in: verified against manifest and model, then held in the back buffer.
//!
//! An [`Adapter`] exists only if its bytes hash to its manifest's digest, it belongs to the
//! engine's base model, every shape fits and every value is finite. Making one touches nothing
//! the engine uses, so it can happen on another thread.

use crrl_model::{AdapterWeights, Cpu, Lora, ModelConfig};
use crrl_types::{AdapterManifest, Digest};

use crate::engine::Serving;
use crate::error::StageError;
use crate::options::Device;

/// A verified adapter, on the engine's device.
#[derive(Debug)]
pub struct Adapter {
    serving: Serving,
    weights: Weights,
}

#[derive(Debug)]
pub(crate) enum Weights {
    Cpu(Lora<Cpu>),
    #[cfg(feature = "cuda")]
    Cuda(Lora<crrl_model::Cuda>),
}

impl Adapter {
    /// What the engine serves once it is swapped in.
    #[must_use]
    pub fn serving(&self) -> Serving {
        self.serving
    }

    pub(crate) fn into_weights(self) -> Weights {
        self.weights
    }
}

/// Verifies adapters for one engine.
#[derive(Debug, Clone)]
pub struct AdapterLoader {
    config: ModelConfig,
    base_digest: Digest,
    device: Device,
}

impl AdapterLoader {
    pub(crate) fn new(config: ModelConfig, base_digest: Digest, device: Device) -> Self {
        Self { config, base_digest, device }
    }

    /// Verifies the bytes of an adapter and puts it on the device.
    ///
    /// # Errors
    /// When the bytes are not what the manifest says, belong to another base model, do not fit
    /// this one, or hold a value that is not finite.
    pub fn load(&self, manifest: &AdapterManifest, bytes: &[u8]) -> Result<Adapter, StageError> {
        let weights = AdapterWeights::verified(manifest, bytes, &self.config, self.base_digest)
            .map_err(|source| StageError::Refused { version: manifest.version, source })?;
        let weights = match self.device {
            Device::Cpu => Weights::Cpu(Lora::from_weights(&weights, &Default::default())),
            #[cfg(feature = "cuda")]
            Device::Cuda => Weights::Cuda(Lora::from_weights(&weights, &Default::default())),
            #[cfg(not(feature = "cuda"))]
            Device::Cuda => unreachable!("an engine on CUDA cannot be loaded in this build"),
        };
        let serving = Serving { version: manifest.version, digest: manifest.digest };
        Ok(Adapter { serving, weights })
    }
}
