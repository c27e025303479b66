//! The differentiable forward pass over packed sequences, and the head beside the graph.
//!
//! Sequences lie one after the other without padding: `[tokens]` ids and `cu_seqlens`. The graph
//! ends at the last hidden states; logits are made, read and differentiated in chunks of rows
//! outside of it ([`head`], [`head_gradient`]), so that `[tokens, vocab]` never exists as a whole.
//! The gradient re-enters the graph through [`surrogate`].

use burn::backend::Autodiff;
use burn::tensor::backend::{AutodiffBackend, Backend};
use burn::tensor::{DType, IndexingUpdateOp, Int, Tensor, TensorData, activation};

use crate::decoder::Decoder;
use crate::lora::{Lora, Target};
use crate::ops::LlmOps;
use crate::ops::train::softmax;
use crate::weights::to_host;

/// Rows of logits that exist at once, in elements (64 MiB of f32).
const LOGITS_MAX: usize = 16 * 1024 * 1024;

/// Sequences one after the other, unpadded.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Packed {
    /// All tokens, `[tokens]`.
    pub tokens: Vec<u32>,
    /// Where each sequence begins, and where the last ends: `[sequences + 1]`, from 0.
    pub cu_seqlens: Vec<usize>,
}

impl Packed {
    /// Packs sequences in the order given.
    pub fn new<'a>(sequences: impl IntoIterator<Item = &'a [u32]>) -> Self {
        let mut packed = Self { tokens: Vec::new(), cu_seqlens: vec![0] };
        for sequence in sequences {
            packed.tokens.extend_from_slice(sequence);
            packed.cu_seqlens.push(packed.tokens.len());
        }
        packed
    }

    /// Position of every token in its own sequence, `[tokens]`.
    #[must_use]
    pub fn positions(&self) -> Vec<usize> {
        self.cu_seqlens.windows(2).flat_map(|ends| 0..ends[1] - ends[0]).collect()
    }
}

/// What rows of logits say of the tokens taken.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct HeadOut {
    /// Log-probability of each taken token, nats. `[rows]`
    pub logprobs: Vec<f32>,
    /// Entropy of each distribution, nats. `[rows]`
    pub entropy: Vec<f32>,
    /// Whether the taken token is the most likely one. `[rows]`
    pub greedy: Vec<bool>,
}

impl HeadOut {
    /// The rows that are kept, in order. `keep` `[rows]`
    #[must_use]
    pub fn only(self, keep: impl IntoIterator<Item = bool>) -> Self {
        let mut kept = Self::default();
        for (row, keep) in keep.into_iter().enumerate() {
            if keep {
                kept.logprobs.push(self.logprobs[row]);
                kept.entropy.push(self.entropy[row]);
                kept.greedy.push(self.greedy[row]);
            }
        }
        kept
    }

    fn extend(&mut self, other: Self) {
        self.logprobs.extend(other.logprobs);
        self.entropy.extend(other.entropy);
        self.greedy.extend(other.greedy);
    }
}

/// Backends the learner can train on.
pub trait TrainBackend: LlmOps {
    /// The backend that records the graph.
    type Graph: LlmOps + AutodiffBackend<InnerBackend = Self>;

    /// Reads rows of logits `[rows, vocab]` at `temperature`; with `dlp` (d loss / d
    /// log-probability, `[rows]`) also d loss / d logits.
    fn read_logits(
        logits: Tensor<Self, 2>,
        targets: &[u32],
        temperature: f32,
        dlp: Option<&[f32]>,
    ) -> (HeadOut, Option<Tensor<Self, 2>>) {
        read_logits_plain(logits, targets, temperature, dlp)
    }
}

impl TrainBackend for crate::Cpu {
    type Graph = Autodiff<Self>;

    fn read_logits(
        logits: Tensor<Self, 2>,
        targets: &[u32],
        temperature: f32,
        dlp: Option<&[f32]>,
    ) -> (HeadOut, Option<Tensor<Self, 2>>) {
        let [rows, vocab] = logits.dims();
        let device = logits.device();
        let mut values = logits.into_data().into_vec::<f32>().expect("the CPU backend holds f32");
        let read = softmax::rows(&mut values, vocab, targets, temperature, dlp);
        let gradient =
            dlp.map(|_| Tensor::from_data(TensorData::new(values, [rows, vocab]), &device));
        let out = HeadOut {
            logprobs: read.iter().map(|row| row.logprob).collect(),
            entropy: read.iter().map(|row| row.entropy).collect(),
            greedy: read.iter().map(|row| row.greedy).collect(),
        };
        (out, gradient)
    }
}

