//! Cases of the resolvent diagonal: the causal and the bidirectional form, and the published gradient.

use burn::tensor::{Gradients, Tensor};
use serde::Deserialize;

use super::case::Case;
use super::{Precision, Tolerance};
use crate::hardware::read;
use crate::ops::resolvent_diag::bidirectional::{self, Gradient};
use crate::ops::resolvent_diag::{self, Coupling};
use crate::{Error, Result};

/// Gradients by what is no input of the operation: imaginary diagonals, and both off-diagonals apart.
const NO_OUTPUTS: [&str; 6] = ["d_a_im", "dc_a_im", "d_b", "d_c", "dc_b", "dc_c"];

/// One of the operations, with the names of its tensors and of their bounds.
struct Form {
    output: &'static str,
    d_a: &'static str,
    d_bc: &'static str,
    d_z: &'static str,
    forward_bound: &'static str,
    gradient_bound: &'static str,
    /// The output, with a graph.
    train: fn(&Inputs) -> Result<Tensor<3>>,
}

const CAUSAL: Form = Form {
    output: "Gc",
    d_a: "dc_a",
    d_bc: "dc_bc",
    d_z: "dc_z",
    forward_bound: "causal_forward_rel_max",
    gradient_bound: "causal_grad_rel_max",
    train: Inputs::causal,
};

const BIDIRECTIONAL: Form = Form {
    output: "G",
    d_a: "d_a",
    d_bc: "d_bc",
    d_z: "d_z",
    forward_bound: "forward_rel_max",
    gradient_bound: "grad_rel_max",
    train: |inputs| inputs.bidirectional(Gradient::Exact),
};

#[derive(Deserialize)]
struct Parameters {
    z_re: f64,
    z_im: f64,
}

/// Outputs and gradients of both forms; where a product is negative, the refusals.
pub(super) fn diagonal(case: &mut Case<'_>) -> Result<()> {
    case.set_aside(&NO_OUTPUTS);
    let inputs = Inputs::read(case)?;
    let [_, seq, _] = inputs.diag.dims();
    if let Some(i) = inputs.products.iter().position(|&p| p < 0.0) {
        for form in [CAUSAL, BIDIRECTIONAL] {
            case.set_aside(&[form.output, form.d_a, form.d_bc, form.d_z]);
        }
        return inputs.refusal(case, [i / seq, i % seq, 0]);
    }
    case.check("Gc (infer)", inputs.infer()?, CAUSAL.forward_bound)?;
    for form in [CAUSAL, BIDIRECTIONAL] {
        inputs.check(case, &form)?;
    }
    Ok(())
}

/// What the published code returns. Its first version computes G itself; the later one moves every diagonal
/// entry away from 0 by 1e-3, and so G by at most `1e-3 sum |G_ij|^2 = 1e-3 Im G / Im z <= 1e-3`.
pub(super) fn upstream(case: &mut Case<'_>) -> Result<()> {
    /// Gradients of G with another blend, and of the later version's G, which is another matrix's.
    const NO_OUTPUTS: [&str; 3] = [
        "first_d_he_diag_blend0.0",
        "head_d_he_diag_blend0.0",
        "head_d_he_diag_blend0.5",
    ];
    let within = |tol| Tolerance::Relative { tol, atol: 0.0 };
    let exact = match case.precision() {
        Precision::F32 => within(2e-6),
        Precision::F64 => within(1e-10),
    };
    // The published code computes in f32.
    let published = within(2e-6);
    case.set_aside(&NO_OUTPUTS);
    let (diag, d_full) = (case.host("he_diag")?, case.host("g_out")?);
    let (batch, seq) = match diag.shape[..] {
        [batch, seq] if d_full.shape == [batch, seq, 2] => (batch, seq),
        _ => {
            let shapes = [&diag.shape, &d_full.shape];
            return Err(case.bad(format!("has he_diag, g_out of shapes {shapes:?}")));
        }
    };
    let leaf = case.tensor(&diag.values, [batch, seq, 1]).require_grad();
    let d_full = case.tensor(&d_full.values, [batch, seq, 2]);
    for (gradient, output, d_diag, bound) in [
        (Gradient::Exact, "exact_G", "exact_d_he_diag", exact),
        (
            Gradient::Published,
            "first_features",
            "first_d_he_diag_blend0.5",
            published,
        ),
    ] {
        let z = case.tensor(&[0.0, 1.0], [2, 1]);
        let coupling = Coupling::Constant(1.0);
        let full = bidirectional::diagonal(leaf.clone(), coupling, z, 1.0, gradient)?;
        case.check_within(output, full.clone(), bound)?;
        if gradient == Gradient::Published {
            case.check_within("head_features", full.clone(), Tolerance::Absolute(1e-3))?;
        }
        let gradients = (full * d_full.clone()).sum().backward();
        let got = leaf.grad(&gradients).ok_or_else(no_gradient)?;
        case.check_within(d_diag, got.reshape([batch, seq]), bound)?;
    }
    Ok(())
}

/// The inputs of all entries, one head.
struct Inputs {
    diag: Tensor<3>,
    products: Vec<f64>,
    coupling: Tensor<3>,
    shift: Tensor<2>,
    zero: Tensor<2>,
    eta_min: f32,
    d_g: Vec<f64>,
}

