//! The weights of a decoder as plain tensors.
//!
//! Weights of linear maps are kept `[in, out]`, so that `x [rows, in]` times the weight is the
//! map; backends that want another layout derive it once ([`Decoder::packed`]). Nothing here
//! trains: gradients are the business of whoever maps the weights onto an autodiff backend.

use std::sync::{Arc, OnceLock};

use burn::tensor::backend::Backend;
use burn::tensor::{Tensor, TensorData};
use crrl_types::Digest;

use crate::config::ModelConfig;
use crate::ops::packed::PackedDecoder;
use crate::rope::Rope;
use crate::weights::HostTensor;

/// A linear map.
#[derive(Debug, Clone)]
pub struct Linear<B: Backend> {
    /// `[in, out]`
    pub weight: Tensor<B, 2>,
    /// `[out]`
    pub bias: Option<Tensor<B, 1>>,
}

/// One layer: grouped-query attention and a gated feed-forward, each after an RMSNorm.
#[derive(Debug, Clone)]
pub struct Layer<B: Backend> {
    /// `[hidden]`
    pub attn_norm: Tensor<B, 1>,
    /// `[hidden, heads * head_dim]`
    pub q: Linear<B>,
    /// `[hidden, kv_heads * head_dim]`
    pub k: Linear<B>,
    /// `[hidden, kv_heads * head_dim]`
    pub v: Linear<B>,
    /// `[heads * head_dim, hidden]`
    pub o: Linear<B>,
    /// `[head_dim]`, Qwen3 only
    pub q_norm: Option<Tensor<B, 1>>,
    /// `[head_dim]`, Qwen3 only
    pub k_norm: Option<Tensor<B, 1>>,
    /// `[hidden]`
    pub mlp_norm: Tensor<B, 1>,
    /// `[hidden, intermediate]`
    pub gate: Linear<B>,
    /// `[hidden, intermediate]`
    pub up: Linear<B>,
    /// `[intermediate, hidden]`
    pub down: Linear<B>,
}

/// A decoder's weights.
#[derive(Debug, Clone)]
pub struct Decoder<B: Backend> {
    /// Shape and constants.
    pub config: ModelConfig,
    /// `[vocab, hidden]`
    pub embed: Tensor<B, 2>,
    /// From the embedding upwards.
    pub layers: Vec<Layer<B>>,
    /// `[hidden]`
    pub norm: Tensor<B, 1>,
    /// `[hidden, vocab]`; `None` where the head is the embedding.
    pub head: Option<Tensor<B, 2>>,
    /// Rotary tables, on the host.
    pub rope: Arc<Rope>,
    base_digest: Digest,
    packed: OnceLock<Arc<PackedDecoder>>,
    /// Whether only `packed` and the embedding are left.
    hollow: bool,
}

/// Turns the weights of a decoder into another decoder's, one by one.
///
/// Names are Hugging Face's (`model.layers.0.self_attn.q_proj.weight`); matrices other than the
/// embedding arrive `[in, out]`, transposed from the file's `[out, in]`.
pub trait WeightMap<A: Backend, B: Backend> {
    /// A matrix.
    fn matrix(&mut self, name: &str, weight: Tensor<A, 2>) -> Tensor<B, 2>;
    /// A vector: a norm or a bias.
    fn vector(&mut self, name: &str, weight: Tensor<A, 1>) -> Tensor<B, 1>;
}

impl<B: Backend> Decoder<B> {
    /// Identity of the base weights: BLAKE3 over every tensor's name, shape and values as f32.
    #[must_use]
    pub fn base_digest(&self) -> Digest {
        self.base_digest
    }

    /// The device the weights are on.
    #[must_use]
    pub fn device(&self) -> B::Device {
        self.embed.device()
    }

    /// The weights in the layout of the host kernels, made on first use.
    pub(crate) fn packed(&self, make: impl FnOnce() -> PackedDecoder) -> Arc<PackedDecoder> {
        Arc::clone(self.packed.get_or_init(|| Arc::new(make())))
    }

    /// Whether it was made [for inference](crate::LlmOps::for_inference) and holds one layout only.
    #[must_use]
    pub fn is_for_inference(&self) -> bool {
        self.hollow
    }

