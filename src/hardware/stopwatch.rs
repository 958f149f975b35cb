//! How long work takes on a device, by the clock that can be believed.
//!
//! Drivers are known whose timestamps are zero, or of another unit than they say. They are used only where they agree
//! with the wall clock on work that takes long enough to tell.

use std::time::Instant;

use burn::tensor::{Device, TimingMethod as Clock};

use super::adapter_of;
use super::rates::Product;
use super::read::guarded;
use crate::results::{Finite, Timestamps, Timing, TimingMethod};
use crate::{Error, Result, stats};

/// Timestamps and wall clock agree within this factor.
pub const ALLOWED_FACTOR: f64 = 1.5;

/// From this many seconds on a launch and the wait for its end no longer count beside the work.
const LONG: f64 = 0.02;

/// Launches in a row between which a slope is taken.
const FEW: usize = 2;
const MANY: usize = 10;

/// Runs that are not counted: they compile kernels and touch memory.
const WARM_UP: usize = 2;

/// When there are enough samples: after so many, or after so long and no fewer than `MIN_SAMPLES`.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// Most samples.
    pub samples: usize,
    /// Seconds after which no sample is begun.
    pub seconds: f64,
}

/// Samples of which a median is taken, however long they take.
const MIN_SAMPLES: usize = 3;

/// Times work on one device.
#[derive(Debug)]
pub struct Stopwatch {
    device: Device,
    timestamps: Timestamps,
}

impl Stopwatch {
    /// For `device`, which is without autodiff; holds its timestamps against the wall clock.
    ///
    /// # Errors
    /// A device that fails.
    pub fn new(device: &Device) -> Result<Self> {
        Ok(Self {
            device: device.clone(),
            timestamps: timestamps(device)?,
        })
    }

    /// What was found of the device's timestamps.
    pub fn timestamps(&self) -> Timestamps {
        self.timestamps
    }

    /// The median time of `run`, which works on what `prepare` returns; preparing takes no part in it.
    ///
    /// # Errors
    /// What the two return, or a device that fails.
    pub fn time<S: Send>(
        &self,
        patience: Patience,
        prepare: impl Fn() -> Result<S>,
        run: impl Fn(S) -> Result<()> + Sync,
    ) -> Result<Timing> {
        let on_cpu = adapter_of(&self.device).is_none();
        let wall = |launches: usize| {
            let prepared: Vec<S> = (0..launches).map(|_| prepare()).collect::<Result<_>>()?;
            finish(&self.device)?;
            let start = Instant::now();
            for it in prepared {
                run(it)?;
            }
            finish(&self.device)?;
            Ok(start.elapsed().as_secs_f64())
        };
        match self.timestamps {
            Timestamps::Plausible { .. } => {
                let own = || {
                    let prepared = prepare()?;
                    finish(&self.device)?;
                    let (seconds, ()) = by_device(&self.device, || run(prepared))?;
                    seconds.ok_or_else(|| failure("it told no time for work that it did".into()))
                };
                for _ in 0..WARM_UP {
                    own()?;
                }
                let seconds = samples(patience, own)?;
                timing(&seconds, TimingMethod::DeviceTimestamps)
            }
            _ => by_wall_clock(patience, on_cpu, wall),
        }
    }
}

/// The median time of `work` on the CPU, by the wall clock.
///
/// # Errors
/// None but that of a clock that shows no number.
pub fn time_on_host(patience: Patience, mut work: impl FnMut()) -> Result<Timing> {
    by_wall_clock(patience, true, |_| {
        let start = Instant::now();
        work();
        Ok(start.elapsed().as_secs_f64())
    })
}

/// The time of one launch, where `wall` gives that of so many in a row until all have finished. `is_direct`: a launch
/// returns when its work is done.
///
/// # Errors
/// What `wall` returns.
pub(super) fn by_wall_clock(
    patience: Patience,
    is_direct: bool,
    mut wall: impl FnMut(usize) -> Result<f64>,
) -> Result<Timing> {
    for _ in 0..WARM_UP {
        wall(1)?;
    }
    if is_direct || wall(1)? >= LONG {
        return timing(&samples(patience, || wall(1))?, TimingMethod::WallClock);
    }
    let mut few = Vec::new();
    let many = samples(patience, || {
        few.push(wall(FEW)?);
        wall(MANY)
    })?;
    let median = |values: &[f64]| stats::median(values).unwrap_or(f64::NAN);
    let slope = (median(&many) - median(&few)) / (MANY - FEW) as f64;
    // On a busy machine a few launches may have taken as long as many: then what many took is an upper bound.
    let seconds = if slope > 0.0 {
        slope
    } else {
        median(&many) / MANY as f64
    };
    Ok(Timing {
        seconds: finite(seconds)?,
        n_samples: many.len(),
        method: TimingMethod::Slope,
    })
}

fn samples(patience: Patience, mut sample: impl FnMut() -> Result<f64>) -> Result<Vec<f64>> {
    let start = Instant::now();
    let mut seconds = Vec::new();
    while seconds.len() < MIN_SAMPLES
        || (seconds.len() < patience.samples && start.elapsed().as_secs_f64() < patience.seconds)
    {
        seconds.push(sample()?);
    }
    Ok(seconds)
}

