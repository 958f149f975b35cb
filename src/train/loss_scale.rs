//! The scale of the loss where gradients pass through f16.

use serde::{Deserialize, Serialize};

use crate::config::Precision;

/// The first factor, and the steps after which a factor that held is doubled: those of the field (`PyTorch`'s
/// `GradScaler`; Micikevicius et al. 2018, section 3.2).
const FIRST: f64 = 65_536.0;
const STEPS_TO_DOUBLE: u64 = 2000;

/// What the loss is multiplied by before the backward pass, and the gradient divided by after it, so that numbers
/// below the smallest of f16 (6e-8) do not vanish on the way. A power of two: scaling by it rounds nothing.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LossScale {
    /// The factor, at least 1.
    pub factor: f64,
    /// Finite steps since it was last changed.
    pub n_held: u64,
}

impl LossScale {
    /// That of the first step; none where nothing is rounded to f16.
    pub fn new(precision: Precision) -> Option<Self> {
        match precision {
            Precision::F32 => None,
            Precision::Mixed => Some(Self {
                factor: FIRST,
                n_held: 0,
            }),
        }
    }

    /// Half of it, after an overflow; none where the factor is 1 and explains no overflow.
    #[must_use]
    pub fn halved(self) -> Option<Self> {
        (self.factor > 1.0).then_some(Self {
            factor: self.factor / 2.0,
            n_held: 0,
        })
    }

    /// After a finite step.
    #[must_use]
    pub fn held(self) -> Self {
        let n_held = self.n_held + 1;
        if n_held < STEPS_TO_DOUBLE {
            return Self { n_held, ..self };
        }
        Self {
            factor: self.factor * 2.0,
            n_held: 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_ends_at_one_and_doubles_after_two_thousand_finite_steps_in_a_row() {
        assert_eq!(LossScale::new(Precision::F32), None);
        let first = LossScale::new(Precision::Mixed).unwrap();
        let halvings: Vec<f64> = std::iter::successors(Some(first), |scale| scale.halved())
            .map(|scale| scale.factor)
            .collect();
        assert_eq!(
            (halvings.len(), halvings[0], halvings[16]),
            (17, 65_536.0, 1.0)
        );

        let after = |scale: LossScale, n: u64| (0..n).fold(scale, |scale, _| scale.held());
        let almost = after(first, 1999);
        assert_eq!((almost.factor, almost.n_held), (65_536.0, 1999));
        let doubled = almost.held();
        assert_eq!((doubled.factor, doubled.n_held), (131_072.0, 0));
        // An overflow begins the count anew.
        let again = after(almost.halved().unwrap(), 1999);
        assert_eq!((again.factor, again.held().factor), (32_768.0, 65_536.0));
    }
}
