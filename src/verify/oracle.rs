//! Every operation against `math::oracle` on generated inputs: odd sizes, carried states, and cotangents of
//! the final states.

mod layers;
mod products;

use std::panic::{AssertUnwindSafe, catch_unwind};

use burn::tensor::{Device, Gradients, Tensor, TensorData};

use super::{CaseReport, Check, Precision, Tolerance};
use crate::config;
use crate::hardware::read;
use crate::math::oracle;
use crate::math::random::{Coordinate, Purpose, normal_vec};
use crate::ops::causal_conv::Activation;
use crate::ops::packed_matmul::PackedTensor;
use crate::ops::resolvent_diag::Coupling;
use crate::ops::resolvent_diag::bidirectional::{Gradient, diagonal};
use crate::ops::{causal_conv, embedding, linear_cross_entropy, resolvent_diag, selective_scan};
use crate::quant::{BitWidth, PackedMatrix};
use crate::{Error, Result};

/// Relative bounds in `f32`. In `f64` everything is bounded by 1e-10.
struct Bounds {
    forward: f64,
    gradient: f64,
}

const RESOLVENT: Bounds = Bounds {
    forward: 5e-6,
    gradient: 2e-5,
};
const SCAN: Bounds = Bounds {
    forward: 1e-5,
    gradient: 5e-5,
};
const CONV: Bounds = Bounds {
    forward: 2e-6,
    gradient: 1e-5,
};
const LOSS: Bounds = Bounds {
    forward: 2e-6,
    gradient: 1e-5,
};
/// A gathered row is a copy.
const GATHER: Bounds = Bounds {
    forward: 0.0,
    gradient: 2e-6,
};

/// Products with a packed matrix; its rows are exact.
const PACKED: f64 = 2e-6;

/// Around the chunks of the kernels, a prime, and several chunks.
const SEQ_LENS: [usize; 5] = [1, 31, 129, 1021, 2051];

/// Runs all checks on `device`, on the CPU also in `f64`.
pub(super) fn check(device: &Device, on_cpu: bool) -> Vec<CaseReport> {
    check_at(device, Precision::on(on_cpu), &SEQ_LENS)
}

/// Runs the checks of one odd length on `device`, in `f32`.
pub(super) fn check_briefly(device: &Device) -> Vec<CaseReport> {
    check_at(device, &[Precision::F32], &[129])
}

fn check_at(device: &Device, precisions: &[Precision], seq_lens: &[usize]) -> Vec<CaseReport> {
    let mut reports = Vec::new();
    for &precision in precisions {
        let mut run = |case: String, check: &dyn Fn(&mut Problem) -> Result<()>| {
            let mut problem = Problem::new(device, precision);
            let outcome = catch_unwind(AssertUnwindSafe(|| check(&mut problem)));
            let mut report = CaseReport::new("oracle", &case, precision);
            report.checks = problem.checks;
            report.failure = match outcome {
                Ok(Ok(())) => None,
                Ok(Err(error)) => Some(error.to_string()),
                Err(_) => Some("the operation panicked".to_owned()),
            };
            reports.push(report);
        };
        for &seq in seq_lens {
            for (batch, heads, varying) in
                [(2, 1, true), (1, 5, true), (2, 1, false), (1, 8, false)]
            {
                let kind = if varying { "varying" } else { "constant" };
                run(
                    format!("resolvent_diag {batch}x{seq}x{heads} {kind}"),
                    &|p| resolvent(p, batch, seq, heads, varying),
                );
                run(
                    format!("resolvent_diag_bidirectional {batch}x{seq}x{heads} {kind}"),
                    &|p| bidirectional(p, batch, seq, heads, varying),
                );
            }
            for (batch, d_inner, d_state) in [(2, 3, 16), (1, 37, 5)] {
                run(
                    format!("selective_scan {batch}x{seq}x{d_inner}x{d_state}"),
                    &|p| scan(p, batch, seq, d_inner, d_state),
                );
            }
            for (batch, channels, d_conv) in [(2, 3, 4), (1, 67, 2)] {
                run(
                    format!("causal_conv {batch}x{seq}x{channels} taps {d_conv}"),
                    &|p| conv(p, batch, seq, channels, d_conv),
                );
            }
        }
        for (tokens, d_model, vocab) in [(1, 1, 2), (37, 24, 67), (65, 33, 1031)] {
            run(
                format!("linear_cross_entropy {tokens}x{d_model}, {vocab} words"),
                &|p| loss(p, tokens, d_model, vocab),
            );
        }
        for (ids, d, rows) in [(1, 1, 1), (257, 33, 3), (131, 64, 1009)] {
            run(format!("gather_rows {ids} of {rows}, width {d}"), &|p| {
                gather(p, ids, d, rows)
            });
        }
        for (rows, width) in [(1, 3), (37, 64), (131, 257)] {
            run(format!("rms_norm {rows}x{width}"), &|p| {
                layers::norm(p, rows, width)
            });
            run(format!("skip_gate {rows}x{width}"), &|p| {
                layers::gate(p, rows, width)
            });
        }
        products::check(device, &mut run);
        // Few tokens and many: they take different kernels.
        for (tokens, columns, rows) in [(1, 65, 67), (37, 127, 33)] {
            for width in BitWidth::ALL {
                run(
                    format!("packed_matmul {tokens}x{columns}x{rows} {width}"),
                    &|p| packed(p, tokens, columns, rows, width),
                );
            }
        }
    }
    reports
}

