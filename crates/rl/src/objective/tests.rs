//! The golden vectors (computed once with TRL 1.16.0's GRPO loss in f64 on these tensors) and
//! finite differences.

use super::*;
use crate::advantage::{Scale, advantages};
use crate::kl::Estimator;

const LENGTHS: [usize; 4] = [5, 3, 4, 2];

/// The golden batch: tensors by formula, token (0, 2) written by a tool.
struct Golden {
    cu_seqlens: Vec<usize>,
    lp: Vec<f64>,
    old: Vec<f64>,
    sampled: Vec<f64>,
    reference: Vec<f64>,
    mask: Vec<bool>,
    advantages: Vec<f64>,
}

impl Golden {
    fn new(scale: Scale) -> Self {
        let group = [1.0, 0.0, 0.5, 0.0].map(Some).to_vec();
        let mut golden = Self {
            cu_seqlens: vec![0],
            lp: vec![],
            old: vec![],
            sampled: vec![],
            reference: vec![],
            mask: vec![],
            advantages: advantages(&[group], scale).remove(0).values,
        };
        for (i, length) in LENGTHS.into_iter().enumerate() {
            for t in 0..length {
                let (fi, ft) = (i as f64, t as f64);
                let lp = -0.1 * (fi + 1.0) - 0.05 * ft;
                let old = lp - 0.3 * (((i + 2 * t) % 3) as f64 - 1.0);
                golden.lp.push(lp);
                golden.old.push(old);
                golden.sampled.push(old - 0.02 * ((i + t) % 2) as f64);
                golden.reference.push(lp - 0.1 * (t % 2) as f64);
                golden.mask.push((i, t) != (0, 2));
            }
            golden.cu_seqlens.push(golden.lp.len());
        }
        golden
    }

    fn batch(&self) -> Batch<'_> {
        Batch {
            cu_seqlens: &self.cu_seqlens,
            lp: &self.lp,
            old: &self.old,
            sampled: &self.sampled,
            reference: Some(&self.reference),
            mask: &self.mask,
            advantages: &self.advantages,
        }
    }

    fn totals(&self) -> Totals {
        Totals::of(self.cu_seqlens.windows(2).map(|w| &self.mask[w[0]..w[1]]))
    }

    fn run(&self, which: &Objective) -> Outcome {
        objective(which, &self.batch(), self.totals()).expect("a good batch")
    }
}

fn dapo_with(high: f64, importance: Option<Importance>) -> Objective {
    Objective { surrogate: Surrogate::Clipped { low: 0.2, high }, importance, ..Objective::dapo() }
}

#[test]
fn every_golden_vector_is_met() {
    let token = Importance { level: Level::Token, truncation: Truncation::Truncate, cap: 1.01 };
    let sequence = Importance { level: Level::Sequence, truncation: Truncation::Mask, cap: 1.03 };
    let cases = [
        ("grpo", Objective::grpo(), Scale::Group, 0.0318101971, 0.1928782681),
        (
            "grpo, beta 0.04",
            Objective { beta: 0.04, ..Objective::grpo() },
            Scale::Group,
            0.0318988831,
            0.1931108892,
        ),
        ("dapo 0.2", dapo_with(0.2, None), Scale::Group, -0.1536218558, 0.1689579417),
        ("bnpo", Objective::bnpo(), Scale::Group, -0.1536218558, 0.1689579417),
        ("dapo 0.28", Objective::dapo(), Scale::Group, -0.1729002768, 0.1689579417),
        ("dr_grpo", Objective::dr_grpo(8), Scale::None, -0.0298822171, 0.0328653620),
        ("gspo", Objective::gspo(), Scale::Group, -0.0000261062, 0.2420109047),
        ("cispo", Objective::cispo(), Scale::Group, 0.0182855370, 0.2659715730),
        ("token truncate", dapo_with(0.2, Some(token)), Scale::Group, -0.1541147638, 0.1699175860),
        ("sequence mask", dapo_with(0.2, Some(sequence)), Scale::Group, 0.1321348293, 0.0829651522),
    ];
    for (name, which, scale, loss, norm) in cases {
        let got = Golden::new(scale).run(&which);
        let got_norm = got.grad.iter().map(|g| g * g).sum::<f64>().sqrt();
        assert!((got.loss - loss).abs() < 1e-9, "{name}: loss {} for {loss}", got.loss);
        assert!((got_norm - norm).abs() < 1e-9, "{name}: gradient norm {got_norm} for {norm}");
    }
}

