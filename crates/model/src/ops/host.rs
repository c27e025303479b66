//! The cached forward pass on raw slices: what the CPU backend runs instead of tensor operations,
//! whose cost for each call would exceed the arithmetic of a small policy.

use burn::tensor::{Tensor, TensorData};
use burn_flex::FlexTensor;
use rayon::prelude::*;

use super::kernel::{self, LANES, Panels, ROWS, Values};
use super::packed::{
    Into, PackedDecoder, PackedLayer, PackedLora, PackedMatrix, PackedPair, Part, Rows, block,
};
use crate::Cpu;
use crate::config::ModelConfig;
use crate::decoder::{Decoder, Linear};
use crate::infer::StepBatch;
use crate::kv::{HeadKv, KvStore, LayerKv};
use crate::lora::{Lora, Target};

/// Elements from which elementwise work is split among threads.
const PARALLEL_ELEMENTS_MIN: usize = 200_000;
/// Score elements from which attention is split among threads.
const PARALLEL_SCORES_MIN: usize = 30_000;
/// Tokens of one attention task.
const TASK_TOKENS: usize = 12;

/// The slice behind a tensor, made contiguous first if need be.
fn host<const D: usize>(tensor: &Tensor<Cpu, D>) -> FlexTensor {
    let tensor = tensor.clone().into_primitive().tensor();
    let whole = tensor.layout().num_elements() == tensor.storage::<f32>().len();
    if tensor.is_contiguous() && whole { tensor } else { tensor.to_contiguous() }
}

fn vector(tensor: &Tensor<Cpu, 1>) -> Vec<f32> {
    host(tensor).storage::<f32>().to_vec()
}

/// Packs the weights of a decoder.
pub(super) fn pack(decoder: &Decoder<Cpu>) -> PackedDecoder {
    let layer = |layer: &crate::decoder::Layer<Cpu>| PackedLayer {
        attn_norm: vector(&layer.attn_norm),
        qkv: pack_linears(&[&layer.q, &layer.k, &layer.v]),
        q_norm: layer.q_norm.as_ref().map(vector),
        k_norm: layer.k_norm.as_ref().map(vector),
        o: pack_linears(&[&layer.o]),
        mlp_norm: vector(&layer.mlp_norm),
        gate_up: pack_linears(&[&layer.gate, &layer.up]),
        down: pack_linears(&[&layer.down]),
    };
    let hidden = decoder.config.hidden_size;
    let vocab = decoder.config.vocab_size;
    let (weight, row_stride, column_stride) = match &decoder.head {
        Some(head) => (host(head), vocab, 1),
        None => (host(&decoder.embed), 1, hidden),
    };
    let values = weight.storage::<f32>();
    let part = Part { values, row_stride, column_stride, width: vocab, bias: None };
    PackedDecoder {
        layers: decoder.layers.iter().map(layer).collect(),
        norm: vector(&decoder.norm),
        head: PackedMatrix::new(hidden, &[part]),
    }
}

fn pack_linears(linears: &[&Linear<Cpu>]) -> PackedMatrix {
    let depth = linears[0].weight.dims()[0];
    let held: Vec<_> = linears
        .iter()
        .map(|linear| (host(&linear.weight), linear.bias.as_ref().map(vector)))
        .collect();
    let parts: Vec<_> = held
        .iter()
        .zip(linears)
        .map(|((weight, bias), linear)| {
            let width = linear.weight.dims()[1];
            let values = weight.storage::<f32>();
            Part { values, row_stride: width, column_stride: 1, width, bias: bias.as_deref() }
        })
        .collect();
    PackedMatrix::new(depth, &parts)
}

/// Packs an adapter.
pub(super) fn pack_lora(lora: &Lora<Cpu>) -> PackedLora {
    let matrix = |tensor: &Tensor<Cpu, 2>| {
        let [depth, width] = tensor.dims();
        let held = host(tensor);
        let values = held.storage::<f32>();
        let part = Part { values, row_stride: width, column_stride: 1, width, bias: None };
        PackedMatrix::new(depth, &[part])
    };
    let layers = lora.layers.iter().map(|layer| {
        Target::ALL.map(|target| {
            layer.pair(target).map(|pair| PackedPair { a: matrix(&pair.a), b: matrix(&pair.b) })
        })
    });
    PackedLora { layers: layers.collect() }
}

