//! Keys and values of running sequences: one slot a sequence, growing as it does. Our own store,
//! because `slice_assign` and `cat` on the CPU backend copy the whole tensor.
//!
//! Never decides who gets a slot or when one is given up: that is the engine's business.

use burn::tensor::Tensor;
use burn::tensor::backend::Backend;

use crate::config::ModelConfig;
use crate::ops::LANES;

/// A sequence's place in the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SlotId(pub usize);

/// Keys and values of one head in host memory, laid out as the kernels read them.
#[derive(Debug, Clone, Default)]
pub(crate) struct HeadKv {
    /// Blocks of sixteen tokens, each `[head_dim, 16]`.
    pub(crate) keys: Vec<f32>,
    /// `[tokens, head_dim]`, with sixteen more at the end: a tile reads that many columns even of
    /// a narrow head.
    pub(crate) values: Vec<f32>,
}

impl HeadKv {
    fn append(&mut self, token: usize, key: &[f32], value: &[f32]) {
        let dim = key.len();
        if token.is_multiple_of(LANES) {
            self.keys.resize((token + LANES) * dim, 0.0);
        }
        let block = &mut self.keys[token / LANES * LANES * dim..];
        for (column, &key) in block.chunks_exact_mut(LANES).zip(key) {
            column[token % LANES] = key;
        }
        self.values.resize(token * dim, 0.0);
        self.values.extend_from_slice(value);
        self.values.resize((token + 1) * dim + LANES, 0.0);
    }

    /// The first `len` of its tokens.
    fn prefix(&self, len: usize, dim: usize) -> Self {
        let keys = len.next_multiple_of(LANES) * dim;
        let values = if len == 0 { 0 } else { len * dim + LANES };
        Self { keys: self.keys[..keys].to_vec(), values: self.values[..values].to_vec() }
    }

    fn truncate(&mut self, len: usize, dim: usize) {
        self.keys.truncate(len.next_multiple_of(LANES) * dim);
        self.values.truncate(len * dim + LANES);
    }
}

/// Keys and values of one layer of one sequence.
#[derive(Debug)]
pub(crate) enum LayerKv<B: Backend> {
    /// In host memory, one entry a head.
    Host(Vec<HeadKv>),
    /// `[tokens, kv_heads, head_dim]` on a device, longer than the sequence; `None` before use.
    Device { keys: Option<Tensor<B, 3>>, values: Option<Tensor<B, 3>> },
}

impl<B: Backend> LayerKv<B> {
    /// Appends rows of keys and values to host storage holding `len` tokens.
    pub(crate) fn append<'a>(
        &mut self,
        len: usize,
        dim: usize,
        rows: impl Iterator<Item = (&'a [f32], &'a [f32])>,
    ) {
        let Self::Host(heads) = self else {
            unreachable!("only backends with host slices append rows")
        };
        for (token, (keys, values)) in (len..).zip(rows) {
            let parts = keys.chunks_exact(dim).zip(values.chunks_exact(dim));
            for (head, (key, value)) in heads.iter_mut().zip(parts) {
                head.append(token, key, value);
            }
        }
    }
}

#[derive(Debug)]
pub(crate) struct Slot<B: Backend> {
    pub(crate) len: usize,
    pub(crate) layers: Vec<LayerKv<B>>,
}

/// Keys and values of many sequences.
#[derive(Debug)]
pub struct KvStore<B: Backend> {
    slots: Vec<Option<Slot<B>>>,
    layers: usize,
    kv_heads: usize,
    dim: usize,
    host: bool,
    /// Longest sequence a slot takes, tokens.
    max_len: usize,
}

impl<B: crate::ops::LlmOps> KvStore<B> {
    /// A store of at most `slots` sequences of at most `max_len` tokens each.
    #[must_use]
    pub fn new(config: &ModelConfig, slots: usize, max_len: usize) -> Self {
        Self::with_layout(config, slots, max_len, B::HOST_SLICES)
    }

