//! A decoder on a device, with the graph of a pass and the gradients that come out of it.
//!
//! The graph ends at the hidden states; the head stands beside it (see `crrl_model::train`). The
//! trainable weights live twice: master copies on the host ([`Parameters`]), and on the device.

use burn::tensor::backend::AutodiffBackend;
use burn::tensor::{Tensor, TensorData};
use crrl_model::train::{Checkpointed, surrogate};
use crrl_model::train::{HeadOut, Packed, TrainBackend, head, head_gradient, hidden, row_ids};
use crrl_model::weights::{to_host, transpose};
use crrl_model::{AdapterWeights, Decoder, Lora, WeightMap};

use crate::error::LearnerError;
use crate::options::Trainable;
use crate::parameters::{Parameter, Parameters};

/// Name of the embedding, which a tied head shares.
const EMBEDDING: &str = "model.embed_tokens.weight";
/// Name of a head of its own.
const HEAD: &str = "lm_head.weight";

/// What of a packed batch is read: the token at `rows[i]` predicts `targets[i]`.
#[derive(Debug, Clone, Default)]
pub struct Reading {
    /// The sequences.
    pub packed: Packed,
    /// Tokens whose prediction is read. `[rows]`
    pub rows: Vec<usize>,
    /// What came next. `[rows]`
    pub targets: Vec<u32>,
    /// What logits are divided by.
    pub temperature: f32,
}

