//! How long every kernel takes, forward and backward, at several sizes: against what its device copies and multiplies at
//! best, and against a plain loop on one thread.
//!
//! A file an operation: the loop as one would write it down, and the sizes. `docs/kernels.md` explains the columns.

pub mod adamw;
pub mod causal_conv;
pub mod embedding;

pub mod linear_cross_entropy;
pub mod non_finite;
pub mod packed_matmul;
pub mod resolvent_diag;
pub mod resolvent_diag_bidirectional;
pub mod rms_norm;
pub mod selective_scan;
pub mod skip_gate;
pub mod squared_norm;

use burn::tensor::{Device, Tensor, TensorData};

use crate::accounting::memory;
use crate::hardware::adapters::Cpu;
use crate::hardware::{Hardware, Patience, Stopwatch, rates, read, time_on_host};
use crate::math::random::{Coordinate, Purpose, uniform_vec, words};
use crate::ops::{cotangent, ledger::Ledger};
use crate::results::{Finite, FlopsPass, KernelSpeed, KernelsReport, Rates};
use crate::units::{Bytes, Count};
use crate::{Error, Result};

const PATIENCE: Patience = Patience {
    samples: 15,
    seconds: 0.3,
};
/// A plain loop takes long, and its time is steady.
const PATIENCE_FOR_LOOPS: Patience = Patience {
    samples: 5,
    seconds: 0.3,
};

/// Measures an operation at its sizes.
type Measure = fn(&mut Bench<'_>) -> Result<()>;

/// The operations by name. A kernel's name begins with that of the operation that runs it; `sum_rows` runs in several.
const OPERATIONS: [(&str, Measure); 12] = [
    ("adamw", adamw::measure),
    ("causal_conv", causal_conv::measure),
    ("embedding", embedding::measure),
    ("linear_cross_entropy", linear_cross_entropy::measure),
    ("non_finite", non_finite::measure),
    ("packed_matmul", packed_matmul::measure),
    ("resolvent_diag", resolvent_diag::measure),
    (
        "resolvent_diag_bidirectional",
        resolvent_diag_bidirectional::measure,
    ),
    ("rms_norm", rms_norm::measure),
    ("selective_scan", selective_scan::measure),
    ("skip_gate", skip_gate::measure),
    ("squared_norm", squared_norm::measure),
];

/// Names of the operations.
pub fn operations() -> impl Iterator<Item = &'static str> {
    OPERATIONS.into_iter().map(|(name, _)| name)
}

/// Measures the kernels of `operations` on the device of `hardware`. `on_kernel` hears of each as soon as it is measured.
///
/// # Errors
/// A device that fails, or lacks the memory.
pub fn kernels(
    hardware: &Hardware,
    operations: &[&str],
    on_kernel: &mut dyn FnMut(&KernelSpeed),
) -> Result<KernelsReport> {
    // As a training does: a kernel is not timed by the pages that the system hands out.
    memory::keep_freed();
    let stopwatch = Stopwatch::new(&hardware.device)?;
    let rates = rates::measure(hardware, &stopwatch)?;
    let mut bench = Bench {
        device: &hardware.device,
        stopwatch: &stopwatch,
        rates: &rates,
        measured: Vec::new(),
        on_kernel,
    };
    for (name, measure) in OPERATIONS {
        if operations.contains(&name) {
            measure(&mut bench)?;
        }
    }
    let kernels = bench.measured;
    let no_json = |error| Error::CheckFailed(format!("the machine has no JSON: {error}"));
    Ok(KernelsReport {
        device: serde_json::to_value(&hardware.fingerprint).map_err(no_json)?,
        cpu: serde_json::to_value(Cpu::detect()).map_err(no_json)?,
        rates,
        kernels,
    })
}

/// Collects measurements of one device.
struct Bench<'a> {
    device: &'a Device,
    stopwatch: &'a Stopwatch,
    rates: &'a Rates,
    measured: Vec<KernelSpeed>,
    on_kernel: &'a mut dyn FnMut(&KernelSpeed),
}

/// What is measured.
struct Kernel<'a> {
    operation: &'static str,
    pass: FlopsPass,
    /// Whether the gradients are computed together with the output, so that its work is theirs.
    with_forward: bool,
    /// The sizes by name.
    sizes: &'a [(&'static str, usize)],
    /// Floats that must be read or written.
    floats: usize,
}

