//! Loss, gradient and what is worth plotting, of one micro-batch.

use crate::kl::Estimator;

use super::importance::Weight;
use super::{Batch, Objective, ObjectiveError, Surrogate, Totals};

/// Differences under this count as none when it is judged whether clipping could fire at all.
const SAME: f64 = 1e-9;

/// What a micro-batch comes to.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// Its share of the loss.
    pub loss: f64,
    /// d loss / d lp; 0 where masked. `[tokens]`
    pub grad: Vec<f64>,
    /// Sums and maxima, to be merged over the micro-batches of a step.
    pub metrics: Metrics,
}

/// Sums over generated tokens. Merge those of a step's micro-batches, then ask for the means.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Metrics {
    /// Generated tokens.
    pub active_tokens: u64,
    /// Tokens whose gradient the lower clip took.
    pub clipped_low: u64,
    /// Tokens whose gradient the upper clip (or CISPO's or delta's cap) took or bounded.
    pub clipped_high: u64,
    /// Tokens whose importance weight was bounded.
    pub importance_bounded: u64,
    /// Sum of importance weights.
    pub importance_sum: f64,
    /// Sum of rho.
    pub ratio_sum: f64,
    /// Largest rho.
    pub ratio_max: f64,
    /// Largest |lp - old|.
    pub moved_max: f64,
    /// Sum of |old - sampled|: the gap between trainer and sampler, in nats.
    pub gap_sum: f64,
    /// Largest |old - sampled|.
    pub gap_max: f64,
    /// Sum of k1 to the reference; 0 without one.
    pub k1_sum: f64,
    /// Sum of k2.
    pub k2_sum: f64,
    /// Sum of k3.
    pub k3_sum: f64,
}

impl Metrics {
    /// Takes another micro-batch in.
    pub fn merge(&mut self, other: &Self) {
        self.active_tokens += other.active_tokens;
        self.clipped_low += other.clipped_low;
        self.clipped_high += other.clipped_high;
        self.importance_bounded += other.importance_bounded;
        self.importance_sum += other.importance_sum;
        self.ratio_sum += other.ratio_sum;
        self.ratio_max = self.ratio_max.max(other.ratio_max);
        self.moved_max = self.moved_max.max(other.moved_max);
        self.gap_sum += other.gap_sum;
        self.gap_max = self.gap_max.max(other.gap_max);
        self.k1_sum += other.k1_sum;
        self.k2_sum += other.k2_sum;
        self.k3_sum += other.k3_sum;
    }

    /// Whether clipping could not fire: the current policy is the proximal one on every token, as
    /// on the only step of a batch. The clip fraction then says nothing.
    #[must_use]
    pub fn clip_idle(&self) -> bool {
        self.moved_max < SAME
    }

