//! The measured peak: the heap's high-water mark on the CPU, the highest bytes in use at sync points on wgpu.

use std::cell::Cell;

use burn::tensor::{Device, Tensor};

use super::heap;
use crate::units::Bytes;
use crate::{Error, Result};

/// Measures what a training adds to the memory that was in use when the meter started: the data set, or
/// what an earlier cell left behind, is no part of it.
///
/// On the CPU backend that is the heap of the whole process, temporaries between two sync points included;
/// one meter at a time, because starting another one lowers the mark. On wgpu it is what tensors hold on the
/// device at the sync points, without what the memory pool keeps in reserve.
#[derive(Debug)]
pub struct Meter {
    device: Device,
    at_start: u64,
    limit: Option<Bytes>,
    highest_seen: Cell<u64>,
}

impl Meter {
    /// Starts measuring on `device`. Beyond `limit`, counted from here on, a sync point fails.
    pub fn start(device: &Device, limit: Option<Bytes>) -> Self {
        heap::reset_highest();
        let at_start = in_use(device);
        Self {
            device: device.clone(),
            at_start,
            limit,
            highest_seen: Cell::new(at_start),
        }
    }

    /// Forgets the most bytes seen so far: what it takes to read a checkpoint is no part of the training that goes on from it.
    pub fn forget_peak(&self) {
        heap::reset_highest();
        self.highest_seen.set(in_use(&self.device));
    }

    /// Looks at the memory; `doing` says at what.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`] when more than the limit is, or meanwhile was, in use.
    pub fn sync_point(&self, doing: &str) -> Result<()> {
        let peak = self.peak();
        match self.limit {
            Some(limit) if peak > limit => Err(Error::OutOfMemory {
                doing: doing.to_owned(),
                requested: Some(peak),
                limit: Some(limit),
            }),
            _ => Ok(()),
        }
    }

    /// The most bytes seen in use up to now, above what was in use at the start.
    pub fn peak(&self) -> Bytes {
        let highest = highest(&self.device).max(self.highest_seen.get());
        self.highest_seen.set(highest);
        Bytes(highest.saturating_sub(self.at_start))
    }

    /// What was in use at the start.
    pub fn at_start(&self) -> Bytes {
        Bytes(self.at_start)
    }
}

/// From now on freed memory stays with the process: a training frees and takes the same large tensors at every step,
/// and a page that comes back fresh costs a fault.
pub fn keep_freed() {
    heap::keep_freed();
}

/// Has every thread take now what matrix products on the CPU backend take once for it and keep, a cache full, so that it
/// is no part of the first training of a process.
pub fn take_what_stays(device: &Device) {
    /// Large enough to be computed in blocks, too small for several threads.
    const SIDE: usize = 128;
    if on_adapter(device).is_none() {
        let product = || {
            let ones = Tensor::<2>::ones([SIDE, SIDE], device);
            drop(ones.clone().matmul(ones));
        };
        product();
        rayon::broadcast(|_| product());
    }
}

/// What was kept and is not in use goes back to the system, so that it counts as free.
pub fn give_back() {
    heap::give_back();
}

/// Bytes in use now.
fn in_use(device: &Device) -> u64 {
    on_adapter(device).unwrap_or_else(heap::in_use)
}

/// The most bytes in use, as far as the backend tells.
fn highest(device: &Device) -> u64 {
    on_adapter(device).unwrap_or_else(heap::highest)
}

/// Bytes of tensors on an adapter; `None` on the CPU backend, whose tensors lie on the heap.
fn on_adapter(device: &Device) -> Option<u64> {
    device.memory_pool_usage().map(|usage| usage.bytes_in_use)
}
