//! The fused operations a decoder is made of. Each has a default in plain tensor operations,
//! right on every backend; a backend overrides what it can do faster.
//!
//! - [`plain`]: the defaults
//! - [`flex`]: the CPU backend, on raw slices
//! - [`autodiff`]: the training side, with backward passes of our own
//! - [`packed`], `kernel`, `host`: weights in the layout of the host kernels, the kernels, and the
//!   cached forward pass made of them

pub mod autodiff;
pub mod flex;
mod host;
mod kernel;
pub mod packed;
pub mod plain;
pub(crate) mod train;

pub(crate) use kernel::LANES;

use burn::tensor::Tensor;
use burn::tensor::backend::Backend;

use crate::decoder::{Decoder, Linear};
use crate::infer::StepBatch;
use crate::kv::KvStore;
use crate::lora::{Lora, LoraPair};

/// The fused operations, on a backend.
pub trait LlmOps: Backend {
    /// Whether tensors are f32 slices in host memory, and the KV store keeps host rows.
    const HOST_SLICES: bool = false;

    /// `x / rms(x) * weight`, row by row (Zhang and Sennrich 2019, arXiv:1910.07467).
    ///
    /// # Shapes
    /// `x` `[rows, dim]`, `weight` `[dim]`, result `[rows, dim]`.
    fn rms_norm(x: Tensor<Self, 2>, weight: Tensor<Self, 1>, eps: f64) -> Tensor<Self, 2> {
        plain::rms_norm(x, weight, eps)
    }

    /// Rotary embedding; element `i` turns with element `i + head_dim / 2`.
    ///
    /// # Shapes
    /// `x` `[tokens, heads, head_dim]`, `cos` and `sin` `[tokens, head_dim / 2]`.
    fn rope(x: Tensor<Self, 3>, cos: Tensor<Self, 2>, sin: Tensor<Self, 2>) -> Tensor<Self, 3> {
        plain::rope(x, cos, sin)
    }

    /// Causal grouped-query attention within each packed sequence.
    ///
    /// # Shapes
    /// `q` `[tokens, heads, head_dim]`, `k` and `v` `[tokens, kv_heads, head_dim]`; sequence `i`
    /// is the tokens `cu_seqlens[i]..cu_seqlens[i + 1]`, from 0 to `tokens`. The result is
    /// `[tokens, heads, head_dim]`.
    fn packed_attention(
        q: Tensor<Self, 3>,
        k: Tensor<Self, 3>,
        v: Tensor<Self, 3>,
        cu_seqlens: &[usize],
    ) -> Tensor<Self, 3> {
        plain::attention(q, k, v, cu_seqlens)
    }

    /// `silu(gate) * up`, element by element, `[rows, dim]`.
    fn silu_mul(gate: Tensor<Self, 2>, up: Tensor<Self, 2>) -> Tensor<Self, 2> {
        plain::silu_mul(gate, up)
    }

    /// `x [rows, in]` times `weight [in, out]`.
    fn project(x: Tensor<Self, 2>, weight: Tensor<Self, 2>) -> Tensor<Self, 2> {
        x.matmul(weight)
    }

    /// A linear map with its adapter: `x W + c + scale * (x A) B`.
    ///
    /// # Shapes
    /// `x` `[rows, in]`, result `[rows, out]`.
    fn adapted(
        x: Tensor<Self, 2>,
        linear: &Linear<Self>,
        pair: Option<&LoraPair<Self>>,
        scale: f32,
    ) -> Tensor<Self, 2> {
        plain::adapted(x, linear, pair, scale)
    }

    /// Gives up what inference does not need, such as weights kept in a second layout. The decoder
    /// can then only run [`Decoder::forward_cached`].
    #[must_use]
    fn for_inference(decoder: Decoder<Self>) -> Decoder<Self> {
        decoder
    }

    /// The same for an adapter: derives the layout inference reads and gives up any other, so that
    /// the first step under it costs no more than the next.
    #[must_use]
    fn lora_for_inference(lora: Lora<Self>) -> Lora<Self> {
        lora
    }

    /// The cached forward pass of a checked, non-empty batch; see [`Decoder::forward_cached`].
    fn forward_cached(
        decoder: &Decoder<Self>,
        lora: Option<&Lora<Self>>,
        step: &StepBatch,
        kv: &mut KvStore<Self>,
    ) -> Tensor<Self, 2> {
        plain::forward_cached(decoder, lora, step, kv)
    }
}

#[cfg(feature = "cuda")]
impl LlmOps for crate::Cuda {}