    /// Names and values for curves, means over generated tokens.
    #[must_use]
    pub fn named(&self) -> Vec<(String, f64)> {
        let n = self.active_tokens.max(1) as f64;
        [
            ("active_tokens", self.active_tokens as f64),
            ("clip_low", self.clipped_low as f64 / n),
            ("clip_high", self.clipped_high as f64 / n),
            ("clip_idle", f64::from(u8::from(self.clip_idle()))),
            ("ratio_mean", self.ratio_sum / n),
            ("ratio_max", self.ratio_max),
            ("importance_mean", self.importance_sum / n),
            ("importance_bounded", self.importance_bounded as f64 / n),
            ("gap_mean", self.gap_sum / n),
            ("gap_max", self.gap_max),
            ("kl_k1", self.k1_sum / n),
            ("kl_k2", self.k2_sum / n),
            ("kl_k3", self.k3_sum / n),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .to_vec()
    }
}

/// Loss of a micro-batch of whole sequences, its gradient with respect to `lp`, and metrics.
///
/// `totals` are those of the optimizer step the micro-batch belongs to.
///
/// # Errors
/// When a parameter makes no sense, slices do not fit together, or a number is not finite.
pub fn objective(
    objective: &Objective,
    batch: &Batch<'_>,
    totals: Totals,
) -> Result<Outcome, ObjectiveError> {
    objective.validate()?;
    check(objective, batch)?;
    let mut outcome =
        Outcome { loss: 0.0, grad: vec![0.0; batch.lp.len()], metrics: Metrics::default() };
    for (i, bounds) in batch.cu_seqlens.windows(2).enumerate() {
        sequence(objective, batch, totals, i, bounds[0]..bounds[1], &mut outcome);
    }
    // A policy that ran away overflows exp(lp - old) before anything else shows it.
    if !outcome.loss.is_finite() || outcome.grad.iter().any(|g| !g.is_finite()) {
        return Err(ObjectiveError::NotFinite { name: "loss", index: 0, value: outcome.loss });
    }
    Ok(outcome)
}

/// Adds one sequence.
fn sequence(
    objective: &Objective,
    batch: &Batch<'_>,
    totals: Totals,
    i: usize,
    range: std::ops::Range<usize>,
    outcome: &mut Outcome,
) {
    let lp = &batch.lp[range.clone()];
    let old = &batch.old[range.clone()];
    let sampled = &batch.sampled[range.clone()];
    let mask = &batch.mask[range.clone()];
    let reference = batch.reference.map(|r| &r[range.clone()]);
    let advantage = batch.advantages[i];
    let active = mask.iter().filter(|m| **m).count();
    let share = objective.aggregation.weight(active, totals);
    let weights = match objective.importance {
        Some(importance) => importance.weights(old, sampled, mask),
        None => vec![Weight::ONE; mask.len()],
    };
    // GSPO's ratio depends on every token of the sequence: its gradient is collected, then spread.
    let sequence_ratio = match objective.surrogate {
        Surrogate::SequenceClipped { .. } => {
            let sum: f64 = (0..mask.len()).filter(|t| mask[*t]).map(|t| lp[t] - old[t]).sum();
            Some((sum / active.max(1) as f64).exp())
        }
        Surrogate::Clipped { .. } | Surrogate::Cispo { .. } => None,
    };
    let mut sequence_grad = 0.0;
    let grad = &mut outcome.grad[range];
    let metrics = &mut outcome.metrics;
    for t in (0..mask.len()).filter(|t| mask[*t]) {
        let ratio = sequence_ratio.unwrap_or_else(|| (lp[t] - old[t]).exp());
        let (loss, slope, clip) = surrogate(objective, ratio, advantage, lp[t]);
        outcome.loss += share * weights[t].value * loss;
        match sequence_ratio {
            Some(_) => sequence_grad += share * weights[t].value * slope,
            None => grad[t] += share * weights[t].value * slope,
        }
        if let Some(reference) = reference {
            let (kl, kl_slope) = objective.kl.value_and_grad(lp[t], reference[t]);
            if objective.beta > 0.0 {
                outcome.loss += share * objective.beta * kl;
                grad[t] += share * objective.beta * kl_slope;
            }
            let estimate = |k: Estimator| k.value_and_grad(lp[t], reference[t]).0;
            metrics.k1_sum += estimate(Estimator::K1);
            metrics.k2_sum += estimate(Estimator::K2);
            metrics.k3_sum += estimate(Estimator::K3);
        }
        metrics.active_tokens += 1;
        metrics.clipped_low += u64::from(clip == Clip::Low);
        metrics.clipped_high += u64::from(clip == Clip::High);
        metrics.importance_bounded += u64::from(weights[t].bounded);
        metrics.importance_sum += weights[t].value;
        metrics.ratio_sum += ratio;
        metrics.ratio_max = metrics.ratio_max.max(ratio);
        metrics.moved_max = metrics.moved_max.max((lp[t] - old[t]).abs());
        metrics.gap_sum += (old[t] - sampled[t]).abs();
        metrics.gap_max = metrics.gap_max.max((old[t] - sampled[t]).abs());
    }
    if sequence_ratio.is_some() {
        for t in (0..mask.len()).filter(|t| mask[*t]) {
            grad[t] += sequence_grad / active as f64;
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Clip {
    No,
    Low,
    High,
}

/// Loss of one token, its slope in lp (for one ratio a sequence: in the mean of the sequence's lp),
/// and whether a clip was at work.
fn surrogate(objective: &Objective, ratio: f64, advantage: f64, lp: f64) -> (f64, f64, Clip) {
    match objective.surrogate {
        Surrogate::Clipped { low, high } | Surrogate::SequenceClipped { low, high } => {
            let clipped = ratio.clamp(1.0 - low, 1.0 + high);
            let capped = objective.delta.map_or(ratio, |delta| ratio.min(delta));
            let (free, bound) = (capped * advantage, clipped * advantage);
            if bound < free {
                let clip = if clipped > ratio { Clip::Low } else { Clip::High };
                return (-bound, 0.0, clip);
            }
            if capped < ratio {
                return (-free, 0.0, Clip::High);
            }
            (-free, -ratio * advantage, Clip::No)
        }
        Surrogate::Cispo { cap } => {
            let capped = objective.delta.map_or(ratio, |delta| ratio.min(delta)).min(cap);
            let clip = if capped < ratio { Clip::High } else { Clip::No };
            (-capped * advantage * lp, -capped * advantage, clip)
        }
    }
}

fn check(objective: &Objective, batch: &Batch<'_>) -> Result<(), ObjectiveError> {
    let tokens = batch.lp.len();
    let fits = |name, got: usize, expected, of| {
        if got == expected {
            Ok(())
        } else {
            Err(ObjectiveError::Shape { name, got, expected, of })
        }
    };
    fits("old", batch.old.len(), tokens, "tokens")?;
    fits("sampled", batch.sampled.len(), tokens, "tokens")?;
    fits("mask", batch.mask.len(), tokens, "tokens")?;
    if let Some(reference) = batch.reference {
        fits("reference", reference.len(), tokens, "tokens")?;
    }
    let bounds = batch.cu_seqlens;
    let whole = bounds.first() == Some(&0) && bounds.last() == Some(&tokens) && bounds.is_sorted();
    if !whole {
        return Err(ObjectiveError::Bounds { tokens });
    }
    fits("advantages", batch.advantages.len(), bounds.len() - 1, "sequences")?;
    if objective.beta > 0.0 && batch.reference.is_none() {
        return Err(ObjectiveError::NoReference);
    }
    let finite = |name, values: &[f64], masked: bool| {
        let bad = |(i, v): &(usize, &f64)| !v.is_finite() && (!masked || batch.mask[*i]);
        match values.iter().enumerate().find(bad) {
            Some((index, value)) => Err(ObjectiveError::NotFinite { name, index, value: *value }),
            None => Ok(()),
        }
    };
    finite("lp", batch.lp, true)?;
    finite("old", batch.old, true)?;
    finite("sampled", batch.sampled, true)?;
    if let Some(reference) = batch.reference {
        finite("reference", reference, true)?;
    }
    finite("advantages", batch.advantages, false)
}
