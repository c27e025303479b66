//! `silu(gate) * up`, element by element (Shazeer 2020, arXiv:2002.05202).

use super::by_rows;
use super::exp::exp;

/// Elements handled as one row.
const ROW: usize = 256;

/// The product.
pub(crate) fn forward(gate: &[f32], up: &[f32]) -> Vec<f32> {
    let mut y = vec![0.0; gate.len()];
    by_rows(
        &mut y,
        ROW,
        #[inline(always)]
        |first, piece| {
            let at = first * ROW;
            let (gate, up) = (&gate[at..at + piece.len()], &up[at..at + piece.len()]);
            for ((y, g), u) in piece.iter_mut().zip(gate).zip(up) {
                *y = g / (1.0 + exp(-g)) * u;
            }
        },
    );
    y
}

/// Gradients with respect to `gate` and `up`: with `s = sigmoid(g)`,
/// `dg = dy u s (1 + g (1 - s))` and `du = dy g s`.
pub(crate) fn backward(gate: &[f32], up: &[f32], dy: &[f32]) -> (Vec<f32>, Vec<f32>) {
    let mut dgate = vec![0.0; gate.len()];
    by_rows(
        &mut dgate,
        ROW,
        #[inline(always)]
        |first, piece| {
            let at = first * ROW;
            let range = at..at + piece.len();
            let (gate, up, dy) = (&gate[range.clone()], &up[range.clone()], &dy[range]);
            for (((d, g), u), dy) in piece.iter_mut().zip(gate).zip(up).zip(dy) {
                let s = 1.0 / (1.0 + exp(-g));
                *d = dy * u * s * (1.0 + g * (1.0 - s));
            }
        },
    );
    let mut dup = vec![0.0; gate.len()];
    by_rows(
        &mut dup,
        ROW,
        #[inline(always)]
        |first, piece| {
            let at = first * ROW;
            let range = at..at + piece.len();
            let (gate, dy) = (&gate[range.clone()], &dy[range]);
            for ((d, g), dy) in piece.iter_mut().zip(gate).zip(dy) {
                *d = dy * g / (1.0 + exp(-g));
            }
        },
    );
    (dgate, dup)
}
