//! The step on plain slices: chunks of elements in parallel, elements across vector lanes.

use multiversion::multiversion;
use rayon::prelude::*;

use super::Step;
use crate::ops::flex::Real;

/// Elements of one task.
const CHUNK: usize = 1 << 14;

/// Updates `parameter` and its `moments` in place.
pub fn step<T: Real>(parameter: &mut [T], gradient: &[T], moments: [&mut [T]; 2], step: Step) {
    let [first, second] = moments;
    (parameter.par_chunks_mut(CHUNK))
        .zip(gradient.par_chunks(CHUNK))
        .zip(first.par_chunks_mut(CHUNK))
        .zip(second.par_chunks_mut(CHUNK))
        .for_each(|(((parameter, gradient), first), second)| {
            step_chunk(parameter, gradient, first, second, step);
        });
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl", "x86_64+avx2"))]
fn step_chunk<T: Real>(
    parameter: &mut [T],
    gradient: &[T],
    first: &mut [T],
    second: &mut [T],
    step: Step,
) {
    let [keep_1, keep_2] = step.betas.map(T::from_f32);
    let [new_1, new_2] = step.betas.map(|beta| T::from_f32(1.0 - beta));
    let [correction_1, correction_2] = step.corrections.map(T::from_f32);
    let [epsilon, rate] = [step.epsilon, step.rate].map(T::from_f32);
    let decay = T::from_f32(step.decay.unwrap_or(1.0));
    let moments = first.iter_mut().zip(second);
    for ((p, &g), (m, v)) in parameter.iter_mut().zip(gradient).zip(moments) {
        *m = *m * keep_1 + g * new_1;
        *v = *v * keep_2 + g * g * new_2;
        let update = *m / correction_1 / ((*v / correction_2).sqrt() + epsilon);
        *p = *p * decay - update * rate;
    }
}
