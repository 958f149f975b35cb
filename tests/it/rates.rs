//! Measured rates and rounding, on both devices. No number of them is asked for: machines differ.

use bkbench::hardware::{Hardware, Stopwatch, open, rates};
use bkbench::results::{
    CopyMethod, Denormals, Finite, MultiplyAdd, Numerics, Rates, Timestamps, TimingMethod,
};
use bkbench::verify::numerics;

fn device(name: &str) -> Hardware {
    open(&name.parse().unwrap(), None).unwrap()
}

fn measured(hardware: &Hardware) -> Rates {
    let stopwatch = Stopwatch::new(&hardware.device).unwrap();
    let rates = rates::measure(hardware, &stopwatch).unwrap();
    for rate in [rates.copy.bytes_per_second, rates.matmul.flops_per_second] {
        assert!(rate.get() > 0.0, "{rates:?}");
    }
    for timing in [rates.copy.timing, rates.matmul.timing] {
        assert!(
            timing.n_samples >= 3 && timing.seconds.get() > 0.0,
            "{rates:?}"
        );
    }
    println!(
        "{}: {rates}, {:?}",
        hardware.fingerprint.adapter, rates.timestamps
    );
    rates
}

#[test]
fn the_cpu_copies_by_its_threads_and_is_timed_by_the_wall_clock() {
    let rates = measured(&device("cpu"));
    assert_eq!(rates.timestamps, Timestamps::Absent);
    assert_eq!(rates.copy.by, CopyMethod::Threads);
    for timing in [rates.copy.timing, rates.matmul.timing] {
        assert_eq!(timing.method, TimingMethod::WallClock);
    }
}

#[test]
fn an_adapter_copies_by_a_kernel_or_its_driver_and_says_how_it_was_timed() {
    let hardware = device("wgpu");
    let rates = measured(&hardware);
    assert_ne!(rates.copy.by, CopyMethod::Threads);
    assert!(rates.copy.buffer <= hardware.adapter.as_ref().unwrap().limits.binding);
    let believed = matches!(rates.timestamps, Timestamps::Plausible { .. });
    let by_device = rates.matmul.timing.method == TimingMethod::DeviceTimestamps;
    assert_eq!(by_device, believed, "{rates:?}");
    let json = serde_json::to_string(&rates).unwrap();
    assert_eq!(serde_json::from_str::<Rates>(&json).unwrap(), rates);
}

#[test]
fn a_device_says_how_it_rounds_and_how_far_each_kernel_is_off() {
    for name in ["cpu", "wgpu"] {
        let found = numerics::measure(&device(name).device).unwrap();
        for operation in [
            "resolvent_diag",
            "selective_scan",
            "causal_conv",
            "packed_matmul",
        ] {
            let mut tensors = found.kernels.iter().filter(|it| it.operation == operation);
            let error = |it: Option<Finite>| it.map_or(1.0, Finite::get);
            assert!(
                tensors.all(|it| error(it.max) < 1e-3 && error(it.rms) < 1e-3),
                "{name}: {operation}"
            );
            assert!(
                found.kernels.iter().any(|it| it.operation == operation),
                "{operation}"
            );
        }
        assert_ne!(found.denormal_inputs, Denormals::Other, "{name}");
        assert_ne!(found.denormal_results, Denormals::Other, "{name}");
        assert_ne!(found.multiply_add, MultiplyAdd::Other, "{name}");
        assert_eq!(found.exp.len(), 3, "{name}");
        let json = serde_json::to_string(&found).unwrap();
        assert_eq!(serde_json::from_str::<Numerics>(&json).unwrap(), found);
        println!(
            "{name}: {:?} {:?} {:?} {:?}",
            found.denormal_inputs, found.denormal_results, found.multiply_add, found.exp
        );
    }
    // The CPU kernels flush nothing and contract nothing.
    let cpu = numerics::measure(&device("cpu").device).unwrap();
    assert_eq!(cpu.denormal_inputs, Denormals::Kept);
    assert_eq!(cpu.multiply_add, MultiplyAdd::Separate);
    assert!(
        cpu.exp.iter().all(|exp| exp.ulp.unwrap().get() < 100.0),
        "{:?}",
        cpu.exp
    );
}