impl Inputs {
    fn read(case: &mut Case<'_>) -> Result<Self> {
        let Parameters { z_re, z_im } = case.parameters()?;
        let (a, b, c) = (case.host("a")?, case.host("b")?, case.host("c")?);
        let d_g = case.host("g_out")?;
        let fits = match a.shape[..] {
            [_, 0] => false,
            [batch, seq] => {
                b.shape == [batch, seq - 1] && c.shape == b.shape && d_g.shape == [batch, seq, 2]
            }
            _ => false,
        };
        if !fits {
            let shapes = [&a.shape, &b.shape, &c.shape, &d_g.shape];
            return Err(case.bad(format!("has a, b, c, g_out of shapes {shapes:?}")));
        }
        let (batch, seq) = (a.shape[0], a.shape[1]);
        // Element 0 of a sequence couples it to the carried state, which is 0.
        let mut products = vec![0.0; batch * seq];
        for (i, (b, c)) in b.values.iter().zip(&c.values).enumerate() {
            products[i / (seq - 1) * seq + i % (seq - 1) + 1] = b * c;
        }
        Ok(Self {
            diag: case.tensor(&a.values, [batch, seq, 1]).require_grad(),
            coupling: case.tensor(&products, [batch, seq, 1]).require_grad(),
            products,
            shift: case.tensor(&[z_re, z_im], [2, 1]).require_grad(),
            zero: case.zeros([batch, 2]),
            eta_min: z_im as f32,
            d_g: d_g.values.clone(),
        })
    }

    /// The causal output without a graph of its own.
    fn infer(&self) -> Result<Tensor<3>> {
        let (g, _) = resolvent_diag::infer(
            self.diag.clone(),
            Coupling::Varying(self.coupling.clone()),
            self.shift.clone(),
            self.zero.clone(),
            self.eta_min,
        )?;
        Ok(g)
    }

    fn causal(&self) -> Result<Tensor<3>> {
        resolvent_diag::train(
            self.diag.clone(),
            Coupling::Varying(self.coupling.clone()),
            self.shift.clone(),
            self.zero.clone(),
            self.zero.clone(),
            self.eta_min,
        )
    }

    fn bidirectional(&self, gradient: Gradient) -> Result<Tensor<3>> {
        bidirectional::diagonal(
            self.diag.clone(),
            Coupling::Varying(self.coupling.clone()),
            self.shift.clone(),
            self.eta_min,
            gradient,
        )
    }

    /// Compares the output and all gradients of a form.
    fn check(&self, case: &mut Case<'_>, form: &Form) -> Result<()> {
        let [batch, seq, _] = self.diag.dims();
        let (output, gradients) = self.gradients(case, form, |_| true)?;
        case.check(form.output, output, form.forward_bound)?;
        let d_a = self.diag.grad(&gradients).ok_or_else(no_gradient)?;
        case.check(form.d_a, d_a.reshape([batch, seq]), form.gradient_bound)?;
        let d_p = self.coupling.grad(&gradients).ok_or_else(no_gradient)?;
        let d_p = read::doubles(d_p, "reading the couplings' gradient")?;
        let d_bc: Vec<f64> = d_p.chunks(seq).flat_map(|row| &row[1..]).copied().collect();
        case.check_host(form.d_bc, &[batch, seq - 1], &d_bc, form.gradient_bound)?;

        // The shift is one for all sequences; the part of one is the gradient when only that one counts.
        let mut d_z = Vec::with_capacity(2 * batch);
        for sequence in 0..batch {
            let (_, gradients) = self.gradients(case, form, |b| b == sequence)?;
            let d_shift = self.shift.grad(&gradients).ok_or_else(no_gradient)?;
            d_z.extend(read::doubles(d_shift, "reading the shift's gradient")?);
        }
        case.check_host(form.d_z, &[batch, 2], &d_z, "dz_rel")
    }

    /// The output, and the gradients of the objective over the sequences that count.
    fn gradients(
        &self,
        case: &Case<'_>,
        form: &Form,
        counts: impl Fn(usize) -> bool,
    ) -> Result<(Tensor<3>, Gradients)> {
        let output = (form.train)(self)?;
        let [_, seq, width] = output.dims();
        let mut d_output = self.d_g.clone();
        for (sequence, part) in d_output.chunks_mut(seq * width).enumerate() {
            if !counts(sequence) {
                part.fill(0.0);
            }
        }
        let d_output = case.tensor(&d_output, output.dims());
        let gradients = (output.clone() * d_output).sum().backward();
        Ok((output, gradients))
    }

    /// Passes when every entry refuses the coupling at `first`.
    fn refusal(&self, case: &mut Case<'_>, first: [usize; 3]) -> Result<()> {
        let answers = [
            self.infer().err(),
            self.causal().err(),
            self.bidirectional(Gradient::Exact).err(),
            self.bidirectional(Gradient::Published).err(),
        ];
        for answer in answers {
            match answer {
                Some(error @ Error::Domain { .. }) if matches!(&error, Error::Domain { index, .. } if *index == first) =>
                {
                    case.refused(&error);
                }
                answer => {
                    return Err(Error::CheckFailed(format!(
                        "coupling {first:?} is negative, and the operation answered {answer:?}"
                    )));
                }
            }
        }
        Ok(())
    }
}

fn no_gradient() -> Error {
    Error::CheckFailed("an input got no gradient".to_owned())
}
