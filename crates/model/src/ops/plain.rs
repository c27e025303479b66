//! The fused operations in plain tensor operations: the definition the others are tested against,
//! and what backends without kernels of ours run.

use burn::tensor::{DType, Int, Tensor, TensorData, activation};

use crate::decoder::{Decoder, Linear};
use crate::infer::StepBatch;
use crate::kv::{KvStore, LayerKv, SlotId};
use crate::lora::{Lora, LoraPair, Target};
use crate::ops::LlmOps;

/// Room a device slot grows by, tokens: a multiple of it is allocated, so that most steps append
/// in place.
const GROWTH_TOKENS: usize = 256;

/// See [`LlmOps::rms_norm`]. The mean is taken in f32 whatever the tensors are.
pub fn rms_norm<B: LlmOps>(x: Tensor<B, 2>, weight: Tensor<B, 1>, eps: f64) -> Tensor<B, 2> {
    let dtype = x.dtype();
    let wide = x.cast(DType::F32);
    let mean = (wide.clone() * wide.clone()).mean_dim(1);
    let normed = wide / mean.add_scalar(eps).sqrt();
    normed.cast(dtype) * weight.unsqueeze()
}

/// See [`LlmOps::rope`].
pub fn rope<B: LlmOps>(x: Tensor<B, 3>, cos: Tensor<B, 2>, sin: Tensor<B, 2>) -> Tensor<B, 3> {
    let [tokens, heads, dim] = x.dims();
    let half = dim / 2;
    let low = x.clone().slice([0..tokens, 0..heads, 0..half]);
    let high = x.slice([0..tokens, 0..heads, half..dim]);
    let cos = cos.unsqueeze_dim::<3>(1);
    let sin = sin.unsqueeze_dim::<3>(1);
    let turned_low = low.clone() * cos.clone() - high.clone() * sin.clone();
    let turned_high = high * cos + low * sin;
    Tensor::cat(vec![turned_low, turned_high], 2)
}

/// See [`LlmOps::silu_mul`].
pub fn silu_mul<B: LlmOps>(gate: Tensor<B, 2>, up: Tensor<B, 2>) -> Tensor<B, 2> {
    activation::silu(gate) * up
}

/// See [`LlmOps::packed_attention`].
#[expect(clippy::needless_pass_by_value, reason = "the arguments of the operation it defines")]
pub fn attention<B: LlmOps>(
    q: Tensor<B, 3>,
    k: Tensor<B, 3>,
    v: Tensor<B, 3>,
    cu_seqlens: &[usize],
) -> Tensor<B, 3> {
    let [_, heads, dim] = q.dims();
    let kv_heads = k.dims()[1];
    let parts = cu_seqlens.windows(2).filter(|ends| ends[0] < ends[1]).map(|ends| {
        let range = ends[0]..ends[1];
        let q = q.clone().slice([range.clone(), 0..heads, 0..dim]);
        let k = k.clone().slice([range.clone(), 0..kv_heads, 0..dim]);
        let v = v.clone().slice([range, 0..kv_heads, 0..dim]);
        attend(q, k, v)
    });
    let parts: Vec<_> = parts.collect();
    if parts.is_empty() { q } else { Tensor::cat(parts, 0) }
}

/// Attention of the last `new` tokens of one sequence over all of it, causal.
///
/// # Shapes
/// `q` `[new, heads, dim]`, `k` and `v` `[len, kv_heads, dim]`, result `[new, heads, dim]`.
fn attend<B: LlmOps>(q: Tensor<B, 3>, k: Tensor<B, 3>, v: Tensor<B, 3>) -> Tensor<B, 3> {
    let [new, heads, dim] = q.dims();
    let [len, kv_heads, _] = k.dims();
    let group = heads / kv_heads;
    let device = q.device();
    let dtype = q.dtype();
    // [kv_heads, group * new, dim]: the heads that share keys side by side, row = g * new + t.
    let q = q.reshape([new, kv_heads, group, dim]).permute([1, 2, 0, 3]).reshape([
        kv_heads,
        group * new,
        dim,
    ]);
    let k = k.permute([1, 2, 0]);
    let v = v.swap_dims(0, 1);
    // [kv_heads, group * new, len]
    let mut scores = q.matmul(k).cast(DType::F32) / (dim as f64).sqrt();
    if new > 1 {
        let row = Tensor::<B, 1, Int>::arange(0..new as i64, &device)
            .reshape([1, new, 1])
            .repeat_dim(0, group)
            .reshape([1, group * new, 1])
            .add_scalar((len - new) as i64);
        let column = Tensor::<B, 1, Int>::arange(0..len as i64, &device).reshape([1, 1, len]);
        let future = column
            .expand([1, group * new, len])
            .greater(row.expand([1, group * new, len]))
            .expand([kv_heads, group * new, len]);
        scores = scores.mask_fill(future, f32::NEG_INFINITY);
    }
    let weights = activation::softmax(scores, 2).cast(dtype);
    weights
        .matmul(v)
        .reshape([kv_heads, group, new, dim])
        .permute([2, 0, 1, 3])
        .reshape([new, heads, dim])
}

