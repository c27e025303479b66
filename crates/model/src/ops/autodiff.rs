//! The fused operations on the autodiff backend, with backward passes of our own.
//!
//! burn's autodiff records one node for each elementary operation; here a fused operation is one
//! node whose backward pass is a kernel of [`super::train`]. A state kept for the backward pass is
//! a handle, never a copy.

use burn::backend::Autodiff;
use burn::tensor::{Tensor, TensorData, TensorPrimitive};
use burn_autodiff::checkpoint::base::Checkpointer;
use burn_autodiff::checkpoint::strategy::NoCheckpointing;
use burn_autodiff::grads::Gradients;
use burn_autodiff::ops::{Backward, Ops, OpsKind};
use burn_flex::FlexTensor;

use super::LlmOps;
use super::train::attention::{self, Saved, Shape};
use super::train::{linear, norm, rotary, swiglu};
use crate::Cpu;
use crate::decoder::Linear;
use crate::lora::LoraPair;

type Train = Autodiff<Cpu>;

/// A tensor whose elements can be read as one slice.
fn dense(tensor: FlexTensor) -> FlexTensor {
    if tensor.as_slice::<f32>().is_some() { tensor } else { tensor.to_contiguous() }
}

fn slice(tensor: &FlexTensor) -> &[f32] {
    tensor.as_slice::<f32>().expect("made dense before it was kept")
}

fn tensor(values: Vec<f32>, shape: &[usize]) -> FlexTensor {
    FlexTensor::from_data(TensorData::new(values, shape.to_vec()))
}

fn float<const D: usize>(tensor: Tensor<Train, D>) -> burn::tensor::ops::FloatTensor<Train> {
    tensor.into_primitive().tensor()
}

fn wrap<const D: usize>(primitive: burn::tensor::ops::FloatTensor<Train>) -> Tensor<Train, D> {
    Tensor::from_primitive(TensorPrimitive::Float(primitive))
}

/// Whether a gradient of the tensor is asked for, be it a leaf or made of one.
fn is_tracked<const D: usize>(tensor: &Tensor<Train, D>) -> bool {
    float(tensor.clone()).node.clone_if_require_grad().is_some()
}

/// Values of a tensor that nothing is differentiated by.
fn constant<const D: usize>(tensor: Tensor<Train, D>) -> FlexTensor {
    dense(tensor.inner().into_primitive().tensor())
}

impl LlmOps for Train {
    fn rms_norm(x: Tensor<Self, 2>, weight: Tensor<Self, 1>, eps: f64) -> Tensor<Self, 2> {
        let shape = x.dims();
        let (x, weight) = (float(x), float(weight));
        let kept = NormState {
            x: dense(x.primitive.clone()),
            weight: dense(weight.primitive.clone()),
            eps: eps as f32,
            want_weight: weight.node.clone_if_require_grad().is_some(),
        };
        let y = tensor(norm::forward(slice(&kept.x), slice(&kept.weight), kept.eps), &shape);
        let prepared = NormBackward
            .prepare::<NoCheckpointing>([x.node, weight.node])
            .compute_bound()
            .stateful();
        wrap(match prepared {
            OpsKind::Tracked(prep) => prep.finish(kept, y),
            OpsKind::UnTracked(prep) => prep.finish(y),
        })
    }

    fn rope(x: Tensor<Self, 3>, cos: Tensor<Self, 2>, sin: Tensor<Self, 2>) -> Tensor<Self, 3> {
        let shape = x.dims();
        let kept =
            RopeState { cos: constant(cos), sin: constant(sin), heads: shape[1], dim: shape[2] };
        let x = float(x);
        let input = dense(x.primitive.clone());
        let y = tensor(kept.turn(slice(&input), false), &shape);
        let prepared = RopeBackward.prepare::<NoCheckpointing>([x.node]).compute_bound().stateful();
        wrap(match prepared {
            OpsKind::Tracked(prep) => prep.finish(kept, y),
            OpsKind::UnTracked(prep) => prep.finish(y),
        })
    }

