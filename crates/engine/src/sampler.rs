//! Draws one token from one row of logits.
//!
//! Pure: the uniform number is passed in. The log-probability is that of the *untruncated*
//! distribution, log-softmax of logits / temperature; top-k and top-p only restrict what may be
//! drawn. The learner computes the same quantity from its own logits, and a truncated sampler's
//! renormalised probabilities could not be compared with it.

use crrl_types::Sampling;

/// A drawn token.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Draw {
    pub(crate) id: u32,
    /// Log-softmax of logits / temperature at `id` (of the logits themselves at temperature 0).
    pub(crate) logprob: f32,
}

/// A row of logits with an infinity or a NaN in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the model's logits are not finite")]
pub(crate) struct NotFinite;

/// Buffers kept between draws.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    /// exp((logit - max) / temperature). `[vocab]`
    weights: Vec<f32>,
    /// Ids, most likely first as far as they were sorted. `[vocab]`
    order: Vec<u32>,
}

/// Width of the partial sums; the compiler turns them into vector registers.
const LANES: usize = 8;
/// How many of the most likely tokens are sorted before more are tried.
const SORTED_FIRST: usize = 256;

/// Draws a token. `uniform` is in `0.0..1.0`.
///
/// # Errors
/// When a logit is not finite.
pub(crate) fn draw(
    logits: &[f32],
    sampling: &Sampling,
    uniform: f64,
    scratch: &mut Scratch,
) -> Result<Draw, NotFinite> {
    let best = maximum(logits)?;
    let greedy = sampling.temperature <= 0.0;
    let scale = if greedy { 1.0 } else { sampling.temperature.recip() };
    let total = weigh(logits, best, scale, &mut scratch.weights);
    let id = if greedy {
        logits.iter().position(|l| *l >= best).expect("the maximum is one of the logits")
    } else if sampling.top_k == 0 && sampling.top_p >= 1.0 {
        walk(&scratch.weights, uniform * total)
    } else {
        draw_truncated(scratch, sampling, uniform, total)
    };
    let logprob = f64::from((logits[id] - best) * scale) - total.ln();
    #[expect(
        clippy::cast_possible_truncation,
        reason = "vocabularies have far fewer than 2^32 ids"
    )]
    Ok(Draw { id: id as u32, logprob: logprob as f32 })
}

/// Log-probability of one id: log-softmax of logits / temperature.
///
/// # Errors
/// When a logit is not finite.
pub(crate) fn logprob_of(
    logits: &[f32],
    id: u32,
    temperature: f32,
    scratch: &mut Scratch,
) -> Result<f32, NotFinite> {
    let best = maximum(logits)?;
    let scale = if temperature <= 0.0 { 1.0 } else { temperature.recip() };
    let total = weigh(logits, best, scale, &mut scratch.weights);
    #[expect(clippy::cast_possible_truncation, reason = "a log-probability is stored as f32")]
    Ok((f64::from((logits[id as usize] - best) * scale) - total.ln()) as f32)
}

/// The largest logit; refuses rows that are not finite.
fn maximum(logits: &[f32]) -> Result<f32, NotFinite> {
    let mut best = [f32::NEG_INFINITY; LANES];
    let mut poison = [0.0_f32; LANES];
    let (rows, rest) = logits.as_chunks::<LANES>();
    for row in rows {
        for lane in 0..LANES {
            best[lane] = if row[lane] > best[lane] { row[lane] } else { best[lane] };
            // 0 for a finite number, NaN for an infinity or a NaN.
            poison[lane] += row[lane] * 0.0;
        }
    }
    for (lane, logit) in rest.iter().enumerate() {
        best[lane] = best[lane].max(*logit);
        poison[lane] += logit * 0.0;
    }
    let best = best.into_iter().fold(f32::NEG_INFINITY, f32::max);
    if poison.into_iter().sum::<f32>() == 0.0 && best.is_finite() {
        Ok(best)
    } else {
        Err(NotFinite)
    }
}

/// Fills `weights` with exp((logit - best) * scale) and returns their sum.
fn weigh(logits: &[f32], best: f32, scale: f32, weights: &mut Vec<f32>) -> f64 {
    weights.clear();
    weights.extend(logits.iter().map(|logit| exp((logit - best) * scale)));
    weights.chunks(BLOCK).map(block_sum).sum()
}

/// Weights that are summed in f32 before the sums are added in f64.
const BLOCK: usize = 64;

fn block_sum(block: &[f32]) -> f64 {
    let mut sums = [0.0_f32; LANES];
    let (rows, rest) = block.as_chunks::<LANES>();
    for row in rows {
        for lane in 0..LANES {
            sums[lane] += row[lane];
        }
    }
    for (lane, weight) in rest.iter().enumerate() {
        sums[lane] += weight;
    }
    f64::from(sums.into_iter().sum::<f32>())
}

