//! The kernels against the oracle on the tensors that a trained model really feeds them.
//!
//! One sequence goes through the model a segment at a time, as in training. Beside the kernel runs the oracle,
//! in `f64` and with a state of its own from the first position to the last: an error that builds up over a
//! long sequence is seen, whoever carries the state.

use std::cell::RefCell;
use std::collections::BTreeMap;

use burn::tensor::Tensor;

use crate::hardware::read;
use crate::math::oracle::{resolvent_diag, resolvent_diag_bidirectional, selective_scan};
use crate::models::{BatchShape, Forward, LanguageModel, Observer};
use crate::results::{Finite, KernelError};
use crate::{Error, Result};

/// Positions compared at each end of the sequence.
const END: usize = 1024;
/// Channels of the scan that are compared, evenly spread.
const SCAN_CHANNELS: usize = 8;

/// The first, the middle and the last layer of `model`, at the first and at the last 1,024 positions of
/// `tokens`, which go through in segments of `segment`: all heads of the resolvent, 8 channels of the scan.
///
/// # Errors
/// Token ids outside the vocabulary, or a device that fails.
pub fn kernel_errors(
    model: &LanguageModel,
    tokens: &[u32],
    segment: usize,
) -> Result<Vec<KernelError>> {
    let n_layers = model.n_layers();
    let mut layers = vec![1, n_layers.div_ceil(2), n_layers];
    layers.dedup();
    let mut judges: Vec<Judge> = layers.iter().map(|&layer| Judge::new(layer)).collect();
    let mut states = model.initial_states(1);
    let mut first = 0;
    for ids in tokens.chunks(segment) {
        let shape = BatchShape {
            batch: 1,
            seq_len: ids.len(),
        };
        let seen = Seen {
            layers: layers.clone(),
            tensors: RefCell::default(),
        };
        let how = Forward {
            observer: Some(&seen),
            ..Forward::infer(shape)
        };
        states = model.forward(ids, states, &how)?.states;
        let mut seen = seen.tensors.into_inner();
        for judge in &mut judges {
            judge.segment(&mut seen, first, ids.len(), tokens.len())?;
        }
        first += ids.len();
    }
    Ok(judges
        .into_iter()
        .flat_map(|judge| judge.errors(tokens.len()))
        .collect())
}

/// What the watched layers showed in one segment.
#[derive(Debug)]
struct Seen {
    layers: Vec<usize>,
    tensors: RefCell<Tensors>,
}