/// Inputs and comparisons of one case.
struct Problem {
    device: Device,
    precision: Precision,
    n_drawn: u32,
    checks: Vec<Check>,
}

impl Problem {
    fn new(device: &Device, precision: Precision) -> Self {
        Self {
            device: device.clone().autodiff(),
            precision,
            n_drawn: 0,
            checks: Vec::new(),
        }
    }

    /// Normal values that `f32` holds exactly.
    fn normal(&mut self, n: usize, std: f64) -> Vec<f64> {
        self.drawn(n, std, |v| v)
    }

    /// A function of normal values, rounded to what `f32` holds exactly.
    fn drawn(&mut self, n: usize, std: f64, f: impl Fn(f64) -> f64) -> Vec<f64> {
        let stream = Coordinate {
            row: self.n_drawn,
            ..Coordinate::new(Purpose::Test)
        };
        self.n_drawn += 1;
        let values = normal_vec(11, stream, n, std);
        let rounded = |v: f32| f64::from(f(f64::from(v)) as f32);
        values.into_iter().map(rounded).collect()
    }

    /// Indices below `bound`, the small ones more often.
    fn indices(&mut self, n: usize, bound: usize) -> Vec<usize> {
        let values = self.normal(n, bound as f64 / 2.0);
        values.iter().map(|v| v.abs() as usize % bound).collect()
    }

    fn leaf<const D: usize>(&self, values: &[f64], shape: [usize; D]) -> Tensor<D> {
        let data = TensorData::new(values.to_vec(), shape);
        Tensor::from_data(data, (&self.device, self.precision.dtype())).require_grad()
    }

    fn check<const D: usize>(
        &mut self,
        name: &str,
        output: Tensor<D>,
        expected: &[f64],
        bound: f64,
    ) -> Result<()> {
        let shape = output.dims();
        let values = read::doubles(output, &format!("reading {name}"))?;
        let tol = match self.precision {
            Precision::F32 => bound,
            Precision::F64 => 1e-10_f64.min(bound),
        };
        let tolerance = Tolerance::Relative { tol, atol: 0.0 };
        let check = Check::new(name, (&shape, &values), (&shape, expected), tolerance);
        self.checks.push(check);
        Ok(())
    }

    fn check_gradient<const D: usize>(
        &mut self,
        name: &str,
        (leaf, gradients): (&Tensor<D>, &Gradients),
        expected: &[f64],
        bound: f64,
    ) -> Result<()> {
        let gradient = leaf
            .grad(gradients)
            .ok_or_else(|| Error::CheckFailed(format!("no gradient reached {name}")))?;
        self.check(name, gradient, expected, bound)
    }
}

