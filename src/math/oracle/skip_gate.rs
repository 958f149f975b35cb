//! A scan's output with its skip connection, gated, element by element.

use super::{Number, sigmoid};

/// Inputs of a call, `[rows, channels]`, row-major.
#[derive(Debug, Clone)]
pub struct Inputs<T> {
    /// The output of the scan.
    pub y: Vec<T>,
    /// Its input.
    pub u: Vec<T>,
    /// `[channels]`.
    pub skip: Vec<T>,
    /// The gate before its `SiLU`.
    pub z: Vec<T>,
}

/// Gradients, shaped as the inputs of the same names.
#[derive(Debug, Clone)]
pub struct Gradients<T> {
    /// By `y`.
    pub d_y: Vec<T>,
    /// By `u`.
    pub d_u: Vec<T>,
    /// By `skip`.
    pub d_skip: Vec<T>,
    /// By `z`.
    pub d_z: Vec<T>,
}

impl<T: Number> Inputs<T> {
    /// `(y + skip u) silu(z)`.
    pub fn forward(&self) -> Vec<T> {
        let element = |i: usize| self.sum(i) * self.z[i] * sigmoid(self.z[i]);
        (0..self.y.len()).map(element).collect()
    }

    /// For the cotangent `d_out` of the output.
    pub fn backward(&self, d_out: &[T]) -> Gradients<T> {
        let (n, channels) = (self.y.len(), self.skip.len());
        let one = T::from_f64(1.0);
        let mut d_skip = vec![T::from_f64(0.0); channels];
        let (mut d_y, mut d_u, mut d_z) = (Vec::new(), Vec::new(), Vec::new());
        for i in 0..n {
            let (z, s) = (self.z[i], sigmoid(self.z[i]));
            let d_sum = d_out[i] * z * s;
            d_y.push(d_sum);
            d_u.push(d_sum * self.skip[i % channels]);
            d_skip[i % channels] = d_skip[i % channels] + d_sum * self.u[i];
            d_z.push(d_out[i] * self.sum(i) * (s + z * s * (one - s)));
        }
        Gradients {
            d_y,
            d_u,
            d_skip,
            d_z,
        }
    }

    fn sum(&self, i: usize) -> T {
        self.y[i] + self.skip[i % self.skip.len()] * self.u[i]
    }
}