type Tensors = BTreeMap<(usize, &'static str), Tensor<1>>;

impl Observer for Seen {
    fn see(&self, layer: usize, what: &'static str, values: Tensor<1>) {
        let of_a_kernel =
            what.starts_with("resolvent_diag.") || what.starts_with("selective_scan.");
        if of_a_kernel && self.layers.contains(&layer) {
            self.tensors.borrow_mut().insert((layer, what), values);
        }
    }
}

/// Runs the oracle of one layer, segment after segment.
struct Judge {
    layer: usize,
    /// The operation that the layer was seen to run.
    operation: Option<&'static str>,
    /// The oracle's state at the end of the segments so far; empty before the first.
    state: Vec<f64>,
    /// At the first positions and at the last ones.
    ends: [Distance; 2],
}

impl Judge {
    fn new(layer: usize) -> Self {
        Self {
            layer,
            operation: None,
            state: Vec::new(),
            ends: [Distance::default(); 2],
        }
    }

    /// Compares the positions from `first` on, of `n_tokens` in all.
    fn segment(
        &mut self,
        seen: &mut Tensors,
        first: usize,
        seq: usize,
        n_tokens: usize,
    ) -> Result<()> {
        let layer = self.layer;
        let mut take = |what: &'static str| match seen.remove(&(layer, what)) {
            Some(tensor) => read::doubles(tensor, "reading the tensors of a kernel").map(Some),
            None => Ok(None),
        };
        let (got, expected) = if let Some(y) = take("selective_scan.y")? {
            self.operation = Some("selective_scan");
            self.scan(seen, seq, &y)?
        } else if let Some(diag) = take("resolvent_diag.diag")? {
            let g = present(take("resolvent_diag.g")?)?;
            let shift = present(take("resolvent_diag.shift")?)?;
            let carries = take("resolvent_diag.g0")?.is_some();
            let expected = if carries {
                self.operation = Some("resolvent_diag");
                self.causal(seq, &diag, &shift)
            } else {
                self.operation = Some("resolvent_diag_bidirectional");
                whole(seq, &diag, &shift)
            };
            (g, expected)
        } else {
            return Ok(());
        };
        let width = got.len() / seq;
        let rows = got.chunks(width).zip(expected.chunks(width));
        for (position, (got, expected)) in (first..).zip(rows) {
            if position < END {
                self.ends[0].add(got, expected);
            }
            if position + END >= n_tokens {
                self.ends[1].add(got, expected);
            }
        }
        Ok(())
    }

    /// The chosen channels of `y` and of the oracle's.
    fn scan(&mut self, seen: &mut Tensors, seq: usize, y: &[f64]) -> Result<(Vec<f64>, Vec<f64>)> {
        let mut take = |what: &'static str| {
            let tensor = present(seen.remove(&(self.layer, what)))?;
            read::doubles(tensor, "reading the tensors of a kernel")
        };
        let d_inner = y.len() / seq;
        let n = SCAN_CHANNELS.min(d_inner);
        let channel = |k: usize| k * (d_inner - 1) / (n - 1).max(1);
        let chosen = |x: &[f64]| -> Vec<f64> {
            let rows = x.chunks(d_inner);
            rows.flat_map(|row| (0..n).map(|k| row[channel(k)]))
                .collect()
        };
        let a = take("selective_scan.a")?;
        let d_state = a.len() / d_inner;
        let dims = selective_scan::Dims {
            batch: 1,
            seq,
            d_inner: n,
            d_state,
        };
        if self.state.is_empty() {
            self.state = vec![0.0; n * d_state];
        }
        let inputs = selective_scan::Inputs {
            u: chosen(&take("selective_scan.u")?),
            delta_raw: chosen(&take("selective_scan.delta_raw")?),
            a: (0..n)
                .flat_map(|k| &a[channel(k) * d_state..][..d_state])
                .copied()
                .collect(),
            b: take("selective_scan.b")?,
            c: take("selective_scan.c")?,
            h0: std::mem::take(&mut self.state),
            softplus: true,
        };
        let (expected, last) = selective_scan::forward(dims, &inputs);
        self.state = last;
        Ok((chosen(y), expected))
    }

    /// The causal resolvent from the oracle's own state on.
    fn causal(&mut self, seq: usize, diag: &[f64], shift: &[f64]) -> Vec<f64> {
        let heads = shift.len() / 2;
        self.state.resize(2 * heads, 0.0);
        let problem = resolvent_diag::Problem {
            batch: 1,
            seq,
            heads,
            diag,
            coupling: &vec![1.0; diag.len()],
            shift,
            g0: &self.state,
        };
        let g = problem.forward();
        self.state = g[g.len() - 2 * heads..].to_vec();
        g
    }

    fn errors(self, n_tokens: usize) -> Vec<KernelError> {
        let Some(operation) = self.operation else {
            return Vec::new();
        };
        let end = END.min(n_tokens);
        let positions = [(0, end - 1), (n_tokens - end, n_tokens - 1)];
        positions
            .into_iter()
            .zip(self.ends)
            .map(|((first, last), distance)| KernelError {
                operation: operation.to_owned(),
                layer: self.layer,
                first,
                last,
                max: Finite::new(distance.max / distance.max_expected),
                rms: Finite::new((distance.squares / distance.squares_expected).sqrt()),
            })
            .collect()
    }
}

/// The whole resolvent, which carries nothing.
fn whole(seq: usize, diag: &[f64], shift: &[f64]) -> Vec<f64> {
    let problem = resolvent_diag_bidirectional::Problem {
        batch: 1,
        seq,
        heads: shift.len() / 2,
        diag,
        coupling: &vec![1.0; diag.len()],
        shift,
    };
    problem.forward()
}

