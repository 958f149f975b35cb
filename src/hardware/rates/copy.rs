//! The rate of memory: the best of the ways in which a large buffer can be copied.

use std::time::Instant;

use rayon::prelude::*;
use wgpu::{BufferUsages, CommandEncoder, CommandEncoderDescriptor};

use super::per_second;
use crate::hardware::Hardware;
use crate::hardware::device::handle_of;
use crate::hardware::read::guarded;
use crate::hardware::stopwatch::{Patience, by_wall_clock};
use crate::results::{CopyMethod, CopyRate, Timing};
use crate::shader::{Spec, budget::WORKGROUPS, catalog};
use crate::units::Bytes;
use crate::{Error, Result};

/// Larger than any cache.
const BUFFER: u64 = 256 << 20;
/// Of free memory the two buffers take at most twice this share.
const SHARE_OF_MEMORY: u64 = 8;

const WG_SIZE: u32 = 256;
const STRIDE: u32 = 4;
/// Bytes that a workgroup of the kernel moves.
const PER_WORKGROUP: u64 = 16 * (WG_SIZE * STRIDE) as u64;

const DOING: &str = "measuring how fast it copies";

/// The fastest copy on the device of `hardware`.
pub(super) fn measure(hardware: &Hardware, patience: Patience) -> Result<CopyRate> {
    let free = hardware.memory_available();
    let fits = free.map_or(BUFFER, |free| free.0 / SHARE_OF_MEMORY);
    let Some(adapter) = &hardware.adapter else {
        return rate(CopyMethod::Threads, by_threads(BUFFER.min(fits), patience)?);
    };
    let limits = &adapter.limits;
    let most = BUFFER.min(fits).min(limits.binding.0).min(limits.buffer.0);
    // The kernel and the largest dispatch take whole workgroups.
    let size = (most / PER_WORKGROUP).min(WORKGROUPS.into()).max(1) * PER_WORKGROUP;
    let ways = guarded(DOING, || {
        let buffers = Buffers::new(hardware, size)?;
        let copied = buffers.time(patience, &|encoder| buffers.copy(encoder));
        let by_kernel = buffers.time(patience, &|encoder| buffers.run_kernel(encoder));
        Ok([
            (CopyMethod::BufferCopy, copied),
            (CopyMethod::Kernel, by_kernel),
        ])
    })?;
    let mut best: Option<CopyRate> = None;
    for (by, timing) in ways {
        let rate = rate(by, (size, timing?))?;
        if best
            .as_ref()
            .is_none_or(|best| rate.bytes_per_second > best.bytes_per_second)
        {
            best = Some(rate);
        }
    }
    best.ok_or_else(|| Error::Device {
        doing: DOING.into(),
        reason: "no way to copy".into(),
    })
}

fn rate(by: CopyMethod, (size, timing): (u64, Timing)) -> Result<CopyRate> {
    Ok(CopyRate {
        bytes_per_second: per_second(2.0 * size as f64, timing.seconds)?,
        buffer: Bytes(size),
        by,
        timing,
    })
}

/// The size copied, and the time that it takes the CPU's threads.
fn by_threads(size: u64, patience: Patience) -> Result<(u64, Timing)> {
    let n = size as usize;
    let source = vec![1_u8; n];
    let mut target = vec![0_u8; n];
    let part = n.div_ceil(rayon::current_num_threads()).max(1);
    let mut copy = || {
        let start = Instant::now();
        let parts = target.par_chunks_mut(part).zip(source.par_chunks(part));
        parts.for_each(|(target, source)| target.copy_from_slice(source));
        std::hint::black_box(&mut target);
        start.elapsed().as_secs_f64()
    };
    Ok((size, by_wall_clock(patience, true, |_| Ok(copy()))?))
}

