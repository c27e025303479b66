//! The host kernels: one matrix product of a few rows against sixteen columns at a time, and the
//! elementwise functions between. AVX2 with FMA where the processor has it, plain loops elsewhere.
//!
//! The only file of the crate with `unsafe`: vector loads from slices whose bounds are checked at
//! the entry of [`tile`].
#![expect(unsafe_code, reason = "vector loads and stores have no safe form")]

use std::sync::LazyLock;

/// Columns of a tile: two AVX2 registers of f32.
pub(crate) const LANES: usize = 16;
/// Most rows of a tile: twelve accumulators leave four registers for operands.
pub(crate) const ROWS: usize = 6;

/// Whether the fast kernels run here.
static FAST: LazyLock<bool> = LazyLock::new(|| {
    #[cfg(target_arch = "x86_64")]
    return is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
    #[cfg(not(target_arch = "x86_64"))]
    return false;
});

/// Sixteen columns of a matrix: row `i` begins at `i * stride`.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Panel<'a> {
    /// f32 values.
    F32(&'a [f32], usize),
    /// bf16 values, exact in f32.
    Bf16(&'a [u16], usize),
}

/// One tile of products: `acc[r][c] = sum over k of a[rows[r] + k] * panel[k][c]`.
pub(crate) type Acc = [[f32; LANES]; ROWS];

/// Computes a tile of `rows.len()` rows (1 to [`ROWS`]) over `depth` terms.
///
/// # Panics
/// When a row or the panel is shorter than `depth` asks for.
pub(crate) fn tile(a: &[f32], rows: &[usize], panel: Panel<'_>, depth: usize, acc: &mut Acc) {
    assert!(!rows.is_empty() && rows.len() <= ROWS, "1 to {ROWS} rows a tile");
    assert!(rows.iter().all(|&row| row + depth <= a.len()), "a row is too short");
    let (length, stride) = match panel {
        Panel::F32(values, stride) => (values.len(), stride),
        Panel::Bf16(values, stride) => (values.len(), stride),
    };
    assert!(depth == 0 || (depth - 1) * stride + LANES <= length, "the panel is too short");
    #[cfg(target_arch = "x86_64")]
    if *FAST {
        // SAFETY: the processor has AVX2 and FMA; every row and the panel were checked above.
        unsafe {
            match rows.len() {
                1 => avx2::tile::<1>(a, rows, panel, depth, acc),
                2 => avx2::tile::<2>(a, rows, panel, depth, acc),
                3 => avx2::tile::<3>(a, rows, panel, depth, acc),
                4 => avx2::tile::<4>(a, rows, panel, depth, acc),
                5 => avx2::tile::<5>(a, rows, panel, depth, acc),
                _ => avx2::tile::<6>(a, rows, panel, depth, acc),
            }
        }
        return;
    }
    tile_plain(a, rows, panel, depth, acc);
}

fn tile_plain(a: &[f32], rows: &[usize], panel: Panel<'_>, depth: usize, acc: &mut Acc) {
    *acc = [[0.0; LANES]; ROWS];
    for k in 0..depth {
        let line: [f32; LANES] = match panel {
            Panel::F32(values, stride) => std::array::from_fn(|c| values[k * stride + c]),
            Panel::Bf16(values, stride) => {
                std::array::from_fn(|c| f32::from_bits(u32::from(values[k * stride + c]) << 16))
            }
        };
        for (sums, &row) in acc.iter_mut().zip(rows) {
            let x = a[row + k];
            for (sum, value) in sums.iter_mut().zip(line) {
                *sum += x * value;
            }
        }
    }
}

/// Runs `body` compiled for AVX2 where the processor has it. The closure must be a plain loop the
/// compiler can vectorise.
#[inline]
fn vectorised<T>(body: impl FnOnce() -> T) -> T {
    #[cfg(target_arch = "x86_64")]
    {
        #[target_feature(enable = "avx2,fma")]
        fn inside<T>(body: impl FnOnce() -> T) -> T {
            body()
        }
        if *FAST {
            // SAFETY: the processor has the features.
            return unsafe { inside(body) };
        }
    }
    body()
}

/// `e^x` to about 1e-7 relative, in operations that vectorise: x is split into `n ln 2 + r`,
/// `e^r` is a polynomial (Cephes' coefficients), `2^n` goes into the exponent.
#[inline(always)]
fn exp(x: f32) -> f32 {
    // Below -87.3 the result is denormal; nothing here needs those.
    let x = x.clamp(-87.3, 88.3);
    let shifted = x * std::f32::consts::LOG2_E + 12_582_912.0;
    let n = shifted - 12_582_912.0;
    let r = x - n * 0.693_359_4 + n * 2.121_944_4e-4;
    let p = 1.987_569_1e-4_f32;
    let p = p * r + 1.398_2e-3;
    let p = p * r + 8.333_452e-3;
    let p = p * r + 4.166_579_6e-2;
    let p = p * r + 1.666_666_5e-1;
    let p = p * r + 0.5;
    let e = p * r * r + r + 1.0;
    // The low bits of `shifted` hold n; moved into the exponent they multiply by 2^n.
    let power = (shifted.to_bits().wrapping_sub(0x4b40_0000)).wrapping_shl(23);
    f32::from_bits(e.to_bits().wrapping_add(power))
}

/// `gate[i] = silu(gate[i]) * up[i]`.
pub(crate) fn silu_mul(gate: &mut [f32], up: &[f32]) {
    vectorised(|| {
        for (g, u) in gate.iter_mut().zip(up) {
            *g = *g / (1.0 + exp(-*g)) * u;
        }
    });
}

/// Scales scores and turns them into weights that sum to one.
pub(crate) fn softmax(scores: &mut [f32], scale: f32) {
    vectorised(|| {
        let mut most = [f32::NEG_INFINITY; LANES];
        let mut chunks = scores.chunks_exact(LANES);
        for chunk in &mut chunks {
            for (most, &score) in most.iter_mut().zip(chunk) {
                *most = if score > *most { score } else { *most };
            }
        }
        let most = most.iter().chain(chunks.remainder()).fold(f32::NEG_INFINITY, |m, &s| m.max(s));
        let mut sums = [0.0; LANES];
        let mut chunks = scores.chunks_exact_mut(LANES);
        for chunk in &mut chunks {
            for (sum, score) in sums.iter_mut().zip(chunk) {
                *score = exp((*score - most) * scale);
                *sum += *score;
            }
        }
        let mut sum: f32 = sums.iter().sum();
        for score in chunks.into_remainder() {
            *score = exp((*score - most) * scale);
            sum += *score;
        }
        let inverse = 1.0 / sum;
        for score in scores {
            *score *= inverse;
        }
    });
}

/// `out = x / rms(x) * weight` for one row.
pub(crate) fn rms_norm(x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) {
    vectorised(|| {
        let mut sums = [0.0_f32; LANES];
        let chunks = x.chunks_exact(LANES);
        let mut rest = 0.0;
        for x in chunks.remainder() {
            rest += x * x;
        }
        for chunk in chunks {
            for (sum, x) in sums.iter_mut().zip(chunk) {
                *sum += x * x;
            }
        }
        let mean = (sums.iter().sum::<f32>() + rest) / x.len() as f32;
        let inverse = 1.0 / (mean + eps).sqrt();
        for ((out, x), weight) in out.iter_mut().zip(x).zip(weight) {
            *out = x * inverse * weight;
        }
    });
}

/// Turns one head in place.
pub(crate) fn rope(head: &mut [f32], cos: &[f32], sin: &[f32]) {
    vectorised(|| {
        let (low, high) = head.split_at_mut(cos.len());
        for (((low, high), cos), sin) in low.iter_mut().zip(high).zip(cos).zip(sin) {
            (*low, *high) = (*low * cos - *high * sin, *high * cos + *low * sin);
        }
    });
}

/// `into += scale * from`.
pub(crate) fn add_scaled(into: &mut [f32], from: &[f32], scale: f32) {
    for (into, from) in into.iter_mut().zip(from) {
        *into += scale * from;
    }
}

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use std::arch::x86_64::{
        __m128i, _mm_loadu_si128, _mm256_castsi256_ps, _mm256_cvtepu16_epi32, _mm256_fmadd_ps,
        _mm256_loadu_ps, _mm256_set1_ps, _mm256_setzero_ps, _mm256_slli_epi32, _mm256_storeu_ps,
    };

    use super::{Acc, LANES, Panel, ROWS};

    /// # Safety
    /// AVX2 and FMA must be there; `rows` must have `N` entries, each with `depth` values of `a`
    /// behind it; the panel must have `depth` rows.
    #[target_feature(enable = "avx2,fma")]
    pub(super) unsafe fn tile<const N: usize>(
        a: &[f32],
        rows: &[usize],
        panel: Panel<'_>,
        depth: usize,
        acc: &mut Acc,
    ) {
        const { assert!(N >= 1 && N <= ROWS && LANES == 16) };
        let mut sums = [[_mm256_setzero_ps(); 2]; N];
        // SAFETY: the caller checked that every row and the panel reach to `depth`.
        unsafe {
            let mut at = [a.as_ptr(); N];
            for (at, &row) in at.iter_mut().zip(rows) {
                *at = at.add(row);
            }
            match panel {
                Panel::F32(values, stride) => {
                    let mut line = values.as_ptr();
                    for k in 0..depth {
                        let (low, high) = (_mm256_loadu_ps(line), _mm256_loadu_ps(line.add(8)));
                        line = line.wrapping_add(stride);
                        for (sum, at) in sums.iter_mut().zip(at) {
                            let x = _mm256_set1_ps(*at.add(k));
                            sum[0] = _mm256_fmadd_ps(x, low, sum[0]);
                            sum[1] = _mm256_fmadd_ps(x, high, sum[1]);
                        }
                    }
                }
                Panel::Bf16(values, stride) => {
                    let mut line = values.as_ptr();
                    let widen = |at: *const u16| {
                        let half = _mm_loadu_si128(at.cast::<__m128i>());
                        _mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(half)))
                    };
                    for k in 0..depth {
                        let (low, high) = (widen(line), widen(line.add(8)));
                        line = line.wrapping_add(stride);
                        for (sum, at) in sums.iter_mut().zip(at) {
                            let x = _mm256_set1_ps(*at.add(k));
                            sum[0] = _mm256_fmadd_ps(x, low, sum[0]);
                            sum[1] = _mm256_fmadd_ps(x, high, sum[1]);
                        }
                    }
                }
            }
            for (out, sum) in acc.iter_mut().zip(sums) {
                _mm256_storeu_ps(out.as_mut_ptr(), sum[0]);
                _mm256_storeu_ps(out.as_mut_ptr().add(8), sum[1]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exponential_agrees_with_the_library() {
        for i in -8700..8800 {
            let x = i as f32 * 0.01;
            let (ours, theirs) = (exp(x), x.exp());
            assert!((ours - theirs).abs() <= 3e-7 * theirs, "e^{x}: {ours} for {theirs}");
        }
    }

    #[test]
    fn fast_tiles_equal_plain_ones() {
        let depth = 37;
        let value = |i: usize| ((i * 7919) % 257) as f32 / 64.0 - 2.0;
        let a: Vec<f32> = (0..ROWS * depth).map(value).collect();
        let wide: Vec<f32> = (0..depth * 20).map(value).collect();
        let narrow: Vec<u16> = wide.iter().map(|v| (v.to_bits() >> 16) as u16).collect();
        for count in 1..=ROWS {
            let rows: Vec<usize> = (0..count).map(|r| r * depth).collect();
            for panel in [Panel::F32(&wide, 20), Panel::Bf16(&narrow, 20)] {
                let (mut fast, mut plain) = ([[0.0; LANES]; ROWS], [[0.0; LANES]; ROWS]);
                tile(&a, &rows, panel, depth, &mut fast);
                tile_plain(&a, &rows, panel, depth, &mut plain);
                for (fast, plain) in fast.iter().zip(&plain).take(count) {
                    for (fast, plain) in fast.iter().zip(plain) {
                        assert!((fast - plain).abs() < 1e-3, "{fast} for {plain}");
                    }
                }
            }
        }
    }
}
