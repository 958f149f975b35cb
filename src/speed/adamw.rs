//! A step of `AdamW`.

use std::hint::black_box;

use super::{Bench, Kernel, draw};
use crate::Result;
use crate::ops::adamw::{Step, step};
use crate::results::FlopsPass;

/// Elements of the parameter.
const N: usize = 1 << 21;

/// The parameter and its moments after a step along `gradient`.
pub fn plain(parameter: &mut [f32], gradient: &[f32], [m, v]: [&mut [f32]; 2], step: Step) {
    let [beta_1, beta_2] = step.betas;
    let moments = m.iter_mut().zip(v);
    for ((p, g), (m, v)) in parameter.iter_mut().zip(gradient).zip(moments) {
        *m = beta_1 * *m + (1.0 - beta_1) * g;
        *v = beta_2 * *v + (1.0 - beta_2) * g * g;
        let root = (*v / step.corrections[1]).sqrt() + step.epsilon;
        *p = step.decay.unwrap_or(1.0) * *p - step.rate * (*m / step.corrections[0]) / root;
    }
}

pub(super) fn measure(bench: &mut Bench<'_>) -> Result<()> {
    let (mut parameter, gradient) = (draw(0, N, -1.0, 1.0), draw(1, N, -1.0, 1.0));
    let (mut m, mut v) = (draw(2, N, -1.0, 1.0), draw(3, N, 0.0, 1.0));
    let factors = Step {
        betas: [0.9, 0.95],
        corrections: [0.1, 0.05],
        epsilon: 1e-8,
        rate: 1e-3,
        decay: Some(1.0 - 1e-5),
    };
    let kernel = Kernel {
        operation: "adamw",
        pass: FlopsPass::Update,
        with_forward: false,
        sizes: &[("elements", N)],
        floats: 7 * N,
    };
    let [p, g] = [&parameter, &gradient].map(|values| bench.tensor(values, [N]));
    let moments = [&m, &v].map(|values| bench.tensor(values, [N]));
    bench.forward(
        &kernel,
        || {
            let moments = [m.as_mut_slice(), v.as_mut_slice()];
            plain(black_box(&mut parameter), &gradient, moments, factors);
        },
        || Ok((p.clone(), g.clone(), Some(moments.clone()))),
        |(p, g, moments)| Ok(step(p, g, moments, factors).0),
    )
}
