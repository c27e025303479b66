//! Products of strided matrices: a checked door to the `gemm` crate.

#![expect(unsafe_code, reason = "the gemm crate takes raw pointers; every view is checked first")]

use gemm::Parallelism;

/// A matrix inside a slice.
#[derive(Clone, Copy)]
pub(crate) struct View<'a> {
    data: &'a [f32],
    rows: usize,
    columns: usize,
    row_stride: usize,
    column_stride: usize,
}

impl<'a> View<'a> {
    /// `rows x columns`, rows `row_stride` apart.
    pub(crate) fn new(data: &'a [f32], rows: usize, columns: usize, row_stride: usize) -> Self {
        let view = Self { data, rows, columns, row_stride, column_stride: 1 };
        view.check();
        view
    }

    /// The same elements, rows and columns exchanged.
    pub(crate) fn transposed(self) -> Self {
        Self {
            rows: self.columns,
            columns: self.rows,
            row_stride: self.column_stride,
            column_stride: self.row_stride,
            ..self
        }
    }

    fn check(&self) {
        if self.rows > 0 && self.columns > 0 {
            let last = (self.rows - 1) * self.row_stride + (self.columns - 1) * self.column_stride;
            assert!(
                last < self.data.len(),
                "matrix of {}x{} leaves its slice",
                self.rows,
                self.columns
            );
        }
    }
}

/// Multiply-adds from which a product is spread over threads: below, waking them costs more.
const SPREAD_WORK_MIN: usize = 192 * 192 * 192;

/// `out = scale * a b`, or `out += scale * a b` with `add`; one thread.
///
/// # Shapes
/// `a` `[m, k]`, `b` `[k, n]`, `out` `[m, n]` with rows `out_stride` apart.
pub(crate) fn matmul(
    a: View<'_>,
    b: View<'_>,
    out: &mut [f32],
    out_stride: usize,
    scale: f32,
    add: bool,
) {
    product(a, b, out, out_stride, scale, add, Parallelism::None);
}

/// As [`matmul`], on all threads where the product is large. On one of rayon's own threads it stays
/// there: the others have work of the same kind, and a product cut up between caches is slower.
pub(crate) fn spread(
    a: View<'_>,
    b: View<'_>,
    out: &mut [f32],
    out_stride: usize,
    scale: f32,
    add: bool,
) {
    let work = a.rows * a.columns * b.columns;
    let alone = rayon::current_thread_index().is_none() && rayon::current_num_threads() > 1;
    let parallelism = match alone && work >= SPREAD_WORK_MIN {
        true => Parallelism::Rayon(0),
        false => Parallelism::None,
    };
    product(a, b, out, out_stride, scale, add, parallelism);
}

fn product(
    a: View<'_>,
    b: View<'_>,
    out: &mut [f32],
    out_stride: usize,
    scale: f32,
    add: bool,
    parallelism: Parallelism,
) {
    let (m, k, n) = (a.rows, a.columns, b.columns);
    assert_eq!(k, b.rows, "inner dimensions differ");
    if m == 0 || n == 0 {
        return;
    }
    assert!(n <= out_stride && (m - 1) * out_stride + n <= out.len(), "result leaves its slice");
    let stride = |s: usize| isize::try_from(s).expect("a slice fits in isize");
    // SAFETY: both views were checked against their slices when made (strides and extents), the
    // result's last element was checked just now, its rows do not overlap (n <= out_stride), and
    // `out` is borrowed mutably, so nothing aliases it.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            out.as_mut_ptr(),
            1,
            stride(out_stride),
            add,
            a.data.as_ptr(),
            stride(a.column_stride),
            stride(a.row_stride),
            b.data.as_ptr(),
            stride(b.column_stride),
            stride(b.row_stride),
            1.0,
            scale,
            false,
            false,
            false,
            parallelism,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transposed_product_of_strided_views_is_right() {
        // [[1, 2], [3, 4]] inside rows of 3, times its own transpose.
        let data = [1.0, 2.0, 9.0, 3.0, 4.0, 9.0];
        let view = View::new(&data, 2, 2, 3);
        let mut out = [10.0; 6];
        matmul(view, view.transposed(), &mut out, 3, 2.0, true);
        assert_eq!(out, [20.0, 32.0, 10.0, 32.0, 60.0, 10.0]);
    }

    #[test]
    #[should_panic(expected = "leaves its slice")]
    fn a_view_cannot_leave_its_slice() {
        let _ = View::new(&[0.0; 5], 2, 3, 3);
    }
}
