//! The host kernels: one matrix product of a few rows against sixteen columns at a time, and the
//! elementwise functions between. AVX2 with FMA where the processor has it, plain loops elsewhere.
//!
//! The only file of the crate with `unsafe`: vector loads from slices whose bounds are checked at
//! the entry of [`product`].
#![expect(unsafe_code, reason = "vector loads and stores have no safe form")]

use std::sync::LazyLock;

/// Columns of a tile: two AVX2 registers of f32.
pub(crate) const LANES: usize = 16;
/// Most rows of a tile: twelve accumulators leave four registers for operands.
pub(crate) const ROWS: usize = 6;
/// Most rows of a tile of two panels: again twelve accumulators.
const WIDE_ROWS: usize = 3;

/// Whether the fast kernels run here.
static FAST: LazyLock<bool> = LazyLock::new(|| {
    #[cfg(target_arch = "x86_64")]
    return is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
    #[cfg(not(target_arch = "x86_64"))]
    return false;
});

/// Numbers of a matrix.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Values<'a> {
    /// f32.
    F32(&'a [f32]),
    /// bf16, exact in f32.
    Bf16(&'a [u16]),
}

/// A matrix as panels of sixteen columns: row `k` of panel `p` begins at `p * step + k * stride`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Panels<'a> {
    /// The numbers.
    pub(crate) values: Values<'a>,
    /// From one row to the next.
    pub(crate) stride: usize,
    /// From one panel to the next.
    pub(crate) step: usize,
    /// Columns wanted; the last panel must be readable whole all the same.
    pub(crate) width: usize,
}

/// The product of `rows.len()` rows (1 to [`ROWS`]), beginning at `rows[..]` in `a`, with a matrix
/// of `depth` rows. `emit` gets the row's index, a column and the sums from there on.
///
/// # Panics
/// When a row or a panel is shorter than `depth` asks for.
#[inline]
pub(crate) fn product(
    a: &[f32],
    rows: &[usize],
    panels: Panels<'_>,
    depth: usize,
    mut emit: impl FnMut(usize, usize, &[f32]),
) {
    assert!(!rows.is_empty() && rows.len() <= ROWS, "1 to {ROWS} rows a tile");
    assert!(rows.iter().all(|&row| row + depth <= a.len()), "a row is too short");
    let length = match panels.values {
        Values::F32(values) => values.len(),
        Values::Bf16(values) => values.len(),
    };
    let count = panels.width.div_ceil(LANES);
    if count == 0 || depth == 0 {
        return;
    }
    let last = (count - 1) * panels.step + (depth - 1) * panels.stride + LANES;
    assert!(last <= length, "the matrix is too short");
    let mut acc: Acc = [[0.0; 2 * LANES]; ROWS];
    let mut panel = 0;
    while panel < count {
        // Few rows leave registers for two panels, which hides the latency of the sums.
        let wide = rows.len() <= WIDE_ROWS && panel + 1 < count;
        tile(a, rows, panels, panel, wide, depth, &mut acc);
        let first = panel * LANES;
        let width = (if wide { 2 * LANES } else { LANES }).min(panels.width - first);
        for (i, sums) in acc[..rows.len()].iter().enumerate() {
            emit(i, first, &sums[..width]);
        }
        panel += if wide { 2 } else { 1 };
    }
}

/// Sums of a tile: sixteen or thirty-two columns.
type Acc = [[f32; 2 * LANES]; ROWS];

/// One tile; what it reads has been checked.
#[inline]
fn tile(
    a: &[f32],
    rows: &[usize],
    panels: Panels<'_>,
    panel: usize,
    wide: bool,
    depth: usize,
    acc: &mut Acc,
) {
    #[cfg(target_arch = "x86_64")]
    if *FAST {
        // SAFETY: the processor has AVX2 and FMA; the caller checked every row and panel.
        unsafe {
            match (rows.len(), wide) {
                (1, true) => avx2::tile::<1, 4>(a, rows, panels, panel, depth, acc),
                (2, true) => avx2::tile::<2, 4>(a, rows, panels, panel, depth, acc),
                (3, true) => avx2::tile::<3, 4>(a, rows, panels, panel, depth, acc),
                (1, false) => avx2::tile::<1, 2>(a, rows, panels, panel, depth, acc),
                (2, false) => avx2::tile::<2, 2>(a, rows, panels, panel, depth, acc),
                (3, false) => avx2::tile::<3, 2>(a, rows, panels, panel, depth, acc),
                (4, _) => avx2::tile::<4, 2>(a, rows, panels, panel, depth, acc),
                (5, _) => avx2::tile::<5, 2>(a, rows, panels, panel, depth, acc),
                _ => avx2::tile::<6, 2>(a, rows, panels, panel, depth, acc),
            }
        }
        return;
    }
    tile_plain(a, rows, panels, panel, wide, depth, acc);
}

