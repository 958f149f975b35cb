//! How fast a device copies memory and multiplies matrices: what a kernel's speed is held against, since a
//! manufacturer's peak is reached by nothing.

mod copy;

use burn::tensor::{Device, Tensor, TensorData};

use super::{Hardware, Stopwatch, stopwatch::Patience};
use crate::math::random::{Coordinate, Purpose, uniform_vec};
use crate::results::{Finite, MatmulRate, Rates};
use crate::{Error, Result};

/// Enough of each measurement that all of them take about a second.
const PATIENCE: Patience = Patience {
    samples: 9,
    seconds: 0.2,
};

/// Measures the rates of the device that `stopwatch` is for.
///
/// # Errors
/// A device that fails, or lacks the memory to copy.
pub fn measure(hardware: &Hardware, stopwatch: &Stopwatch) -> Result<Rates> {
    Ok(Rates {
        copy: copy::measure(hardware, PATIENCE)?,
        matmul: matmul(&hardware.device, stopwatch)?,
        timestamps: stopwatch.timestamps(),
    })
}

fn matmul(device: &Device, stopwatch: &Stopwatch) -> Result<MatmulRate> {
    let product = Product::new(device);
    let launch = |()| {
        product.launch();
        Ok(())
    };
    let timing = stopwatch.time(PATIENCE, || Ok(()), launch)?;
    let n = Product::SIZE as f64;
    Ok(MatmulRate {
        flops_per_second: per_second(2.0 * n * n * n, timing.seconds)?,
        shape: [Product::SIZE; 3],
        timing,
    })
}

/// `n` in so many seconds, by second.
fn per_second(n: f64, seconds: Finite) -> Result<Finite> {
    Finite::new(n / seconds.get()).ok_or_else(|| Error::Device {
        doing: "measuring its rates".into(),
        reason: format!("{n} in {} s", seconds.get()),
    })
}

/// A matrix product that is always the same.
pub(super) struct Product {
    a: Tensor<2>,
    b: Tensor<2>,
}

impl Product {
    /// Rows, inner size and columns.
    const SIZE: usize = 1024;

    pub(super) fn new(device: &Device) -> Self {
        let matrix = |row| {
            let at = Coordinate {
                row,
                ..Coordinate::new(Purpose::Test)
            };
            let values = uniform_vec(1, at, Self::SIZE * Self::SIZE, -1.0, 1.0);
            Tensor::from_data(TensorData::new(values, [Self::SIZE; 2]), device)
        };
        Self {
            a: matrix(0),
            b: matrix(1),
        }
    }

    /// Asks for it; the result is dropped.
    pub(super) fn launch(&self) {
        drop(self.a.clone().matmul(self.b.clone()));
    }
}
