//! Kernels of the training side on f32 slices: each forward pass and its gradient, by hand.
//!
//! - [`matmul`]: products of strided matrices; the one unsafe call
//! - [`exp`]: an exponential that vectorizes
//! - [`linear`], [`attention`], [`norm`], [`rotary`], [`swiglu`], [`softmax`]: the operations
//!
//! Nothing here knows tensors or graphs; [`super::autodiff`] puts these under burn's autodiff.

pub(crate) mod attention;
pub(crate) mod exp;
pub(crate) mod linear;
pub(crate) mod matmul;
pub(crate) mod norm;
pub(crate) mod rotary;
pub(crate) mod softmax;
pub(crate) mod swiglu;

use rayon::prelude::*;

/// Elements of one parallel piece of work: below this a thread costs more than it brings.
const PIECE: usize = 16 * 1024;

/// Rows of a piece when a row has `width` elements.
pub(crate) fn piece_rows(width: usize) -> usize {
    (PIECE / width.max(1)).max(1)
}

/// As [`by_rows`] with two results of the same shape: `work(first_row, rows_of_a, rows_of_b)`.
pub(crate) fn by_rows_of_two(
    a: &mut [f32],
    b: &mut [f32],
    width: usize,
    work: impl Fn(usize, &mut [f32], &mut [f32]) + Sync,
) {
    let rows = piece_rows(width);
    let work = |(index, (a, b)): (usize, (&mut [f32], &mut [f32]))| {
        pulp::Arch::new().dispatch(
            #[inline(always)]
            || work(index * rows, a, b),
        );
    };
    let step = rows * width;
    if a.len() <= 2 * PIECE {
        a.chunks_mut(step).zip(b.chunks_mut(step)).enumerate().for_each(work);
    } else {
        a.par_chunks_mut(step).zip(b.par_chunks_mut(step)).enumerate().for_each(work);
    }
}

/// Runs `work(first_row, rows_of_out)` over pieces of rows of `out`, in parallel where it pays.
pub(crate) fn by_rows(out: &mut [f32], width: usize, work: impl Fn(usize, &mut [f32]) + Sync) {
    let rows = piece_rows(width);
    let work = |(index, piece): (usize, &mut [f32])| {
        pulp::Arch::new().dispatch(
            #[inline(always)]
            || work(index * rows, piece),
        );
    };
    if out.len() <= 2 * PIECE {
        out.chunks_mut(rows * width).enumerate().for_each(work);
    } else {
        out.par_chunks_mut(rows * width).enumerate().for_each(work);
    }
}

/// Partial results of a reduction, so that it vectorizes: two registers of eight.
pub(crate) const LANES: usize = 16;

/// One instruction, unlike `f32::max`, which asks after NaN as well.
#[inline(always)]
fn larger(a: f32, b: f32) -> f32 {
    if b > a { b } else { a }
}

/// The largest of some values.
#[inline(always)]
pub(crate) fn largest(values: &[f32]) -> f32 {
    let mut tops = [f32::NEG_INFINITY; LANES];
    let chunks = values.chunks_exact(LANES);
    let rest = chunks.remainder();
    for chunk in chunks {
        for (top, value) in tops.iter_mut().zip(chunk) {
            *top = larger(*top, *value);
        }
    }
    tops.iter().chain(rest).fold(f32::NEG_INFINITY, |top, value| larger(top, *value))
}
