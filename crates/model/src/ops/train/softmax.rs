//! The head's end: log-probabilities of the taken tokens, entropy, and the gradient of the logits.

use rayon::prelude::*;

use super::exp::exp;
use super::{LANES, largest, piece_rows};

/// What one row of logits comes to.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct RowOut {
    /// Log-probability of the taken token.
    pub(crate) logprob: f32,
    /// Entropy of the distribution, nats.
    pub(crate) entropy: f32,
    /// Whether no token is more likely than the taken one.
    pub(crate) greedy: bool,
}

/// Divides logits `[rows, vocab]` by `temperature` and reads off every row's taken token. With
/// `dlp` (d loss / d log-probability, `[rows]`) the logits are replaced by their gradient,
/// `(onehot - p) dlp / temperature`.
pub(crate) fn rows(
    logits: &mut [f32],
    vocab: usize,
    targets: &[u32],
    temperature: f32,
    dlp: Option<&[f32]>,
) -> Vec<RowOut> {
    let mut out = vec![RowOut::default(); targets.len()];
    let step = piece_rows(vocab);
    logits
        .par_chunks_mut(step * vocab)
        .zip(out.par_chunks_mut(step))
        .zip(targets.par_chunks(step))
        .enumerate()
        .for_each(|(index, ((logits, out), targets))| {
            let dlp = dlp.map(|d| &d[index * step..index * step + targets.len()]);
            pulp::Arch::new().dispatch(
                #[inline(always)]
                || piece(logits, vocab, targets, temperature, dlp, out),
            );
        });
    out
}

#[inline(always)]
fn piece(
    logits: &mut [f32],
    vocab: usize,
    targets: &[u32],
    temperature: f32,
    dlp: Option<&[f32]>,
    out: &mut [RowOut],
) {
    let inverse = 1.0 / temperature;
    for (row, logits) in logits.chunks_exact_mut(vocab).enumerate() {
        for z in logits.iter_mut() {
            *z *= inverse;
        }
        let top = largest(logits);
        let target = targets[row] as usize;
        let taken = logits[target] - top;
        let mut sums = [[0.0_f32; LANES]; 2];
        let mut chunks = logits.chunks_exact_mut(LANES);
        for chunk in &mut chunks {
            exponentials(chunk, top, &mut sums);
        }
        exponentials(chunks.into_remainder(), top, &mut sums);
        let [sum, dot] = sums.map(|lanes| lanes.iter().sum::<f32>());
        let log_sum = sum.ln();
        out[row] =
            RowOut { logprob: taken - log_sum, entropy: log_sum - dot / sum, greedy: taken >= 0.0 };
        if let Some(dlp) = dlp {
            let factor = -dlp[row] * inverse / sum;
            for z in logits.iter_mut() {
                *z *= factor;
            }
            logits[target] += dlp[row] * inverse;
        }
    }
}

/// Replaces up to a register's worth of `z` by `e = exp(z - top)`; adds `e` and `e (z - top)` to the
/// sums.
#[inline(always)]
fn exponentials(logits: &mut [f32], top: f32, sums: &mut [[f32; LANES]; 2]) {
    let [sums, dots] = sums;
    for ((z, sum), dot) in logits.iter_mut().zip(sums).zip(dots) {
        let shifted = *z - top;
        let e = exp(shifted);
        *sum += e;
        *dot += e * shifted;
        *z = e;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probabilities_entropy_and_gradient_of_a_known_row() {
        // Logits ln 1, ln 2, ln 5 at temperature 1: probabilities 1/8, 2/8, 5/8.
        let mut logits = [1.0_f32.ln(), 2.0_f32.ln(), 5.0_f32.ln()];
        let out = rows(&mut logits, 3, &[1], 1.0, Some(&[2.0]));
        let p = [0.125_f32, 0.25, 0.625];
        let entropy: f32 = p.iter().map(|p| -p * p.ln()).sum();
        assert!((out[0].logprob - 0.25_f32.ln()).abs() < 1e-5);
        assert!((out[0].entropy - entropy).abs() < 1e-5);
        for (got, want) in logits.iter().zip([-0.25, 1.5, -1.25]) {
            assert!((got - want).abs() < 1e-5, "{logits:?}");
        }
    }
}