/// The first index at which the running sum of `weights` exceeds `target`.
fn walk(weights: &[f32], target: f64) -> usize {
    let mut passed = 0.0;
    for (index, block) in weights.chunks(BLOCK).enumerate() {
        let sum = block_sum(block);
        if passed + sum <= target {
            passed += sum;
            continue;
        }
        for (offset, weight) in block.iter().enumerate() {
            passed += f64::from(*weight);
            if passed > target {
                return index * BLOCK + offset;
            }
        }
    }
    // Rounding: the target lies within an ulp of the whole sum.
    weights.iter().rposition(|w| *w > 0.0).expect("the most likely token has weight 1")
}

/// Draws among the `top_k` most likely tokens, of those the smallest set whose share reaches
/// `top_p` (the order Hugging Face applies them in).
fn draw_truncated(scratch: &mut Scratch, sampling: &Sampling, uniform: f64, total: f64) -> usize {
    let Scratch { weights, order } = scratch;
    let allowed = match sampling.top_k {
        0 => weights.len(),
        k => (k as usize).min(weights.len()),
    };
    let mut sorted = if sampling.top_k == 0 { SORTED_FIRST.min(allowed) } else { allowed };
    loop {
        most_likely_first(weights, order, sorted);
        let kept: f64 = order[..sorted].iter().map(|id| f64::from(weights[*id as usize])).sum();
        let whole = if sampling.top_k == 0 { total } else { kept };
        let wanted = whole * f64::from(sampling.top_p.clamp(0.0, 1.0));
        if kept < wanted && sorted < allowed {
            sorted = (sorted * 8).min(allowed);
            continue;
        }
        let mut mass = 0.0;
        let mut cut = sorted;
        for (rank, id) in order[..sorted].iter().enumerate() {
            mass += f64::from(weights[*id as usize]);
            if mass >= wanted {
                cut = rank + 1;
                break;
            }
        }
        let target = uniform * mass;
        let mut passed = 0.0;
        for id in &order[..cut] {
            passed += f64::from(weights[*id as usize]);
            if passed > target {
                return *id as usize;
            }
        }
        return order[0] as usize;
    }
}

/// Sorts the `count` most likely ids to the front of `order`; equal ones by id.
fn most_likely_first(weights: &[f32], order: &mut Vec<u32>, count: usize) {
    order.clear();
    order.extend(0..u32::try_from(weights.len()).expect("fewer than 2^32 ids"));
    let rank = |a: &u32, b: &u32| {
        weights[*b as usize].total_cmp(&weights[*a as usize]).then_with(|| a.cmp(b))
    };
    if count < order.len() {
        order.select_nth_unstable_by(count - 1, rank);
    }
    order[..count].sort_unstable_by(rank);
}

/// e^x for x <= 0, to about 2 ulp; under -87 the result is e^-87. Branchless, so that the loop
/// over a row becomes vector instructions (the library's `expf` does not).
///
/// 2^n * e^r with n = round(x / ln 2) and a degree-6 Taylor polynomial of r in +-ln(2)/2.
#[inline]
fn exp(x: f32) -> f32 {
    // Adding 1.5 * 2^23 rounds to an integer and leaves it in the low bits.
    const ROUND: f32 = 12_582_912.0;
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    let x = if x < -87.0 { -87.0 } else { x };
    let shifted = x * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = x - n * LN2_HIGH - n * LN2_LOW;
    let mut p = 1.0 / 720.0;
    p = p * r + 1.0 / 120.0;
    p = p * r + 1.0 / 24.0;
    p = p * r + 1.0 / 6.0;
    p = p * r + 0.5;
    p = p * r + 1.0;
    p = p * r + 1.0;
    let exponent = shifted.to_bits().wrapping_sub(ROUND.to_bits()).wrapping_add(127);
    p * f32::from_bits(exponent << 23)
}

#[cfg(test)]
mod tests {
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::*;

    const SEED: u64 = 7;

    fn row(vocab: usize) -> Vec<f32> {
        let mut rng = ChaCha8Rng::seed_from_u64(SEED);
        (0..vocab).map(|_| rng.random_range(-8.0..8.0)).collect()
    }

    fn frequencies(logits: &[f32], sampling: &Sampling, draws: u32) -> Vec<f64> {
        let mut rng = ChaCha8Rng::seed_from_u64(SEED);
        let mut scratch = Scratch::default();
        let mut counts = vec![0.0; logits.len()];
        for _ in 0..draws {
            let drawn = draw(logits, sampling, rng.random(), &mut scratch).expect("finite");
            counts[drawn.id as usize] += 1.0 / f64::from(draws);
        }
        counts
    }