fn present<T>(tensor: Option<T>) -> Result<T> {
    tensor.ok_or_else(|| Error::CheckFailed("a kernel did not show all of its tensors".into()))
}

/// Largest values and sums of squares of differences and of what is expected.
#[derive(Debug, Clone, Copy, Default)]
struct Distance {
    max: f64,
    max_expected: f64,
    squares: f64,
    squares_expected: f64,
}

impl Distance {
    fn add(&mut self, got: &[f64], expected: &[f64]) {
        for (x, reference) in got.iter().zip(expected) {
            let difference = (x - reference).abs();
            // `max` would pass over a NaN.
            self.max = if difference > self.max || difference.is_nan() {
                difference
            } else {
                self.max
            };
            self.max_expected = self.max_expected.max(reference.abs());
            self.squares += difference * difference;
            self.squares_expected += reference * reference;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::{Device, TensorData};

    fn potential(n: usize) -> Vec<f64> {
        (0..n).map(|i| -2.0 + (i as f64 * 0.7).sin()).collect()
    }

    /// The resolvent of `diag` at z = i, from an empty state.
    fn resolvent(diag: &[f64]) -> Vec<f64> {
        let problem = resolvent_diag::Problem {
            batch: 1,
            seq: diag.len(),
            heads: 1,
            diag,
            coupling: &vec![1.0; diag.len()],
            shift: &[0.0, 1.0],
            g0: &[0.0, 0.0],
        };
        problem.forward()
    }

    /// The judgement on `g` for `diag`, handed over in two segments that are cut at `cut`.
    fn judged(diag: &[f64], g: &[f64], cut: usize) -> Vec<KernelError> {
        let mut judge = Judge::new(1);
        for (first, last) in [(0, cut), (cut, diag.len())] {
            let mut seen = Tensors::new();
            let mut show = |what, values: &[f64]| {
                let values: Vec<f32> = values.iter().map(|&x| x as f32).collect();
                let n = values.len();
                let data = TensorData::new(values, [n]);
                seen.insert((1, what), Tensor::from_data(data, &Device::flex()));
            };
            show("resolvent_diag.g", &g[2 * first..2 * last]);
            show("resolvent_diag.diag", &diag[first..last]);
            show("resolvent_diag.shift", &[0.0, 1.0]);
            show("resolvent_diag.g0", &[0.0, 0.0]);
            judge
                .segment(&mut seen, first, last - first, diag.len())
                .unwrap();
        }
        judge.errors(diag.len())
    }

    #[test]
    fn only_what_is_wrong_is_seen_and_at_the_end_where_it_is() {
        let diag = potential(3000);
        let g = resolvent(&diag);
        let errors = judged(&diag, &g, 1700);
        let ends: Vec<_> = errors
            .iter()
            .map(|error| (error.first, error.last))
            .collect();
        assert_eq!(ends, [(0, 1023), (1976, 2999)]);
        assert!(
            errors.iter().all(|error| error.largest() < 1e-6),
            "{errors:?}"
        );

        // 1 % off in one value near the end; a NaN near the start
        let mut wrong = g.clone();
        wrong[2 * 2990] *= 1.01;
        let errors = judged(&diag, &wrong, 1700);
        assert!(
            errors[0].largest() < 1e-6 && errors[1].largest() > 1e-3,
            "{errors:?}"
        );
        let mut wrong = g;
        wrong[2 * 10] = f64::NAN;
        let errors = judged(&diag, &wrong, 1700);
        assert!(
            errors[0].max.is_none() && errors[1].largest() < 1e-6,
            "{errors:?}"
        );
    }

    #[test]
    fn a_kernel_that_loses_its_state_at_a_boundary_is_seen() {
        let diag = potential(2600);
        let mut g = resolvent(&diag);
        g.splice(2 * 1700.., resolvent(&diag[1700..]));
        let errors = judged(&diag, &g, 1700);
        assert!(errors[1].largest() > 1e-2, "{errors:?}");
    }
}