#[test]
fn the_golden_kl_means_are_met() {
    let metrics = Golden::new(Scale::Group).run(&Objective::grpo()).metrics;
    let n = metrics.active_tokens as f64;
    assert_eq!(metrics.active_tokens, 13);
    assert!((metrics.k1_sum / n - 0.0461538462).abs() < 1e-9);
    assert!((metrics.k2_sum / n - 0.0023076923).abs() < 1e-9);
    assert!((metrics.k3_sum / n - 0.0022326545).abs() < 1e-9);
}

/// Every objective there is, with every option switched on somewhere.
fn zoo() -> Vec<(String, Objective)> {
    let mut zoo = Vec::new();
    for base in [
        Objective::grpo(),
        Objective::bnpo(),
        Objective::dr_grpo(8),
        Objective::dapo(),
        Objective::gspo(),
        Objective::cispo(),
        Objective::decoupled_ppo(),
    ] {
        for kl in [Estimator::K1, Estimator::K2, Estimator::K3] {
            for delta in [None, Some(1.25)] {
                for level in [Level::Token, Level::Sequence] {
                    for truncation in [Truncation::Truncate, Truncation::Mask] {
                        let importance = Some(Importance { level, truncation, cap: 1.015 });
                        let which = Objective { beta: 0.3, kl, delta, importance, ..base };
                        zoo.push((format!("{which:?}"), which));
                    }
                }
            }
        }
        zoo.push((format!("{base:?}"), base));
    }
    zoo
}

#[test]
fn the_gradient_is_the_slope_of_the_loss() {
    for (name, which) in zoo() {
        let mut golden = Golden::new(Scale::Group);
        let grad = golden.run(&which).grad;
        let cispo = matches!(which.surrogate, Surrogate::Cispo { .. });
        for (k, grad) in grad.into_iter().enumerate() {
            let h = 1e-6;
            let at = golden.lp[k];
            // CISPO stops the gradient of its ratio: move the proximal policy along, so that the
            // ratio stands still. The importance weight must then stand still too.
            let mut loss_at = |lp: f64| {
                let (old, sampled) = (golden.old[k], golden.sampled[k]);
                if cispo {
                    golden.old[k] += lp - at;
                    golden.sampled[k] += lp - at;
                }
                golden.lp[k] = lp;
                let loss = golden.run(&which).loss;
                (golden.lp[k], golden.old[k], golden.sampled[k]) = (at, old, sampled);
                loss
            };
            let slope = (loss_at(at + h) - loss_at(at - h)) / (2.0 * h);
            assert!((slope - grad).abs() < 1e-7, "{name}: token {k}: {slope} for {grad}");
        }
    }
}

#[test]
fn micro_batches_add_up_to_the_whole() {
    for (name, which) in zoo() {
        let golden = Golden::new(Scale::Group);
        let whole = golden.run(&which);
        let (mut loss, mut grad, mut metrics) = (0.0, Vec::new(), Metrics::default());
        for (i, w) in golden.cu_seqlens.windows(2).enumerate() {
            let range = w[0]..w[1];
            let part = Batch {
                cu_seqlens: &[0, range.len()],
                lp: &golden.lp[range.clone()],
                old: &golden.old[range.clone()],
                sampled: &golden.sampled[range.clone()],
                reference: Some(&golden.reference[range.clone()]),
                mask: &golden.mask[range],
                advantages: &golden.advantages[i..=i],
            };
            let part = objective(&which, &part, golden.totals()).expect("a good batch");
            loss += part.loss;
            grad.extend(part.grad);
            metrics.merge(&part.metrics);
        }
        assert!((loss - whole.loss).abs() < 1e-12, "{name}");
        let apart = grad.iter().zip(&whole.grad).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        assert!(apart < 1e-12, "{name}");
        assert_eq!(metrics.active_tokens, whole.metrics.active_tokens, "{name}");
    }
}

