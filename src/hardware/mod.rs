//! Adapters and devices: the only maker of a burn device, and the one place where values are read back.

pub mod read;
