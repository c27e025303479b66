//! Rotary embedding on `[tokens, heads, head_dim]`; element `i` turns with `i + head_dim / 2`.

use super::by_rows;

/// Turns every head by the token's angles; the gradient turns back (`inverse`).
///
/// `cos` and `sin` are `[tokens, head_dim / 2]`.
pub(crate) fn turn(
    x: &[f32],
    cos: &[f32],
    sin: &[f32],
    heads: usize,
    dim: usize,
    inverse: bool,
) -> Vec<f32> {
    let half = dim / 2;
    let width = heads * dim;
    let sign = if inverse { -1.0 } else { 1.0 };
    let mut y = vec![0.0; x.len()];
    by_rows(
        &mut y,
        width,
        #[inline(always)]
        |first, piece| {
            for (offset, out) in piece.chunks_exact_mut(width).enumerate() {
                let token = first + offset;
                let cos = &cos[token * half..(token + 1) * half];
                let sin = &sin[token * half..(token + 1) * half];
                let row = &x[token * width..(token + 1) * width];
                for (x, y) in row.chunks_exact(dim).zip(out.chunks_exact_mut(dim)) {
                    let (low, high) = x.split_at(half);
                    let (out_low, out_high) = y.split_at_mut(half);
                    for i in 0..half {
                        out_low[i] = low[i] * cos[i] - sign * high[i] * sin[i];
                        out_high[i] = high[i] * cos[i] + sign * low[i] * sin[i];
                    }
                }
            }
        },
    );
    y
}
