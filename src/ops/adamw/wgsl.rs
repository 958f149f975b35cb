//! Launches of `shaders/adamw.wgsl`.

use burn::backend::TensorMetadata;
use burn::backend::wgpu::{CubeBackend, CubeTensor, into_contiguous};

use super::Step;
use super::backend::AdamWBackend;
use crate::ops::launch::{Work, empty, launch};
use crate::shader::{Spec, catalog};

const WG_SIZE: u32 = 256;

impl AdamWBackend for CubeBackend {
    fn adamw(
        parameter: CubeTensor,
        gradient: CubeTensor,
        first: CubeTensor,
        second: CubeTensor,
        step: Step,
    ) -> (CubeTensor, CubeTensor, CubeTensor) {
        let inputs = [parameter, gradient, first, second].map(into_contiguous);
        let [parameter, gradient, first, second] = &inputs;
        let outputs = [parameter, first, second].map(|t| empty(t, t.shape(), t.dtype));
        let [new_parameter, new_first, new_second] = &outputs;
        let n = gradient.shape().num_elements();
        let factors = [
            step.betas[0],
            step.betas[1],
            step.corrections[0],
            step.corrections[1],
            step.epsilon,
            step.rate,
            step.decay.unwrap_or(1.0),
        ];
        let params: Vec<u32> = [n as u32]
            .into_iter()
            .chain(factors.map(f32::to_bits))
            .collect();
        launch(
            &catalog::ADAMW,
            &Spec::new().u32("WG_SIZE", WG_SIZE),
            Work::items(n, WG_SIZE, 4),
            &[
                parameter,
                gradient,
                first,
                second,
                new_parameter,
                new_first,
                new_second,
            ],
            &params,
        );
        outputs.into()
    }
}
