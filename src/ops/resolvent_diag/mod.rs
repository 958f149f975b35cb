//! Diagonal of the resolvent `(H - z)^-1` of a tridiagonal matrix, in its causal form: entry i is the last
//! diagonal entry of the inverse of the leading `i + 1` rows and columns, so it depends on rows 0..=i alone.
//!
//! ```text
//! g[i] = 1 / (diag[i] - z - coupling[i] * g[i-1]),    g[-1] = g0
//! ```
//!
//! The ratio form of the three-term recurrence of the leading minors (theory and bounds: Teschl 2000,
//! "Jacobi Operators and Completely Integrable Nonlinear Lattices", ch. 1-2). Derivation, adjoint, the
//! parallel algorithm and measured errors: `docs/resolvent_diag.md`.
//!
//! A complex tensor holds the real parts of all heads, then the imaginary parts; its cotangent holds
//! (dL/dRe, dL/dIm). Tensors are `f32` on every device, or `f64` on the CPU.

mod autodiff;
pub mod bidirectional;
mod cost;
pub mod cpu;
mod plan;
mod wgsl;

use burn::backend::Dispatch;
use burn::tensor::{Tensor, TensorData};

use super::compact;
use crate::hardware::read;
use crate::{Error, Result};
use autodiff::ResolventDiagBackend;

pub use plan::Plan;

const OP: &str = "resolvent_diag";

/// Varying couplings up to this size share one chunk plan.
const P_MAX: f32 = 4.0;

/// Products of the off-diagonal entries, `coupling[i] = upper[i-1] * lower[i-1]` between rows i-1 and i.
/// Element 0 couples row 0 to the carried state. None may be negative.
#[derive(Debug, Clone)]
#[expect(
    clippy::large_enum_variant,
    reason = "one a call; a box would be in every caller's way"
)]
pub enum Coupling {
    /// One value everywhere, without a gradient and without the memory traffic.
    Constant(f32),
    /// `[batch, seq, heads]`. Its signs are checked at every call, which waits for the device.
    Varying(Tensor<3>),
}

/// What the kernels may rely on; it sizes their chunks.
#[derive(Debug, Clone, Copy)]
struct Bounds {
    /// No Im z is smaller.
    eta_min: f32,
    /// No coupling is larger.
    p_max: f32,
}

/// g `[batch, seq, 2 * heads]` and the final state `[batch, 2 * heads]`, outside any graph.
///
/// `diag` is `[batch, seq, heads]`, `shift` `[2, heads]` (Re z, then Im z), `g0` `[batch, 2 * heads]` the
/// state carried into row 0, zero at the start of a sequence. `eta_min` is a positive floor of Im z. That
/// Im z keeps above it, and that g0 has no negative imaginary part ([`check_state`]), is the caller's
/// contract: checking it here would wait for the device at every call.
///
/// # Errors
/// [`Error::Shape`] when the shapes do not fit together or a size is 0, [`Error::Domain`] for a negative
/// coupling (with the first offending index) or an `eta_min` that is not positive, [`Error::Device`] when
/// varying couplings cannot be read.
pub fn infer(
    diag: Tensor<3>,
    coupling: Coupling,
    shift: Tensor<2>,
    g0: Tensor<2>,
    eta_min: f32,
) -> Result<(Tensor<3>, Tensor<2>)> {
    check_shapes(&diag, &coupling, &shift, &[("g0", &g0)])?;
    let (coupling, bounds) = bounded(&diag, coupling, eta_min)?;
    let sizes = cost::Sizes::new(&diag, &coupling, bounds);
    let [batch, seq, heads] = diag.dims();
    let g = Tensor::<3>::from_dispatch(Dispatch::resolvent_diag_infer(
        diag.into_dispatch(),
        coupling.into_dispatch(),
        shift.into_dispatch(),
        g0.into_dispatch(),
        bounds,
    ));
    let g = sizes.register(g);
    let g_last = compact(g.clone().slice_dim(1, seq - 1..seq)).reshape([batch, 2 * heads]);
    Ok((g, g_last))
}