    fn packed_attention(
        q: Tensor<Self, 3>,
        k: Tensor<Self, 3>,
        v: Tensor<Self, 3>,
        cu_seqlens: &[usize],
    ) -> Tensor<Self, 3> {
        let dims = q.dims();
        let shape = Shape { heads: dims[1], kv_heads: k.dims()[1], dim: dims[2] };
        let (q, k, v) = (float(q), float(k), float(v));
        let (dense_q, dense_k, dense_v) =
            (dense(q.primitive.clone()), dense(k.primitive.clone()), dense(v.primitive.clone()));
        let (out, lse) = attention::forward(
            slice(&dense_q),
            slice(&dense_k),
            slice(&dense_v),
            shape,
            cu_seqlens,
        );
        let out = tensor(out, &dims);
        let prepared = AttentionBackward
            .prepare::<NoCheckpointing>([q.node, k.node, v.node])
            .compute_bound()
            .stateful();
        wrap(match prepared {
            OpsKind::Tracked(prep) => {
                let lse_len = lse.len();
                let kept = AttentionState {
                    q: dense_q,
                    k: dense_k,
                    v: dense_v,
                    out: out.clone(),
                    lse: tensor(lse, &[lse_len]),
                    shape,
                    cu_seqlens: cu_seqlens.to_vec(),
                };
                prep.finish(kept, out)
            }
            OpsKind::UnTracked(prep) => prep.finish(out),
        })
    }

    fn silu_mul(gate: Tensor<Self, 2>, up: Tensor<Self, 2>) -> Tensor<Self, 2> {
        let shape = gate.dims();
        let (gate, up) = (float(gate), float(up));
        let kept =
            SwigluState { gate: dense(gate.primitive.clone()), up: dense(up.primitive.clone()) };
        let y = tensor(swiglu::forward(slice(&kept.gate), slice(&kept.up)), &shape);
        let prepared = SwigluBackward
            .prepare::<NoCheckpointing>([gate.node, up.node])
            .compute_bound()
            .stateful();
        wrap(match prepared {
            OpsKind::Tracked(prep) => prep.finish(kept, y),
            OpsKind::UnTracked(prep) => prep.finish(y),
        })
    }

    fn adapted(
        x: Tensor<Self, 2>,
        linear: &Linear<Self>,
        pair: Option<&LoraPair<Self>>,
        scale: f32,
    ) -> Tensor<Self, 2> {
        let [tokens, input] = x.dims();
        let output = linear.weight.dims()[1];
        // A bias that is not trained is added by the product itself.
        let (fixed, trained) = match &linear.bias {
            Some(bias) if is_tracked(bias) => (None, Some(bias.clone())),
            Some(bias) => (Some(constant(bias.clone())), None),
            None => (None, None),
        };
        let rank = pair.map_or(0, |pair| pair.a.dims()[1]);
        let shape = linear::Shape { tokens, input, output, rank };
        let (x, weight) = (float(x), float(linear.weight.clone()));
        let (kept_x, kept_weight) = (dense(x.primitive.clone()), dense(weight.primitive.clone()));
        let bias = fixed.as_ref().map(slice);
        let y = match pair {
            None => {
                let (y, _) =
                    linear::forward(slice(&kept_x), slice(&kept_weight), bias, None, shape);
                let y = tensor(y, &[tokens, output]);
                let kept = LinearState { x: kept_x, weight: kept_weight, shape };
                let prepared = LinearBackward
                    .prepare::<NoCheckpointing>([x.node, weight.node])
                    .compute_bound()
                    .stateful();
                wrap(match prepared {
                    OpsKind::Tracked(prep) => prep.finish(kept, y),
                    OpsKind::UnTracked(prep) => prep.finish(y),
                })
            }
            Some(pair) => {
                let (a, b) = (float(pair.a.clone()), float(pair.b.clone()));
                let (kept_a, kept_b) = (dense(a.primitive.clone()), dense(b.primitive.clone()));
                let factors = linear::Pair { a: slice(&kept_a), b: slice(&kept_b), scale };
                let (y, low) = linear::forward(
                    slice(&kept_x),
                    slice(&kept_weight),
                    bias,
                    Some(factors),
                    shape,
                );
                let y = tensor(y, &[tokens, output]);
                let kept = AdaptedState {
                    linear: LinearState { x: kept_x, weight: kept_weight, shape },
                    a: kept_a,
                    b: kept_b,
                    scale,
                    low: tensor(low, &[tokens, rank]),
                };
                let prepared = AdaptedBackward
                    .prepare::<NoCheckpointing>([x.node, weight.node, a.node, b.node])
                    .compute_bound()
                    .stateful();
                wrap(match prepared {
                    OpsKind::Tracked(prep) => prep.finish(kept, y),
                    OpsKind::UnTracked(prep) => prep.finish(y),
                })
            }
        };
        match trained {
            Some(bias) => y + bias.unsqueeze(),
            None => y,
        }
    }
}

