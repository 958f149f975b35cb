//! Random numbers addressed by coordinate: a draw depends on where it is used and on nothing else, so
//! results do not depend on order, threads, segments or devices.
//!
//! Philox 4x32-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"): the seed is the
//! key, the coordinate is the counter.

/// What a draw is for; different purposes never share numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Purpose {
    /// Initial weights.
    Weights = 1,
    /// Order of training windows.
    DataOrder = 2,
    /// Dropout masks.
    Dropout = 3,
    /// Inputs of tests and benches.
    Test = 4,
    /// Sequences of the recall probe.
    Recall = 5,
    /// Tokens of a text that a model writes.
    Sampling = 6,
    /// Resamples of the bootstrap.
    Bootstrap = 7,
}

/// Where a draw is used. `step` < 2^32, `layer` < 2^16, `row` < 2^24, `position` < 2^48.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Coordinate {
    /// What for.
    pub purpose: Purpose,
    /// Optimiser step, epoch, number of the stream of initial weights, or 0.
    pub step: u32,
    /// Layer of the model or 0.
    pub layer: u16,
    /// Row of the batch, or number of the parameter within its layer.
    pub row: u32,
    /// Element or position.
    pub position: u64,
}

impl Coordinate {
    /// The coordinate of `purpose` with everything else 0.
    pub fn new(purpose: Purpose) -> Self {
        Self {
            purpose,
            step: 0,
            layer: 0,
            row: 0,
            position: 0,
        }
    }

    /// The same coordinate at another position.
    #[must_use]
    pub fn at(self, position: u64) -> Self {
        Self { position, ..self }
    }

    fn counter(self) -> [u32; 4] {
        assert!(
            self.row < 1 << 24 && self.position < 1 << 48,
            "coordinate out of range"
        );
        [
            self.position as u32,
            ((self.position >> 32) as u32) << 16 | u32::from(self.layer),
            self.step,
            self.row << 8 | self.purpose as u32,
        ]
    }
}

/// Four independent uniform 32-bit words at `coordinate`.
pub fn words(seed: u64, coordinate: Coordinate) -> [u32; 4] {
    philox(coordinate.counter(), [seed as u32, (seed >> 32) as u32])
}

fn philox(mut x: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    const MULTIPLIER: [u64; 2] = [0xD251_1F53, 0xCD9E_8D57];
    const WEYL: [u32; 2] = [0x9E37_79B9, 0xBB67_AE85];
    for _ in 0..10 {
        let p0 = MULTIPLIER[0] * u64::from(x[0]);
        let p1 = MULTIPLIER[1] * u64::from(x[2]);
        x = [
            (p1 >> 32) as u32 ^ x[1] ^ key[0],
            p1 as u32,
            (p0 >> 32) as u32 ^ x[3] ^ key[1],
            p0 as u32,
        ];
        key = [key[0].wrapping_add(WEYL[0]), key[1].wrapping_add(WEYL[1])];
    }
    x
}

/// Uniform in the open interval (0, 1), 32 bits of it.
pub fn uniform(seed: u64, coordinate: Coordinate) -> f64 {
    unit(words(seed, coordinate)[0])
}

/// Standard normal (Box-Muller).
pub fn normal(seed: u64, coordinate: Coordinate) -> f64 {
    let [a, b, ..] = words(seed, coordinate);
    (-2.0 * unit(a).ln()).sqrt() * (std::f64::consts::TAU * unit(b)).cos()
}

/// `n` uniform values in (low, high), one per position from 0.
pub fn uniform_vec(seed: u64, coordinate: Coordinate, n: usize, low: f64, high: f64) -> Vec<f32> {
    let draw = |i| (low + (high - low) * uniform(seed, coordinate.at(i))) as f32;
    (0..n as u64).map(draw).collect()
}

/// `n` normal values of mean 0 and the given standard deviation, one per position from 0.
pub fn normal_vec(seed: u64, coordinate: Coordinate, n: usize, std: f64) -> Vec<f32> {
    (0..n as u64)
        .map(|i| (std * normal(seed, coordinate.at(i))) as f32)
        .collect()
}

/// A permutation of 0..n (Fisher-Yates), drawn at positions 1..n of `coordinate`.
pub fn permutation(seed: u64, coordinate: Coordinate, n: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..n).collect();
    for i in (1..n).rev() {
        let [a, b, ..] = words(seed, coordinate.at(i as u64));
        let wide = u64::from(a) << 32 | u64::from(b);
        order.swap(i, ((u128::from(wide) * (i as u128 + 1)) >> 64) as usize);
    }
    order
}

fn unit(word: u32) -> f64 {
    (f64::from(word) + 0.5) / 4_294_967_296.0
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Known-answer vectors of the authors' Random123 library (philox4x32, 10 rounds).
    #[test]
    fn philox_known_answers() {
        let zeros = philox([0; 4], [0; 2]);
        assert_eq!(zeros, [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
        let ones = philox([u32::MAX; 4], [u32::MAX; 2]);
        assert_eq!(ones, [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]);
    }

    #[test]
    fn normal_draws_have_unit_variance() {
        let x = normal_vec(42, Coordinate::new(Purpose::Test), 1 << 16, 1.0);
        let mean = x.iter().map(|&v| f64::from(v)).sum::<f64>() / x.len() as f64;
        let var = x.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>() / x.len() as f64;
        // four standard errors at n = 65536
        assert!(mean.abs() < 4.0 / 256.0, "mean {mean}");
        assert!(
            (var - 1.0).abs() < 4.0 * (2.0_f64 / 65536.0).sqrt(),
            "variance {var}"
        );
    }

    #[test]
    fn permutation_is_a_permutation_and_seeded() {
        let c = Coordinate::new(Purpose::DataOrder);
        let mut p = permutation(7, c, 1000);
        assert_eq!(p, permutation(7, c, 1000), "same seed, same order");
        assert_ne!(p, permutation(8, c, 1000), "another seed, another order");
        p.sort_unstable();
        assert!(p.into_iter().eq(0..1000), "every index once");
    }
}
