//! Causal grouped-query attention within packed sequences, and its gradient.
//!
//! Work is one (sequence, key head) at a time, in blocks of query rows: a block sees only the keys
//! up to its last row, so about half of the square is never computed. The backward pass computes
//! the probabilities again from the rows' log-sum-exp instead of keeping them
//! (Dao et al. 2022, arXiv:2205.14135).

use rayon::prelude::*;

use super::exp::exp;
use super::matmul::{View, matmul};
use super::{LANES, largest};

/// Query rows of one block.
const BLOCK: usize = 64;

/// Sizes of the operands.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shape {
    pub(crate) heads: usize,
    pub(crate) kv_heads: usize,
    pub(crate) dim: usize,
}

impl Shape {
    fn scale(self) -> f32 {
        1.0 / (self.dim as f32).sqrt()
    }

    fn group(self) -> usize {
        self.heads / self.kv_heads
    }

    fn q_width(self) -> usize {
        self.heads * self.dim
    }

    fn kv_width(self) -> usize {
        self.kv_heads * self.dim
    }
}

/// One (sequence, key head): where it starts, how long it is, which head.
#[derive(Debug, Clone, Copy)]
struct Job {
    start: usize,
    len: usize,
    kv_head: usize,
}

fn jobs(shape: Shape, cu_seqlens: &[usize]) -> Vec<Job> {
    let sequences = cu_seqlens.windows(2).filter(|ends| ends[0] < ends[1]);
    sequences
        .flat_map(|ends| {
            (0..shape.kv_heads).map(move |kv_head| Job {
                start: ends[0],
                len: ends[1] - ends[0],
                kv_head,
            })
        })
        .collect()
}

/// Result `[tokens, heads, dim]` and log-sum-exp of the scores, `[tokens, heads]`.
pub(crate) fn forward(
    q: &[f32],
    k: &[f32],
    v: &[f32],
    shape: Shape,
    cu_seqlens: &[usize],
) -> (Vec<f32>, Vec<f32>) {
    let jobs = jobs(shape, cu_seqlens);
    let parts: Vec<(Vec<f32>, Vec<f32>)> =
        jobs.par_iter().map(|job| forward_job(q, k, v, shape, *job)).collect();
    let tokens = q.len() / shape.q_width();
    let mut out = vec![0.0; q.len()];
    let mut lse = vec![0.0; tokens * shape.heads];
    let group_width = shape.group() * shape.dim;
    for (job, (part, part_lse)) in jobs.iter().zip(&parts) {
        for row in 0..job.len {
            let token = job.start + row;
            let to = token * shape.q_width() + job.kv_head * group_width;
            out[to..to + group_width].copy_from_slice(&part[row * group_width..][..group_width]);
            let to = token * shape.heads + job.kv_head * shape.group();
            lse[to..to + shape.group()]
                .copy_from_slice(&part_lse[row * shape.group()..][..shape.group()]);
        }
    }
    (out, lse)
}

/// Scores of a block of queries against the keys before and at them, not yet scaled.
fn scores(q: View<'_>, k: View<'_>, out: &mut [f32], columns: usize, scale: f32) {
    matmul(q, k.transposed(), out, columns, scale, false);
}

fn head_view(x: &[f32], at: usize, rows: usize, dim: usize, width: usize) -> View<'_> {
    View::new(&x[at..], rows, dim, width)
}

fn forward_job(q: &[f32], k: &[f32], v: &[f32], shape: Shape, job: Job) -> (Vec<f32>, Vec<f32>) {
    let Shape { dim, .. } = shape;
    let (group, q_width, kv_width) = (shape.group(), shape.q_width(), shape.kv_width());
    let out_width = group * dim;
    let mut out = vec![0.0; job.len * out_width];
    let mut lse = vec![0.0; job.len * group];
    let mut block = vec![0.0; BLOCK * job.len];
    let kv_at = job.start * kv_width + job.kv_head * dim;
    for member in 0..group {
        let head = job.kv_head * group + member;
        for begin in (0..job.len).step_by(BLOCK) {
            let end = (begin + BLOCK).min(job.len);
            let (rows, columns) = (end - begin, end);
            let q_at = (job.start + begin) * q_width + head * dim;
            let block = &mut block[..rows * columns];
            scores(
                head_view(q, q_at, rows, dim, q_width),
                head_view(k, kv_at, columns, dim, kv_width),
                block,
                columns,
                shape.scale(),
            );
            pulp::Arch::new().dispatch(
                #[inline(always)]
                || {
                    for (row, s) in block.chunks_exact_mut(columns).enumerate() {
                        lse[(begin + row) * group + member] = softmax_row(s, begin + row + 1);
                    }
                },
            );
            matmul(
                View::new(block, rows, columns, columns),
                head_view(v, kv_at, columns, dim, kv_width),
                &mut out[begin * out_width + member * dim..],
                out_width,
                1.0,
                false,
            );
        }
    }
    (out, lse)
}

