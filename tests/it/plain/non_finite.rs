//! The launch of `ops::non_finite` against Rust's own idea of a finite number.

use super::{Buffer, run, workgroups_for};
use bkbench::shader::{Spec, catalog};

#[test]
fn non_finite_counts_each_part_on_plain_wgpu() {
    const WG_SIZE: usize = 256;
    const STRIDE: usize = 4;
    let spec = Spec::new().u32("WG_SIZE", 256).u32("STRIDE", STRIDE as u32);
    for n in [1, 255, 1024, 1025, 3001] {
        let values: Vec<f32> = (0..n)
            .map(|i| match i % 7 {
                2 => f32::NAN,
                4 => f32::INFINITY,
                5 if i % 3 == 0 => f32::NEG_INFINITY,
                6 => f32::MAX,
                _ => -0.0,
            })
            .collect();
        let groups = workgroups_for(n, (WG_SIZE * STRIDE) as u32);
        let parts = groups as usize * WG_SIZE;
        let buffers = [Buffer::Floats(&values), Buffer::Output(parts)];
        let counts = run(&catalog::NON_FINITE, &spec, groups, &buffers, &[n as u32])
            .expect("a kernel that runs")
            .swap_remove(0);
        let mut expected = vec![0.0; parts];
        for (i, _) in values.iter().enumerate().filter(|(_, x)| !x.is_finite()) {
            expected[i / (WG_SIZE * STRIDE) * WG_SIZE + i % WG_SIZE] += 1.0;
        }
        assert_eq!(counts, expected, "{n} values");
    }
}