fn resolvent(p: &mut Problem, batch: usize, seq: usize, heads: usize, varying: bool) -> Result<()> {
    let n = batch * seq * heads;
    let diag = p.normal(n, 2.0);
    let coupling = if varying {
        p.drawn(n, 1.0, f64::abs)
    } else {
        vec![1.0; n]
    };
    // Im z around the 1 of the models; g0 as an earlier segment would leave it.
    let mut shift = p.normal(heads, 0.25);
    shift.extend(p.drawn(heads, 0.25, |v| 1.0 + v.abs()));
    let mut g0 = Vec::with_capacity(batch * 2 * heads);
    for _ in 0..batch {
        g0.extend(p.normal(heads, 0.4));
        g0.extend(p.drawn(heads, 0.4, f64::abs));
    }
    let (d_g, d_last) = (p.normal(2 * n, 1.0), p.normal(batch * 2 * heads, 1.0));
    let problem = oracle::resolvent_diag::Problem {
        batch,
        seq,
        heads,
        diag: &diag,
        coupling: &coupling,
        shift: &shift,
        g0: &g0,
    };
    let g = problem.forward();
    let want = problem.adjoint(&d_g, &d_last);

    let diag = p.leaf(&diag, [batch, seq, heads]);
    let coupling = p.leaf(&coupling, [batch, seq, heads]);
    let (shift, g0) = (p.leaf(&shift, [2, heads]), p.leaf(&g0, [batch, 2 * heads]));
    let d_last = p.leaf(&d_last, [batch, 2 * heads]).detach();
    let d_g = p.leaf(&d_g, [batch, seq, 2 * heads]).detach();
    let kind = || {
        if varying {
            Coupling::Varying(coupling.clone())
        } else {
            Coupling::Constant(1.0)
        }
    };
    let (d, z, s) = (diag.clone(), shift.clone(), g0.clone());
    let (inferred, last) = resolvent_diag::infer(d.clone(), kind(), z.clone(), s.clone(), 1.0)?;
    p.check("g", inferred, &g, RESOLVENT.forward)?;
    let rows = g.chunks(2 * heads).skip(seq - 1).step_by(seq);
    p.check(
        "g_last",
        last,
        &rows.collect::<Vec<_>>().concat(),
        RESOLVENT.forward,
    )?;
    let trained = resolvent_diag::train(d, kind(), z, s, d_last, 1.0)?;
    p.check("g (train)", trained.clone(), &g, RESOLVENT.forward)?;
    let gradients = (trained * d_g).sum().backward();
    let bound = RESOLVENT.gradient;
    p.check_gradient("d_diag", (&diag, &gradients), &want.diag, bound)?;
    if varying {
        p.check_gradient("d_coupling", (&coupling, &gradients), &want.coupling, bound)?;
    }
    p.check_gradient("d_shift", (&shift, &gradients), &want.shift, bound)?;
    p.check_gradient("d_g0", (&g0, &gradients), &want.g0, bound)
}

fn bidirectional(
    p: &mut Problem,
    batch: usize,
    seq: usize,
    heads: usize,
    varying: bool,
) -> Result<()> {
    let n = batch * seq * heads;
    let diag = p.normal(n, 2.0);
    let coupling = if varying {
        p.drawn(n, 1.0, f64::abs)
    } else {
        vec![1.0; n]
    };
    let mut shift = p.normal(heads, 0.25);
    shift.extend(p.drawn(heads, 0.25, |v| 1.0 + v.abs()));
    let d_full = p.normal(2 * n, 1.0);
    let problem = oracle::resolvent_diag_bidirectional::Problem {
        batch,
        seq,
        heads,
        diag: &diag,
        coupling: &coupling,
        shift: &shift,
    };
    let (full, want) = (problem.forward(), problem.adjoint(&d_full));
    let published = problem.published(&d_full);

    let diag = p.leaf(&diag, [batch, seq, heads]);
    let coupling = p.leaf(&coupling, [batch, seq, heads]);
    let shift = p.leaf(&shift, [2, heads]);
    let d_full = p.leaf(&d_full, [batch, seq, 2 * heads]).detach();
    let with = |gradient| {
        let coupling = if varying {
            Coupling::Varying(coupling.clone())
        } else {
            Coupling::Constant(1.0)
        };
        let got = diagonal(diag.clone(), coupling, shift.clone(), 1.0, gradient)?;
        let gradients = (got.clone() * d_full.clone()).sum().backward();
        Ok::<_, Error>((got, gradients))
    };
    let (got, gradients) = with(Gradient::Exact)?;
    p.check("full", got, &full, RESOLVENT.forward)?;
    let bound = RESOLVENT.gradient;
    p.check_gradient("d_diag", (&diag, &gradients), &want.diag, bound)?;
    if varying {
        p.check_gradient("d_coupling", (&coupling, &gradients), &want.coupling, bound)?;
    }
    p.check_gradient("d_shift", (&shift, &gradients), &want.shift, bound)?;
    let (_, gradients) = with(Gradient::Published)?;
    p.check_gradient("published", (&diag, &gradients), &published, bound)
}