impl Bench<'_> {
    /// A tensor of the values.
    fn tensor<const D: usize>(&self, values: &[f32], shape: [usize; D]) -> Tensor<D> {
        Tensor::from_data(TensorData::new(values.to_vec(), shape), self.device)
    }

    /// The same as a leaf of a graph.
    fn leaf<const D: usize>(&self, values: &[f32], shape: [usize; D]) -> Tensor<D> {
        let device = self.device.clone().autodiff();
        Tensor::from_data(TensorData::new(values.to_vec(), shape), &device).require_grad()
    }

    /// Times an output that `run` makes of what `prepare` returns, and the loop `plain`.
    fn forward<S: Send, const D: usize>(
        &mut self,
        kernel: &Kernel<'_>,
        plain: impl FnMut(),
        prepare: impl Fn() -> Result<S>,
        run: impl Fn(S) -> Result<Tensor<D>> + Sync,
    ) -> Result<()> {
        // A failure of the device shows when something is read.
        let first = run(prepare()?)?
            .inner()
            .slice(std::array::from_fn::<_, D, _>(|_| 0..1));
        read::floats(first, kernel.operation)?;
        let timed = |prepared| run(prepared).map(drop);
        self.measure(kernel, plain, prepare, timed)
    }

    /// Times the gradients of the output of `graph`, whose cotangent is `d_y`, and the loop `plain`.
    fn backward<const D: usize>(
        &mut self,
        kernel: &Kernel<'_>,
        plain: impl FnMut(),
        graph: impl Fn() -> Result<Tensor<D>>,
        d_y: &Tensor<D>,
    ) -> Result<()> {
        let start = || Ok(cotangent::given(graph()?, d_y.clone()));
        let timed = |start: Tensor<D>| {
            drop(start.backward());
            Ok(())
        };
        self.measure(kernel, plain, start, timed)
    }

    fn measure<S: Send>(
        &mut self,
        kernel: &Kernel<'_>,
        plain: impl FnMut(),
        prepare: impl Fn() -> Result<S>,
        run: impl Fn(S) -> Result<()> + Sync,
    ) -> Result<()> {
        let ledger = Ledger::default();
        ledger.watch(|| run(prepare()?))?;
        let counts = |pass| pass == kernel.pass || kernel.with_forward;
        let flops = ledger.breakdown(1, 1).of(|row| counts(row.pass));
        let timing = self.stopwatch.time(PATIENCE, prepare, run)?;
        let plain = time_on_host(PATIENCE_FOR_LOOPS, plain)?;
        let seconds = timing.seconds.get();
        let bytes = 4 * kernel.floats as u64;
        let share = |amount: u64, rate: Finite| finite(amount as f64 / seconds / rate.get());
        let sizes = kernel.sizes.iter();
        let sizes: Vec<String> = sizes
            .map(|&(name, size)| format!("{name} {}", Count(size as u64)))
            .collect();
        let speed = KernelSpeed {
            operation: kernel.operation.to_owned(),
            pass: kernel.pass,
            sizes: sizes.join(", "),
            bytes: Bytes(bytes),
            flops: flops.algorithmic,
            timing,
            plain,
            copy_share: share(bytes, self.rates.copy.bytes_per_second)?,
            matmul_share: share(flops.algorithmic, self.rates.matmul.flops_per_second)?,
            speedup: finite(plain.seconds.get() / seconds)?,
        };
        (self.on_kernel)(&speed);
        self.measured.push(speed);
        Ok(())
    }
}

fn finite(value: f64) -> Result<Finite> {
    Finite::new(value).ok_or_else(|| Error::CheckFailed(format!("a rate of {value}")))
}

/// Values between two bounds; each `row` of them is another draw.
fn draw(row: u32, n: usize, low: f64, high: f64) -> Vec<f32> {
    let at = Coordinate {
        row,
        ..Coordinate::new(Purpose::Test)
    };
    uniform_vec(1, at, n, low, high)
}

/// Indices below `bound`.
fn indices(n: usize, bound: usize) -> Vec<u32> {
    let at = Coordinate::new(Purpose::Test);
    (0..n as u64)
        .map(|i| words(2, at.at(i))[0] % bound as u32)
        .collect()
}
