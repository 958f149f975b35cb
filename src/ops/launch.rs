//! Launching a kernel of the catalog on burn's wgpu backend.

use burn::backend::wgpu::{CubeTensor, KernelSource, SourceKernel, SourceTemplate};
use burn::cubecl::ir::attributes::BufferIOAttr;
use burn::cubecl::prelude::KernelId;
use burn::cubecl::server::{KernelArguments, MetadataBindingInfo};
use burn::cubecl::{CubeCount, CubeDim};
use burn::tensor::{DType, Shape};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::shader::{Kernel, Spec};

static DISPATCHES: AtomicU64 = AtomicU64::new(0);

/// How many kernels of ours this process has dispatched.
pub fn dispatches() -> u64 {
    DISPATCHES.load(Ordering::Relaxed)
}

#[derive(Debug)]
struct Source {
    kernel: &'static Kernel,
    spec: Spec,
}

impl KernelSource for Source {
    fn source(&self) -> SourceTemplate {
        match self.kernel.specialise(&self.spec) {
            Ok(text) => SourceTemplate::new(text),
            // A text that does not compile travels to the outputs as a device error, as any other
            // compile failure does; the catalog test makes sure no shipped kernel gets here.
            Err(error) => SourceTemplate::new(format!("{error}")),
        }
    }
    fn id(&self) -> KernelId {
        KernelId::new::<Self>().info((self.kernel.name, self.spec.clone()))
    }
    fn lang(&self) -> &'static str {
        "wgsl"
    }
}

/// An uninitialised contiguous tensor on the device of `like`.
pub(crate) fn empty(like: &CubeTensor, shape: impl Into<Shape>, dtype: DType) -> CubeTensor {
    let shape = shape.into();
    // A buffer binding holds at least one element.
    let buffer = like
        .client
        .empty(shape.num_elements().max(1) * dtype.size());
    CubeTensor::new_contiguous(
        like.client.clone(),
        like.device.clone(),
        shape,
        buffer,
        dtype,
    )
}

/// `words` on the device of `like`.
pub(crate) fn upload(like: &CubeTensor, words: &[u32]) -> CubeTensor {
    let buffer = like.client.create_from_slice(bytemuck::cast_slice(words));
    CubeTensor::new_contiguous(
        like.client.clone(),
        like.device.clone(),
        Shape::from([words.len()]),
        buffer,
        DType::U32,
    )
}

/// Workgroups of `size` invocations for `n` independent items, in two dimensions because one holds
/// 65,535 at most. A kernel finds its item as
/// `(workgroup_id.x + workgroup_id.y * num_workgroups.x) * size + local_invocation_index`.
pub(crate) fn workgroups_for(n: usize, size: u32) -> [u32; 3] {
    let groups = n.div_ceil(size as usize) as u32;
    [groups.min(65_535), groups.div_ceil(65_535), 1]
}

/// Dispatches `workgroups` of `kernel`. `buffers` are contiguous, in binding order, inputs first;
/// `params` are the words of the uniform that follows them.
pub(crate) fn launch(
    kernel: &'static Kernel,
    spec: Spec,
    workgroups: [u32; 3],
    buffers: &[&CubeTensor],
    params: &[u32],
) {
    debug_assert_eq!(
        buffers.len(),
        kernel.n_inputs + kernel.n_outputs,
        "{}",
        kernel.name
    );
    debug_assert!(
        workgroups.iter().all(|&n| n <= 65_535),
        "{}: {workgroups:?}",
        kernel.name
    );
    if workgroups.contains(&0) {
        return;
    }
    DISPATCHES.fetch_add(1, Ordering::Relaxed);
    // Saying who writes lets a failed launch taint only its outputs: inputs stay readable. Outputs count
    // as read too, because a kernel may update one in place.
    let arguments = buffers
        .iter()
        .enumerate()
        .fold(KernelArguments::new(), |arguments, (i, t)| {
            let read_only = i < kernel.n_inputs;
            let io = if read_only {
                BufferIOAttr::ReadOnly
            } else {
                BufferIOAttr::ReadWrite
            };
            arguments.with_buffer_io(t.handle.clone().binding(), io)
        });
    let source = SourceKernel::new(Source { kernel, spec }, CubeDim::new_1d(1));
    let [x, y, z] = workgroups;
    let client = buffers[0].client.clone();
    client.launch(
        Box::new(source),
        CubeCount::Static(x, y, z),
        arguments.with_info(pack(params)),
    );
}

/// The uniform travels as 64-bit words and is padded to 16 bytes.
fn pack(params: &[u32]) -> MetadataBindingInfo {
    let word = |pair: &[u32]| u64::from(pair[0]) | u64::from(*pair.get(1).unwrap_or(&0)) << 32;
    let mut words: Vec<u64> = params.chunks(2).map(word).collect();
    words.resize(words.len().next_multiple_of(2), 0);
    MetadataBindingInfo::custom(words)
}