    /// Drops the matrices that `packed` holds as well.
    pub(crate) fn hollow(mut self) -> Self {
        assert!(self.packed.get().is_some(), "the packed weights are what is left");
        let device = self.device();
        let empty = || Tensor::zeros([0, 0], &device);
        for layer in &mut self.layers {
            for linear in [
                &mut layer.q,
                &mut layer.k,
                &mut layer.v,
                &mut layer.o,
                &mut layer.gate,
                &mut layer.up,
                &mut layer.down,
            ] {
                linear.weight = empty();
            }
        }
        self.head = self.head.map(|_| empty());
        self.hollow = true;
        self
    }

    /// A decoder with weights drawn from `seed`; what attention starts as is told in `init.rs`.
    #[must_use]
    pub fn random(config: &ModelConfig, seed: u64, device: &B::Device) -> Self {
        let tensors = crate::init::weights(config, seed).into_iter().map(Ok);
        Self::from_host::<std::convert::Infallible>(config, device, tensors)
            .expect("nothing can fail here")
    }

    /// A decoder of tensors in the order of [`parameter_shapes`].
    pub(crate) fn from_host<E>(
        config: &ModelConfig,
        device: &B::Device,
        mut tensors: impl Iterator<Item = Result<HostTensor, E>>,
    ) -> Result<Self, E> {
        let mut hash = blake3::Hasher::new();
        let mut next = |want: &str| -> Result<HostTensor, E> {
            let tensor = tensors.next().expect("one tensor a parameter")?;
            debug_assert_eq!(tensor.name, want);
            tensor.hash_into(&mut hash);
            Ok(tensor)
        };
        let vector = |tensor: HostTensor| -> Tensor<B, 1> {
            Tensor::from_data(TensorData::new(tensor.values, tensor.shape), device)
        };
        let matrix = |tensor: HostTensor| -> Tensor<B, 2> {
            Tensor::from_data(TensorData::new(tensor.values, tensor.shape), device)
        };
        let embed = matrix(next("model.embed_tokens.weight")?);
        let mut layers = Vec::with_capacity(config.layers);
        for index in 0..config.layers {
            let at = |part: &str| format!("model.layers.{index}.{part}");
            let mut linear = |part: &str, biased: bool| -> Result<Linear<B>, E> {
                let weight = matrix(next(&at(&format!("{part}.weight")))?.transposed());
                let bias = match biased {
                    true => Some(vector(next(&at(&format!("{part}.bias")))?)),
                    false => None,
                };
                Ok(Linear { weight, bias })
            };
            let q = linear("self_attn.q_proj", config.qkv_bias)?;
            let k = linear("self_attn.k_proj", config.qkv_bias)?;
            let v = linear("self_attn.v_proj", config.qkv_bias)?;
            let o = linear("self_attn.o_proj", config.o_bias)?;
            let gate = linear("mlp.gate_proj", config.mlp_bias)?;
            let up = linear("mlp.up_proj", config.mlp_bias)?;
            let down = linear("mlp.down_proj", config.mlp_bias)?;
            let (q_norm, k_norm) = match config.qk_norm() {
                true => (
                    Some(vector(next(&at("self_attn.q_norm.weight"))?)),
                    Some(vector(next(&at("self_attn.k_norm.weight"))?)),
                ),
                false => (None, None),
            };
            let attn_norm = vector(next(&at("input_layernorm.weight"))?);
            let mlp_norm = vector(next(&at("post_attention_layernorm.weight"))?);
            layers.push(Layer { attn_norm, q, k, v, o, q_norm, k_norm, mlp_norm, gate, up, down });
        }
        let norm = vector(next("model.norm.weight")?);
        let head = match config.tied {
            true => None,
            false => Some(matrix(next("lm_head.weight")?.transposed())),
        };
        Ok(Self {
            config: config.clone(),
            embed,
            layers,
            norm,
            head,
            rope: Arc::new(Rope::new(config)),
            base_digest: Digest(*hash.finalize().as_bytes()),
            packed: OnceLock::new(),
            hollow: false,
        })
    }