/// See [`LlmOps::adapted`].
pub fn adapted<B: LlmOps>(
    x: Tensor<B, 2>,
    linear: &Linear<B>,
    pair: Option<&LoraPair<B>>,
    scale: f32,
) -> Tensor<B, 2> {
    let mut y = B::project(x.clone(), linear.weight.clone());
    if let Some(bias) = &linear.bias {
        y = y + bias.clone().unsqueeze();
    }
    if let Some(pair) = pair {
        let low = B::project(x, pair.a.clone());
        y = y + B::project(low, pair.b.clone()).mul_scalar(scale);
    }
    y
}

/// See [`Decoder::forward_cached`]: attention runs sequence by sequence, all else on the flat
/// batch.
pub fn forward_cached<B: LlmOps>(
    decoder: &Decoder<B>,
    lora: Option<&Lora<B>>,
    step: &StepBatch,
    kv: &mut KvStore<B>,
) -> Tensor<B, 2> {
    let config = &decoder.config;
    let device = decoder.device();
    let count = step.tokens.len();
    let dim = config.head_dim;
    let positions = step.positions(kv);
    let (cos, sin) = decoder.rope.at(&positions);
    let table =
        |values| Tensor::<B, 2>::from_data(TensorData::new(values, [count, dim / 2]), &device);
    let (cos, sin) = (table(cos), table(sin));
    let ids = step.tokens.iter().map(|&id| i64::from(id)).collect::<Vec<_>>();
    let ids = Tensor::<B, 1, Int>::from_data(TensorData::new(ids, [count]), &device);
    // [count, hidden]
    let mut x = decoder.embed.clone().select(0, ids);
    let scale = lora.map_or(0.0, |lora| lora.config.scale());
    for (index, layer) in decoder.layers.iter().enumerate() {
        let pair = |target| lora.and_then(|lora| lora.layers[index].pair(target));
        let normed = B::rms_norm(x.clone(), layer.attn_norm.clone(), config.norm_eps);
        let q = adapted(normed.clone(), &layer.q, pair(Target::Q), scale);
        let k = adapted(normed.clone(), &layer.k, pair(Target::K), scale);
        let v = adapted(normed, &layer.v, pair(Target::V), scale);
        let by_head = |y: Tensor<B, 2>, norm: &Option<Tensor<B, 1>>, heads: usize| {
            let y = match norm {
                Some(norm) => {
                    B::rms_norm(y.reshape([count * heads, dim]), norm.clone(), config.norm_eps)
                }
                None => y,
            };
            y.reshape([count, heads, dim])
        };
        let q = by_head(q, &layer.q_norm, config.heads);
        let k = by_head(k, &layer.k_norm, config.kv_heads);
        let v = v.reshape([count, config.kv_heads, dim]);
        let q = B::rope(q, cos.clone(), sin.clone());
        let k = B::rope(k, cos.clone(), sin.clone());
        let mut begin = 0;
        let mut outputs = Vec::with_capacity(step.spans.len());
        for span in &step.spans {
            let range = begin..begin + span.len;
            begin += span.len;
            let rows = |y: &Tensor<B, 3>, heads| y.clone().slice([range.clone(), 0..heads, 0..dim]);
            let (k, v) = (rows(&k, config.kv_heads), rows(&v, config.kv_heads));
            let (k, v) = append(kv, span.slot, index, k, v);
            outputs.push(attend(rows(&q, config.heads), k, v));
        }
        let mixed = Tensor::cat(outputs, 0).reshape([count, config.q_width()]);
        x = x + adapted(mixed, &layer.o, pair(Target::O), scale);
        let normed = B::rms_norm(x.clone(), layer.mlp_norm.clone(), config.norm_eps);
        let gate = adapted(normed.clone(), &layer.gate, pair(Target::Gate), scale);
        let up = adapted(normed, &layer.up, pair(Target::Up), scale);
        let inner = B::silu_mul(gate, up);
        x = x + adapted(inner, &layer.down, pair(Target::Down), scale);
    }
    for span in &step.spans {
        kv.slot_mut(span.slot).expect("checked before").len += span.len;
    }
    let rows = step.logit_indices();
    if rows.is_empty() {
        return Tensor::zeros([0, config.vocab_size], &device);
    }
    let wanted = rows.iter().map(|&row| row as i64).collect::<Vec<_>>();
    let wanted = Tensor::<B, 1, Int>::from_data(TensorData::new(wanted, [rows.len()]), &device);
    let x = B::rms_norm(x.select(0, wanted), decoder.norm.clone(), config.norm_eps);
    match &decoder.head {
        Some(head) => B::project(x, head.clone()),
        None => B::project(x, decoder.embed.clone().transpose()),
    }
}