#[cfg(feature = "cuda")]
impl TrainBackend for crate::Cuda {
    type Graph = Autodiff<Self>;
}

/// [`TrainBackend::read_logits`] in tensor operations.
fn read_logits_plain<B: Backend>(
    logits: Tensor<B, 2>,
    targets: &[u32],
    temperature: f32,
    dlp: Option<&[f32]>,
) -> (HeadOut, Option<Tensor<B, 2>>) {
    let [rows, _] = logits.dims();
    let device = logits.device();
    let dtype = logits.dtype();
    let wide = logits.cast(DType::F32).div_scalar(temperature);
    let log_p = activation::log_softmax(wide, 1);
    let p = log_p.clone().exp();
    let ids: Vec<i64> = targets.iter().map(|&id| i64::from(id)).collect();
    let ids = Tensor::<B, 2, Int>::from_data(TensorData::new(ids, [rows, 1]), &device);
    let taken = to_host(&log_p.clone().gather(1, ids.clone()));
    let top = to_host(&log_p.clone().max_dim(1));
    let out = HeadOut {
        greedy: taken.iter().zip(&top).map(|(taken, top)| taken >= top).collect(),
        logprobs: taken,
        entropy: to_host(&(p.clone() * log_p).sum_dim(1).neg()),
    };
    let gradient = dlp.map(|dlp| {
        let dlp: Vec<f32> = dlp.iter().map(|d| d / temperature).collect();
        let dlp =
            Tensor::<B, 2>::from_data(TensorData::new(dlp, [rows, 1]), &device).cast(DType::F32);
        let spread = p * dlp.clone().neg();
        spread.scatter(1, ids, dlp, IndexingUpdateOp::Add).cast(dtype)
    });
    (out, gradient)
}

/// What every layer of one pass needs besides its input.
struct Turn<'a, B: Backend> {
    decoder: &'a Decoder<B>,
    lora: Option<&'a Lora<B>>,
    cu_seqlens: &'a [usize],
    /// `[tokens, head_dim / 2]`
    cos: Tensor<B, 2>,
    /// `[tokens, head_dim / 2]`
    sin: Tensor<B, 2>,
}

impl<'a, B: LlmOps> Turn<'a, B> {
    fn new(decoder: &'a Decoder<B>, lora: Option<&'a Lora<B>>, packed: &'a Packed) -> Self {
        let device = decoder.device();
        let shape = [packed.tokens.len(), decoder.config.head_dim / 2];
        let (cos, sin) = decoder.rope.at(&packed.positions());
        let table = |values| Tensor::<B, 2>::from_data(TensorData::new(values, shape), &device);
        let (cos, sin) = (table(cos), table(sin));
        Self { decoder, lora, cu_seqlens: &packed.cu_seqlens, cos, sin }
    }

    /// Rows of the embedding, `[tokens, hidden]`.
    fn embed(&self, tokens: &[u32]) -> Tensor<B, 2> {
        let ids: Vec<i64> = tokens.iter().map(|&id| i64::from(id)).collect();
        let ids = TensorData::new(ids, [tokens.len()]);
        let ids = Tensor::<B, 1, Int>::from_data(ids, &self.decoder.device());
        self.decoder.embed.clone().select(0, ids)
    }

    /// One layer, `[tokens, hidden]` to `[tokens, hidden]`.
    fn layer(&self, index: usize, x: Tensor<B, 2>) -> Tensor<B, 2> {
        let config = &self.decoder.config;
        let layer = &self.decoder.layers[index];
        let (count, dim) = (x.dims()[0], config.head_dim);
        let scale = self.lora.map_or(0.0, |lora| lora.config.scale());
        let pair = |target| self.lora.and_then(|lora| lora.layers[index].pair(target));
        let by_head = |y: Tensor<B, 2>, norm: &Option<Tensor<B, 1>>, heads: usize| {
            let y = match norm {
                Some(norm) => {
                    B::rms_norm(y.reshape([count * heads, dim]), norm.clone(), config.norm_eps)
                }
                None => y,
            };
            B::rope(y.reshape([count, heads, dim]), self.cos.clone(), self.sin.clone())
        };
        let normed = B::rms_norm(x.clone(), layer.attn_norm.clone(), config.norm_eps);
        let q = B::adapted(normed.clone(), &layer.q, pair(Target::Q), scale);
        let k = B::adapted(normed.clone(), &layer.k, pair(Target::K), scale);
        let v = B::adapted(normed, &layer.v, pair(Target::V), scale);
        let q = by_head(q, &layer.q_norm, config.heads);
        let k = by_head(k, &layer.k_norm, config.kv_heads);
        let v = v.reshape([count, config.kv_heads, dim]);
        let mixed = B::packed_attention(q, k, v, self.cu_seqlens);
        let mixed = mixed.reshape([count, config.q_width()]);
        let x = x + B::adapted(mixed, &layer.o, pair(Target::O), scale);
        let normed = B::rms_norm(x.clone(), layer.mlp_norm.clone(), config.norm_eps);
        let gate = B::adapted(normed.clone(), &layer.gate, pair(Target::Gate), scale);
        let up = B::adapted(normed, &layer.up, pair(Target::Up), scale);
        x + B::adapted(B::silu_mul(gate, up), &layer.down, pair(Target::Down), scale)
    }

