//! Low-rank adapters (Hu et al. 2021, arXiv:2106.09685) on the linear maps of a decoder:
//! `y = x W + b + scale * (x A) B`.

use std::sync::{Arc, OnceLock};

use burn::tensor::backend::Backend;
use burn::tensor::{Tensor, TensorData};
use rand::SeedableRng as _;
use rand::distr::{Distribution as _, StandardUniform};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use crate::adapter::{AdapterTensor, AdapterWeights};
use crate::config::ModelConfig;
use crate::decoder::{Decoder, WeightMap};
use crate::ops::packed::PackedLora;
use crate::weights::{to_host, transpose};

/// A linear map that can carry an adapter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Target {
    /// Queries.
    #[serde(rename = "q_proj")]
    Q,
    /// Keys.
    #[serde(rename = "k_proj")]
    K,
    /// Values.
    #[serde(rename = "v_proj")]
    V,
    /// Attention's output.
    #[serde(rename = "o_proj")]
    O,
    /// The gate of the feed-forward.
    #[serde(rename = "gate_proj")]
    Gate,
    /// The feed-forward's other branch.
    #[serde(rename = "up_proj")]
    Up,
    /// The feed-forward's output.
    #[serde(rename = "down_proj")]
    Down,
}

impl Target {
    /// Every target.
    pub const ALL: [Self; 7] =
        [Self::Q, Self::K, Self::V, Self::O, Self::Gate, Self::Up, Self::Down];

    /// Its name in `target_modules`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Q => "q_proj",
            Self::K => "k_proj",
            Self::V => "v_proj",
            Self::O => "o_proj",
            Self::Gate => "gate_proj",
            Self::Up => "up_proj",
            Self::Down => "down_proj",
        }
    }

    /// The target of that name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|target| target.name() == name)
    }

    /// Its path inside a layer.
    #[must_use]
    pub fn path(self) -> String {
        let block = match self {
            Self::Q | Self::K | Self::V | Self::O => "self_attn",
            Self::Gate | Self::Up | Self::Down => "mlp",
        };
        format!("{block}.{}", self.name())
    }

    /// Inputs and outputs of the map.
    #[must_use]
    pub fn dims(self, config: &ModelConfig) -> (usize, usize) {
        let (hidden, inner) = (config.hidden_size, config.intermediate_size);
        match self {
            Self::Q => (hidden, config.q_width()),
            Self::K | Self::V => (hidden, config.kv_width()),
            Self::O => (config.q_width(), hidden),
            Self::Gate | Self::Up => (hidden, inner),
            Self::Down => (inner, hidden),
        }
    }
}

/// Shape of an adapter.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LoraConfig {
    /// Rank of the update.
    pub rank: usize,
    /// Numerator of the scale.
    pub alpha: f32,
    /// Which maps carry a pair, in the order of [`Target::ALL`].
    pub targets: Vec<Target>,
    /// Scale by `alpha / sqrt(rank)` (rsLoRA, arXiv:2312.03732) instead of `alpha / rank`.
    #[serde(default)]
    pub rank_stabilized: bool,
}

impl Default for LoraConfig {
    fn default() -> Self {
        Self { rank: 16, alpha: 32.0, targets: Target::ALL.to_vec(), rank_stabilized: false }
    }
}

impl LoraConfig {
    /// Factor on the update.
    #[must_use]
    pub fn scale(&self) -> f32 {
        let rank = self.rank as f32;
        self.alpha / if self.rank_stabilized { rank.sqrt() } else { rank }
    }
}

/// The two factors of one update.
#[derive(Debug, Clone)]
pub struct LoraPair<B: Backend> {
    /// `[in, rank]`
    pub a: Tensor<B, 2>,
    /// `[rank, out]`
    pub b: Tensor<B, 2>,
}

/// The pairs of one layer, indexed by target.
#[derive(Debug, Clone)]
pub struct LoraLayer<B: Backend> {
    pairs: [Option<LoraPair<B>>; 7],
}

impl<B: Backend> LoraLayer<B> {
    /// The pair on one map.
    #[must_use]
    pub fn pair(&self, target: Target) -> Option<&LoraPair<B>> {
        self.pairs[target as usize].as_ref()
    }
}

/// An adapter on a device.
#[derive(Debug, Clone)]
pub struct Lora<B: Backend> {
    /// Its shape.
    pub config: LoraConfig,
    /// One entry a layer.
    pub layers: Vec<LoraLayer<B>>,
    packed: OnceLock<Arc<PackedLora>>,
    /// Whether only `packed` is left.
    hollow: bool,
}

