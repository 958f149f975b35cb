//! The diagonal of the whole resolvent: every entry sees the rows on both sides.
//!
//! ```text
//! G[i] = [(H - z)^-1]_ii = 1 / (diag[i] - z - coupling[i] g[i-1] - coupling[i+1] r[i+1])
//! ```
//!
//! g is the causal diagonal of the parent module and r its mirror image. There is no state that could be
//! carried from one segment to the next: whole sequences only. Adjoint, algorithm and measured errors:
//! `docs/resolvent_diag_bidirectional.md`.

mod autodiff;
mod wgsl;

use burn::backend::Dispatch;
use burn::tensor::Tensor;

use super::{Coupling, bounded, check_shapes, cost};
use crate::Result;
use autodiff::BidirectionalBackend;

/// What the backward pass returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gradient {
    /// The adjoint, for `diag`, a varying coupling and `shift`.
    Exact,
    /// What the published code returns in its place: no derivative of anything. Half of
    /// it is `-G^2` times the cotangent, which leaves out all other rows, half of it the cotangent over
    /// `-G^2`; both without the complex conjugate that the chain rule asks for. For `diag` alone.
    ///
    /// First version of `src/models/bk_core.py` in github.com/neko-jpg/Project-ResNet-BK, but that NaN stays NaN.
    Published,
}

/// G `[batch, seq, 2 * heads]`: the real parts of all heads, then the imaginary parts.
///
/// `diag` is `[batch, seq, heads]`, `shift` `[2, heads]` (Re z, then Im z). Element 0 of a varying coupling
/// couples nothing here: its value is not used and its gradient is 0. `eta_min` is a positive floor of Im z; that
/// Im z keeps above it is the caller's contract. On autodiff tensors a graph with `gradient` is recorded.
///
/// # Errors
/// [`Error::Shape`](crate::Error::Shape) when the shapes do not fit together or a size is 0,
/// [`Error::Domain`](crate::Error::Domain) for a negative coupling (with the first offending index) or an
/// `eta_min` that is not positive, [`Error::Device`](crate::Error::Device) when varying couplings cannot be
/// read.
pub fn diagonal(
    diag: Tensor<3>,
    coupling: Coupling,
    shift: Tensor<2>,
    eta_min: f32,
    gradient: Gradient,
) -> Result<Tensor<3>> {
    check_shapes(&diag, &coupling, &shift, &[])?;
    let (coupling, bounds) = bounded(&diag, coupling, eta_min)?;
    let sizes = cost::Sizes::new(&diag, &coupling, bounds);
    let full = match gradient {
        Gradient::Exact => Dispatch::bidirectional(
            diag.into_dispatch(),
            coupling.into_dispatch(),
            shift.into_dispatch(),
            bounds,
        ),
        Gradient::Published => Dispatch::bidirectional_published(
            diag.into_dispatch(),
            coupling.detach().into_dispatch(),
            shift.detach().into_dispatch(),
            bounds,
        ),
    };
    Ok(sizes.register_bidirectional(Tensor::from_dispatch(full), gradient))
}
