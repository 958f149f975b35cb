//! What lies around the sequence operations of a layer: normalisation and gate.

use super::{Bounds, Problem};
use crate::Result;
use crate::math::oracle;
use crate::ops::{rms_norm, skip_gate};

const NORM: Bounds = Bounds {
    forward: 2e-6,
    gradient: 1e-5,
};
const GATE: Bounds = Bounds {
    forward: 2e-6,
    gradient: 1e-5,
};

/// Rows over their root mean square, and their gradients.
pub(super) fn norm(p: &mut Problem, rows: usize, width: usize) -> Result<()> {
    let (x, gamma) = (p.normal(rows * width, 2.0), p.normal(width, 1.0));
    let d_y = p.normal(rows * width, 1.0);
    let norm = oracle::layers::RmsNorm::forward(&x, &gamma);
    let (want_x, want_gamma) = norm.backward(&gamma, &d_y);

    let (x, gamma) = (p.leaf(&x, [rows, width]), p.leaf(&gamma, [width]));
    let d_y = p.leaf(&d_y, [rows, width]).detach();
    let y = rms_norm::normalise(x.clone(), gamma.clone())?;
    p.check("y", y.clone(), &norm.y, NORM.forward)?;
    let gradients = (y * d_y).sum().backward();
    p.check_gradient("d_x", (&x, &gradients), &want_x, NORM.gradient)?;
    p.check_gradient("d_gamma", (&gamma, &gradients), &want_gamma, NORM.gradient)
}

/// The gated sum and its gradients.
pub(super) fn gate(p: &mut Problem, rows: usize, channels: usize) -> Result<()> {
    let n = rows * channels;
    let host = oracle::skip_gate::Inputs {
        y: p.normal(n, 1.0),
        u: p.normal(n, 1.0),
        skip: p.normal(channels, 1.0),
        z: p.normal(n, 3.0),
    };
    let d_out = p.normal(n, 1.0);
    let out = host.forward();
    let want = host.backward(&d_out);

    let shape = [rows, channels];
    let inputs = skip_gate::Inputs {
        y: p.leaf(&host.y, shape),
        u: p.leaf(&host.u, shape),
        skip: p.leaf(&host.skip, [channels]),
        z: p.leaf(&host.z, shape),
    };
    let d_out = p.leaf(&d_out, shape).detach();
    let gated = skip_gate::gated(inputs.clone())?;
    p.check("out", gated.clone(), &out, GATE.forward)?;
    let gradients = (gated * d_out).sum().backward();
    let bound = GATE.gradient;
    p.check_gradient("d_y", (&inputs.y, &gradients), &want.d_y, bound)?;
    p.check_gradient("d_u", (&inputs.u, &gradients), &want.d_u, bound)?;
    p.check_gradient("d_skip", (&inputs.skip, &gradients), &want.d_skip, bound)?;
    p.check_gradient("d_z", (&inputs.z, &gradients), &want.d_z, bound)
}