fn timing(seconds: &[f64], method: TimingMethod) -> Result<Timing> {
    Ok(Timing {
        seconds: finite(stats::median(seconds).unwrap_or(f64::NAN))?,
        n_samples: seconds.len(),
        method,
    })
}

/// A time that something may be divided by.
fn finite(seconds: f64) -> Result<Finite> {
    // No clock resolves less.
    Finite::new(seconds.max(1e-9)).ok_or_else(|| failure(format!("a time of {seconds} s")))
}

/// Waits until the device has done all of its work.
fn finish(device: &Device) -> Result<()> {
    guarded("waiting for it", || {
        device.sync().map_err(|error| format!("{error:?}"))
    })
}

/// What `work` returns, and the time that the device says it took; none where it does not say.
fn by_device<T: Send + 'static>(
    device: &Device,
    work: impl FnOnce() -> Result<T> + Send,
) -> Result<(Option<f64>, T)> {
    let (out, seconds) = guarded("reading its timestamps", || {
        let (out, duration) = device.profile(work).map_err(|e| format!("{e:?}"))?;
        let own = duration.timing_method() == Clock::Device;
        let ticks = pollster::block_on(duration.resolve()).filter(|_| own);
        Ok((out, ticks.map(|ticks| ticks.duration().as_secs_f64())))
    })?;
    Ok((seconds, out?))
}

fn failure(reason: String) -> Error {
    Error::Device {
        doing: "timing it".into(),
        reason,
    }
}

/// Holds the device's time for a while of matrix products against the wall clock's.
fn timestamps(device: &Device) -> Result<Timestamps> {
    if adapter_of(device).is_none_or(|adapter| !adapter.features.timestamps) {
        return Ok(Timestamps::Absent);
    }
    let product = Product::new(device);
    let launches = |n: usize| {
        for _ in 0..n {
            product.launch();
        }
        Ok(())
    };
    let wall = |n: usize| -> Result<f64> {
        let start = Instant::now();
        launches(n)?;
        finish(device)?;
        Ok(start.elapsed().as_secs_f64())
    };
    for _ in 0..WARM_UP {
        wall(1)?;
    }
    let n = ((LONG / wall(1)?).ceil() as usize).clamp(1, 256);
    let mut ratios = Vec::new();
    for _ in 0..MIN_SAMPLES {
        finish(device)?;
        let start = Instant::now();
        let (own, ()) = by_device(device, || launches(n))?;
        finish(device)?;
        ratios.push(own.unwrap_or(0.0) / start.elapsed().as_secs_f64());
    }
    Ok(judged(stats::median(&ratios).unwrap_or(f64::NAN)))
}

/// The verdict on timestamps that show `ratio` times the wall clock's time.
fn judged(ratio: f64) -> Timestamps {
    match Finite::new(ratio) {
        Some(finite) if (1.0 / ALLOWED_FACTOR..=ALLOWED_FACTOR).contains(&ratio) => {
            Timestamps::Plausible { ratio: finite }
        }
        ratio => Timestamps::Implausible { ratio },
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    const PATIENCE: Patience = Patience {
        samples: 5,
        seconds: 1.0,
    };

    #[test]
    fn timestamps_are_believed_within_the_factor_alone() {
        for ratio in [1.0, 0.7, 1.49] {
            assert!(
                matches!(judged(ratio), Timestamps::Plausible { .. }),
                "{ratio}"
            );
        }
        for ratio in [0.0, 0.6, 1.51, 1000.0, -1.0, f64::NAN, f64::INFINITY] {
            assert!(
                matches!(judged(ratio), Timestamps::Implausible { .. }),
                "{ratio}"
            );
        }
    }

    #[test]
    fn a_slope_takes_the_cost_of_waiting_off() {
        // Waiting costs 3 ms, a launch 0.5 ms.
        let wall = |n: usize| Ok(3e-3 + 5e-4 * n as f64);
        let timing = by_wall_clock(PATIENCE, false, wall).unwrap();
        assert_eq!((timing.method, timing.n_samples), (TimingMethod::Slope, 5));
        assert!((timing.seconds.get() - 5e-4).abs() < 1e-12);
    }

    #[test]
    fn long_work_and_work_that_returns_when_done_go_by_the_wall_clock() {
        let long = by_wall_clock(PATIENCE, false, |n| Ok(0.05 * n as f64)).unwrap();
        let direct = by_wall_clock(PATIENCE, true, |n| Ok(1e-6 * n as f64)).unwrap();
        for (timing, seconds) in [(long, 0.05), (direct, 1e-6)] {
            assert_eq!(timing.method, TimingMethod::WallClock);
            assert!((timing.seconds.get() - seconds).abs() < 1e-15);
        }
    }

    #[test]
    fn a_slope_that_noise_turned_round_becomes_an_upper_bound() {
        let calls = Cell::new(0);
        let wall = |n: usize| {
            calls.set(calls.get() + 1);
            Ok(if n == FEW { 9e-3 } else { 4e-3 })
        };
        let timing = by_wall_clock(PATIENCE, false, wall).unwrap();
        assert!((timing.seconds.get() - 4e-4).abs() < 1e-12);
        assert_eq!(calls.get(), WARM_UP + 1 + 2 * 5);
    }
}