/// Softmax over the first `seen` scores, zero after; gives the log-sum-exp.
#[inline(always)]
fn softmax_row(s: &mut [f32], seen: usize) -> f32 {
    let (live, future) = s.split_at_mut(seen);
    future.fill(0.0);
    let top = largest(live);
    for z in live.iter_mut() {
        *z = exp(*z - top);
    }
    let mut sums = [0.0_f32; LANES];
    for chunk in live.chunks(LANES) {
        for (sum, e) in sums.iter_mut().zip(chunk) {
            *sum += e;
        }
    }
    let sum: f32 = sums.iter().sum();
    let inverse = 1.0 / sum;
    for z in live.iter_mut() {
        *z *= inverse;
    }
    top + sum.ln()
}

/// What the backward pass needs of the forward pass.
pub(crate) struct Saved<'a> {
    pub(crate) q: &'a [f32],
    pub(crate) k: &'a [f32],
    pub(crate) v: &'a [f32],
    pub(crate) out: &'a [f32],
    pub(crate) lse: &'a [f32],
}

/// Gradients with respect to q, k and v.
pub(crate) fn backward(
    saved: &Saved<'_>,
    dout: &[f32],
    shape: Shape,
    cu_seqlens: &[usize],
) -> (Vec<f32>, Vec<f32>, Vec<f32>) {
    let jobs = jobs(shape, cu_seqlens);
    let parts: Vec<[Vec<f32>; 3]> =
        jobs.par_iter().map(|job| backward_job(saved, dout, shape, *job)).collect();
    let mut dq = vec![0.0; saved.q.len()];
    let mut dk = vec![0.0; saved.k.len()];
    let mut dv = vec![0.0; saved.v.len()];
    let (dim, group_width) = (shape.dim, shape.group() * shape.dim);
    for (job, [part_q, part_k, part_v]) in jobs.iter().zip(&parts) {
        for row in 0..job.len {
            let token = job.start + row;
            let to = token * shape.q_width() + job.kv_head * group_width;
            dq[to..to + group_width].copy_from_slice(&part_q[row * group_width..][..group_width]);
            let to = token * shape.kv_width() + job.kv_head * dim;
            dk[to..to + dim].copy_from_slice(&part_k[row * dim..][..dim]);
            dv[to..to + dim].copy_from_slice(&part_v[row * dim..][..dim]);
        }
    }
    (dq, dk, dv)
}

fn backward_job(saved: &Saved<'_>, dout: &[f32], shape: Shape, job: Job) -> [Vec<f32>; 3] {
    let Shape { dim, .. } = shape;
    let (group, q_width, kv_width) = (shape.group(), shape.q_width(), shape.kv_width());
    let dq_width = group * dim;
    let mut dq = vec![0.0; job.len * dq_width];
    let mut dk = vec![0.0; job.len * dim];
    let mut dv = vec![0.0; job.len * dim];
    let mut p = vec![0.0; BLOCK * job.len];
    let mut ds = vec![0.0; BLOCK * job.len];
    let kv_at = job.start * kv_width + job.kv_head * dim;
    for member in 0..group {
        let head = job.kv_head * group + member;
        for begin in (0..job.len).step_by(BLOCK) {
            let end = (begin + BLOCK).min(job.len);
            let (rows, columns) = (end - begin, end);
            let q_at = (job.start + begin) * q_width + head * dim;
            let queries = head_view(saved.q, q_at, rows, dim, q_width);
            let keys = head_view(saved.k, kv_at, columns, dim, kv_width);
            let values = head_view(saved.v, kv_at, columns, dim, kv_width);
            let dout_view = head_view(dout, q_at, rows, dim, q_width);
            let p = &mut p[..rows * columns];
            let ds = &mut ds[..rows * columns];
            scores(queries, keys, p, columns, shape.scale());
            matmul(dout_view, values.transposed(), ds, columns, 1.0, false);
            pulp::Arch::new().dispatch(
                #[inline(always)]
                || {
                    for row in 0..rows {
                        let token = job.start + begin + row;
                        let at = token * q_width + head * dim;
                        let mut delta = 0.0;
                        for (o, d) in saved.out[at..at + dim].iter().zip(&dout[at..at + dim]) {
                            delta += o * d;
                        }
                        let lse = saved.lse[token * shape.heads + head];
                        let seen = begin + row + 1;
                        let p = &mut p[row * columns..(row + 1) * columns];
                        let ds = &mut ds[row * columns..(row + 1) * columns];
                        for (p, ds) in p[..seen].iter_mut().zip(&mut ds[..seen]) {
                            *p = exp(*p - lse);
                            *ds = *p * (*ds - delta);
                        }
                        p[seen..].fill(0.0);
                        ds[seen..].fill(0.0);
                    }
                },
            );
            let p = View::new(p, rows, columns, columns);
            let ds = View::new(ds, rows, columns, columns);
            let dq_at = begin * dq_width + member * dim;
            matmul(ds, keys, &mut dq[dq_at..], dq_width, shape.scale(), false);
            matmul(ds.transposed(), queries, &mut dk, dim, shape.scale(), true);
            matmul(p.transposed(), dout_view, &mut dv, dim, 1.0, true);
        }
    }
    [dq, dk, dv]
}