    fn last_norm(&self, x: Tensor<B, 2>) -> Tensor<B, 2> {
        B::rms_norm(x, self.decoder.norm.clone(), self.decoder.config.norm_eps)
    }
}

/// Hidden states after the last norm, `[tokens, hidden]`, with the graph behind them.
///
/// # Panics
/// On a token outside the vocabulary or an empty batch.
pub fn hidden<B: LlmOps>(
    decoder: &Decoder<B>,
    lora: Option<&Lora<B>>,
    packed: &Packed,
) -> Tensor<B, 2> {
    let turn = Turn::new(decoder, lora, packed);
    let mut x = turn.embed(&packed.tokens);
    for index in 0..decoder.layers.len() {
        x = turn.layer(index, x);
    }
    turn.last_norm(x)
}

/// A forward pass that kept each layer's input only; the backward pass computes each layer again
/// (Chen et al. 2016, arXiv:1604.06174). About a third more work, and memory for one layer.
#[derive(Debug)]
pub struct Checkpointed<B: TrainBackend> {
    packed: Packed,
    /// What went into each layer, and what came out of the last: `[tokens, hidden]` each.
    inputs: Vec<Tensor<B, 2>>,
    hidden: Tensor<B, 2>,
}

impl<B: TrainBackend> Checkpointed<B> {
    /// The forward pass.
    #[must_use]
    pub fn forward(
        decoder: &Decoder<B::Graph>,
        lora: Option<&Lora<B::Graph>>,
        packed: &Packed,
    ) -> Self {
        let turn = Turn::new(decoder, lora, packed);
        // Cut from its past, so that the graph of a layer goes away with the layer.
        let cut = |x: Tensor<B::Graph, 2>| Tensor::from_inner(x.inner());
        let mut x = cut(turn.embed(&packed.tokens));
        let mut inputs = vec![x.clone().inner()];
        for index in 0..decoder.layers.len() {
            x = cut(turn.layer(index, x));
            inputs.push(x.clone().inner());
        }
        let hidden = turn.last_norm(x).inner();
        Self { packed: packed.clone(), inputs, hidden }
    }

    /// Hidden states after the last norm, `[tokens, hidden]`.
    #[must_use]
    pub fn hidden(&self) -> Tensor<B, 2> {
        self.hidden.clone()
    }

    /// The backward pass from the gradient of some rows of the hidden states, `[rows, hidden]`.
    /// `collect` is called once a layer with the gradients of what that layer trains; each
    /// parameter turns up once.
    pub fn backward(
        mut self,
        decoder: &Decoder<B::Graph>,
        lora: Option<&Lora<B::Graph>>,
        rows: &[usize],
        gradient: Tensor<B, 2>,
        collect: &mut dyn FnMut(<B::Graph as AutodiffBackend>::Gradients),
    ) {
        let packed = std::mem::take(&mut self.packed);
        let turn = Turn::new(decoder, lora, &packed);
        let leaf = |x: Tensor<B, 2>| Tensor::<B::Graph, 2>::from_inner(x).require_grad();
        let x = leaf(self.inputs.pop().expect("one more than layers"));
        let mut grads = surrogate::<B>(turn.last_norm(x.clone()), rows, gradient).backward();
        let mut dx = x.grad_remove(&mut grads).expect("the norm depends on its input");
        collect(grads);
        for index in (0..decoder.layers.len()).rev() {
            let x = leaf(self.inputs.pop().expect("one a layer"));
            let y = turn.layer(index, x.clone());
            let mut grads = (y * Tensor::from_inner(dx)).sum().backward();
            dx = x.grad_remove(&mut grads).expect("a layer depends on its input");
            collect(grads);
        }
        if decoder.embed.is_require_grad() {
            let x = turn.embed(&packed.tokens);
            collect((x * Tensor::from_inner(dx)).sum().backward());
        }
    }
}

