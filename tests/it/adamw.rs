//! `ops::adamw` against the oracle and against burn's `AdamW`.

use bkbench::math::oracle::optimiser;
use bkbench::ops::adamw::{Step, step};
use burn::optim::{AdamWConfig, Optimizer};
use burn::tensor::{DType, Device, Tensor};

use crate::compare::{Named, misses, normals};
use crate::support::{self, tensor, values};

const BETAS: [f32; 2] = [0.9, 0.95];
const EPSILON: f32 = 1e-8;
const RATE: f64 = 3e-3;
const DECAY: f32 = 0.1;

/// Elements: one, around a workgroup, more than a task.
const SIZES: [usize; 5] = [1, 255, 256, 257, 40_001];

fn factors(time: i32, decays: bool) -> Step {
    Step {
        betas: BETAS,
        corrections: BETAS.map(|beta| 1.0 - beta.powi(time)),
        epsilon: EPSILON,
        rate: RATE as f32,
        decay: decays.then_some((1.0 - RATE * f64::from(DECAY)) as f32),
    }
}

/// Parameter and moments after `n_steps` steps of ours.
fn ours(n: usize, n_steps: i32, decays: bool, device: &Device, dtype: DType) -> Vec<Named> {
    let mut p = tensor::<1>(&normals(0, n, 1.0), [n], device, dtype);
    let mut moments = None;
    for time in 1..=n_steps {
        let g = tensor::<1>(&normals(time as u32, n, 0.5), [n], device, dtype);
        let stepped = step(p, g, moments, factors(time, decays));
        p = stepped.0;
        moments = Some(stepped.1);
    }
    let [first, second] = moments.unwrap();
    vec![
        ("parameter", values(p)),
        ("first", values(first)),
        ("second", values(second)),
    ]
}

fn expected(n: usize, n_steps: i32, decays: bool) -> Vec<Named> {
    let mut p = normals(0, n, 1.0);
    let mut moments = vec![[0.0; 2]; n];
    for time in 1..=n_steps {
        let step = factors(time, decays);
        let oracle = optimiser::AdamW {
            betas: BETAS.map(|beta| (f64::from(beta), f64::from(1.0 - beta))),
            corrections: step.corrections.map(f64::from),
            epsilon: f64::from(step.epsilon),
            rate: f64::from(step.rate),
            decay: step.decay.map(f64::from),
        };
        let gradient = normals(time as u32, n, 0.5);
        for ((p, moments), &g) in p.iter_mut().zip(&mut moments).zip(&gradient) {
            (*p, *moments) = oracle.step(*p, g, *moments);
        }
    }
    let moment = |k: usize| moments.iter().map(|m| m[k]).collect();
    vec![
        ("parameter", p),
        ("first", moment(0)),
        ("second", moment(1)),
    ]
}

fn check(device: &Device, dtype: DType, tolerance: f64) {
    for n in SIZES {
        for decays in [false, true] {
            let missed = misses(
                &ours(n, 3, decays, device, dtype),
                &expected(n, 3, decays),
                tolerance,
            );
            assert!(missed.is_empty(), "{n}, decay {decays}: {missed:?}");
        }
    }
}

#[test]
fn cpu_f64_equals_the_oracle() {
    check(&support::cpu(), DType::F64, 1e-12);
}

#[test]
fn cpu_f32_stays_within_the_bar() {
    check(&support::cpu(), DType::F32, 1e-6);
}

#[test]
fn wgsl_stays_within_the_bar() {
    check(&support::wgpu(), DType::F32, 1e-6);
}

#[test]
fn reruns_are_bitwise_equal() {
    for device in [support::cpu(), support::wgpu()] {
        let run = || ours(1001, 3, true, &device, DType::F32);
        assert_eq!(run(), run());
    }
}

/// Every operation is burn's, in its order: on the CPU no bit differs.
#[test]
fn cpu_steps_have_the_bits_of_burn() {
    let (device, n) = (support::cpu(), 20_011);
    for (decays, weight_decay) in [(false, 0.0), (true, DECAY)] {
        let adamw = AdamWConfig::new()
            .with_beta_1(BETAS[0])
            .with_beta_2(BETAS[1])
            .with_epsilon(EPSILON)
            .with_weight_decay(weight_decay)
            .build();
        let mut p = tensor::<1>(&normals(0, n, 1.0), [n], &device, DType::F32);
        let mut state = None;
        for time in 1..=4 {
            let g = tensor::<1>(&normals(time, n, 0.5), [n], &device, DType::F32);
            (p, state) = adamw.step(RATE, p, g, state);
        }
        let momentum = state.unwrap().momentum;
        let burns = vec![
            ("parameter", values(p)),
            ("first", values(momentum.moment_1)),
            ("second", values(momentum.moment_2)),
        ];
        assert_eq!(ours(n, 4, decays, &device, DType::F32), burns);
    }
}

/// A parameter that somebody else holds is not written over.
#[test]
fn a_shared_parameter_keeps_its_values() {
    for device in [support::cpu(), support::wgpu()] {
        let p = Tensor::<1>::ones([300], &device);
        let g = Tensor::<1>::ones([300], &device);
        let (moved, _) = step(p.clone(), g.clone(), None, factors(1, true));
        assert!(values(p).iter().all(|&v| v == 1.0));
        assert!(values(g).iter().all(|&v| v == 1.0));
        assert!(values(moved).iter().all(|&v| v < 1.0));
    }
}
