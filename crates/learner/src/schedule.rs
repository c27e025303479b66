//! The learning rate of a step.

use crate::options::{AdamW, Schedule};

/// Learning rate of step `step` (from 1): linear warm-up, then the schedule.
#[must_use]
pub fn learning_rate(options: &AdamW, step: u64) -> f64 {
    let peak = options.learning_rate;
    if step <= options.warmup_steps {
        return peak * step as f64 / options.warmup_steps as f64;
    }
    match options.schedule {
        Schedule::Constant => peak,
        Schedule::Cosine { steps, floor } => {
            let length = steps.saturating_sub(options.warmup_steps).max(1) as f64;
            let done = ((step - options.warmup_steps) as f64 / length).min(1.0);
            let share = 0.5 * (1.0 + (std::f64::consts::PI * done).cos());
            peak * (floor + (1.0 - floor) * share)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_warms_up_falls_along_a_cosine_and_keeps_its_floor() {
        let options = AdamW {
            learning_rate: 2.0,
            warmup_steps: 10,
            schedule: Schedule::Cosine { steps: 110, floor: 0.1 },
            ..AdamW::default()
        };
        let rate = |step| learning_rate(&options, step);
        assert!((rate(1) - 0.2).abs() < 1e-12 && (rate(10) - 2.0).abs() < 1e-12);
        assert!((rate(60) - 1.1).abs() < 1e-12, "half way is {}", rate(60));
        assert!((rate(110) - 0.2).abs() < 1e-12 && (rate(10_000) - 0.2).abs() < 1e-12);
        assert!((10..110).all(|step| rate(step) > rate(step + 1)));
    }
}