/// On a GPU the defaults stand, differentiated by burn.
#[cfg(feature = "cuda")]
impl LlmOps for Autodiff<crate::Cuda> {}

#[derive(Debug)]
struct NormBackward;

#[derive(Debug, Clone)]
struct NormState {
    x: FlexTensor,
    weight: FlexTensor,
    eps: f32,
    want_weight: bool,
}

impl Backward<Cpu, 2> for NormBackward {
    type State = NormState;

    fn backward(self, ops: Ops<NormState, 2>, grads: &mut Gradients, _: &mut Checkpointer) {
        let kept = ops.state;
        let dy = dense(grads.consume::<Cpu>(&ops.node));
        let (dx, dw) = norm::backward(
            slice(&kept.x),
            slice(&kept.weight),
            kept.eps,
            slice(&dy),
            kept.want_weight,
        );
        let [x, weight] = ops.parents;
        let width = slice(&kept.weight).len();
        if let Some(node) = x {
            grads.register::<Cpu>(node.id, tensor(dx, &[slice(&kept.x).len() / width, width]));
        }
        if let (Some(node), Some(dw)) = (weight, dw) {
            grads.register::<Cpu>(node.id, tensor(dw, &[width]));
        }
    }
}

#[derive(Debug)]
struct RopeBackward;

#[derive(Debug, Clone)]
struct RopeState {
    cos: FlexTensor,
    sin: FlexTensor,
    heads: usize,
    dim: usize,
}

impl RopeState {
    fn turn(&self, x: &[f32], inverse: bool) -> Vec<f32> {
        rotary::turn(x, slice(&self.cos), slice(&self.sin), self.heads, self.dim, inverse)
    }
}

impl Backward<Cpu, 1> for RopeBackward {
    type State = RopeState;

    fn backward(self, ops: Ops<RopeState, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let dy = dense(grads.consume::<Cpu>(&ops.node));
        let kept = ops.state;
        if let [Some(node)] = ops.parents {
            let dx = kept.turn(slice(&dy), true);
            let tokens = dx.len() / (kept.heads * kept.dim);
            grads.register::<Cpu>(node.id, tensor(dx, &[tokens, kept.heads, kept.dim]));
        }
    }
}

#[derive(Debug)]
struct AttentionBackward;

#[derive(Debug, Clone)]
struct AttentionState {
    q: FlexTensor,
    k: FlexTensor,
    v: FlexTensor,
    out: FlexTensor,
    lse: FlexTensor,
    shape: Shape,
    cu_seqlens: Vec<usize>,
}

impl Backward<Cpu, 3> for AttentionBackward {
    type State = AttentionState;

    fn backward(self, ops: Ops<AttentionState, 3>, grads: &mut Gradients, _: &mut Checkpointer) {
        let kept = ops.state;
        let dout = dense(grads.consume::<Cpu>(&ops.node));
        let saved = Saved {
            q: slice(&kept.q),
            k: slice(&kept.k),
            v: slice(&kept.v),
            out: slice(&kept.out),
            lse: slice(&kept.lse),
        };
        let (dq, dk, dv) = attention::backward(&saved, slice(&dout), kept.shape, &kept.cu_seqlens);
        let Shape { heads, kv_heads, dim } = kept.shape;
        let tokens = saved.q.len() / (heads * dim);
        let heads = [heads, kv_heads, kv_heads];
        for ((parent, gradient), heads) in ops.parents.into_iter().zip([dq, dk, dv]).zip(heads) {
            if let Some(node) = parent {
                grads.register::<Cpu>(node.id, tensor(gradient, &[tokens, heads, dim]));
            }
        }
    }
}