/// Reads the taken tokens off hidden states, chunk by chunk.
///
/// # Shapes
/// `hidden` `[rows, hidden]` without a graph, `targets` `[rows]`.
pub fn head<B: TrainBackend>(
    decoder: &Decoder<B>,
    hidden: &Tensor<B, 2>,
    targets: &[u32],
    temperature: f32,
) -> HeadOut {
    let mut out = HeadOut::default();
    for range in chunks(targets.len(), decoder.config.vocab_size) {
        let rows = hidden.clone().slice([range.clone(), 0..decoder.config.hidden_size]);
        let logits = logits(decoder, rows);
        out.extend(B::read_logits(logits, &targets[range], temperature, None).0);
    }
    out
}

/// What [`head_gradient`] gives.
#[derive(Debug)]
pub struct HeadGradient<B: Backend> {
    /// As of [`head`].
    pub out: HeadOut,
    /// d loss / d hidden, `[rows, hidden]`.
    pub hidden: Tensor<B, 2>,
    /// d loss / d head in the embedding's layout, `[vocab, hidden]`, where it was wanted.
    pub head: Option<Tensor<B, 2>>,
}

/// As [`head`], with d loss / d log-probability given: the gradient of the hidden states and,
/// where wanted, of the head's weights.
///
/// # Panics
/// On no rows.
pub fn head_gradient<B: TrainBackend>(
    decoder: &Decoder<B>,
    hidden: &Tensor<B, 2>,
    targets: &[u32],
    temperature: f32,
    dlp: &[f32],
    want_head: bool,
) -> HeadGradient<B> {
    let width = decoder.config.hidden_size;
    let mut out = HeadOut::default();
    let mut parts = Vec::new();
    let mut head: Option<Tensor<B, 2>> = None;
    for range in chunks(targets.len(), decoder.config.vocab_size) {
        let rows = hidden.clone().slice([range.clone(), 0..width]);
        let logits = logits(decoder, rows.clone());
        let (read, dlogits) =
            B::read_logits(logits, &targets[range.clone()], temperature, Some(&dlp[range]));
        let dlogits = dlogits.expect("asked for");
        out.extend(read);
        parts.push(match &decoder.head {
            Some(head) => dlogits.clone().matmul(head.clone().transpose()),
            None => dlogits.clone().matmul(decoder.embed.clone()),
        });
        if want_head {
            let part = dlogits.transpose().matmul(rows);
            head = Some(match head {
                Some(sum) => sum + part,
                None => part,
            });
        }
    }
    HeadGradient { out, hidden: Tensor::cat(parts, 0), head }
}

fn logits<B: LlmOps>(decoder: &Decoder<B>, rows: Tensor<B, 2>) -> Tensor<B, 2> {
    match &decoder.head {
        Some(head) => rows.matmul(head.clone()),
        None => rows.matmul(decoder.embed.clone().transpose()),
    }
}

fn chunks(rows: usize, vocab: usize) -> impl Iterator<Item = std::ops::Range<usize>> {
    let step = (LOGITS_MAX / vocab).max(1);
    (0..rows).step_by(step).map(move |from| from..(from + step).min(rows))
}

/// Lets a gradient of rows of the hidden states into the graph: the result's `backward()` is the
/// whole network's.
///
/// # Shapes
/// `hidden` `[tokens, hidden]`, `rows` `[rows]` (which tokens), `gradient` `[rows, hidden]`.
pub fn surrogate<B: TrainBackend>(
    hidden: Tensor<B::Graph, 2>,
    rows: &[usize],
    gradient: Tensor<B, 2>,
) -> Tensor<B::Graph, 1> {
    let rows = row_ids::<B::Graph>(rows, &hidden.device());
    (hidden.select(0, rows) * Tensor::from_inner(gradient)).sum()
}

/// Indices of rows as a tensor.
pub fn row_ids<B: Backend>(rows: &[usize], device: &B::Device) -> Tensor<B, 1, Int> {
    let ids: Vec<i64> = rows.iter().map(|&row| row as i64).collect();
    Tensor::from_data(TensorData::new(ids, [rows.len()]), device)
}
