//! Launching a kernel of the catalog on burn's wgpu backend.

use burn::backend::wgpu::{CubeTensor, KernelSource, SourceKernel, SourceTemplate};
use burn::cubecl::ir::attributes::BufferIOAttr;
use burn::cubecl::prelude::KernelId;
use burn::cubecl::server::{KernelArguments, MetadataBindingInfo};
use burn::cubecl::{CubeCount, CubeDim};
use burn::tensor::{DType, Device, Shape};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::hardware::adapter_of;
use crate::hardware::adapters::{Class, Kind};
use crate::shader::{Kernel, Spec, budget::WORKGROUPS};

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

/// Which variants of kernels run on the adapter of `tensor`.
pub(crate) fn class(tensor: &CubeTensor) -> Class {
    adapter_of(&Device::new(tensor.device.clone())).map_or(Class::Software, |adapter| adapter.class)
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

/// The workgroups of a launch, which do not depend on each other, and how long one takes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Work {
    /// How many.
    pub(crate) workgroups: usize,
    /// Passes of the kernel's innermost loops in one, over all its invocations. A pass that moves or computes
    /// much counts as several, by what llvmpipe takes for it.
    pub(crate) steps: usize,
}

impl Work {
    /// One invocation for each of `n` items, in workgroups of `size`; an item takes `steps`.
    pub(crate) fn items(n: usize, size: u32, steps: usize) -> Self {
        Self {
            workgroups: n.div_ceil(size as usize),
            steps: steps * size as usize,
        }
    }

    /// The first workgroup of each dispatch and how many it has: as many as take `limit` steps, at least
    /// one, and no more than fit in one dimension.
    fn dispatches(self, limit: usize) -> impl Iterator<Item = (u32, u32)> {
        let most = (limit / self.steps.max(1)).clamp(1, WORKGROUPS as usize);
        (0..self.workgroups)
            .step_by(most)
            .map(move |first| (first as u32, most.min(self.workgroups - first) as u32))
    }
}

/// Steps of one dispatch. Systems end a dispatch that keeps a screen waiting: some within a second, so a
/// slow adapter should need no more than 100 ms. llvmpipe on two cores, not idle, took
/// 4 to 17 ns a step; that a GPU takes a 16th of it and a discrete one a 64th is an assumption on the safe
/// side.
fn steps_per_dispatch(kind: Kind) -> usize {
    match kind {
        Kind::Software => 1 << 22,
        Kind::Integrated | Kind::Virtual | Kind::Other => 1 << 26,
        Kind::Discrete => 1 << 28,
    }
}

/// Runs `kernel` in as many dispatches as `work` needs on the adapter. `buffers` are contiguous, in binding
/// order, inputs first; `params` are the words of the uniform that follows them, after its first,
/// `first_workgroup`, which tells the dispatches apart.
pub(crate) fn launch(
    kernel: &'static Kernel,
    spec: &Spec,
    work: Work,
    buffers: &[&CubeTensor],
    params: &[u32],
) {
    assert_eq!(
        buffers.len(),
        kernel.n_inputs + kernel.n_outputs,
        "{}",
        kernel.name
    );
    let device = Device::new(buffers[0].device.clone());
    let kind = adapter_of(&device).map_or(Kind::Software, |adapter| adapter.kind);
    for (first, workgroups) in work.dispatches(steps_per_dispatch(kind)) {
        dispatch(
            kernel,
            spec,
            workgroups,
            buffers,
            &[&[first], params].concat(),
        );
    }
}

fn dispatch(
    kernel: &'static Kernel,
    spec: &Spec,
    workgroups: u32,
    buffers: &[&CubeTensor],
    params: &[u32],
) {
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
    let source = Source {
        kernel,
        spec: spec.clone(),
    };
    let source = SourceKernel::new(source, CubeDim::new_1d(1));
    buffers[0].client.launch(
        Box::new(source),
        CubeCount::Static(workgroups, 1, 1),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dispatches_take_every_workgroup_once_and_keep_within_the_limits() {
        let all = WORKGROUPS as usize;
        for (workgroups, steps, limit, expected) in [
            (0, 1, 10, vec![]),
            (7, 5, 35, vec![(0, 7)]),
            (7, 5, 34, vec![(0, 6), (6, 1)]),
            (7, 5, 10, vec![(0, 2), (2, 2), (4, 2), (6, 1)]),
            (3, 5, 4, vec![(0, 1), (1, 1), (2, 1)]),
            (2, 0, 10, vec![(0, 2)]),
            (all, 1, usize::MAX, vec![(0, WORKGROUPS)]),
            (
                all + 2,
                1,
                usize::MAX,
                vec![(0, WORKGROUPS), (WORKGROUPS, 2)],
            ),
        ] {
            let work = Work { workgroups, steps };
            let dispatches: Vec<_> = work.dispatches(limit).collect();
            assert_eq!(dispatches, expected, "{work:?} within {limit}");
        }
        let work = Work::items(129, 64, 3);
        assert_eq!((work.workgroups, work.steps), (3, 192));
    }
}
