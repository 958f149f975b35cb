//! What a model costs: the operations it takes, the bytes it is estimated to need, and those it was seen to hold.

mod fair;
mod heap;
mod ledger;
pub mod memory;

pub use fair::{FairFLOPsCounter, FairMemoryMeasurement};
pub use ledger::{Tensors, Workload, estimate, estimate_inference};