    /// A store in a layout of choice: the plain operations keep tensors on every backend.
    pub(crate) fn with_layout(
        config: &ModelConfig,
        slots: usize,
        max_len: usize,
        host: bool,
    ) -> Self {
        Self {
            slots: (0..slots).map(|_| None).collect(),
            layers: config.layers,
            kv_heads: config.kv_heads,
            dim: config.head_dim,
            host,
            max_len: max_len.min(config.max_positions),
        }
    }
}

impl<B: Backend> KvStore<B> {
    /// Takes a free slot, empty; `None` when all are taken.
    pub fn take(&mut self) -> Option<SlotId> {
        let index = self.slots.iter().position(Option::is_none)?;
        let layer = || match self.host {
            true => LayerKv::Host(vec![HeadKv::default(); self.kv_heads]),
            false => LayerKv::Device { keys: None, values: None },
        };
        self.slots[index] =
            Some(Slot { len: 0, layers: (0..self.layers).map(|_| layer()).collect() });
        Some(SlotId(index))
    }

    /// Gives a slot back and frees its memory. A slot that is free stays so.
    pub fn release(&mut self, slot: SlotId) {
        if let Some(entry) = self.slots.get_mut(slot.0) {
            *entry = None;
        }
    }

    /// Tokens in a slot; `None` when the slot is free.
    #[must_use]
    pub fn len(&self, slot: SlotId) -> Option<usize> {
        self.slots.get(slot.0)?.as_ref().map(|slot| slot.len)
    }

    /// Whether no slot is taken.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.slots.iter().all(Option::is_none)
    }

    /// Slots in all.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.slots.len()
    }

    /// Longest sequence a slot takes, tokens.
    #[must_use]
    pub fn max_len(&self) -> usize {
        self.max_len
    }

    /// Forgets the tokens of a slot from `len` on. No-op when it holds fewer or is free.
    pub fn truncate(&mut self, slot: SlotId, len: usize) {
        let dim = self.dim;
        let Some(slot) = self.slots.get_mut(slot.0).and_then(Option::as_mut) else { return };
        if len >= slot.len {
            return;
        }
        slot.len = len;
        for layer in &mut slot.layers {
            if let LayerKv::Host(heads) = layer {
                heads.iter_mut().for_each(|head| head.truncate(len, dim));
            }
        }
    }

    /// Copies the first `len` tokens of one slot over another's content. False, and nothing
    /// happens, when either is free, both are the same, or the source is shorter.
    pub fn copy_prefix(&mut self, from: SlotId, to: SlotId, len: usize) -> bool {
        let fits = self.len(from).is_some_and(|have| have >= len);
        if from == to || !fits || self.len(to).is_none() {
            return false;
        }
        let source = self.slots[from.0].as_ref().expect("its length was read");
        let layers = source.layers.iter().map(|layer| match layer {
            LayerKv::Host(heads) => {
                LayerKv::Host(heads.iter().map(|head| head.prefix(len, self.dim)).collect())
            }
            LayerKv::Device { keys, values } => {
                LayerKv::Device { keys: keys.clone(), values: values.clone() }
            }
        });
        let copy = Slot { len, layers: layers.collect() };
        self.slots[to.0] = Some(copy);
        true
    }

    /// Bytes held in host memory (f32), or that the sequences need on a device in bf16.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let tokens: usize = self.slots.iter().flatten().map(|slot| slot.len).sum();
        tokens * self.layers * self.kv_heads * self.dim * 2 * if self.host { 4 } else { 2 }
    }

    pub(crate) fn slot(&self, slot: SlotId) -> Option<&Slot<B>> {
        self.slots.get(slot.0)?.as_ref()
    }

    pub(crate) fn slot_mut(&mut self, slot: SlotId) -> Option<&mut Slot<B>> {
        self.slots.get_mut(slot.0)?.as_mut()
    }
}
