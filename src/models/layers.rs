//! What the blocks are made of: seeded initialisation, normalisation, dropout.

use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor, TensorData};

use super::linear::Linear;
use super::matrix::Matrix;
use crate::Result;
use crate::math::random::{Coordinate, Purpose, normal_vec, uniform_vec, words};
use crate::ops::ledger::{Op, counted};
use crate::ops::rms_norm;

/// Draws the initial weights of one layer on the host, so that every device starts from equal bits.
///
/// Each parameter takes the next stream of numbers: the order of the calls is part of the model.
#[derive(Debug)]
pub struct Initialiser<'a> {
    /// None where every draw is 0.
    seed: Option<u64>,
    stream: u32,
    layer: u16,
    n_drawn: u32,
    device: &'a Device,
}

impl<'a> Initialiser<'a> {
    /// Streams of `layer` (0 for what lies outside the blocks, from 1 for the blocks).
    pub fn new(seed: u64, layer: u16, device: &'a Device) -> Self {
        Self {
            seed: Some(seed),
            stream: 0,
            layer,
            n_drawn: 0,
            device,
        }
    }

    /// The same with other draws, one set a number.
    #[must_use]
    pub fn from_stream(self, stream: u32) -> Self {
        Self { stream, ..self }
    }

    /// Draws nothing but 0, for weights that come from elsewhere.
    pub fn blank(device: &'a Device) -> Self {
        Self {
            seed: None,
            stream: 0,
            layer: 0,
            n_drawn: 0,
            device,
        }
    }

    fn next(&mut self) -> Coordinate {
        let row = self.n_drawn;
        self.n_drawn += 1;
        Coordinate {
            step: self.stream,
            layer: self.layer,
            row,
            ..Coordinate::new(Purpose::Weights)
        }
    }

    /// Uniform in (-bound, bound).
    pub fn uniform<const D: usize>(&mut self, shape: [usize; D], bound: f64) -> Param<Tensor<D>> {
        let n = shape.iter().product();
        let values = self.draws(n, -bound, bound);
        self.values(shape, values)
    }

    /// Normal with mean 0.
    pub fn normal<const D: usize>(&mut self, shape: [usize; D], std: f64) -> Param<Tensor<D>> {
        let n = shape.iter().product();
        let coordinate = self.next();
        let values = match self.seed {
            Some(seed) => normal_vec(seed, coordinate, n, std),
            None => vec![0.0; n],
        };
        self.values(shape, values)
    }

    /// `n` uniform numbers in (low, high), for parameters that transform them.
    pub fn draws(&mut self, n: usize, low: f64, high: f64) -> Vec<f32> {
        let coordinate = self.next();
        match self.seed {
            Some(seed) => uniform_vec(seed, coordinate, n, low, high),
            None => vec![0.0; n],
        }
    }

    /// The given values, row-major.
    pub fn values<const D: usize>(&self, shape: [usize; D], values: Vec<f32>) -> Param<Tensor<D>> {
        Param::from_tensor(Tensor::from_data(
            TensorData::new(values, shape),
            self.device,
        ))
    }

    /// One value everywhere.
    pub fn constant<const D: usize>(&self, shape: [usize; D], value: f32) -> Param<Tensor<D>> {
        self.values(shape, vec![value; shape.iter().product()])
    }

    /// A linear layer with the usual weights: Kaiming uniform with a = sqrt(5), that is
    /// `U(-1/sqrt(d_input), 1/sqrt(d_input))`, divided by `divisor`; the bias is 0.
    pub fn linear(&mut self, d_input: usize, d_output: usize, bias: bool, divisor: f64) -> Linear {
        let bound = (d_input as f64).sqrt().recip() / divisor;
        Linear {
            weight: Matrix::Dense(self.uniform([d_input, d_output], bound)),
            bias: bias.then(|| self.constant([d_output], 0.0)),
        }
    }

    /// A normalisation with weight 1.
    pub fn rms_norm(&self, d_model: usize) -> RmsNorm {
        RmsNorm {
            gamma: self.constant([d_model], 1.0),
        }
    }
}

/// Root-mean-square normalisation over the last axis, eps 1e-5 (Zhang & Sennrich 2019).
#[derive(Module, Debug)]
pub struct RmsNorm {
    gamma: Param<Tensor<1>>,
}

impl RmsNorm {
    /// Normalises `x`, shape `[tokens, d_model]`.
    ///
    /// # Errors
    /// An `x` of another width.
    pub fn forward(&self, x: Tensor<2>) -> Result<Tensor<2>> {
        rms_norm::normalise(x, self.gamma.val())
    }
}

/// Where and how strongly units are dropped at the output of a residual branch.
///
/// A unit's fate is a function of (seed, step, layer, row, position, unit): a recomputed segment sees
/// the same mask, on every device.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Dropout {
    /// Probability of dropping a unit; 0 does nothing.
    pub probability: f64,
    /// Seed of the run.
    pub seed: u64,
    /// Optimiser step.
    pub step: u32,
    /// Position in the sequence of the first token of what is passed through.
    pub first_position: usize,
}

impl Dropout {
    /// None at all.
    pub const NONE: Self = Self {
        probability: 0.0,
        seed: 0,
        step: 0,
        first_position: 0,
    };

    /// Drops units of `x` (`[batch * seq_len, d_model]`) and scales the others up.
    pub fn apply(&self, x: Tensor<2>, layer: u16, seq_len: usize) -> Tensor<2> {
        if self.probability == 0.0 {
            return x;
        }
        let [n_tokens, d_model] = x.dims();
        let kept = ((1.0 - self.probability) * f64::from(u32::MAX)) as u32;
        let scale = (1.0 / (1.0 - self.probability)) as f32;
        let mut mask = Vec::with_capacity(n_tokens * d_model);
        for token in 0..n_tokens {
            let row = Coordinate {
                step: self.step,
                layer,
                row: (token / seq_len) as u32,
                ..Coordinate::new(Purpose::Dropout)
            };
            let position = self.first_position + token % seq_len;
            let first = position * d_model;
            let blocks = first / 4..(first + d_model).div_ceil(4);
            let units = blocks.flat_map(|block| words(self.seed, row.at(block as u64)));
            let units = units.skip(first % 4).take(d_model);
            mask.extend(units.map(|word| if word <= kept { scale } else { 0.0 }));
        }
        let mask = Tensor::from_data(
            TensorData::new(mask, [n_tokens, d_model]),
            (&x.device(), x.dtype()),
        );
        let n = n_tokens * d_model;
        counted(x * mask, Op::Mask { n })
    }
}
