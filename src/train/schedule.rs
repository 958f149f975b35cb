//! Learning rate over the steps.

use crate::config::TrainConfig;

/// Fraction of the peak at which the cosine ends.
const FLOOR: f64 = 0.1;

/// Learning rate of `step` (from 0) of `n_steps`: linear warm-up over `warmup_steps`, at most a tenth of
/// the run, then a cosine down to a tenth of the peak.
pub fn learning_rate(config: &TrainConfig, step: u64, n_steps: u64) -> f64 {
    let warmup = config.warmup_steps.min(n_steps / 10);
    if step < warmup {
        return config.learning_rate * (step + 1) as f64 / warmup as f64;
    }
    let span = (n_steps - warmup).max(2) - 1;
    let progress = ((step - warmup) as f64 / span as f64).min(1.0);
    let cosine = 0.5 * (1.0 + (std::f64::consts::PI * progress).cos());
    config.learning_rate * (FLOOR + (1.0 - FLOOR) * cosine)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warms_up_to_the_peak_and_ends_at_a_tenth() {
        let config = TrainConfig {
            learning_rate: 1.0,
            warmup_steps: 100,
            ..Default::default()
        };
        let at = |step| learning_rate(&config, step, 2000);
        assert!(
            (at(0) - 0.01).abs() < 1e-12,
            "first step: a hundredth of the peak"
        );
        assert!((at(99) - 1.0).abs() < 1e-12, "end of the warm-up");
        assert!((at(100) - 1.0).abs() < 1e-12, "start of the cosine");
        assert!((at(1999) - 0.1).abs() < 1e-12, "last step");
        assert!(
            (1..2000).all(|s| s < 100 || at(s) <= at(s - 1)),
            "falls after the warm-up"
        );
    }

    #[test]
    fn warm_up_is_a_tenth_of_a_short_run_and_one_step_works() {
        let config = TrainConfig {
            learning_rate: 1.0,
            warmup_steps: 100,
            ..Default::default()
        };
        assert!(
            (learning_rate(&config, 4, 50) - 1.0).abs() < 1e-12,
            "five steps of warm-up"
        );
        assert!(
            (learning_rate(&config, 0, 1) - 1.0).abs() < 1e-12,
            "a run of one step"
        );
    }
}
