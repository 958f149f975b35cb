//! The launch of `hardware::rates`: every bit arrives.

use super::{Buffer, run, workgroups_for};
use bkbench::shader::{Spec, catalog};

#[test]
fn copy_moves_every_row_on_plain_wgpu() {
    const STRIDE: u32 = 4;
    let spec = Spec::new().u32("WG_SIZE", 256).u32("STRIDE", STRIDE);
    for n in [1, 255, 1024, 1025, 2500] {
        let values: Vec<f32> = (0..4 * n).map(|i| i as f32 - 7.5).collect();
        let groups = workgroups_for(n, 256 * STRIDE);
        let buffers = [Buffer::Floats(&values), Buffer::Output(4 * n)];
        let copied = run(&catalog::COPY, &spec, groups, &buffers, &[n as u32])
            .expect("a kernel that runs")
            .swap_remove(0);
        assert_eq!(copied, values, "{n} rows");
    }
}
