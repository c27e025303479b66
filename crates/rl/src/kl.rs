//! Per-token estimates of KL(policy || reference) from one sample (Schulman, 2020, "Approximating
//! KL divergence").

use serde::{Deserialize, Serialize};

/// x is kept within this, so that e^x stays finite.
pub const X_MAX: f64 = 20.0;

/// Which estimate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Estimator {
    /// -x: unbiased, may be negative.
    K1,
    /// x^2 / 2: biased, low variance.
    K2,
    /// e^x - x - 1: unbiased and never negative.
    #[default]
    K3,
}

impl Estimator {
    /// The estimate and its derivative with respect to `lp`, for x = reference - lp.
    #[must_use]
    pub fn value_and_grad(self, lp: f64, reference: f64) -> (f64, f64) {
        let raw = reference - lp;
        let x = raw.clamp(-X_MAX, X_MAX);
        // Where x is clamped nothing depends on lp any more.
        let dx = if raw.abs() <= X_MAX { -1.0 } else { 0.0 };
        match self {
            Self::K1 => (-x, -dx),
            Self::K2 => (x * x / 2.0, x * dx),
            Self::K3 => (x.exp() - x - 1.0, (x.exp() - 1.0) * dx),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gradient_is_the_slope() {
        for estimator in [Estimator::K1, Estimator::K2, Estimator::K3] {
            for lp in [-3.0, -0.5, -0.1, -45.0, 12.0] {
                let h = 1e-6;
                let at = |lp| estimator.value_and_grad(lp, -10.0).0;
                let slope = (at(lp + h) - at(lp - h)) / (2.0 * h);
                let grad = estimator.value_and_grad(lp, -10.0).1;
                let scale = slope.abs().max(1.0);
                assert!(
                    (slope - grad).abs() / scale < 1e-5,
                    "{estimator:?} at {lp}: {slope} {grad}"
                );
            }
        }
    }

    #[test]
    fn a_far_off_reference_stays_finite() {
        let (value, grad) = Estimator::K3.value_and_grad(-1e6, 0.0);
        assert!(value.is_finite() && grad == 0.0);
    }
}
