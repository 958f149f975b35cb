//! The one table of sizes: how a sequence is cut. A pure function of its arguments, never measured.

/// How the kernels cut a sequence. The same for WGSL and CPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Plan {
    /// Rows a chunk; a multiple of 16.
    pub chunk: usize,
    /// Rows a chunk runs before its own so that it needs nothing from its neighbour, or `None`: the
    /// state is carried through the chunks in three phases.
    pub warm_up: Option<usize>,
}

impl Plan {
    /// `bits` is the precision of the numbers (24 or 53), `eta_min` the floor of Im z, `p_max` the
    /// ceiling of the couplings.
    pub fn new(bits: u32, eta_min: f32, p_max: f32, seq: usize) -> Self {
        let warm_up = warm_up(bits, f64::from(eta_min), f64::from(p_max));
        // Short sequences are cut finer, so that lanes and threads have something to do.
        let chunk = match warm_up {
            0..=64 => (seq / 32).next_multiple_of(16).clamp(64, 256),
            65..=128 => 256,
            _ => 1024,
        };
        Self {
            chunk,
            warm_up: (warm_up <= chunk).then_some(warm_up),
        }
    }

    /// As [`Plan::new`], but with a warm-up always: where the usual chunk cannot hold it, chunks as long as
    /// the warm-up itself, or one chunk of the whole sequence.
    pub fn independent(bits: u32, eta_min: f32, p_max: f32, seq: usize) -> Self {
        let plan = Self::new(bits, eta_min, p_max, seq);
        if plan.warm_up.is_some() {
            return plan;
        }
        let warm_up = warm_up(bits, f64::from(eta_min), f64::from(p_max));
        let chunk = warm_up.min(seq).next_multiple_of(16);
        Self {
            chunk,
            warm_up: Some(warm_up.min(chunk)),
        }
    }

    /// Number of chunks of a sequence of `seq` rows; the last may be short.
    pub(super) fn n_chunks(&self, seq: usize) -> usize {
        seq.div_ceil(self.chunk)
    }
}

/// Rows after which a wrong start is below rounding.
///
/// One step of the recurrence is a Moebius map of the upper half-plane whose derivative, averaged over a
/// run, shrinks at least as `exp(-2 asinh(eta / (2 sqrt p)))`. A start at 0 is off by up to 1/eta and
/// |g| may be as small as eta near a later resonance, hence the second term.
fn warm_up(bits: u32, eta: f64, p_max: f64) -> usize {
    let rate = 2.0 * (eta / (2.0 * p_max.sqrt())).asinh();
    let need = f64::from(bits) * std::f64::consts::LN_2 + (2.0 * (1.0 / eta).ln()).max(0.0);
    (need / rate).ceil() as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warm_up_grows_with_memory_and_precision() {
        assert_eq!(warm_up(24, 1.0, 1.0), 18);
        assert_eq!(warm_up(24, 0.5, 1.0), 37);
        assert_eq!(warm_up(24, 0.1, 1.0), 213);
        assert_eq!(warm_up(24, 0.05, 1.0), 453);
        assert_eq!(warm_up(24, 1.0, 4.0), 34);
        assert_eq!(warm_up(53, 1.0, 1.0), 39);
    }

    #[test]
    fn chunks_are_whole_tiles_and_hold_the_warm_up() {
        for eta in [4.0, 1.0, 0.5, 0.1, 0.05, 0.01, 1e-3] {
            for p_max in [0.0, 1e-6, 1.0, 4.0, 64.0] {
                for seq in [1, 100, 4099, 1 << 20] {
                    for bits in [24, 53] {
                        let plan = Plan::new(bits, eta, p_max, seq);
                        let independent = Plan::independent(bits, eta, p_max, seq);
                        assert!(independent.warm_up.is_some(), "{independent:?}");
                        for plan in [plan, independent] {
                            assert_eq!(plan.chunk % 16, 0, "{plan:?}");
                            assert!(plan.warm_up.is_none_or(|w| w <= plan.chunk), "{plan:?}");
                        }
                    }
                }
            }
        }
        assert_eq!(
            Plan::new(24, 1.0, 1.0, 1 << 20),
            Plan {
                chunk: 256,
                warm_up: Some(18)
            }
        );
        assert_eq!(
            Plan::new(24, 0.01, 1.0, 1 << 20),
            Plan {
                chunk: 1024,
                warm_up: None
            }
        );
        let need = warm_up(24, f64::from(0.01_f32), 1.0);
        assert_eq!(
            Plan::independent(24, 0.01, 1.0, 1 << 20),
            Plan {
                chunk: need.next_multiple_of(16),
                warm_up: Some(need)
            }
        );
        assert_eq!(Plan::independent(24, 0.01, 1.0, 100).n_chunks(100), 1);
    }
}
