//! The training side against two other opinions: burn's own differentiation of the plain
//! operations, and finite differences of the whole network.

use burn::backend::Autodiff;
use burn::tensor::{Distribution, Tensor};
use crrl_model::ops::{LlmOps, plain};
use crrl_model::train::{Checkpointed, Packed, head, head_gradient, hidden, row_ids, surrogate};
use crrl_model::weights::to_host;
use crrl_model::{
    Architecture, Cpu, Decoder, Linear, Lora, LoraConfig, LoraPair, ModelConfig, RopeScaling,
    Target, WeightMap,
};

type Train = Autodiff<Cpu>;

fn random<const D: usize>(shape: [usize; D]) -> Tensor<Cpu, D> {
    Tensor::random(shape, Distribution::Normal(0.0, 1.0), &Default::default())
}

fn constant<const D: usize>(values: &Tensor<Cpu, D>) -> Tensor<Train, D> {
    Tensor::from_inner(values.clone())
}

fn close(ours: &[f32], theirs: &[f32], what: &str) {
    assert_eq!(ours.len(), theirs.len(), "{what}");
    for (index, (a, b)) in ours.iter().zip(theirs).enumerate() {
        assert!((a - b).abs() <= 2e-5 * (1.0 + b.abs()), "{what}[{index}] is {a}, not {b}");
    }
}

/// Values and gradients of two ways to compute the same thing. Each gets leaves of its own: a
/// backward pass takes its graph apart.
fn same<const D: usize, const E: usize>(
    name: &str,
    inputs: &[Tensor<Cpu, E>],
    ours: impl Fn(&[Tensor<Train, E>]) -> Tensor<Train, D>,
    theirs: impl Fn(&[Tensor<Train, E>]) -> Tensor<Train, D>,
) {
    let leaves = || -> Vec<Tensor<Train, E>> {
        inputs.iter().map(|input| constant(input).require_grad()).collect()
    };
    let (our_leaves, their_leaves) = (leaves(), leaves());
    let (ours, theirs) = (ours(&our_leaves), theirs(&their_leaves));
    close(&to_host(&ours), &to_host(&theirs), name);
    let weights = random(ours.dims());
    let ours = (ours * constant(&weights)).sum().backward();
    let theirs = (theirs * constant(&weights)).sum().backward();
    for (index, (a, b)) in our_leaves.iter().zip(&their_leaves).enumerate() {
        let a = a.grad(&ours).expect("ours has a gradient");
        let b = b.grad(&theirs).expect("theirs has a gradient");
        close(&to_host(&a), &to_host(&b), &format!("gradient {index} of {name}"));
    }
}

#[test]
fn attention_is_the_plain_one_across_blocks_and_groups() {
    // Longer than one block of rows, a sequence of one token, an empty one.
    for (heads, kv_heads, dim) in [(4, 4, 8), (6, 2, 10), (9, 3, 64)] {
        let cu_seqlens = [0, 70, 71, 71, 205];
        let inputs =
            [random([205, heads, dim]), random([205, kv_heads, dim]), random([205, kv_heads, dim])];
        same(
            "attention",
            &inputs,
            |x| Train::packed_attention(x[0].clone(), x[1].clone(), x[2].clone(), &cu_seqlens),
            |x| plain::attention(x[0].clone(), x[1].clone(), x[2].clone(), &cu_seqlens),
        );
    }
}

#[test]
fn norm_rope_and_gate_are_the_plain_ones() {
    // More rows than one piece of work has.
    let (x, up, weight) = (random([700, 50]), random([700, 50]), random([50]));
    same(
        "norm, by its input",
        std::slice::from_ref(&x),
        |leaf| Train::rms_norm(leaf[0].clone(), constant(&weight), 1e-5),
        |leaf| plain::rms_norm(leaf[0].clone(), constant(&weight), 1e-5),
    );
    same(
        "norm, by its weight",
        std::slice::from_ref(&weight),
        |leaf| Train::rms_norm(constant(&x), leaf[0].clone(), 1e-5),
        |leaf| plain::rms_norm(constant(&x), leaf[0].clone(), 1e-5),
    );
    same(
        "gate",
        &[x.clone(), up],
        |leaf| Train::silu_mul(leaf[0].clone(), leaf[1].clone()),
        |leaf| plain::silu_mul(leaf[0].clone(), leaf[1].clone()),
    );
    let (cos, sin) = (random([700, 5]), random([700, 5]));
    same(
        "rope",
        &[random([700, 3, 10])],
        |leaf| Train::rope(leaf[0].clone(), constant(&cos), constant(&sin)),
        |leaf| plain::rope(leaf[0].clone(), constant(&cos), constant(&sin)),
    );
}

