//! RMSNorm (Zhang and Sennrich 2019, arXiv:1910.07467): `y = x / rms(x) * w`.

use super::{LANES, by_rows};

/// `y`, row by row. `x` `[rows, dim]`, `weight` `[dim]`.
pub(crate) fn forward(x: &[f32], weight: &[f32], eps: f32) -> Vec<f32> {
    let dim = weight.len();
    let mut y = vec![0.0; x.len()];
    by_rows(
        &mut y,
        dim,
        #[inline(always)]
        |first, piece| {
            let x = &x[first * dim..first * dim + piece.len()];
            for (x, y) in x.chunks_exact(dim).zip(piece.chunks_exact_mut(dim)) {
                let scale = inverse_rms(x, eps);
                for ((y, x), w) in y.iter_mut().zip(x).zip(weight) {
                    *y = x * scale * w;
                }
            }
        },
    );
    y
}

/// Gradients with respect to `x` and, where wanted, to `weight`.
///
/// With `s = 1 / rms`, `g = dy * w`: `dx = s (g - x s^2 mean(g x))`, `dw = sum over rows of dy x s`.
pub(crate) fn backward(
    x: &[f32],
    weight: &[f32],
    eps: f32,
    dy: &[f32],
    want_weight: bool,
) -> (Vec<f32>, Option<Vec<f32>>) {
    let dim = weight.len();
    let mut dx = vec![0.0; x.len()];
    by_rows(
        &mut dx,
        dim,
        #[inline(always)]
        |first, piece| {
            let range = first * dim..first * dim + piece.len();
            let rows = x[range.clone()].chunks_exact(dim).zip(dy[range].chunks_exact(dim));
            for ((x, dy), dx) in rows.zip(piece.chunks_exact_mut(dim)) {
                let scale = inverse_rms(x, eps);
                let mean = dot3(dy, weight, x) / dim as f32 * scale * scale;
                for (((dx, dy), weight), x) in dx.iter_mut().zip(dy).zip(weight).zip(x) {
                    *dx = scale * (dy * weight - x * mean);
                }
            }
        },
    );
    let dw = want_weight.then(|| {
        let mut dw = vec![0.0; dim];
        for (x, dy) in x.chunks_exact(dim).zip(dy.chunks_exact(dim)) {
            let scale = inverse_rms(x, eps);
            for ((dw, x), dy) in dw.iter_mut().zip(x).zip(dy) {
                *dw += dy * x * scale;
            }
        }
        dw
    });
    (dx, dw)
}

/// Sum of the products of three values each.
#[inline(always)]
fn dot3(a: &[f32], b: &[f32], c: &[f32]) -> f32 {
    let mut sums = [0.0_f32; LANES];
    let whole = a.len() - a.len() % LANES;
    let lines = a.chunks_exact(LANES).zip(b.chunks_exact(LANES)).zip(c.chunks_exact(LANES));
    for ((a, b), c) in lines {
        for (((sum, a), b), c) in sums.iter_mut().zip(a).zip(b).zip(c) {
            *sum += a * b * c;
        }
    }
    let rest = a[whole..].iter().zip(&b[whole..]).zip(&c[whole..]);
    sums.iter().sum::<f32>() + rest.map(|((a, b), c)| a * b * c).sum::<f32>()
}

#[inline(always)]
fn inverse_rms(x: &[f32], eps: f32) -> f32 {
    let mut sums = [0.0_f32; LANES];
    let mut chunks = x.chunks_exact(LANES);
    for chunk in &mut chunks {
        for (sum, x) in sums.iter_mut().zip(chunk) {
            *sum += x * x;
        }
    }
    let rest: f32 = chunks.remainder().iter().map(|x| x * x).sum();
    let mean = (sums.iter().sum::<f32>() + rest) / x.len() as f32;
    1.0 / (mean + eps).sqrt()
}
