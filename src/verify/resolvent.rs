//! Cases of the resolvent diagonal. Only the causal form exists.

use burn::tensor::{Gradients, Tensor};
use serde::Deserialize;

use super::case::Case;
use crate::hardware::read;
use crate::ops::resolvent_diag::{self, Coupling};
use crate::{Error, Result};

/// Tensors of the bidirectional form.
const BIDIRECTIONAL: [&str; 4] = ["G", "d_a", "d_bc", "d_z"];
/// Gradients by what is no input of the operation: imaginary diagonals, and both off-diagonals apart.
const NO_OUTPUTS: [&str; 6] = ["d_a_im", "dc_a_im", "d_b", "d_c", "dc_b", "dc_c"];

const FORWARD: &str = "causal_forward_rel_max";
const GRADIENT: &str = "causal_grad_rel_max";

#[derive(Deserialize)]
struct Parameters {
    z_re: f64,
    z_im: f64,
}

/// Gc, `dc_a`, `dc_bc` and `dc_z`; where a product is negative, the refusal.
pub(super) fn causal_diagonal(case: &mut Case<'_>) -> Result<()> {
    case.not_offered(&BIDIRECTIONAL);
    case.set_aside(&NO_OUTPUTS);
    let inputs = Inputs::read(case)?;
    let [batch, seq, _] = inputs.diag.dims();
    if let Some(i) = inputs.products.iter().position(|&p| p < 0.0) {
        case.set_aside(&["Gc", "dc_a", "dc_bc", "dc_z"]);
        return inputs.refusal(case, [i / seq, i % seq, 0]);
    }

    case.check("Gc", inputs.infer()?, FORWARD)?;
    let (g, gradients) = inputs.train(case, |_| true)?;
    case.check("Gc (train)", g, FORWARD)?;
    let d_a = inputs
        .diag
        .grad(&gradients)
        .map(|d| d.reshape([batch, seq]));
    case.check("dc_a", d_a.ok_or_else(no_gradient)?, GRADIENT)?;
    let d_p = inputs.coupling.grad(&gradients).ok_or_else(no_gradient)?;
    let d_p = read::doubles(d_p, "reading dc_bc")?;
    let d_bc: Vec<f64> = d_p.chunks(seq).flat_map(|row| &row[1..]).copied().collect();
    case.check_host("dc_bc", &[batch, seq - 1], &d_bc, GRADIENT)?;

    // The shift is one for all sequences; the part of one is the gradient when only that one counts.
    let mut d_z = Vec::with_capacity(2 * batch);
    for sequence in 0..batch {
        let (_, gradients) = inputs.train(case, |b| b == sequence)?;
        let d_shift = inputs.shift.grad(&gradients).ok_or_else(no_gradient)?;
        d_z.extend(read::doubles(d_shift, "reading dc_z")?);
    }
    case.check_host("dc_z", &[batch, 2], &d_z, "dz_rel")
}

/// What the published code returns: of its bidirectional core, so far.
#[expect(clippy::unnecessary_wraps, reason = "as every kind of case")]
pub(super) fn upstream(case: &mut Case<'_>) -> Result<()> {
    case.not_offered(&case.names());
    Ok(())
}

/// The inputs of both entries, one head.
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

    /// The output, and the gradients of the objective over the sequences that count.
    fn train(
        &self,
        case: &Case<'_>,
        counts: impl Fn(usize) -> bool,
    ) -> Result<(Tensor<3>, Gradients)> {
        let g = resolvent_diag::train(
            self.diag.clone(),
            Coupling::Varying(self.coupling.clone()),
            self.shift.clone(),
            self.zero.clone(),
            self.zero.clone(),
            self.eta_min,
        )?;
        let [_, seq, width] = g.dims();
        let mut d_g = self.d_g.clone();
        for (sequence, part) in d_g.chunks_mut(seq * width).enumerate() {
            if !counts(sequence) {
                part.fill(0.0);
            }
        }
        let d_g = case.tensor(&d_g, g.dims());
        let gradients = (g.clone() * d_g).sum().backward();
        Ok((g, gradients))
    }

    /// Passes when both entries refuse the coupling at `first`.
    fn refusal(&self, case: &mut Case<'_>, first: [usize; 3]) -> Result<()> {
        let answers = [self.infer().err(), self.train(case, |_| true).err()];
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