/// An adapter in use: its pairs and their factor.
struct Adapter<'a> {
    pairs: &'a [Option<PackedPair>; 7],
    scale: f32,
}

/// `out[.., column..] += scale * (a A) B` for each target given with its column.
fn adapt(
    adapter: Option<&Adapter<'_>>,
    targets: &[(Target, usize)],
    a: &[f32],
    rows: Rows,
    out: &mut [f32],
    out_stride: usize,
) {
    let Some(adapter) = adapter else { return };
    for &(target, column) in targets {
        let Some(pair) = &adapter.pairs[target as usize] else { continue };
        let rank = pair.a.width();
        let mut low = vec![0.0; rows.count * rank];
        pair.a.apply(a, rows, &mut low, rank, Into::Set);
        let low_rows = Rows { count: rows.count, begin: 0, stride: rank };
        pair.b.apply(&low, low_rows, &mut out[column..], out_stride, Into::Add(adapter.scale));
    }
}

/// See [`Decoder::forward_cached`].
pub(super) fn forward_cached(
    decoder: &Decoder<Cpu>,
    lora: Option<&Lora<Cpu>>,
    step: &StepBatch,
    kv: &mut KvStore<Cpu>,
) -> Tensor<Cpu, 2> {
    let config = &decoder.config;
    let packed = decoder.packed(|| pack(decoder));
    let adapter = lora.map(|lora| (lora.packed(|| pack_lora(lora)), lora.config.scale()));
    let positions = step.positions(kv);
    let (cos, sin) = decoder.rope.at(&positions);
    let embed = host(&decoder.embed);
    let mut pass = Pass::new(config, step, &positions, embed.storage::<f32>());
    for (index, layer) in packed.layers.iter().enumerate() {
        let adapter = adapter
            .as_ref()
            .map(|(packed, scale)| Adapter { pairs: &packed.layers[index], scale: *scale });
        pass.attention(layer, adapter.as_ref(), (&cos, &sin), index, kv);
        pass.feed_forward(layer, adapter.as_ref());
    }
    for span in &step.spans {
        kv.slot_mut(span.slot).expect("checked before").len += span.len;
    }
    pass.logits(&packed)
}

/// The buffers of one pass.
struct Pass<'a> {
    config: &'a ModelConfig,
    step: &'a StepBatch,
    positions: &'a [usize],
    /// `[tokens, hidden]`, the residual stream
    x: Vec<f32>,
    /// `[tokens, hidden]`
    normed: Vec<f32>,
    /// `[tokens, q_width + 2 * kv_width]`
    qkv: Vec<f32>,
    /// `[tokens, q_width]`
    mixed: Vec<f32>,
    /// `[tokens, 2 * intermediate]`
    inner: Vec<f32>,
}

impl<'a> Pass<'a> {
    fn new(
        config: &'a ModelConfig,
        step: &'a StepBatch,
        positions: &'a [usize],
        embed: &[f32],
    ) -> Self {
        let (count, hidden) = (step.tokens.len(), config.hidden_size);
        let mut x = Vec::with_capacity(count * hidden);
        for &id in &step.tokens {
            x.extend_from_slice(&embed[id as usize * hidden..][..hidden]);
        }
        Self {
            config,
            step,
            positions,
            x,
            normed: vec![0.0; count * hidden],
            qkv: vec![0.0; count * (config.q_width() + 2 * config.kv_width())],
            mixed: vec![0.0; count * config.q_width()],
            inner: vec![0.0; count * 2 * config.intermediate_size],
        }
    }

    fn count(&self) -> usize {
        self.step.tokens.len()
    }

    fn norm(&mut self, weight: &[f32]) {
        let hidden = self.config.hidden_size;
        let eps = self.config.norm_eps as f32;
        for (x, out) in self.x.chunks_exact(hidden).zip(self.normed.chunks_exact_mut(hidden)) {
            kernel::rms_norm(x, weight, eps, out);
        }
    }

