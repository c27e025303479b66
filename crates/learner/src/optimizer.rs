//! AdamW on host memory, and clipping by the global norm.
//!
//! Master weights and both moments are f32 on the host whatever the device computes in: small steps
//! are never lost to a narrow type, and a checkpoint is a copy.

use rayon::prelude::*;

use crate::options::AdamW;
use crate::parameters::Parameters;
use crate::schedule::learning_rate;

/// Elements one thread updates at a time.
const PIECE: usize = 16 * 1024;

/// What an update did.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Update {
    /// Global norm of the gradient before clipping.
    pub grad_norm: f64,
    /// Learning rate used.
    pub learning_rate: f64,
    /// False where a gradient was not finite: nothing was changed.
    pub applied: bool,
}

/// One step of AdamW (Loshchilov and Hutter 2019, arXiv:1711.05101, algorithm 2), after scaling the
/// gradient to `grad_norm_max` where its global norm is larger. `gradients` is in the order of the
/// parameters; `step` counts from 1. A gradient with a value that is not finite changes nothing.
pub fn update(
    parameters: &mut Parameters,
    gradients: &[Vec<f32>],
    options: &AdamW,
    step: u64,
) -> Update {
    let grad_norm = global_norm(gradients);
    let learning_rate = learning_rate(options, step);
    if !grad_norm.is_finite() {
        return Update { grad_norm, learning_rate, applied: false };
    }
    let clip = options.grad_norm_max;
    let scale = if clip > 0.0 && grad_norm > clip { clip / grad_norm } else { 1.0 } as f32;
    let exponent = i32::try_from(step).unwrap_or(i32::MAX);
    let (beta1, beta2) = (options.beta1 as f32, options.beta2 as f32);
    let correction1 = (1.0 - options.beta1.powi(exponent)) as f32;
    let correction2 = (1.0 - options.beta2.powi(exponent)) as f32;
    let (rate, eps) = (learning_rate as f32, options.eps as f32);
    for (parameter, gradient) in parameters.list.iter_mut().zip(gradients) {
        let decay =
            if parameter.decays() { (learning_rate * options.weight_decay) as f32 } else { 0.0 };
        let pieces = parameter
            .values
            .par_chunks_mut(PIECE)
            .zip(parameter.first.par_chunks_mut(PIECE))
            .zip(parameter.second.par_chunks_mut(PIECE))
            .zip(gradient.par_chunks(PIECE));
        pieces.for_each(|(((values, first), second), gradient)| {
            for i in 0..values.len() {
                let g = gradient[i] * scale;
                first[i] = beta1 * first[i] + (1.0 - beta1) * g;
                second[i] = beta2 * second[i] + (1.0 - beta2) * g * g;
                let direction = first[i] / correction1 / ((second[i] / correction2).sqrt() + eps);
                values[i] -= rate * direction + decay * values[i];
            }
        });
    }
    Update { grad_norm, learning_rate, applied: true }
}

/// Root of the sum of squares over all gradients.
#[must_use]
pub fn global_norm(gradients: &[Vec<f32>]) -> f64 {
    // Chunk sums are added in order, so that the norm does not depend on the threads.
    let squares = |values: &[f32]| values.iter().map(|&g| f64::from(g) * f64::from(g)).sum::<f64>();
    gradients
        .iter()
        .map(|gradient| gradient.par_chunks(PIECE).map(squares).collect::<Vec<_>>())
        .map(|sums| sums.iter().sum::<f64>())
        .sum::<f64>()
        .sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::Schedule;
    use crate::parameters::Parameter;

    fn parameters(values: &[f32]) -> Parameters {
        Parameters { list: vec![Parameter::new("w", vec![1, values.len()], values.to_vec())] }
    }

    fn options() -> AdamW {
        AdamW {
            learning_rate: 0.1,
            warmup_steps: 0,
            schedule: Schedule::Constant,
            grad_norm_max: 0.0,
            ..AdamW::default()
        }
    }

    /// Three steps worked out in f64 by the paper's algorithm.
    #[test]
    fn three_steps_are_the_papers() {
        let options = AdamW { weight_decay: 0.01, ..options() };
        let mut ours = parameters(&[1.0, -2.0]);
        let gradients = [[0.5, -1.0], [0.25, 2.0], [-1.5, 0.125]];
        for (step, gradient) in gradients.iter().enumerate() {
            let gradient: Vec<f32> = gradient.iter().map(|&g| g as f32).collect();
            assert!(update(&mut ours, &[gradient], &options, step as u64 + 1).applied);
        }
        for (column, start) in [1.0_f64, -2.0].into_iter().enumerate() {
            let (mut w, mut m, mut v) = (start, 0.0_f64, 0.0_f64);
            for (step, gradient) in gradients.iter().enumerate() {
                let (g, t) = (gradient[column], step as i32 + 1);
                m = options.beta1 * m + (1.0 - options.beta1) * g;
                v = options.beta2 * v + (1.0 - options.beta2) * g * g;
                let (mh, vh) =
                    (m / (1.0 - options.beta1.powi(t)), v / (1.0 - options.beta2.powi(t)));
                w -= 0.1 * mh / (vh.sqrt() + options.eps) + 0.1 * 0.01 * w;
            }
            let got = f64::from(ours.list[0].values[column]);
            assert!((got - w).abs() < 1e-6, "{got} for {w}");
        }
    }

    #[test]
    fn a_gradient_that_is_not_finite_changes_nothing() {
        let mut ours = parameters(&[1.0, 2.0]);
        let before = ours.clone();
        let done = update(&mut ours, &[vec![f32::NAN, 1.0]], &options(), 1);
        assert!(!done.applied && ours == before);
    }

    #[test]
    fn a_long_gradient_is_scaled_to_the_bound() {
        let clipped = AdamW { grad_norm_max: 1.0, ..options() };
        let (mut a, mut b) = (parameters(&[0.0, 0.0]), parameters(&[0.0, 0.0]));
        let done = update(&mut a, &[vec![30.0, 40.0]], &clipped, 1);
        update(&mut b, &[vec![0.6, 0.8]], &options(), 1);
        assert!((done.grad_norm - 50.0).abs() < 1e-9);
        for (a, b) in a.list[0].first.iter().zip(&b.list[0].first) {
            assert!((a - b).abs() < 1e-7, "moments see the clipped gradient");
        }
    }
}
