//! Weights in the layout of the host kernels: panels of sixteen columns, row after row, in bf16
//! where that loses nothing and in f32 otherwise. Also the matrix products made of them, on one
//! thread where the work is small and on rayon's where it pays.

use rayon::prelude::*;

use super::kernel::{self, LANES, Panels, ROWS, Values};

/// Multiply-adds from which a product is split among threads: below, waking them costs more.
const PARALLEL_WORK_MIN: usize = 6_000_000;

/// Bytes of panels that are kept in the second-level cache while all rows pass by.
const PANEL_BYTES: usize = 128 << 10;

#[derive(Debug)]
enum Stored {
    F32(Vec<f32>),
    Bf16(Vec<u16>),
}

/// One matrix `[depth, width]`, in panels padded with zeros, with its bias.
#[derive(Debug)]
pub(crate) struct PackedMatrix {
    depth: usize,
    width: usize,
    panels: Stored,
    bias: Option<Vec<f32>>,
}

/// What becomes of a product.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Into {
    /// It replaces what is there.
    Set,
    /// It is added, times a factor.
    Add(f32),
}

/// A matrix in some buffer: row `i` begins at `begin + i * stride`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rows {
    /// How many.
    pub(crate) count: usize,
    /// Where the first begins.
    pub(crate) begin: usize,
    /// From one to the next.
    pub(crate) stride: usize,
}

impl PackedMatrix {
    /// Packs matrices side by side. Each part is its values `[depth, width]`, how far its rows and
    /// its columns are apart, and its width.
    pub(crate) fn new(depth: usize, parts: &[Part<'_>]) -> Self {
        let width: usize = parts.iter().map(|part| part.width).sum();
        let exact = |part: &Part<'_>| part.values.iter().all(|v| v.to_bits() & 0xffff == 0);
        let lines = width.div_ceil(LANES) * depth;
        let place = |column: usize| (column / LANES) * depth * LANES + column % LANES;
        let mut column = 0;
        let panels = if parts.iter().all(exact) {
            let mut out = vec![0; lines * LANES];
            for part in parts {
                part.each(depth, |k, c, v| {
                    out[place(column + c) + k * LANES] = (v.to_bits() >> 16) as u16;
                });
                column += part.width;
            }
            Stored::Bf16(out)
        } else {
            let mut out = vec![0.0; lines * LANES];
            for part in parts {
                part.each(depth, |k, c, v| out[place(column + c) + k * LANES] = v);
                column += part.width;
            }
            Stored::F32(out)
        };
        let bias = parts.iter().any(|part| part.bias.is_some()).then(|| {
            let mut bias = Vec::with_capacity(width);
            for part in parts {
                match part.bias {
                    Some(values) => bias.extend_from_slice(values),
                    None => bias.resize(bias.len() + part.width, 0.0),
                }
            }
            bias
        });
        Self { depth, width, panels, bias }
    }

    /// Columns.
    pub(crate) fn width(&self) -> usize {
        self.width
    }

    /// The panels of a range of columns that begins at a panel's first.
    fn columns(&self, range: std::ops::Range<usize>) -> Panels<'_> {
        let step = self.depth * LANES;
        let part = range.start / LANES * step..range.end.div_ceil(LANES) * step;
        let values = match &self.panels {
            Stored::F32(values) => Values::F32(&values[part]),
            Stored::Bf16(values) => Values::Bf16(&values[part]),
        };
        Panels { values, stride: LANES, step, width: range.len() }
    }

    /// `out = a * self + bias` (or added). `out` is `[a.count, width]`, rows `out_stride` apart.
    pub(crate) fn apply(
        &self,
        a: &[f32],
        rows: Rows,
        out: &mut [f32],
        out_stride: usize,
        into: Into,
    ) {
        let panels = self.width.div_ceil(LANES);
        let work = rows.count * self.depth * self.width;
        let threads = rayon::current_num_threads();
        if work < PARALLEL_WORK_MIN || threads == 1 || panels < 2 {
            self.apply_columns(a, rows, 0..self.width, &mut |row, column, values| {
                let at = row * out_stride + column;
                store(&mut out[at..at + values.len()], values, into);
            });
            return;
        }
        // Each thread fills columns of its own; they are woven together afterwards, because rows
        // of the result cannot be lent to two threads.
        let per = panels.div_ceil(threads * 2) * LANES;
        let chunks: Vec<(usize, usize, Vec<f32>)> = (0..self.width.div_ceil(per))
            .into_par_iter()
            .map(|chunk| {
                let range = chunk * per..((chunk + 1) * per).min(self.width);
                let (first, width) = (range.start, range.len());
                let mut part = vec![0.0; rows.count * width];
                self.apply_columns(a, rows, range, &mut |row, column, values| {
                    let at = row * width + column - first;
                    part[at..at + values.len()].copy_from_slice(values);
                });
                (first, width, part)
            })
            .collect();
        for (first, width, part) in chunks {
            for (row, values) in part.chunks_exact(width).enumerate() {
                let at = row * out_stride + first;
                store(&mut out[at..at + width], values, into);
            }
        }
    }