    /// The decoder with every weight passed through `map`, in a fixed order: the embedding, then
    /// layer by layer, the last norm, the head where it is not the embedding.
    ///
    /// The digest goes over unchanged; weights that changed get theirs when they are saved and
    /// loaded again.
    ///
    /// # Panics
    /// On a decoder that was made [for inference](crate::LlmOps::for_inference).
    pub fn map<C: Backend>(&self, map: &mut impl WeightMap<B, C>) -> Decoder<C> {
        assert!(!self.hollow, "a decoder made for inference has no weights to map");
        let embed = map.matrix("model.embed_tokens.weight", self.embed.clone());
        let layers = self.layers.iter().enumerate().map(|(index, layer)| {
            let at = |part: &str| format!("model.layers.{index}.{part}");
            let mut linear = |part: &str, linear: &Linear<B>| Linear {
                weight: map.matrix(&at(&format!("{part}.weight")), linear.weight.clone()),
                bias: linear
                    .bias
                    .as_ref()
                    .map(|bias| map.vector(&at(&format!("{part}.bias")), bias.clone())),
            };
            let q = linear("self_attn.q_proj", &layer.q);
            let k = linear("self_attn.k_proj", &layer.k);
            let v = linear("self_attn.v_proj", &layer.v);
            let o = linear("self_attn.o_proj", &layer.o);
            let gate = linear("mlp.gate_proj", &layer.gate);
            let up = linear("mlp.up_proj", &layer.up);
            let down = linear("mlp.down_proj", &layer.down);
            let mut vector = |part: &str, v: &Tensor<B, 1>| map.vector(&at(part), v.clone());
            Layer {
                q_norm: layer.q_norm.as_ref().map(|v| vector("self_attn.q_norm.weight", v)),
                k_norm: layer.k_norm.as_ref().map(|v| vector("self_attn.k_norm.weight", v)),
                attn_norm: vector("input_layernorm.weight", &layer.attn_norm),
                mlp_norm: vector("post_attention_layernorm.weight", &layer.mlp_norm),
                q,
                k,
                v,
                o,
                gate,
                up,
                down,
            }
        });
        let layers = layers.collect();
        let norm = map.vector("model.norm.weight", self.norm.clone());
        let head = self.head.as_ref().map(|head| map.matrix("lm_head.weight", head.clone()));
        Decoder {
            config: self.config.clone(),
            embed,
            layers,
            norm,
            head,
            rope: Arc::clone(&self.rope),
            base_digest: self.base_digest,
            packed: OnceLock::new(),
            hollow: false,
        }
    }
}

/// Every parameter by its Hugging Face name and shape (`[out, in]` for linear maps), in the order
/// in which they are loaded and saved.
#[must_use]
pub fn parameter_shapes(config: &ModelConfig) -> Vec<(String, Vec<usize>)> {
    let (hidden, inner) = (config.hidden_size, config.intermediate_size);
    let (q, kv) = (config.q_width(), config.kv_width());
    let mut list = vec![("model.embed_tokens.weight".to_owned(), vec![config.vocab_size, hidden])];
    for index in 0..config.layers {
        for (part, out, input, biased) in [
            ("self_attn.q_proj", q, hidden, config.qkv_bias),
            ("self_attn.k_proj", kv, hidden, config.qkv_bias),
            ("self_attn.v_proj", kv, hidden, config.qkv_bias),
            ("self_attn.o_proj", hidden, q, config.o_bias),
            ("mlp.gate_proj", inner, hidden, config.mlp_bias),
            ("mlp.up_proj", inner, hidden, config.mlp_bias),
            ("mlp.down_proj", hidden, inner, config.mlp_bias),
        ] {
            list.push((format!("model.layers.{index}.{part}.weight"), vec![out, input]));
            if biased {
                list.push((format!("model.layers.{index}.{part}.bias"), vec![out]));
            }
        }
        if config.qk_norm() {
            for part in ["q_norm", "k_norm"] {
                let name = format!("model.layers.{index}.self_attn.{part}.weight");
                list.push((name, vec![config.head_dim]));
            }
        }
        for part in ["input_layernorm", "post_attention_layernorm"] {
            list.push((format!("model.layers.{index}.{part}.weight"), vec![hidden]));
        }
    }
    list.push(("model.norm.weight".to_owned(), vec![hidden]));
    if !config.tied {
        list.push(("lm_head.weight".to_owned(), vec![config.vocab_size, hidden]));
    }
    list
}