fn tile_plain(
    a: &[f32],
    rows: &[usize],
    panels: Panels<'_>,
    panel: usize,
    wide: bool,
    depth: usize,
    acc: &mut Acc,
) {
    *acc = [[0.0; 2 * LANES]; ROWS];
    for part in 0..=usize::from(wide) {
        for k in 0..depth {
            let at = (panel + part) * panels.step + k * panels.stride;
            let line: [f32; LANES] = match panels.values {
                Values::F32(values) => std::array::from_fn(|c| values[at + c]),
                Values::Bf16(values) => {
                    std::array::from_fn(|c| f32::from_bits(u32::from(values[at + c]) << 16))
                }
            };
            for (sums, &row) in acc.iter_mut().zip(rows) {
                let x = a[row + k];
                for (sum, value) in sums[part * LANES..].iter_mut().zip(line) {
                    *sum += x * value;
                }
            }
        }
    }
}

/// Declares a function whose body is compiled twice, once for AVX2 with FMA, and picks the one
/// the processor has. The body must be a plain loop the compiler can vectorise.
macro_rules! vectorised {
    ($(#[$doc:meta])* fn $name:ident($($arg:ident: $kind:ty),*) $body:block) => {
        $(#[$doc])*
        pub(crate) fn $name($($arg: $kind),*) {
            #[inline(always)]
            fn body($($arg: $kind),*) $body
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx2,fma")]
                fn fast($($arg: $kind),*) {
                    body($($arg),*);
                }
                if *FAST {
                    // SAFETY: the processor has the features.
                    return unsafe { fast($($arg),*) };
                }
            }
            body($($arg),*);
        }
    };
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

vectorised! {
    /// `gate[i] = silu(gate[i]) * up[i]`.
    fn silu_mul(gate: &mut [f32], up: &[f32]) {
        for (g, u) in gate.iter_mut().zip(up) {
            *g = *g / (1.0 + exp(-*g)) * u;
        }
    }
}

vectorised! {
    /// Scales scores and turns them into weights that sum to one.
    fn softmax(scores: &mut [f32], scale: f32) {
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
    }
}

vectorised! {
    /// `out = x / rms(x) * weight` for one row.
    fn rms_norm(x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) {
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
    }
}

vectorised! {
    /// Turns one head in place.
    fn rope(head: &mut [f32], cos: &[f32], sin: &[f32]) {
        let (low, high) = head.split_at_mut(cos.len());
        for (((low, high), cos), sin) in low.iter_mut().zip(high).zip(cos).zip(sin) {
            (*low, *high) = (*low * cos - *high * sin, *high * cos + *low * sin);
        }
    }
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
        __m128i, __m256, _mm_loadu_si128, _mm256_castsi256_ps, _mm256_cvtepu16_epi32,
        _mm256_fmadd_ps, _mm256_loadu_ps, _mm256_set1_ps, _mm256_setzero_ps, _mm256_slli_epi32,
        _mm256_storeu_ps,
    };

    use super::{Acc, Panels, ROWS, Values};

    /// Eight bf16 values as f32.
    ///
    /// # Safety
    /// Sixteen bytes must be readable.
    #[inline]
    #[target_feature(enable = "avx2,fma")]
    unsafe fn widen(at: *const u16) -> __m256 {
        // SAFETY: the caller's.
        let half = unsafe { _mm_loadu_si128(at.cast::<__m128i>()) };
        _mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(half)))
    }

    /// `N` rows against `W` registers of eight columns: two a panel.
    ///
    /// # Safety
    /// AVX2 and FMA must be there; `rows` must have `N` entries, each with `depth` values of `a`
    /// behind it; `W / 2` panels from `panel` on must have `depth` rows.
    #[target_feature(enable = "avx2,fma")]
    pub(super) unsafe fn tile<const N: usize, const W: usize>(
        a: &[f32],
        rows: &[usize],
        panels: Panels<'_>,
        panel: usize,
        depth: usize,
        acc: &mut Acc,
    ) {
        const { assert!(N >= 1 && N <= ROWS && (W == 2 || W == 4) && N * W <= 12) };
        let mut sums = [[_mm256_setzero_ps(); W]; N];
        let offset = |w: usize| (panel + w / 2) * panels.step + w % 2 * 8;
        // SAFETY: the caller checked that every row and panel reaches to `depth`; pointers move
        // past the end only by wrapping, and are not read there.
        unsafe {
            let mut at = [a.as_ptr(); N];
            for (at, &row) in at.iter_mut().zip(rows) {
                *at = at.add(row);
            }
            match panels.values {
                Values::F32(values) => {
                    let mut lines: [*const f32; W] =
                        std::array::from_fn(|w| values.as_ptr().add(offset(w)));
                    for k in 0..depth {
                        let mut line = [_mm256_setzero_ps(); W];
                        for (line, from) in line.iter_mut().zip(&mut lines) {
                            *line = _mm256_loadu_ps(*from);
                            *from = from.wrapping_add(panels.stride);
                        }
                        for (sums, at) in sums.iter_mut().zip(at) {
                            let x = _mm256_set1_ps(*at.add(k));
                            for (sum, line) in sums.iter_mut().zip(line) {
                                *sum = _mm256_fmadd_ps(x, line, *sum);
                            }
                        }
                    }
                }
                Values::Bf16(values) => {
                    let mut lines: [*const u16; W] =
                        std::array::from_fn(|w| values.as_ptr().add(offset(w)));
                    for k in 0..depth {
                        let mut line = [_mm256_setzero_ps(); W];
                        for (line, from) in line.iter_mut().zip(&mut lines) {
                            *line = widen(*from);
                            *from = from.wrapping_add(panels.stride);
                        }
                        for (sums, at) in sums.iter_mut().zip(at) {
                            let x = _mm256_set1_ps(*at.add(k));
                            for (sum, line) in sums.iter_mut().zip(line) {
                                *sum = _mm256_fmadd_ps(x, line, *sum);
                            }
                        }
                    }
                }
            }
            for (out, sums) in acc.iter_mut().zip(sums) {
                for (w, sum) in sums.into_iter().enumerate() {
                    _mm256_storeu_ps(out.as_mut_ptr().add(8 * w), sum);
                }
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
    fn products_are_those_of_the_definition() {
        let (depth, width) = (37, 52);
        let value = |i: usize| ((i * 7919) % 257) as f32 / 64.0 - 2.0;
        let a: Vec<f32> = (0..ROWS * depth).map(value).collect();
        // Four panels with rows 20 apart, the last only in part wanted.
        let step = depth * 20;
        let f32s: Vec<f32> = (0..4 * step).map(value).collect();
        let bf16s: Vec<u16> = f32s.iter().map(|v| (v.to_bits() >> 16) as u16).collect();
        for count in 1..=ROWS {
            let rows: Vec<usize> = (0..count).map(|r| r * depth).collect();
            for values in [Values::F32(&f32s), Values::Bf16(&bf16s)] {
                let panels = Panels { values, stride: 20, step, width };
                let mut seen = vec![0; count * width];
                product(&a, &rows, panels, depth, |i, column, sums| {
                    for (c, &sum) in (column..).zip(sums) {
                        let at = |k: usize| c / LANES * step + k * 20 + c % LANES;
                        let want: f32 = (0..depth).map(|k| a[i * depth + k] * f32s[at(k)]).sum();
                        assert!((sum - want).abs() < 1e-3, "{count} rows: {sum} for {want}");
                        seen[i * width + c] += 1;
                    }
                });
                assert!(seen.iter().all(|&times| times == 1), "every sum comes once");
            }
        }
    }

    #[test]
    fn plain_tiles_equal_fast_ones() {
        let value = |i: usize| ((i * 31) % 97) as f32 / 32.0 - 1.5;
        let (a, b): (Vec<f32>, Vec<f32>) =
            ((0..60).map(value).collect(), (0..960).map(value).collect());
        let panels = Panels { values: Values::F32(&b), stride: LANES, step: 20 * LANES, width: 48 };
        for (rows, wide) in [(vec![0, 20, 40], true), (vec![0, 20, 40], false)] {
            let (mut fast, mut plain) = ([[0.0; 2 * LANES]; ROWS], [[0.0; 2 * LANES]; ROWS]);
            tile(&a, &rows, panels, 1, wide, 20, &mut fast);
            tile_plain(&a, &rows, panels, 1, wide, 20, &mut plain);
            for (fast, plain) in fast.iter().flatten().zip(plain.iter().flatten()) {
                assert!((fast - plain).abs() < 1e-4, "{fast} for {plain}");
            }
        }
    }
}