    fn attention(
        &mut self,
        layer: &PackedLayer,
        adapter: Option<&Adapter<'_>>,
        (cos, sin): (&[f32], &[f32]),
        index: usize,
        kv: &mut KvStore<Cpu>,
    ) {
        self.norm(&layer.attn_norm);
        let (hidden, dim) = (self.config.hidden_size, self.config.head_dim);
        let (q_width, kv_width) = (self.config.q_width(), self.config.kv_width());
        let stride = q_width + 2 * kv_width;
        let rows = Rows { count: self.count(), begin: 0, stride: hidden };
        layer.qkv.apply(&self.normed, rows, &mut self.qkv, stride, Into::Set);
        let targets = [(Target::Q, 0), (Target::K, q_width), (Target::V, q_width + kv_width)];
        adapt(adapter, &targets, &self.normed, rows, &mut self.qkv, stride);
        let half = dim / 2;
        let eps = self.config.norm_eps as f32;
        let mut copy = vec![0.0; dim];
        for (token, row) in self.qkv.chunks_exact_mut(stride).enumerate() {
            let (cos, sin) = (&cos[token * half..][..half], &sin[token * half..][..half]);
            for (head, values) in row[..q_width + kv_width].chunks_exact_mut(dim).enumerate() {
                let norm = if head < self.config.heads { &layer.q_norm } else { &layer.k_norm };
                if let Some(norm) = norm {
                    copy.copy_from_slice(values);
                    kernel::rms_norm(&copy, norm, eps, values);
                }
                kernel::rope(values, cos, sin);
            }
        }
        let mut begin = 0;
        for span in &self.step.spans {
            let rows = &self.qkv[begin * stride..(begin + span.len) * stride];
            let slot = kv.slot_mut(span.slot).expect("checked before");
            slot.layers[index].append(
                slot.len,
                dim,
                rows.chunks_exact(stride).map(|row| row[q_width..].split_at(kv_width)),
            );
            begin += span.len;
        }
        self.mix(index, kv);
        let rows = Rows { count: self.count(), begin: 0, stride: q_width };
        layer.o.apply(&self.mixed, rows, &mut self.x, hidden, Into::Add(1.0));
        adapt(adapter, &[(Target::O, 0)], &self.mixed, rows, &mut self.x, hidden);
    }

    /// Fills `mixed` from `qkv` and the store.
    fn mix(&mut self, index: usize, kv: &KvStore<Cpu>) {
        let q_width = self.config.q_width();
        let mut tasks = Vec::new();
        let mut scores = 0;
        let mut rest = self.mixed.as_mut_slice();
        let mut begin = 0;
        for span in &self.step.spans {
            let slot = kv.slot(span.slot).expect("checked before");
            let mut left = span.len;
            while left > 0 {
                let tokens = left.min(TASK_TOKENS);
                let (out, after) = rest.split_at_mut(tokens * q_width);
                rest = after;
                let task = Task {
                    config: self.config,
                    layer: &slot.layers[index],
                    qkv: &self.qkv,
                    begin,
                    positions: &self.positions[begin..begin + tokens],
                    out,
                };
                scores += tokens * self.positions[begin + tokens - 1] * self.config.heads;
                tasks.push(task);
                begin += tokens;
                left -= tokens;
            }
        }
        if scores < PARALLEL_SCORES_MIN || rayon::current_num_threads() == 1 {
            let mut buffer = Vec::new();
            for task in tasks {
                task.run(&mut buffer);
            }
        } else {
            tasks.into_par_iter().for_each_init(Vec::new, |buffer, task| task.run(buffer));
        }
    }

    fn feed_forward(&mut self, layer: &PackedLayer, adapter: Option<&Adapter<'_>>) {
        self.norm(&layer.mlp_norm);
        let (hidden, width) = (self.config.hidden_size, self.config.intermediate_size);
        let rows = Rows { count: self.count(), begin: 0, stride: hidden };
        layer.gate_up.apply(&self.normed, rows, &mut self.inner, 2 * width, Into::Set);
        let targets = [(Target::Gate, 0), (Target::Up, width)];
        adapt(adapter, &targets, &self.normed, rows, &mut self.inner, 2 * width);
        let activate = |row: &mut [f32]| {
            let (gate, up) = row.split_at_mut(width);
            kernel::silu_mul(gate, up);
        };
        if self.count() * width < PARALLEL_ELEMENTS_MIN {
            self.inner.chunks_exact_mut(2 * width).for_each(activate);
        } else {
            self.inner.par_chunks_exact_mut(2 * width).with_min_len(16).for_each(activate);
        }
        let rows = Rows { count: self.count(), begin: 0, stride: 2 * width };
        layer.down.apply(&self.inner, rows, &mut self.x, hidden, Into::Add(1.0));
        adapt(adapter, &[(Target::Down, 0)], &self.inner, rows, &mut self.x, hidden);
    }