#[test]
fn a_linear_map_with_its_adapter_is_the_plain_one() {
    // Small enough for one thread, and large enough for several.
    for (rows, input, output, rank) in [(7, 5, 9, 3), (300, 160, 170, 16)] {
        let bias = random([output]);
        // Sums of hundreds of products: kept near one, so that rounding stays below the bound.
        let small = |shape| random(shape) * 0.2;
        let inputs = [
            small([rows, input]),
            small([input, output]),
            small([input, rank]),
            small([rank, output]),
        ];
        let map = |leaf: &[Tensor<Train, 2>], biased: bool| Linear {
            weight: leaf[1].clone(),
            bias: biased.then(|| constant(&bias)),
        };
        let pair = |leaf: &[Tensor<Train, 2>]| LoraPair { a: leaf[2].clone(), b: leaf[3].clone() };
        for biased in [false, true] {
            same(
                "adapted",
                &inputs,
                |leaf| Train::adapted(leaf[0].clone(), &map(leaf, biased), Some(&pair(leaf)), 0.5),
                |leaf| plain::adapted(leaf[0].clone(), &map(leaf, biased), Some(&pair(leaf)), 0.5),
            );
            same(
                "linear",
                &inputs[..2],
                |leaf| Train::adapted(leaf[0].clone(), &map(leaf, biased), None, 0.5),
                |leaf| plain::adapted(leaf[0].clone(), &map(leaf, biased), None, 0.5),
            );
        }
    }
}

fn config(architecture: Architecture, tied: bool) -> ModelConfig {
    ModelConfig {
        architecture,
        vocab_size: 17,
        hidden_size: 12,
        intermediate_size: 20,
        layers: 2,
        heads: 4,
        kv_heads: 2,
        head_dim: 6,
        max_positions: 64,
        norm_eps: 1e-5,
        rope_theta: 10_000.0,
        rope_scaling: RopeScaling::None,
        tied,
        qkv_bias: architecture == Architecture::Qwen2,
        o_bias: false,
        mlp_bias: false,
        bos: None,
        eos: vec![0],
    }
}

/// Biases start at zero; moved off it, they matter.
struct Biased;

impl WeightMap<Cpu, Cpu> for Biased {
    fn matrix(&mut self, _: &str, weight: Tensor<Cpu, 2>) -> Tensor<Cpu, 2> {
        weight
    }

    fn vector(&mut self, name: &str, weight: Tensor<Cpu, 1>) -> Tensor<Cpu, 1> {
        if name.ends_with("bias") { weight.add_scalar(0.1) } else { weight }
    }
}

/// Adds `by` to one element of one weight.
struct Nudge<'a> {
    name: &'a str,
    at: usize,
    by: f32,
}

impl Nudge<'_> {
    fn apply<const D: usize>(&self, name: &str, weight: Tensor<Cpu, D>) -> Tensor<Cpu, D> {
        if name != self.name {
            return weight;
        }
        let mut values = to_host(&weight);
        values[self.at] += self.by;
        let shape: [usize; D] = weight.dims();
        Tensor::from_data(burn::tensor::TensorData::new(values, shape), &weight.device())
    }
}

impl WeightMap<Cpu, Cpu> for Nudge<'_> {
    fn matrix(&mut self, name: &str, weight: Tensor<Cpu, 2>) -> Tensor<Cpu, 2> {
        self.apply(name, weight)
    }

    fn vector(&mut self, name: &str, weight: Tensor<Cpu, 1>) -> Tensor<Cpu, 1> {
        self.apply(name, weight)
    }
}

#[derive(Default)]
struct Leaves {
    matrices: Vec<(String, Tensor<Train, 2>)>,
    vectors: Vec<(String, Tensor<Train, 1>)>,
}

impl WeightMap<Cpu, Train> for Leaves {
    fn matrix(&mut self, name: &str, weight: Tensor<Cpu, 2>) -> Tensor<Train, 2> {
        let leaf = Tensor::from_inner(weight).require_grad();
        self.matrices.push((name.to_owned(), leaf.clone()));
        leaf
    }

    fn vector(&mut self, name: &str, weight: Tensor<Cpu, 1>) -> Tensor<Train, 1> {
        let leaf = Tensor::from_inner(weight).require_grad();
        self.vectors.push((name.to_owned(), leaf.clone()));
        leaf
    }
}

struct Frozen;

impl WeightMap<Cpu, Train> for Frozen {
    fn matrix(&mut self, _: &str, weight: Tensor<Cpu, 2>) -> Tensor<Train, 2> {
        Tensor::from_inner(weight)
    }

    fn vector(&mut self, _: &str, weight: Tensor<Cpu, 1>) -> Tensor<Train, 1> {
        Tensor::from_inner(weight)
    }
}

const TEMPERATURE: f32 = 0.8;
const ROWS: [usize; 6] = [0, 1, 3, 5, 6, 8];
const TARGETS: [u32; 6] = [4, 9, 16, 2, 2, 11];
const DLP: [f32; 6] = [-0.5, 0.25, -1.0, 0.7, -0.3, 0.9];

fn packed() -> Packed {
    Packed::new([[3, 4, 9, 1, 16].as_slice(), &[7, 2, 2, 5, 11, 0]])
}