/// Two buffers on a device of their own: burn offers no copy of a buffer.
struct Buffers {
    device: wgpu::Device,
    queue: wgpu::Queue,
    source: wgpu::Buffer,
    target: wgpu::Buffer,
    pipeline: wgpu::ComputePipeline,
    bind_group: wgpu::BindGroup,
}

impl Buffers {
    fn new(hardware: &Hardware, size: u64) -> Result<Self, String> {
        let handle = handle_of(&hardware.device).ok_or("it is no adapter's")?;
        let descriptor = wgpu::DeviceDescriptor {
            required_limits: handle.limits(),
            ..Default::default()
        };
        let (device, queue) = pollster::block_on(handle.request_device(&descriptor))
            .map_err(|error| error.to_string())?;
        let scope = device.push_error_scope(wgpu::ErrorFilter::OutOfMemory);
        let buffer = |size, usage| {
            device.create_buffer(&wgpu::BufferDescriptor {
                label: None,
                size,
                usage,
                mapped_at_creation: false,
            })
        };
        let storage = BufferUsages::STORAGE | BufferUsages::COPY_SRC | BufferUsages::COPY_DST;
        let (source, target) = (buffer(size, storage), buffer(size, storage));
        let params = buffer(16, BufferUsages::UNIFORM | BufferUsages::COPY_DST);
        if let Some(error) = pollster::block_on(scope.pop()) {
            return Err(error.to_string());
        }
        let words = [0, (size / 16) as u32, 0, 0];
        queue.write_buffer(&params, 0, bytemuck::cast_slice(&words));
        let spec = Spec::new().u32("WG_SIZE", WG_SIZE).u32("STRIDE", STRIDE);
        let text = catalog::COPY
            .specialise(&spec)
            .map_err(|error| error.to_string())?;
        let module = device.create_shader_module(wgpu::ShaderModuleDescriptor {
            label: Some(catalog::COPY.name),
            source: wgpu::ShaderSource::Wgsl(text.into()),
        });
        let pipeline = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label: Some(catalog::COPY.name),
            layout: None,
            module: &module,
            entry_point: Some("main"),
            compilation_options: wgpu::PipelineCompilationOptions::default(),
            cache: None,
        });
        let bound = [&source, &target, &params].into_iter().zip(0..);
        let entries: Vec<wgpu::BindGroupEntry<'_>> = bound
            .map(|(buffer, binding)| wgpu::BindGroupEntry {
                binding,
                resource: buffer.as_entire_binding(),
            })
            .collect();
        let bind_group = device.create_bind_group(&wgpu::BindGroupDescriptor {
            label: None,
            layout: &pipeline.get_bind_group_layout(0),
            entries: &entries,
        });
        Ok(Self {
            device,
            queue,
            source,
            target,
            pipeline,
            bind_group,
        })
    }

    fn copy(&self, encoder: &mut CommandEncoder) {
        encoder.copy_buffer_to_buffer(&self.source, 0, &self.target, 0, self.source.size());
    }

    fn run_kernel(&self, encoder: &mut CommandEncoder) {
        let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
        pass.set_pipeline(&self.pipeline);
        pass.set_bind_group(0, &self.bind_group, &[]);
        pass.dispatch_workgroups((self.source.size() / PER_WORKGROUP) as u32, 1, 1);
    }

    fn time(&self, patience: Patience, encode: &dyn Fn(&mut CommandEncoder)) -> Result<Timing> {
        by_wall_clock(patience, false, |launches| {
            let start = Instant::now();
            let mut encoder = self
                .device
                .create_command_encoder(&CommandEncoderDescriptor::default());
            for _ in 0..launches {
                encode(&mut encoder);
            }
            self.queue.submit([encoder.finish()]);
            let done = self.device.poll(wgpu::PollType::wait_indefinitely());
            done.map_err(|error| Error::Device {
                doing: DOING.into(),
                reason: error.to_string(),
            })?;
            Ok(start.elapsed().as_secs_f64())
        })
    }
}