    fn apply_columns(
        &self,
        a: &[f32],
        rows: Rows,
        range: std::ops::Range<usize>,
        emit: &mut impl FnMut(usize, usize, &[f32]),
    ) {
        // A few panels at a time, so that they stay in the cache for every block of rows.
        let chunk = (PANEL_BYTES / (self.depth * LANES * 4)).max(2) * LANES;
        let mut biased = [0.0; 2 * LANES];
        for first in range.clone().step_by(chunk) {
            let columns = first..(first + chunk).min(range.end);
            let panels = self.columns(columns);
            let mut row = 0;
            while row < rows.count {
                let count = block(rows.count - row);
                let mut begins = [0; ROWS];
                for (i, begin) in begins[..count].iter_mut().enumerate() {
                    *begin = rows.begin + (row + i) * rows.stride;
                }
                kernel::product(a, &begins[..count], panels, self.depth, |i, column, sums| {
                    let column = first + column;
                    match &self.bias {
                        None => emit(row + i, column, sums),
                        Some(bias) => {
                            let biased = &mut biased[..sums.len()];
                            biased.copy_from_slice(sums);
                            kernel::add_scaled(biased, &bias[column..][..sums.len()], 1.0);
                            emit(row + i, column, biased);
                        }
                    }
                });
                row += count;
            }
        }
    }
}

/// Rows of the next tile when `left` are to go: full tiles, and no lone row at the end.
pub(crate) fn block(left: usize) -> usize {
    match left {
        0..=ROWS => left,
        7 | 8 => 4,
        9 => 5,
        _ => ROWS,
    }
}

fn store(out: &mut [f32], values: &[f32], into: Into) {
    match into {
        Into::Set => out.copy_from_slice(values),
        Into::Add(scale) => kernel::add_scaled(out, values, scale),
    }
}

/// One of the matrices packed side by side.
pub(crate) struct Part<'a> {
    /// Values of `[depth, width]`.
    pub(crate) values: &'a [f32],
    /// Distance of two rows.
    pub(crate) row_stride: usize,
    /// Distance of two columns.
    pub(crate) column_stride: usize,
    /// Columns.
    pub(crate) width: usize,
    /// One value a column.
    pub(crate) bias: Option<&'a [f32]>,
}

impl Part<'_> {
    fn each(&self, depth: usize, mut put: impl FnMut(usize, usize, f32)) {
        // In the order of memory, whichever way the matrix lies.
        if self.column_stride == 1 {
            for k in 0..depth {
                for c in 0..self.width {
                    put(k, c, self.values[k * self.row_stride + c]);
                }
            }
        } else {
            for c in 0..self.width {
                for k in 0..depth {
                    put(k, c, self.values[k * self.row_stride + c * self.column_stride]);
                }
            }
        }
    }
}

/// One layer.
#[derive(Debug)]
pub(crate) struct PackedLayer {
    pub(crate) attn_norm: Vec<f32>,
    /// q, k and v side by side.
    pub(crate) qkv: PackedMatrix,
    pub(crate) q_norm: Option<Vec<f32>>,
    pub(crate) k_norm: Option<Vec<f32>>,
    pub(crate) o: PackedMatrix,
    pub(crate) mlp_norm: Vec<f32>,
    /// gate and up side by side.
    pub(crate) gate_up: PackedMatrix,
    pub(crate) down: PackedMatrix,
}

/// All weights of a decoder.
#[derive(Debug)]
pub struct PackedDecoder {
    pub(crate) layers: Vec<PackedLayer>,
    pub(crate) norm: Vec<f32>,
    pub(crate) head: PackedMatrix,
}

/// The two factors of one update.
#[derive(Debug)]
pub(crate) struct PackedPair {
    pub(crate) a: PackedMatrix,
    pub(crate) b: PackedMatrix,
}

/// An adapter: pairs by layer and target.
#[derive(Debug)]
pub struct PackedLora {
    pub(crate) layers: Vec<[Option<PackedPair>; 7]>,
}
