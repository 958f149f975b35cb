//! What a training costs: the bytes it is estimated to need, and those it was seen to hold.

mod heap;
mod ledger;
pub mod memory;

pub use ledger::{Tensors, Workload, estimate};