fn scan(p: &mut Problem, batch: usize, seq: usize, d_inner: usize, d_state: usize) -> Result<()> {
    let dims = oracle::selective_scan::Dims {
        batch,
        seq,
        d_inner,
        d_state,
    };
    let (n, n_shared, n_state) = (
        batch * seq * d_inner,
        batch * seq * d_state,
        batch * d_inner * d_state,
    );
    let host = oracle::selective_scan::Inputs {
        u: p.normal(n, 1.0),
        delta_raw: p.drawn(n, 1.0, |v| v - 2.0),
        a: p.drawn(d_inner * d_state, 2.0, |v| -v.abs() - 0.05),
        b: p.normal(n_shared, 1.0),
        c: p.normal(n_shared, 1.0),
        h0: p.normal(n_state, 1.0),
        softplus: true,
    };
    let (d_y, d_last) = (p.normal(n, 1.0), p.normal(n_state, 1.0));
    let (y, last) = oracle::selective_scan::forward(dims, &host);
    let want = oracle::selective_scan::adjoint(dims, &host, &d_y, &d_last);

    let inputs = selective_scan::Inputs {
        u: p.leaf(&host.u, [batch, seq, d_inner]),
        delta_raw: p.leaf(&host.delta_raw, [batch, seq, d_inner]),
        a: p.leaf(&host.a, [d_inner, d_state]),
        b: p.leaf(&host.b, [batch, seq, d_state]),
        c: p.leaf(&host.c, [batch, seq, d_state]),
        softplus: true,
    };
    let h0 = p.leaf(&host.h0, [batch, d_inner, d_state]);
    let d_last = p.leaf(&d_last, [batch, d_inner, d_state]).detach();
    let d_y = p.leaf(&d_y, [batch, seq, d_inner]).detach();
    let (inferred, inferred_last) = selective_scan::infer(inputs.clone(), h0.clone())?;
    p.check("y", inferred, &y, SCAN.forward)?;
    p.check("h_last", inferred_last, &last, SCAN.forward)?;
    let trained = selective_scan::train(inputs.clone(), h0.clone(), d_last)?;
    p.check("y (train)", trained.clone(), &y, SCAN.forward)?;
    let gradients = (trained * d_y).sum().backward();
    let bound = SCAN.gradient;
    p.check_gradient("d_u", (&inputs.u, &gradients), &want.u, bound)?;
    p.check_gradient(
        "d_delta_raw",
        (&inputs.delta_raw, &gradients),
        &want.delta_raw,
        bound,
    )?;
    p.check_gradient("d_a", (&inputs.a, &gradients), &want.a, bound)?;
    p.check_gradient("d_b", (&inputs.b, &gradients), &want.b, bound)?;
    p.check_gradient("d_c", (&inputs.c, &gradients), &want.c, bound)?;
    p.check_gradient("d_h0", (&h0, &gradients), &want.h0, bound)
}

fn conv(p: &mut Problem, batch: usize, seq: usize, channels: usize, d_conv: usize) -> Result<()> {
    let (n, n_state) = (batch * seq * channels, batch * (d_conv - 1) * channels);
    let host = oracle::causal_conv::Inputs {
        batch,
        seq_len: seq,
        channels,
        d_conv,
        silu: true,
        x: p.normal(n, 2.0),
        weight: p.normal(channels * d_conv, 0.7),
        bias: p.normal(channels, 0.5),
        x0: p.normal(n_state, 2.0),
    };
    let (d_y, d_last) = (p.normal(n, 1.0), p.normal(n_state, 1.0));
    let (y, last) = (host.forward(), host.last());
    let want = host.backward(&d_y, &d_last);

    let x = p.leaf(&host.x, [batch, seq, channels]);
    let weight = p.leaf(&host.weight, [channels, d_conv]);
    let bias = p.leaf(&host.bias, [channels]);
    let x0 = p.leaf(&host.x0, [batch, d_conv - 1, channels]);
    let d_last = p.leaf(&d_last, [batch, d_conv - 1, channels]).detach();
    let d_y = p.leaf(&d_y, [batch, seq, channels]).detach();
    let inputs = || (x.clone(), weight.clone(), bias.clone(), x0.clone());
    let (x_, w, b, s) = inputs();
    let (inferred, inferred_last) = causal_conv::infer(x_, w, b, s, Activation::Silu)?;
    p.check("y", inferred, &y, CONV.forward)?;
    p.check("x_last", inferred_last, &last, CONV.forward)?;
    let (x_, w, b, s) = inputs();
    let trained = causal_conv::train(x_, w, b, s, d_last, Activation::Silu)?;
    p.check("y (train)", trained.clone(), &y, CONV.forward)?;
    let gradients = (trained * d_y).sum().backward();
    let bound = CONV.gradient;
    p.check_gradient("d_x", (&x, &gradients), &want.d_x, bound)?;
    p.check_gradient("d_weight", (&weight, &gradients), &want.d_weight, bound)?;
    p.check_gradient("d_bias", (&bias, &gradients), &want.d_bias, bound)?;
    p.check_gradient("d_x0", (&x0, &gradients), &want.d_x0, bound)
}