    fn logits(self, packed: &PackedDecoder) -> Tensor<Cpu, 2> {
        let (hidden, vocab) = (self.config.hidden_size, self.config.vocab_size);
        let wanted = self.step.logit_indices();
        let mut last = vec![0.0; wanted.len() * hidden];
        for (&row, out) in wanted.iter().zip(last.chunks_exact_mut(hidden)) {
            let x = &self.x[row * hidden..][..hidden];
            kernel::rms_norm(x, &packed.norm, self.config.norm_eps as f32, out);
        }
        let mut logits = vec![0.0; wanted.len() * vocab];
        let rows = Rows { count: wanted.len(), begin: 0, stride: hidden };
        packed.head.apply(&last, rows, &mut logits, vocab, Into::Set);
        Tensor::from_data(TensorData::new(logits, [wanted.len(), vocab]), &Default::default())
    }
}

/// Attention of a few consecutive tokens of one sequence.
struct Task<'a> {
    config: &'a ModelConfig,
    layer: &'a LayerKv<Cpu>,
    qkv: &'a [f32],
    /// Index of the first token in the batch.
    begin: usize,
    positions: &'a [usize],
    /// `[tokens, q_width]`
    out: &'a mut [f32],
}

impl Task<'_> {
    fn run(self, scores: &mut Vec<f32>) {
        let LayerKv::Host(heads) = self.layer else {
            unreachable!("the CPU backend keeps host rows")
        };
        let dim = self.config.head_dim;
        let (q_width, kv_width) = (self.config.q_width(), self.config.kv_width());
        let stride = q_width + 2 * kv_width;
        let group = self.config.heads / self.config.kv_heads;
        let scale = 1.0 / (dim as f32).sqrt();
        let rows = self.positions.len() * group;
        for (kv_head, HeadKv { keys, values }) in heads.iter().enumerate() {
            let mut row = 0;
            while row < rows {
                let count = block(rows - row);
                // Row r is the token r / group under the head r % group of those sharing keys.
                let place = |i: usize| ((row + i) / group, kv_head * group + (row + i) % group);
                let visible = self.positions[place(count - 1).0] + 1;
                let padded = visible.next_multiple_of(LANES);
                scores.resize(scores.len().max(ROWS * padded), 0.0);
                let mut begins = [0; ROWS];
                for (i, begin) in begins[..count].iter_mut().enumerate() {
                    let (token, head) = place(i);
                    *begin = (self.begin + token) * stride + head * dim;
                }
                let panels = Panels {
                    values: Values::F32(keys),
                    stride: LANES,
                    step: dim * LANES,
                    width: padded,
                };
                let emit = |i: usize, column: usize, sums: &[f32]| {
                    scores[i * padded + column..][..sums.len()].copy_from_slice(sums);
                };
                kernel::product(self.qkv, &begins[..count], panels, dim, emit);
                for (i, begin) in begins[..count].iter_mut().enumerate() {
                    let own = self.positions[place(i).0] + 1;
                    let line = &mut scores[i * padded..][..visible];
                    kernel::softmax(&mut line[..own], scale);
                    line[own..].fill(0.0);
                    *begin = i * padded;
                }
                let panels =
                    Panels { values: Values::F32(values), stride: dim, step: LANES, width: dim };
                let emit = |i: usize, column: usize, sums: &[f32]| {
                    let (token, head) = place(i);
                    self.out[token * q_width + head * dim + column..][..sums.len()]
                        .copy_from_slice(sums);
                };
                kernel::product(scores, &begins[..count], panels, visible, emit);
                row += count;
            }
        }
    }
}
