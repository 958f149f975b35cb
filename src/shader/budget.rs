//! What every kernel must fit in: the WebGPU default limits, so that each runs on any adapter.

/// Storage buffers of a kernel.
pub const STORAGE_BUFFERS: u32 = 8;
/// Invocations of a workgroup.
pub const INVOCATIONS: u32 = 256;
/// Bytes of memory shared by a workgroup.
pub const WORKGROUP_BYTES: u64 = 16 << 10;
/// Workgroups in one dimension of a dispatch.
pub const WORKGROUPS: u32 = 65_535;
/// Bytes of a storage buffer that a kernel sees at once.
pub const BINDING_BYTES: u64 = 128 << 20;
