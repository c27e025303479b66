//! Adapters on their way in: verified against manifest and model, then held in the back buffer.
//!
//! An [`Adapter`] exists only if its bytes hash to its manifest's digest, it belongs to the
//! engine's base model, every shape fits and every value is finite. Making one touches nothing
//! the engine uses, so it can happen on another thread; the layout the forward pass reads is made
//! there too, so that no step pays for it.

use crrl_model::{AdapterWeights, Cpu, LlmOps, Lora, ModelConfig};
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
            Device::Cpu => Weights::Cpu(on_device(&weights)),
            #[cfg(feature = "cuda")]
            Device::Cuda => Weights::Cuda(on_device(&weights)),
            #[cfg(not(feature = "cuda"))]
            Device::Cuda => unreachable!("an engine on CUDA cannot be loaded in this build"),
        };
        let serving = Serving { version: manifest.version, digest: manifest.digest };
        Ok(Adapter { serving, weights })
    }
}

fn on_device<B: LlmOps>(weights: &AdapterWeights) -> Lora<B> {
    B::lora_for_inference(Lora::from_weights(weights, &Default::default()))
}

#[cfg(test)]
mod tests {
    use crrl_model::{Architecture, Decoder, FileDtype, LoraConfig, RopeScaling};
    use crrl_types::AdapterVersion;

    use super::*;

    fn config() -> ModelConfig {
        ModelConfig {
            architecture: Architecture::Llama,
            vocab_size: 24,
            hidden_size: 16,
            intermediate_size: 20,
            layers: 2,
            heads: 2,
            kv_heads: 1,
            head_dim: 8,
            max_positions: 32,
            norm_eps: 1e-5,
            rope_theta: 1e4,
            rope_scaling: RopeScaling::None,
            tied: true,
            qkv_bias: false,
            o_bias: false,
            mlp_bias: false,
            bos: None,
            eos: Vec::new(),
        }
    }

    #[test]
    fn a_verified_adapter_is_ready_for_the_next_step() {
        let base = Decoder::<Cpu>::random(&config(), 1, &Default::default()).base_digest();
        let lora = Lora::<Cpu>::init(&LoraConfig::default(), &config(), 2, &Default::default());
        let weights = lora.to_weights();
        let bytes = weights.to_bytes(FileDtype::F32);
        let manifest = weights.manifest(&bytes, FileDtype::F32, AdapterVersion(1), base);
        let loader = AdapterLoader::new(config(), base, Device::Cpu);
        let adapter = loader.load(&manifest, &bytes).expect("a good adapter");
        match adapter.into_weights() {
            Weights::Cpu(lora) => assert!(lora.is_for_inference(), "the first step would make it"),
            #[cfg(feature = "cuda")]
            Weights::Cuda(_) => unreachable!("the loader is one for the processor"),
        }
    }
}
