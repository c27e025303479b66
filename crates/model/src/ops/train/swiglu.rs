//! `silu(gate) * up`, element by element (Shazeer 2020, arXiv:2002.05202).

use super::exp::exp;
use super::{by_rows, by_rows_of_two};

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
    let mut dup = vec![0.0; gate.len()];
    by_rows_of_two(
        &mut dgate,
        &mut dup,
        ROW,
        #[inline(always)]
        |first, dgate, dup| {
            let range = first * ROW..first * ROW + dgate.len();
            let (gate, up, dy) = (&gate[range.clone()], &up[range.clone()], &dy[range]);
            let inputs = gate.iter().zip(up).zip(dy);
            for ((dgate, dup), ((g, u), dy)) in dgate.iter_mut().zip(dup).zip(inputs) {
                let s = 1.0 / (1.0 + exp(-g));
                *dgate = dy * u * s * (1.0 + g * (1.0 - s));
                *dup = dy * g * s;
            }
        },
    );
    (dgate, dup)
}