/// Where d loss / d log-probability comes from.
pub(crate) enum Slope<'a> {
    /// It is known before the pass.
    Known(&'a [f32]),
    /// It depends on the log-probabilities.
    From(&'a mut dyn FnMut(&HeadOut) -> Result<Vec<f32>, LearnerError>),
}

/// A decoder with its trainable weights.
pub(crate) struct Network<B: TrainBackend> {
    decoder: Decoder<B>,
    lora: Option<Lora<B>>,
    parameters: Parameters,
    checkpoint_activations: bool,
}

/// Trainable tensors of one pass.
enum Leaf<G: AutodiffBackend> {
    Matrix(Tensor<G, 2>),
    Vector(Tensor<G, 1>),
}

impl<B: TrainBackend> Network<B> {
    pub(crate) fn new(decoder: Decoder<B>, trainable: &Trainable, seed: u64) -> Self {
        let lora = match trainable {
            Trainable::Lora(config) => {
                Some(Lora::init(config, &decoder.config, seed, &decoder.device()))
            }
            Trainable::Full => None,
        };
        let mut network = Self {
            decoder,
            lora,
            parameters: Parameters::default(),
            checkpoint_activations: false,
        };
        network.read_back();
        network
    }

    pub(crate) fn checkpoint_activations(&mut self, on: bool) {
        self.checkpoint_activations = on;
    }

    pub(crate) fn decoder(&self) -> &Decoder<B> {
        &self.decoder
    }

    pub(crate) fn lora(&self) -> Option<&Lora<B>> {
        self.lora.as_ref()
    }

    pub(crate) fn parameters(&self) -> &Parameters {
        &self.parameters
    }

    /// The adapter's master copies: where the device computes in bf16, what is on it is rounded.
    pub(crate) fn masters(&self) -> Option<AdapterWeights> {
        let mut weights = self.lora.as_ref()?.to_weights();
        for (tensor, master) in weights.tensors.iter_mut().zip(&self.parameters.list) {
            let [rows, columns] = tensor.shape;
            tensor.values = transpose(&master.values, columns, rows);
        }
        Some(weights)
    }

    /// Puts another adapter in the place of the present one, moments at zero. Its values are the master
    /// copies, bit for bit.
    pub(crate) fn set_adapter(&mut self, weights: &AdapterWeights) {
        self.lora = Some(Lora::from_weights(weights, &self.decoder.device()));
        self.read_back();
        for (master, tensor) in self.parameters.list.iter_mut().zip(&weights.tensors) {
            let [rows, columns] = tensor.shape;
            master.values = transpose(&tensor.values, rows, columns);
        }
    }

    /// Puts other base weights in place, moments at zero where they are trained.
    pub(crate) fn set_decoder(&mut self, decoder: Decoder<B>) {
        self.decoder = decoder;
        self.read_back();
    }

    /// Changes the master copies and brings them to the device.
    pub(crate) fn change<T>(&mut self, change: impl FnOnce(&mut Parameters) -> T) -> T {
        let out = change(&mut self.parameters);
        let mut load = Load { parameters: self.parameters.list.iter() };
        match &self.lora {
            Some(lora) => self.lora = Some(lora.map(|_, old| load.next(&old))),
            None => self.decoder = self.decoder.map(&mut load),
        }
        out
    }

    /// Fills the master copies from the device.
    fn read_back(&mut self) {
        let mut read = Read { list: Vec::new() };
        match &self.lora {
            Some(lora) => {
                let _: Lora<B> = lora.map(|name, factor| read.take(name, factor));
            }
            None => {
                let _: Decoder<B> = self.decoder.map(&mut read);
            }
        }
        self.parameters = Parameters { list: read.list };
    }

    /// Reads a batch without gradients, with the adapter or without it.
    pub(crate) fn score(&self, reading: &Reading, adapter: bool) -> HeadOut {
        let decoder: Decoder<B::Graph> = self.decoder.map(&mut Attach::frozen());
        let mut frozen = Attach::<B>::frozen();
        let lora = self.lora.as_ref().filter(|_| adapter);
        let lora = lora.map(|lora| lora.map(|_, factor| frozen.take(factor)));
        let hidden = hidden(&decoder, lora.as_ref(), &reading.packed).inner();
        let rows = hidden.clone().select(0, row_ids(&reading.rows, &hidden.device()));
        head(&self.decoder, &rows, &reading.targets, reading.temperature)
    }

    /// Forward and backward pass.
    pub(crate) fn learn(
        &self,
        reading: &Reading,
        slope: Slope<'_>,
    ) -> Result<Learnt, LearnerError> {
        let full = self.lora.is_none();
        let mut attach = Attach::<B> { train: full, leaves: Vec::new() };
        let decoder: Decoder<B::Graph> = self.decoder.map(&mut attach);
        attach.train = true;
        let lora = self.lora.as_ref().map(|lora| lora.map(|_, factor| attach.take(factor)));
        let leaves = attach.leaves;
        let graph = if self.checkpoint_activations {
            Graph::Layers(Checkpointed::forward(&decoder, lora.as_ref(), &reading.packed))
        } else {
            Graph::Whole(hidden(&decoder, lora.as_ref(), &reading.packed))
        };
        let states = match &graph {
            Graph::Whole(hidden) => hidden.clone().inner(),
            Graph::Layers(layers) => layers.hidden(),
        };
        let rows = states.clone().select(0, row_ids(&reading.rows, &states.device()));
        let owned;
        let slope = match slope {
            Slope::Known(slope) => slope,
            Slope::From(make) => {
                owned = make(&head(&self.decoder, &rows, &reading.targets, reading.temperature))?;
                &owned
            }
        };
        let head =
            head_gradient(&self.decoder, &rows, &reading.targets, reading.temperature, slope, full);
        drop((states, rows));
        let take = |leaf: &Leaf<B::Graph>,
                    grads: &mut <B::Graph as AutodiffBackend>::Gradients|
         -> Option<Vec<f32>> {
            match leaf {
                Leaf::Matrix(leaf) => leaf.grad_remove(grads).map(|g| to_host(&g)),
                Leaf::Vector(leaf) => leaf.grad_remove(grads).map(|g| to_host(&g)),
            }
        };
        let mut parts: Vec<(usize, Vec<f32>)> = Vec::new();
        let mut collect = |mut grads: <B::Graph as AutodiffBackend>::Gradients| {
            for (index, leaf) in leaves.iter().enumerate() {
                parts.extend(take(leaf, &mut grads).map(|part| (index, part)));
            }
        };
        match graph {
            Graph::Whole(hidden) => {
                collect(surrogate::<B>(hidden, &reading.rows, head.hidden).backward());
            }
            Graph::Layers(layers) => {
                layers.backward(&decoder, lora.as_ref(), &reading.rows, head.hidden, &mut collect);
            }
        }
        if let Some(gradient) = head.head {
            let index = self.head_index();
            let values = match self.decoder.head {
                Some(_) => to_host(&gradient.transpose()),
                None => to_host(&gradient),
            };
            parts.push((index, values));
        }
        Ok(Learnt { out: head.out, parts })
    }

    /// Which parameter the head is.
    fn head_index(&self) -> usize {
        let name = if self.decoder.head.is_some() { HEAD } else { EMBEDDING };
        let place = self.parameters.list.iter().position(|p| p.name == name);
        place.expect("with all weights trained the head is one of them")
    }
}

/// What one pass found.
pub(crate) struct Learnt {
    /// What was read.
    pub(crate) out: HeadOut,
    /// d loss / d parameter, by the parameter's place; one may turn up more than once.
    parts: Vec<(usize, Vec<f32>)>,
}

impl Learnt {
    /// Adds the gradients to sums in the order of the parameters.
    pub(crate) fn add_to(&self, gradients: &mut [Vec<f32>]) {
        for (index, part) in &self.parts {
            for (sum, value) in gradients[*index].iter_mut().zip(part) {
                *sum += value;
            }
        }
    }
}

/// The graph of one pass.
enum Graph<B: TrainBackend> {
    Whole(Tensor<B::Graph, 2>),
    Layers(Checkpointed<B>),
}

/// Puts weights under the graph, trainable or not.
struct Attach<B: TrainBackend> {
    train: bool,
    leaves: Vec<Leaf<B::Graph>>,
}

impl<B: TrainBackend> Attach<B> {
    fn frozen() -> Self {
        Self { train: false, leaves: Vec::new() }
    }

    fn take(&mut self, weight: Tensor<B, 2>) -> Tensor<B::Graph, 2> {
        let weight = Tensor::from_inner(weight);
        if !self.train {
            return weight;
        }
        let weight = weight.require_grad();
        self.leaves.push(Leaf::Matrix(weight.clone()));
        weight
    }
}

impl<B: TrainBackend> WeightMap<B, B::Graph> for Attach<B> {
    fn matrix(&mut self, _: &str, weight: Tensor<B, 2>) -> Tensor<B::Graph, 2> {
        self.take(weight)
    }

    fn vector(&mut self, _: &str, weight: Tensor<B, 1>) -> Tensor<B::Graph, 1> {
        let weight = Tensor::from_inner(weight);
        if !self.train {
            return weight;
        }
        let weight = weight.require_grad();
        self.leaves.push(Leaf::Vector(weight.clone()));
        weight
    }
}

/// Copies weights to the host.
struct Read {
    list: Vec<Parameter>,
}

impl Read {
    fn take<B: TrainBackend>(&mut self, name: &str, weight: Tensor<B, 2>) -> Tensor<B, 2> {
        self.list.push(Parameter::new(name, weight.dims().to_vec(), to_host(&weight)));
        weight
    }
}

impl<B: TrainBackend> WeightMap<B, B> for Read {
    fn matrix(&mut self, name: &str, weight: Tensor<B, 2>) -> Tensor<B, 2> {
        self.take(name, weight)
    }

    fn vector(&mut self, name: &str, weight: Tensor<B, 1>) -> Tensor<B, 1> {
        self.list.push(Parameter::new(name, weight.dims().to_vec(), to_host(&weight)));
        weight
    }
}

/// Brings master copies to the device, in order.
struct Load<'a> {
    parameters: std::slice::Iter<'a, Parameter>,
}

impl Load<'_> {
    fn data(&mut self) -> TensorData {
        let parameter = self.parameters.next().expect("one parameter a trainable tensor");
        TensorData::new(parameter.values.clone(), parameter.shape.clone())
    }

    fn next<B: TrainBackend>(&mut self, old: &Tensor<B, 2>) -> Tensor<B, 2> {
        let fresh = Tensor::<B, 2>::from_data(self.data(), &old.device());
        fresh.cast(old.dtype())
    }
}

impl<B: TrainBackend> WeightMap<B, B> for Load<'_> {
    fn matrix(&mut self, _: &str, weight: Tensor<B, 2>) -> Tensor<B, 2> {
        self.next(&weight)
    }

    fn vector(&mut self, _: &str, weight: Tensor<B, 1>) -> Tensor<B, 1> {
        let fresh = Tensor::<B, 1>::from_data(self.data(), &weight.device());
        fresh.cast(weight.dtype())
    }
}