#[test]
fn tokens_of_tools_get_no_gradient_and_change_nothing() {
    for (name, which) in zoo() {
        let mut golden = Golden::new(Scale::Group);
        let before = golden.run(&which);
        assert_eq!(before.grad[2], 0.0, "{name}");
        for values in [&mut golden.lp, &mut golden.old, &mut golden.sampled, &mut golden.reference]
        {
            values[2] = f64::NAN;
        }
        assert_eq!(golden.run(&which), before, "{name}");
    }
}

#[test]
fn idle_clipping_is_reported_as_such() {
    let mut golden = Golden::new(Scale::Group);
    assert!(!golden.run(&Objective::grpo()).metrics.clip_idle());
    golden.old = golden.lp.clone();
    let metrics = golden.run(&Objective::grpo()).metrics;
    assert!(metrics.clip_idle() && metrics.clipped_low + metrics.clipped_high == 0);
}

#[test]
fn clips_and_caps_are_counted() {
    let golden = Golden::new(Scale::Group);
    let metrics = golden.run(&Objective::grpo()).metrics;
    // rho is e^-0.3, 1 or e^0.3: with a positive advantage the high ones clip, with a negative one
    // the low ones.
    let (mut low, mut high) = (0, 0);
    for (i, w) in golden.cu_seqlens.windows(2).enumerate() {
        for t in (w[0]..w[1]).filter(|t| golden.mask[*t]) {
            let moved = golden.lp[t] - golden.old[t];
            low += u64::from(moved < -0.1 && golden.advantages[i] < 0.0);
            high += u64::from(moved > 0.1 && golden.advantages[i] > 0.0);
        }
    }
    assert!(low > 0 && high > 0);
    assert_eq!((metrics.clipped_low, metrics.clipped_high), (low, high));
    let importance = Some(Importance { cap: 1.01, ..Importance::default() });
    let bounded = golden.run(&dapo_with(0.2, importance)).metrics.importance_bounded;
    let over = (0..golden.lp.len())
        .filter(|t| golden.mask[*t] && golden.old[*t] - golden.sampled[*t] > 0.015)
        .count();
    assert_eq!(bounded, over as u64);
}

#[test]
fn delta_bounds_what_a_bad_token_can_cost() {
    let (lp, old, mask) = ([-0.1], [-8.0], [true]);
    let batch = Batch {
        cu_seqlens: &[0, 1],
        lp: &lp,
        old: &old,
        sampled: &old,
        reference: None,
        mask: &mask,
        advantages: &[-1.0],
    };
    let totals = Totals { episodes: 1, active_tokens: 1 };
    let free = objective(&Objective::grpo(), &batch, totals).expect("good").loss;
    let which = Objective { delta: Some(4.0), ..Objective::grpo() };
    let capped = objective(&which, &batch, totals).expect("good");
    assert!(free > 2_000.0);
    assert_eq!((capped.loss, capped.grad[0], capped.metrics.clipped_high), (4.0, 0.0, 1));
}

#[test]
fn bad_input_is_refused_by_name() {
    let golden = Golden::new(Scale::Group);
    let refusal = |which: &Objective, batch: &Batch<'_>| {
        objective(which, batch, golden.totals()).expect_err("was taken").to_string()
    };
    let grpo = Objective::grpo();
    let batch = golden.batch();
    let said = refusal(&grpo, &Batch { old: &golden.old[1..], ..batch });
    assert!(said.contains("old has 13 entries for 14 tokens"), "{said}");
    let said = refusal(&grpo, &Batch { cu_seqlens: &[0, 5, 3, 14], ..batch });
    assert!(said.contains("cu_seqlens"), "{said}");
    let said = refusal(&Objective { beta: 0.1, ..grpo }, &Batch { reference: None, ..batch });
    assert!(said.contains("reference"), "{said}");
    let mut lp = golden.lp.clone();
    lp[3] = f64::NAN;
    let said = refusal(&grpo, &Batch { lp: &lp, ..batch });
    assert!(said.contains("lp[3] is NaN"), "{said}");
    (lp[3], lp[5]) = (golden.lp[3], 1e4); // a bad episode's token runs away: rho overflows
    let said = refusal(&grpo, &Batch { lp: &lp, ..batch });
    assert!(said.contains("loss"), "{said}");
    let said = refusal(&Objective { delta: Some(0.5), ..grpo }, &batch);
    assert!(said.contains("delta is 0.5"), "{said}");
}