impl<B: Backend> Lora<B> {
    /// A fresh adapter that changes nothing: A uniform as PEFT draws it (Kaiming with slope
    /// `sqrt 5`, so within `1 / sqrt(in)`), B zero.
    #[must_use]
    pub fn init(config: &LoraConfig, model: &ModelConfig, seed: u64, device: &B::Device) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        Self::build(config, model.layers, |_, target| {
            let (input, output) = target.dims(model);
            let bound = 1.0 / (input as f32).sqrt();
            let a = (0..input * config.rank)
                .map(|_| {
                    let unit: f32 = StandardUniform.sample(&mut rng);
                    (2.0 * unit - 1.0) * bound
                })
                .collect::<Vec<_>>();
            LoraPair {
                a: Tensor::from_data(TensorData::new(a, [input, config.rank]), device),
                b: Tensor::zeros([config.rank, output], device),
            }
        })
    }

    /// Puts host weights on a device.
    #[must_use]
    pub fn from_weights(weights: &AdapterWeights, device: &B::Device) -> Self {
        let matrix = |tensor: &AdapterTensor| -> Tensor<B, 2> {
            let [rows, columns] = tensor.shape;
            let values = transpose(&tensor.values, rows, columns);
            Tensor::from_data(TensorData::new(values, [columns, rows]), device)
        };
        let mut pairs = weights.tensors.chunks_exact(2);
        Self::build(&weights.config, weights.layers(), |_, _| {
            let pair = pairs.next().expect("one pair a layer and target");
            LoraPair { a: matrix(&pair[0]), b: matrix(&pair[1]) }
        })
    }

    /// Its weights on the host.
    ///
    /// # Panics
    /// On an adapter that was made [for inference](crate::LlmOps::lora_for_inference).
    #[must_use]
    pub fn to_weights(&self) -> AdapterWeights {
        assert!(!self.hollow, "an adapter made for inference has no factors to read");
        let mut tensors = Vec::new();
        for (index, layer) in self.layers.iter().enumerate() {
            for &target in &self.config.targets {
                let pair = layer.pair(target).expect("every target has a pair");
                for (letter, tensor) in [("A", &pair.a), ("B", &pair.b)] {
                    let [rows, columns] = tensor.dims();
                    tensors.push(AdapterTensor {
                        name: AdapterWeights::tensor_name(index, target, letter),
                        shape: [columns, rows],
                        values: transpose(&to_host(tensor), rows, columns),
                    });
                }
            }
        }
        AdapterWeights { config: self.config.clone(), tensors }
    }

    /// The adapter with every factor passed through `map`, layer by layer and target by target,
    /// A before B; `name` is PEFT's.
    ///
    /// # Panics
    /// On an adapter that was made [for inference](crate::LlmOps::lora_for_inference).
    pub fn map<C: Backend>(
        &self,
        mut map: impl FnMut(&str, Tensor<B, 2>) -> Tensor<C, 2>,
    ) -> Lora<C> {
        assert!(!self.hollow, "an adapter made for inference has no factors to map");
        Lora::build(&self.config, self.layers.len(), |index, target| {
            let pair = self.layers[index].pair(target).expect("every target has a pair");
            let a = map(&AdapterWeights::tensor_name(index, target, "A"), pair.a.clone());
            let b = map(&AdapterWeights::tensor_name(index, target, "B"), pair.b.clone());
            LoraPair { a, b }
        })
    }

    /// The pairs in the layout of the host kernels, made on first use.
    pub(crate) fn packed(&self, make: impl FnOnce() -> PackedLora) -> Arc<PackedLora> {
        Arc::clone(self.packed.get_or_init(|| Arc::new(make())))
    }

    /// Whether it was made [for inference](crate::LlmOps::lora_for_inference) and holds one layout
    /// only.
    #[must_use]
    pub fn is_for_inference(&self) -> bool {
        self.hollow
    }

    /// Drops the factors that `packed` holds as well.
    pub(crate) fn hollow(mut self) -> Self {
        assert!(self.packed.get().is_some(), "the packed factors are what is left");
        for pair in self.layers.iter_mut().flat_map(|layer| &mut layer.pairs).flatten() {
            let device = pair.a.device();
            pair.a = Tensor::zeros([0, 0], &device);
            pair.b = Tensor::zeros([0, 0], &device);
        }
        self.hollow = true;
        self
    }

    fn build(
        config: &LoraConfig,
        layers: usize,
        mut make: impl FnMut(usize, Target) -> LoraPair<B>,
    ) -> Self {
        let layers = (0..layers).map(|index| {
            let mut pairs = [const { None }; 7];
            for &target in &config.targets {
                pairs[target as usize] = Some(make(index, target));
            }
            LoraLayer { pairs }
        });
        let layers = layers.collect();
        Self { config: config.clone(), layers, packed: OnceLock::new(), hollow: false }
    }
}

impl<B: Backend> Decoder<B> {
    /// The decoder with an adapter added to its weights.
    #[must_use]
    pub fn merged(&self, lora: &Lora<B>) -> Self {
        self.map(&mut Merge { lora })
    }
}

struct Merge<'a, B: Backend> {
    lora: &'a Lora<B>,
}

impl<B: Backend> WeightMap<B, B> for Merge<'_, B> {
    fn matrix(&mut self, name: &str, weight: Tensor<B, 2>) -> Tensor<B, 2> {
        let pair = name.strip_prefix("model.layers.").and_then(|rest| {
            let (layer, path) = rest.split_once('.')?;
            let path = path.strip_suffix(".weight")?;
            let target = Target::ALL.into_iter().find(|target| target.path() == path)?;
            self.lora.layers.get(layer.parse::<usize>().ok()?)?.pair(target)
        });
        match pair {
            Some(pair) => {
                let update = pair.a.clone().matmul(pair.b.clone());
                weight + update.mul_scalar(self.lora.config.scale())
            }
            None => weight,
        }
    }

    fn vector(&mut self, _name: &str, weight: Tensor<B, 1>) -> Tensor<B, 1> {
        weight
    }
}