fn loss(decoder: &Decoder<Cpu>, lora: Option<&Lora<Cpu>>) -> f64 {
    let graph: Decoder<Train> = decoder.map(&mut Frozen);
    let lora = lora.map(|lora| lora.map(|_, factor| Tensor::<Train, 2>::from_inner(factor)));
    let states = hidden(&graph, lora.as_ref(), &packed()).inner();
    let rows = states.clone().select(0, row_ids(&ROWS, &states.device()));
    let out = head(decoder, &rows, &TARGETS, TEMPERATURE);
    out.logprobs.iter().zip(DLP).map(|(&lp, d)| f64::from(lp) * f64::from(d)).sum()
}

fn check(name: &str, gradient: &[f32], mut nudged: impl FnMut(usize, f32) -> f64) {
    let step = 4e-3;
    for at in (0..gradient.len()).step_by(gradient.len() / 7 + 1) {
        let slope = (nudged(at, step) - nudged(at, -step)) / f64::from(2.0 * step);
        let ours = f64::from(gradient[at]);
        let tolerance = 2e-3 + 0.02 * slope.abs();
        assert!((ours - slope).abs() < tolerance, "{name}[{at}]: {ours}, differences give {slope}");
    }
}

#[test]
fn all_weights_have_the_gradient_of_finite_differences() {
    for (architecture, tied) in
        [(Architecture::Llama, true), (Architecture::Qwen2, false), (Architecture::Qwen3, true)]
    {
        let decoder = Decoder::<Cpu>::random(&config(architecture, tied), 5, &Default::default())
            .map(&mut Biased);
        let mut leaves = Leaves::default();
        let graph: Decoder<Train> = decoder.map(&mut leaves);
        let states = hidden(&graph, None, &packed());
        let rows = states.clone().inner().select(0, row_ids(&ROWS, &states.device()));
        let top = head_gradient(&decoder, &rows, &TARGETS, TEMPERATURE, &DLP, true);
        let grads = surrogate::<Cpu>(states, &ROWS, top.hidden).backward();
        let of_head = top.head.expect("asked for");
        for (name, leaf) in &leaves.matrices {
            let mut gradient = match leaf.grad(&grads) {
                Some(gradient) => to_host(&gradient),
                None => vec![0.0; leaf.dims().iter().product()],
            };
            let extra = match name.as_str() {
                "model.embed_tokens.weight" if tied => to_host(&of_head),
                "lm_head.weight" => to_host(&of_head.clone().transpose()),
                _ => vec![0.0; gradient.len()],
            };
            for (sum, part) in gradient.iter_mut().zip(extra) {
                *sum += part;
            }
            check(name, &gradient, |at, by| loss(&decoder.map(&mut Nudge { name, at, by }), None));
        }
        for (name, leaf) in &leaves.vectors {
            let gradient = to_host(&leaf.grad(&grads).expect("has a gradient"));
            check(name, &gradient, |at, by| loss(&decoder.map(&mut Nudge { name, at, by }), None));
        }
    }
}

#[test]
fn an_adapter_has_the_gradient_of_finite_differences_also_layer_by_layer() {
    let decoder =
        Decoder::<Cpu>::random(&config(Architecture::Llama, true), 6, &Default::default());
    let shape =
        LoraConfig { rank: 3, alpha: 6.0, targets: Target::ALL.to_vec(), rank_stabilized: false };
    let lora = Lora::<Cpu>::init(&shape, &decoder.config, 7, &decoder.device());
    // B is zero at the start; then A has no gradient.
    let lora = lora.map(|_, factor| factor.random_like(Distribution::Normal(0.0, 0.3)));
    let graph: Decoder<Train> = decoder.map(&mut Frozen);
    let mut leaves = Vec::new();
    let trained = lora.map(|name, factor| {
        let leaf = Tensor::<Train, 2>::from_inner(factor).require_grad();
        leaves.push((name.to_owned(), leaf.clone()));
        leaf
    });
    let states = hidden(&graph, Some(&trained), &packed());
    let rows = states.clone().inner().select(0, row_ids(&ROWS, &states.device()));
    let top = head_gradient(&decoder, &rows, &TARGETS, TEMPERATURE, &DLP, false);
    let grads = surrogate::<Cpu>(states, &ROWS, top.hidden.clone()).backward();
    let mut again = vec![None; leaves.len()];
    Checkpointed::forward(&graph, Some(&trained), &packed()).backward(
        &graph,
        Some(&trained),
        &ROWS,
        top.hidden,
        &mut |mut part| {
            for (index, (_, leaf)) in leaves.iter().enumerate() {
                if let Some(gradient) = leaf.grad_remove(&mut part) {
                    assert!(again[index].replace(to_host(&gradient)).is_none(), "turns up once");
                }
            }
        },
    );
    for ((name, leaf), again) in leaves.iter().zip(again) {
        let gradient = to_host(&leaf.grad(&grads).expect("has a gradient"));
        close(&again.expect("turns up"), &gradient, name);
        check(name, &gradient, |at, by| {
            let nudged = lora.map(|other, factor| Nudge { name, at, by }.apply(other, factor));
            loss(&decoder, Some(&nudged))
        });
    }
}