#[derive(Debug)]
struct SwigluBackward;

#[derive(Debug, Clone)]
struct SwigluState {
    gate: FlexTensor,
    up: FlexTensor,
}

impl Backward<Cpu, 2> for SwigluBackward {
    type State = SwigluState;

    fn backward(self, ops: Ops<SwigluState, 2>, grads: &mut Gradients, _: &mut Checkpointer) {
        let dy = grads.consume::<Cpu>(&ops.node);
        let shape = burn::tensor::TensorMetadata::shape(&dy).to_vec();
        let dy = dense(dy);
        let (dgate, dup) =
            swiglu::backward(slice(&ops.state.gate), slice(&ops.state.up), slice(&dy));
        for (parent, gradient) in ops.parents.into_iter().zip([dgate, dup]) {
            if let Some(node) = parent {
                grads.register::<Cpu>(node.id, tensor(gradient, &shape));
            }
        }
    }
}

#[derive(Debug)]
struct LinearBackward;

#[derive(Debug, Clone)]
struct LinearState {
    x: FlexTensor,
    weight: FlexTensor,
    shape: linear::Shape,
}

impl Backward<Cpu, 2> for LinearBackward {
    type State = LinearState;

    fn backward(self, ops: Ops<LinearState, 2>, grads: &mut Gradients, _: &mut Checkpointer) {
        let LinearState { x, weight, shape } = ops.state;
        let dy = dense(grads.consume::<Cpu>(&ops.node));
        let [to_x, to_weight] = ops.parents;
        let wanted =
            linear::Wanted { x: to_x.is_some(), weight: to_weight.is_some(), a: false, b: false };
        let found =
            linear::backward(slice(&x), slice(&weight), None, &[], slice(&dy), shape, wanted);
        let linear::Shape { tokens, input, output, .. } = shape;
        for (node, gradient, dims) in
            [(to_x, found.x, [tokens, input]), (to_weight, found.weight, [input, output])]
        {
            if let (Some(node), Some(gradient)) = (node, gradient) {
                grads.register::<Cpu>(node.id, tensor(gradient, &dims));
            }
        }
    }
}

#[derive(Debug)]
struct AdaptedBackward;

#[derive(Debug, Clone)]
struct AdaptedState {
    linear: LinearState,
    a: FlexTensor,
    b: FlexTensor,
    scale: f32,
    /// `x A`, `[tokens, rank]`
    low: FlexTensor,
}

impl Backward<Cpu, 4> for AdaptedBackward {
    type State = AdaptedState;

    fn backward(self, ops: Ops<AdaptedState, 4>, grads: &mut Gradients, _: &mut Checkpointer) {
        let AdaptedState { linear: LinearState { x, weight, shape }, a, b, scale, low } = ops.state;
        let dy = dense(grads.consume::<Cpu>(&ops.node));
        let [to_x, to_weight, to_a, to_b] = ops.parents;
        let wanted = linear::Wanted {
            x: to_x.is_some(),
            weight: to_weight.is_some(),
            a: to_a.is_some(),
            b: to_b.is_some(),
        };
        let pair = linear::Pair { a: slice(&a), b: slice(&b), scale };
        let found = linear::backward(
            slice(&x),
            slice(&weight),
            Some(pair),
            slice(&low),
            slice(&dy),
            shape,
            wanted,
        );
        let linear::Shape { tokens, input, output, rank } = shape;
        for (node, gradient, dims) in [
            (to_x, found.x, [tokens, input]),
            (to_weight, found.weight, [input, output]),
            (to_a, found.a, [input, rank]),
            (to_b, found.b, [rank, output]),
        ] {
            if let (Some(node), Some(gradient)) = (node, gradient) {
                grads.register::<Cpu>(node.id, tensor(gradient, &dims));
            }
        }
    }
}