/// Appends rows to one layer of a slot and gives all of its keys and values,
/// `[len, kv_heads, dim]`.
fn append<B: LlmOps>(
    kv: &mut KvStore<B>,
    slot: SlotId,
    layer: usize,
    k: Tensor<B, 3>,
    v: Tensor<B, 3>,
) -> (Tensor<B, 3>, Tensor<B, 3>) {
    let slot = kv.slot_mut(slot).expect("checked before");
    let (before, [new, heads, dim]) = (slot.len, k.dims());
    let len = before + new;
    let LayerKv::Device { keys, values } = &mut slot.layers[layer] else {
        unreachable!("backends with host slices have a forward pass of their own")
    };
    let grow = |store: &mut Option<Tensor<B, 3>>, rows: Tensor<B, 3>| {
        // Taken out, so that the write finds the only handle and happens in place.
        let old = store.take();
        let room = old.as_ref().map_or(0, |old| old.dims()[0]);
        let buffer = match old {
            Some(old) if room >= len => old,
            old => {
                let capacity = (len + len / 4).next_multiple_of(GROWTH_TOKENS);
                let fresh = Tensor::zeros([capacity, heads, dim], &rows.device());
                match old {
                    Some(old) if before > 0 => {
                        let kept = old.slice([0..before, 0..heads, 0..dim]);
                        fresh.slice_assign([0..before, 0..heads, 0..dim], kept)
                    }
                    _ => fresh,
                }
            }
        };
        let buffer = buffer.slice_assign([before..len, 0..heads, 0..dim], rows);
        let view = buffer.clone().slice([0..len, 0..heads, 0..dim]);
        *store = Some(buffer);
        view
    };
    (grow(keys, k), grow(values, v))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Architecture, ModelConfig, RopeScaling};
    use crate::infer::Logits;
    use crate::lora::LoraConfig;
    use crate::weights::to_host;
    use crate::{Cpu, Decoder, StepBatch};

    /// The kernels of the CPU backend against the plain operations on the same weights.
    #[test]
    fn host_kernels_compute_what_the_plain_operations_do() {
        // The last is large enough to be split among threads.
        for (seed, hidden, heads, kv_heads, head_dim) in
            [(1, 44, 6, 2, 16), (2, 44, 3, 3, 10), (3, 44, 8, 1, 32), (4, 448, 6, 2, 64)]
        {
            println!("seed {seed}");
            let config = ModelConfig {
                architecture: Architecture::Qwen3,
                vocab_size: 75,
                hidden_size: hidden,
                intermediate_size: 2 * hidden - 18,
                layers: 2,
                heads,
                kv_heads,
                head_dim,
                max_positions: 600,
                norm_eps: 1e-6,
                rope_theta: 1e4,
                rope_scaling: RopeScaling::None,
                tied: seed == 2,
                qkv_bias: true,
                o_bias: true,
                mlp_bias: false,
                bos: None,
                eos: Vec::new(),
            };
            let device = Default::default();
            let decoder = Decoder::<Cpu>::random(&config, seed, &device).map(&mut Louder);
            let lora = Lora::<Cpu>::init(&LoraConfig::default(), &config, seed, &device)
                .map(|_, factor| factor + 0.01);
            let mut host = KvStore::with_layout(&config, 3, 600, true);
            let mut plain = KvStore::with_layout(&config, 3, 600, false);
            let slots: Vec<_> = (0..3).map(|_| (host.take(), plain.take())).collect();
            // Long enough that the first sequence outgrows a device slot's first room.
            for (round, lens) in
                [[270, 3, 17], [1, 1, 1], [1, 40, 2], [33, 1, 1]].iter().enumerate()
            {
                let mut steps = (StepBatch::default(), StepBatch::default());
                for (i, &len) in lens.iter().enumerate() {
                    let tokens: Vec<u32> = (0..len).map(|t| (t * 7 + i as u32) % 75).collect();
                    let logits = if i == 1 { Logits::Last } else { Logits::All };
                    steps.0.push(slots[i].0.expect("free"), &tokens, logits);
                    steps.1.push(slots[i].1.expect("free"), &tokens, logits);
                }
                let lora = (round > 0).then_some(&lora);
                let got =
                    to_host(&decoder.forward_cached(lora, &steps.0, &mut host).expect("fits"));
                let want = to_host(&forward_cached(&decoder, lora, &steps.1, &mut plain));
                assert_eq!(got.len(), want.len());
                for (got, want) in got.iter().zip(&want) {
                    assert!((got - want).abs() < 2e-4, "round {round}: {got} for {want}");
                }
            }
        }
    }

    /// Fresh weights give logits too flat to tell two programs apart.
    struct Louder;

    impl crate::WeightMap<Cpu, Cpu> for Louder {
        fn matrix(&mut self, _: &str, weight: Tensor<Cpu, 2>) -> Tensor<Cpu, 2> {
            weight * 8.0
        }

        fn vector(&mut self, name: &str, weight: Tensor<Cpu, 1>) -> Tensor<Cpu, 1> {
            if name.ends_with("bias") { weight + 0.3 } else { weight * 1.2 }
        }
    }
}
