//! The decoder with its keys, values and adapter, on one of the backends.
//!
//! The only file of this crate that knows a tensor or a backend; everything above it works on
//! slots, ids and rows of f32.

use burn::tensor::backend::Backend;
use crrl_model::{
    Cpu, Decoder, KvStore, LlmOps, Logits, Lora, ModelConfig, ModelDir, SlotId, StepBatch,
};
use crrl_types::Digest;

use crate::adapter::{Adapter, AdapterLoader, Weights};
use crate::error::LoadError;
use crate::options::{Device, Options};

/// Tokens of one slot to compute in a pass; they continue what the slot holds.
#[derive(Debug)]
pub(crate) struct Work<'a> {
    pub(crate) slot: SlotId,
    pub(crate) tokens: &'a [u32],
    pub(crate) logits: Logits,
}

/// One backend's tensors.
#[derive(Debug)]
pub(crate) struct Loaded<B: Backend> {
    decoder: Decoder<B>,
    lora: Option<Lora<B>>,
    kv: KvStore<B>,
}

/// The concrete backends.
#[derive(Debug)]
pub(crate) enum Network {
    Cpu(Box<Loaded<Cpu>>),
    #[cfg(feature = "cuda")]
    Cuda(Box<Loaded<crrl_model::Cuda>>),
}

/// Runs an expression on whichever backend is loaded.
macro_rules! on {
    ($network:expr, $loaded:ident => $body:expr) => {
        match $network {
            Network::Cpu($loaded) => $body,
            #[cfg(feature = "cuda")]
            Network::Cuda($loaded) => $body,
        }
    };
}

impl Network {
    /// Loads the weights of a model folder.
    pub(crate) fn load(dir: &ModelDir, options: &Options) -> Result<Self, LoadError> {
        match options.device {
            Device::Cpu => {
                // Refused before the weights are read: that is the slow part.
                check_memory::<Cpu>(dir.config(), options)?;
                let decoder = Decoder::load(dir, &Default::default())?;
                Self::on_cpu(decoder, options)
            }
            #[cfg(feature = "cuda")]
            Device::Cuda => {
                check_memory::<crrl_model::Cuda>(dir.config(), options)?;
                let decoder = Decoder::load(dir, &Default::default())?;
                Ok(Self::Cuda(Box::new(Loaded::new(decoder, options))))
            }
            #[cfg(not(feature = "cuda"))]
            Device::Cuda => Err(LoadError::NoCuda),
        }
    }

    /// A network of weights that are in memory already.
    pub(crate) fn on_cpu(decoder: Decoder<Cpu>, options: &Options) -> Result<Self, LoadError> {
        check_memory::<Cpu>(&decoder.config, options)?;
        Ok(Self::Cpu(Box::new(Loaded::new(decoder, options))))
    }

    pub(crate) fn config(&self) -> &ModelConfig {
        on!(self, loaded => &loaded.decoder.config)
    }

    pub(crate) fn base_digest(&self) -> Digest {
        on!(self, loaded => loaded.decoder.base_digest())
    }

    /// Longest sequence a slot takes.
    pub(crate) fn context(&self) -> usize {
        on!(self, loaded => loaded.kv.max_len())
    }

    pub(crate) fn adapter_loader(&self) -> AdapterLoader {
        let device = match self {
            Self::Cpu(_) => Device::Cpu,
            #[cfg(feature = "cuda")]
            Self::Cuda(_) => Device::Cuda,
        };
        AdapterLoader::new(self.config().clone(), self.base_digest(), device)
    }

    /// Replaces the adapter; the old one's memory is freed.
    pub(crate) fn activate(&mut self, adapter: Adapter) {
        match (self, adapter.into_weights()) {
            (Self::Cpu(loaded), Weights::Cpu(lora)) => loaded.lora = Some(lora),
            #[cfg(feature = "cuda")]
            (Self::Cuda(loaded), Weights::Cuda(lora)) => loaded.lora = Some(lora),
            #[cfg(feature = "cuda")]
            _ => unreachable!("the adapter was made by this network's own loader"),
        }
    }

    /// An empty slot; `None` where all are taken.
    pub(crate) fn take(&mut self) -> Option<SlotId> {
        on!(self, loaded => loaded.kv.take())
    }

    /// Frees a slot and its memory.
    pub(crate) fn release(&mut self, slot: SlotId) {
        on!(self, loaded => loaded.kv.release(slot));
    }

    /// Forgets what a slot holds from `len` on.
    pub(crate) fn truncate(&mut self, slot: SlotId, len: usize) {
        on!(self, loaded => loaded.kv.truncate(slot, len));
    }

    /// Copies the first `len` positions of one slot to another.
    pub(crate) fn copy_prefix(&mut self, from: SlotId, to: SlotId, len: usize) -> bool {
        on!(self, loaded => loaded.kv.copy_prefix(from, to, len))
    }

    /// One forward pass. `[rows asked for, vocab]`, flat, in the order of the work.
    pub(crate) fn forward(&mut self, work: &[Work<'_>]) -> Vec<f32> {
        let mut batch = StepBatch::default();
        for Work { slot, tokens, logits } in work {
            batch.push(*slot, tokens, *logits);
        }
        on!(self, loaded => loaded.forward(&batch))
    }
}

impl<B: LlmOps> Loaded<B> {
    fn new(decoder: Decoder<B>, options: &Options) -> Self {
        let context = options.context(&decoder.config);
        let kv = KvStore::new(&decoder.config, options.slots(), context);
        // Weights in one layout only: the engine never trains.
        let decoder = B::for_inference(decoder);
        Self { decoder, lora: None, kv }
    }

    fn forward(&mut self, batch: &StepBatch) -> Vec<f32> {
        let logits = self
            .decoder
            .forward_cached(self.lora.as_ref(), batch, &mut self.kv)
            .expect("ids, lengths and slots were checked when they were submitted");
        let data = logits.into_data().convert::<f32>();
        data.into_vec().expect("the data was converted to f32")
    }
}

/// Refuses options under which keys and values could outgrow `kv_bytes_max`.
fn check_memory<B: LlmOps>(config: &ModelConfig, options: &Options) -> Result<(), LoadError> {
    let (slots, context) = (options.slots(), options.context(config));
    let width = if B::HOST_SLICES { 4 } else { 2 };
    // Keys and values, every layer, every position of every slot.
    let needed = [2, config.layers, config.kv_width(), width, slots, context]
        .into_iter()
        .map(|n| n as u64)
        .fold(1, u64::saturating_mul);
    if needed > options.kv_bytes_max {
        return Err(LoadError::Memory { needed, slots, context, max: options.kv_bytes_max });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use crrl_model::{Architecture, RopeScaling};

    use super::*;

    #[test]
    fn weights_are_held_once() {
        let config = ModelConfig {
            architecture: Architecture::Llama,
            vocab_size: 24,
            hidden_size: 16,
            intermediate_size: 20,
            layers: 1,
            heads: 2,
            kv_heads: 1,
            head_dim: 8,
            max_positions: 32,
            norm_eps: 1e-5,
            rope_theta: 1e4,
            rope_scaling: RopeScaling::None,
            tied: false,
            qkv_bias: false,
            o_bias: false,
            mlp_bias: false,
            bos: None,
            eos: Vec::new(),
        };
        let decoder = Decoder::random(&config, 1, &Default::default());
        let network = Network::on_cpu(decoder, &Options::default()).expect("it is small");
        on!(&network, loaded => assert!(loaded.decoder.is_for_inference()));
    }
}