fn loss(p: &mut Problem, tokens: usize, d_model: usize, vocab: usize) -> Result<()> {
    use oracle::linear_cross_entropy as exact;
    const CHUNK_TOKENS: usize = 16;
    let (x, weight) = (
        p.normal(tokens * d_model, 1.0),
        p.normal(vocab * d_model, 0.5),
    );
    let targets = p.indices(tokens, vocab);
    let scale = 0.125;
    let nll = exact::nll(&x, &weight, d_model, &targets);
    let sum = scale * nll.iter().sum::<f64>();
    let (want_x, want_weight) = exact::gradients(&x, &weight, d_model, &targets, scale);

    let (x, weight) = (
        p.leaf(&x, [tokens, d_model]),
        p.leaf(&weight, [vocab, d_model]),
    );
    let targets: Vec<u32> = targets.into_iter().map(|t| t as u32).collect();
    let (x_, w) = (x.clone(), weight.clone());
    let inferred = linear_cross_entropy::infer(x_, w, &targets, CHUNK_TOKENS)?;
    p.check("nll", inferred, &nll, LOSS.forward)?;
    let (x_, w) = (x.clone(), weight.clone());
    let (factor, chunk, precision) = (scale as f32, CHUNK_TOKENS, config::Precision::F32);
    let trained = linear_cross_entropy::train(x_, w, &targets, chunk, factor, precision)?;
    p.check("loss", trained.clone(), &[sum], LOSS.forward)?;
    let gradients = trained.backward();
    p.check_gradient("d_x", (&x, &gradients), &want_x, LOSS.gradient)?;
    p.check_gradient(
        "d_weight",
        (&weight, &gradients),
        &want_weight,
        LOSS.gradient,
    )
}

fn gather(p: &mut Problem, n_ids: usize, d: usize, rows: usize) -> Result<()> {
    let (weight, d_y) = (p.normal(rows * d, 1.0), p.normal(n_ids * d, 1.0));
    let ids = p.indices(n_ids, rows);
    let y = oracle::embedding::gather_rows(&weight, d, &ids);
    let want = oracle::embedding::d_weight(&d_y, rows, d, &ids);

    let weight = p.leaf(&weight, [rows, d]);
    let d_y = p.leaf(&d_y, [n_ids, d]).detach();
    let ids: Vec<u32> = ids.into_iter().map(|id| id as u32).collect();
    let gathered = embedding::gather_rows(weight.clone(), &ids)?;
    p.check("y", gathered.clone(), &y, GATHER.forward)?;
    let gradients = (gathered * d_y).sum().backward();
    p.check_gradient("d_weight", (&weight, &gradients), &want, GATHER.gradient)
}

fn packed(
    p: &mut Problem,
    tokens: usize,
    columns: usize,
    rows: usize,
    width: BitWidth,
) -> Result<()> {
    use oracle::packed_matmul as exact;
    let (x, weight) = (
        p.normal(tokens * columns, 1.0),
        p.normal(rows * columns, 0.5),
    );
    let weight: Vec<f32> = weight.into_iter().map(|w| w as f32).collect();
    let packed = PackedMatrix::pack(width, [rows, columns], &weight)?;
    let weight = exact::unpack(width.bits() as usize, rows, columns, &packed.words);
    let y = exact::multiply(&x, &weight, columns);
    let ids: Vec<u32> = (0..rows as u32).collect();

    let x = p.leaf(&x, [tokens, columns]);
    let packed = PackedTensor::new(packed, &p.device);
    p.check("y", packed.multiply(x)?, &y, PACKED)?;
    p.check("rows", packed.gather_rows(&ids)?, &weight, 0.0)
}