    #[test]
    fn our_exp_is_the_librarys() {
        for i in 0..200_000 {
            let x = -87.0 * i as f32 / 200_000.0;
            let want = f64::from(x).exp();
            let error = (f64::from(exp(x)) - want).abs() / want;
            assert!(error < 4e-7, "exp({x}) is off by {error}");
        }
        assert_eq!(exp(0.0), 1.0);
        assert!(exp(-1000.0) < 1e-37);
    }

    #[test]
    fn tokens_come_as_often_as_their_probability_says() {
        let logits = [2.0, 0.0, 1.0, -1.0, 0.5];
        let sampling = Sampling { temperature: 0.7, ..Sampling::default() };
        let seen = frequencies(&logits, &sampling, 200_000);
        let weights: Vec<f64> = logits.iter().map(|l| f64::from(*l / 0.7).exp()).collect();
        let total: f64 = weights.iter().sum();
        for (id, weight) in weights.iter().enumerate() {
            assert!((seen[id] - weight / total).abs() < 0.005, "seed {SEED}: id {id} {seen:?}");
        }
    }

    #[test]
    fn logprob_is_of_the_untruncated_distribution() {
        let logits = row(1_000);
        let mut scratch = Scratch::default();
        for sampling in [
            Sampling { temperature: 0.8, ..Sampling::default() },
            Sampling { temperature: 0.8, top_k: 3, ..Sampling::default() },
            Sampling { temperature: 0.8, top_p: 0.2, ..Sampling::default() },
        ] {
            let drawn = draw(&logits, &sampling, 0.4, &mut scratch).expect("finite");
            let total: f64 = logits.iter().map(|l| (f64::from(*l) / 0.8).exp()).sum();
            let want = f64::from(logits[drawn.id as usize]) / 0.8 - total.ln();
            assert!((f64::from(drawn.logprob) - want).abs() < 1e-5, "{sampling:?}");
            let scored = logprob_of(&logits, drawn.id, 0.8, &mut scratch).expect("finite");
            assert_eq!(scored, drawn.logprob);
        }
    }

    #[test]
    fn top_k_and_top_p_keep_the_most_likely() {
        let logits = row(2_000);
        let mut order: Vec<usize> = (0..logits.len()).collect();
        order.sort_by(|a, b| logits[*b].total_cmp(&logits[*a]));
        let seen = frequencies(&logits, &Sampling { top_k: 5, ..Sampling::default() }, 2_000);
        let kept: f64 = order[..5].iter().map(|id| seen[*id]).sum();
        assert!((kept - 1.0).abs() < 1e-9, "seed {SEED}: something else was drawn");

        let total: f64 = logits.iter().map(|l| f64::from(*l).exp()).sum();
        let mut mass = 0.0;
        let nucleus = 1 + order
            .iter()
            .take_while(|id| {
                mass += f64::from(logits[**id]).exp() / total;
                mass < 0.9
            })
            .count();
        assert!(nucleus > SORTED_FIRST / 4, "the row is too peaked to test with");
        let seen = frequencies(&logits, &Sampling { top_p: 0.9, ..Sampling::default() }, 20_000);
        let kept: f64 = order[..nucleus].iter().map(|id| seen[*id]).sum();
        assert!((kept - 1.0).abs() < 1e-9, "seed {SEED}: something outside the nucleus was drawn");
        let tail: f64 = order[nucleus / 2..nucleus].iter().map(|id| seen[*id]).sum();
        assert!(tail > 0.0, "the nucleus was cut too early");
    }

    #[test]
    fn temperature_zero_takes_the_first_maximum() {
        let sampling = Sampling { temperature: 0.0, ..Sampling::default() };
        let drawn = draw(&[1.0, 3.0, 3.0], &sampling, 0.999, &mut Scratch::default());
        assert_eq!(drawn.expect("finite").id, 1);
    }

    #[test]
    fn the_ends_of_the_unit_interval_draw_something_likely() {
        let logits = row(1_003);
        for uniform in [0.0, 1.0 - f64::EPSILON] {
            draw(&logits, &Sampling::default(), uniform, &mut Scratch::default()).expect("finite");
        }
    }

    #[test]
    fn a_row_that_is_not_finite_is_refused() {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            for at in [0, 5, 16] {
                let mut logits = row(17);
                logits[at] = bad;
                let drawn = draw(&logits, &Sampling::default(), 0.5, &mut Scratch::default());
                assert_eq!(drawn, Err(NotFinite), "{bad} at {at} was taken");
            }
        }
    }
}
