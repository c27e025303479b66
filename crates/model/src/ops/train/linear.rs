//! A linear map with its adapter, `y = x W + c + s (x A) B`, and its gradient; everything is added
//! where it belongs by the matrix products themselves.

use super::matmul::{View, spread};

/// Sizes: of `x` `[tokens, input]`, `W` `[input, output]`, `A` `[input, rank]`, `B` `[rank, output]`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shape {
    pub(crate) tokens: usize,
    pub(crate) input: usize,
    pub(crate) output: usize,
    /// 0 without an adapter.
    pub(crate) rank: usize,
}

/// The two factors of an adapter, and what their product is scaled by.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pair<'a> {
    pub(crate) a: &'a [f32],
    pub(crate) b: &'a [f32],
    pub(crate) scale: f32,
}

/// Rows side by side without gaps.
fn dense(values: &[f32], rows: usize, columns: usize) -> View<'_> {
    View::new(values, rows, columns, columns)
}

/// `y` `[tokens, output]` and `x A` `[tokens, rank]`, which the gradient needs again.
pub(crate) fn forward(
    x: &[f32],
    weight: &[f32],
    bias: Option<&[f32]>,
    pair: Option<Pair<'_>>,
    shape: Shape,
) -> (Vec<f32>, Vec<f32>) {
    let Shape { tokens, input, output, rank } = shape;
    let mut y = match bias {
        Some(bias) => bias.repeat(tokens),
        None => vec![0.0; tokens * output],
    };
    let x = dense(x, tokens, input);
    spread(x, dense(weight, input, output), &mut y, output, 1.0, bias.is_some());
    let mut low = vec![0.0; tokens * rank];
    if let Some(pair) = pair {
        spread(x, dense(pair.a, input, rank), &mut low, rank, 1.0, false);
        let low = dense(&low, tokens, rank);
        spread(low, dense(pair.b, rank, output), &mut y, output, pair.scale, true);
    }
    (y, low)
}

/// Which gradients are wanted.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wanted {
    pub(crate) x: bool,
    pub(crate) weight: bool,
    pub(crate) a: bool,
    pub(crate) b: bool,
}

/// Gradients, where wanted.
#[derive(Debug, Default)]
pub(crate) struct Gradients {
    pub(crate) x: Option<Vec<f32>>,
    pub(crate) weight: Option<Vec<f32>>,
    pub(crate) a: Option<Vec<f32>>,
    pub(crate) b: Option<Vec<f32>>,
}

/// With `e = s dy B'`: `dx = dy W' + e A'`, `dW = x' dy`, `dA = x' e`, `dB = s (x A)' dy`.
pub(crate) fn backward(
    x: &[f32],
    weight: &[f32],
    pair: Option<Pair<'_>>,
    low: &[f32],
    dy: &[f32],
    shape: Shape,
    wanted: Wanted,
) -> Gradients {
    let Shape { tokens, input, output, rank } = shape;
    let (x, dy) = (dense(x, tokens, input), dense(dy, tokens, output));
    let mut found = Gradients::default();
    if wanted.weight {
        let mut out = vec![0.0; input * output];
        spread(x.transposed(), dy, &mut out, output, 1.0, false);
        found.weight = Some(out);
    }
    let mut dx = wanted.x.then(|| {
        let mut out = vec![0.0; tokens * input];
        spread(dy, dense(weight, input, output).transposed(), &mut out, input, 1.0, false);
        out
    });
    if let Some(pair) = pair {
        let (a, b) = (dense(pair.a, input, rank), dense(pair.b, rank, output));
        if wanted.b {
            let mut out = vec![0.0; rank * output];
            let low = dense(low, tokens, rank).transposed();
            spread(low, dy, &mut out, output, pair.scale, false);
            found.b = Some(out);
        }
        if wanted.a || dx.is_some() {
            let mut e = vec![0.0; tokens * rank];
            spread(dy, b.transposed(), &mut e, rank, pair.scale, false);
            let e = dense(&e, tokens, rank);
            if wanted.a {
                let mut out = vec![0.0; input * rank];
                spread(x.transposed(), e, &mut out, rank, 1.0, false);
                found.a = Some(out);
            }
            if let Some(dx) = &mut dx {
                spread(e, a.transposed(), dx, input, 1.0, true);
            }
        }
    }
    found.x = dx;
    found
}