/// As [`infer`], with exact gradients for `diag`, a varying coupling, `shift` and `g0`. `d_g_last`
/// `[batch, 2 * heads]` is the cotangent of the final state, 0 where nothing follows; it only enters the
/// gradients.
///
/// # Errors
/// As [`infer`].
pub fn train(
    diag: Tensor<3>,
    coupling: Coupling,
    shift: Tensor<2>,
    g0: Tensor<2>,
    d_g_last: Tensor<2>,
    eta_min: f32,
) -> Result<Tensor<3>> {
    check_shapes(
        &diag,
        &coupling,
        &shift,
        &[("g0", &g0), ("d_g_last", &d_g_last)],
    )?;
    let (coupling, bounds) = bounded(&diag, coupling, eta_min)?;
    let sizes = cost::Sizes::new(&diag, &coupling, bounds);
    let g = Tensor::from_dispatch(Dispatch::resolvent_diag_train(
        diag.into_dispatch(),
        coupling.into_dispatch(),
        shift.into_dispatch(),
        g0.into_dispatch(),
        d_g_last.into_dispatch(),
        bounds,
    ));
    Ok(sizes.register(g))
}

/// Whether `g` `[batch, 2 * heads]` may be carried into a call: no imaginary part is negative. Reads the
/// state back; meant for a state that comes from outside, once.
///
/// # Errors
/// [`Error::Domain`] with the first offending index, [`Error::Device`] when the state cannot be read.
pub fn check_state(g: &Tensor<2>) -> Result<()> {
    let [_, width] = g.dims();
    let values = read::doubles(g.clone(), "reading a carried resolvent state")?;
    let offender = |&(i, &v): &(usize, &f64)| i % width >= width / 2 && (v < 0.0 || v.is_nan());
    match values.iter().enumerate().find(offender) {
        None => Ok(()),
        Some((i, &value)) => Err(domain(
            "g0",
            "of imaginary part >= 0",
            vec![i / width, i % width],
            value,
        )),
    }
}

fn domain(arg: &'static str, requirement: &'static str, index: Vec<usize>, value: f64) -> Error {
    Error::Domain {
        op: OP,
        arg,
        requirement,
        index,
        value,
    }
}

/// The coupling as a tensor (`[1, 1, 1]` for a constant), and the bounds.
fn bounded(diag: &Tensor<3>, coupling: Coupling, eta_min: f32) -> Result<(Tensor<3>, Bounds)> {
    if !(eta_min > 0.0 && eta_min.is_finite()) {
        return Err(domain("eta_min", "positive", vec![], eta_min.into()));
    }
    match coupling {
        Coupling::Constant(p) if p >= 0.0 && p.is_finite() => {
            let value = TensorData::new(vec![p], [1, 1, 1]);
            let tensor = Tensor::from_data(value, (&diag.device(), diag.dtype()));
            Ok((tensor, Bounds { eta_min, p_max: p }))
        }
        Coupling::Constant(p) => Err(domain("coupling", ">= 0 and finite", vec![], p.into())),
        Coupling::Varying(p) => {
            let doing = "checking the signs of the couplings";
            let checked = p.clone().detach();
            let range = Tensor::cat(vec![checked.clone().min(), checked.clone().max()], 0);
            let range = read::doubles(range, doing)?;
            if range[0] < 0.0 {
                let [_, seq, heads] = p.dims();
                let all = read::doubles(checked, doing)?;
                if let Some((i, &value)) = all.iter().enumerate().find(|(_, p)| **p < 0.0) {
                    let index = vec![i / heads / seq, i / heads % seq, i % heads];
                    return Err(domain("coupling", ">= 0", index, value));
                }
            }
            // Powers of two, so that the plan does not move with every batch.
            let p_max = (range[1] as f32).max(P_MAX).log2().ceil().exp2();
            Ok((p, Bounds { eta_min, p_max }))
        }
    }
}

fn check_shapes(
    diag: &Tensor<3>,
    coupling: &Coupling,
    shift: &Tensor<2>,
    states: &[(&'static str, &Tensor<2>)],
) -> Result<()> {
    let shape = |arg, expected: &str, got: &[usize]| {
        Err(Error::Shape {
            op: OP,
            arg,
            expected: expected.to_owned(),
            got: got.to_vec(),
        })
    };
    let [batch, seq, heads] = diag.dims();
    if batch * seq * heads == 0 {
        return shape("diag", "[batch, seq, heads], none of them 0", &diag.dims());
    }
    if let Coupling::Varying(p) = coupling
        && p.dims() != diag.dims()
    {
        return shape("coupling", &format!("{:?}", diag.dims()), &p.dims());
    }
    if shift.dims() != [2, heads] {
        return shape("shift", &format!("[2, {heads}]"), &shift.dims());
    }
    for &(arg, state) in states {
        if state.dims() != [batch, 2 * heads] {
            return shape(arg, &format!("[{batch}, {}]", 2 * heads), &state.dims());
        }
    }
    Ok(())
}
