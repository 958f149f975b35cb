//! Adapters and devices: the only maker of a burn device, and the one place where values are read back.

pub mod adapters;
pub mod choice;
mod device;
pub mod doctor;
mod fingerprint;
pub mod rates;
pub mod read;
mod stopwatch;

pub use choice::DeviceChoice;
pub use device::{Hardware, adapter_of, open, open_as};
pub use fingerprint::Fingerprint;
pub use stopwatch::{ALLOWED_FACTOR, Patience, Stopwatch, time_on_host};

/// NVIDIA's PCI vendor number.
const NVIDIA: u32 = 0x10de;
