//! An exponential that vectorizes: the standard library's is one call an element.

use std::f32::consts::LOG2_E;

/// 1.5 * 2^23: numbers of this size have no fraction.
const ROUND: f32 = 12_582_912.0;

/// `e^x` to about 2 units in the last place for x in [-87, 88]; smaller x give 0-ish, larger are
/// clamped.
///
/// Splits `x = n ln 2 + r` with `|r| <= ln 2 / 2`, a polynomial for `e^r` (minimax coefficients
/// as in Cephes' `expf`, Moshier 1992), and `2^n` through the exponent's bits.
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    let x = x.clamp(-87.0, 88.0);
    // Adding 1.5 * 2^23 and taking it away rounds to the nearest whole number, in two additions
    // on any processor; `round` is a call to the C library where AVX is not assumed.
    let n = (x * LOG2_E + ROUND) - ROUND;
    // ln 2 in two parts, so that the subtraction is exact.
    let r = x - n * 0.693_359_4 + n * 2.121_944_4e-4;
    let p = 1.987_569_1e-4;
    let p = p * r + 1.398_199_9e-3;
    let p = p * r + 8.333_452e-3;
    let p = p * r + 4.166_579_6e-2;
    let p = p * r + 0.166_666_65;
    let p = p * r + 0.5;
    let y = p * r * r + r + 1.0;
    #[expect(clippy::cast_possible_truncation, reason = "n lies in [-126, 127]")]
    let n = n as i32;
    y * f32::from_bits(((n + 127) << 23).cast_unsigned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_agrees_with_the_standard_library() {
        for i in -8600..8700 {
            let x = i as f32 * 0.01;
            let (ours, theirs) = (exp(x), x.exp());
            assert!((ours - theirs).abs() <= 4e-7 * theirs, "exp({x}) = {ours}, not {theirs}");
        }
    }
}
