//! The fused operations on the CPU backend: whole passes and single operations on raw slices.

use burn::tensor::Tensor;

use super::host;
use crate::Cpu;
use crate::decoder::Decoder;
use crate::infer::StepBatch;
use crate::kv::KvStore;
use crate::lora::Lora;
use crate::ops::LlmOps;

impl LlmOps for Cpu {
    const HOST_SLICES: bool = true;

    fn for_inference(decoder: Decoder<Self>) -> Decoder<Self> {
        decoder.prepare();
        decoder.hollow()
    }

    fn lora_for_inference(lora: Lora<Self>) -> Lora<Self> {
        lora.prepare();
        lora.hollow()
    }

    fn forward_cached(
        decoder: &Decoder<Self>,
        lora: Option<&Lora<Self>>,
        step: &StepBatch,
        kv: &mut KvStore<Self>,
    ) -> Tensor<Self, 2> {
        host::forward_cached(decoder, lora, step, kv)
    }
}

impl Decoder<Cpu> {
    /// Derives the layout of the host kernels now rather than at the first step.
    pub fn prepare(&self) {
        self.packed(|| host::pack(self));
    }
}

impl Lora<Cpu> {
    /// Derives the layout of the host kernels now rather than at the first step under it.
    pub fn prepare(&self) {
        self.packed(|| host::pack_lora(self));
    }
}
