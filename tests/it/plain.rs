//! Kernels on plain wgpu: with the bounds checks and the zero-initialisation that burn leaves out, with
//! wgpu's own validation, and with no more than the portable limits. What a kernel must not do (read
//! outside its buffers, leave an output unwritten, need a larger device) shows here.

mod adamw;
mod causal_conv;
mod copy;
mod embedding;
mod linear_cross_entropy;
mod non_finite;
mod packed_matmul;
mod resolvent_diag;
mod resolvent_diag_bidirectional;
mod rms_norm;
mod selective_scan;
mod skip_gate;
mod squared_norm;

use bkbench::hardware::{DeviceChoice, adapters, choice::Pick};
use bkbench::shader::{Kernel, Spec, Value, catalog};
use std::path::Path;
use std::sync::OnceLock;

/// A storage buffer of a dispatch.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Buffer<'a> {
    /// Read only.
    Floats(&'a [f32]),
    /// Read only.
    Words(&'a [u32]),
    /// Read and written in place; returned.
    Updated(&'a [f32]),
    /// So many floats, all of which the kernel must write: they start as NaN.
    Output(usize),
}

/// A quiet NaN whose bits no computation produces by itself.
const POISON: u32 = 0x7fc0_dead;

struct Gpu {
    device: wgpu::Device,
    queue: wgpu::Queue,
    is_software: bool,
}

fn gpu() -> &'static Gpu {
    static GPU: OnceLock<Gpu> = OnceLock::new();
    GPU.get_or_init(|| {
        let choice = DeviceChoice::Wgpu {
            api: None,
            which: None,
        };
        let list = adapters::list();
        let (pick, _) = choice
            .choose(&list)
            .expect("an adapter; see scripts/setup.sh");
        let Pick::Adapter(index) = pick else {
            unreachable!("wgpu names no CPU")
        };
        let descriptor = wgpu::DeviceDescriptor {
            required_limits: wgpu::Limits::default(),
            ..Default::default()
        };
        let request = adapters::handle(index)
            .expect("the adapter chosen")
            .request_device(&descriptor);
        let (device, queue) = pollster::block_on(request).expect("a device of the portable limits");
        Gpu {
            device,
            queue,
            is_software: list[index].is_software(),
        }
    })
}

/// That two variants of a kernel, which do the same in the same order, gave `a` and `b`. A real GPU's compiler may
/// fuse products and sums in one and not in the other.
fn assert_same_bits(a: &[f32], b: &[f32], what: &str) {
    let differs = |(a, b): (&f32, &f32)| a.to_bits() != b.to_bits();
    assert_eq!(a.len(), b.len(), "{what}");
    let first = a.iter().zip(b).position(differs);
    assert!(!gpu().is_software || first.is_none(), "{what}: {first:?}");
}

/// Runs `kernel` in one dispatch of `workgroups`, then with a dispatch for each of them, and returns its
/// outputs, in binding order.
///
/// # Errors
/// wgpu's report of what is invalid, the first element of an output that was not written, or of an
/// input that was, or an output of other bits when split.
pub(crate) fn run(
    kernel: &Kernel,
    spec: &Spec,
    workgroups: u32,
    buffers: &[Buffer<'_>],
    params: &[u32],
) -> Result<Vec<Vec<f32>>, String> {
    let outputs = dispatch(kernel, spec, &[(0, workgroups)], buffers, params)?;
    let singly: Vec<_> = (0..workgroups).map(|first| (first, 1)).collect();
    let split = dispatch(kernel, spec, &singly, buffers, params)?;
    for (index, (whole, split)) in outputs.iter().zip(&split).enumerate() {
        let differs = |(a, b): (&f32, &f32)| a.to_bits() != b.to_bits();
        if let Some(at) = whole.iter().zip(split).position(differs) {
            return Err(format!(
                "{}: element {at} of output {index} depends on the split into dispatches",
                kernel.name
            ));
        }
    }
    Ok(outputs)
}

/// One run of `kernel`: each dispatch is its first workgroup and how many it has.
fn dispatch(
    kernel: &Kernel,
    spec: &Spec,
    dispatches: &[(u32, u32)],
    buffers: &[Buffer<'_>],
    params: &[u32],
) -> Result<Vec<Vec<f32>>, String> {
    let Gpu { device, queue, .. } = gpu();
    let text = kernel.specialise(spec).map_err(|error| error.to_string())?;
    let scope = device.push_error_scope(wgpu::ErrorFilter::Validation);
    let module = device.create_shader_module(wgpu::ShaderModuleDescriptor {
        label: Some(kernel.name),
        source: wgpu::ShaderSource::Wgsl(text.into()),
    });
    let pipeline = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
        label: Some(kernel.name),
        layout: None,
        module: &module,
        entry_point: Some("main"),
        compilation_options: wgpu::PipelineCompilationOptions {
            zero_initialize_workgroup_memory: true,
            ..Default::default()
        },
        cache: None,
    });

    let contents: Vec<Vec<u32>> = buffers
        .iter()
        .map(|buffer| match *buffer {
            Buffer::Floats(values) | Buffer::Updated(values) => {
                values.iter().map(|v| v.to_bits()).collect()
            }
            Buffer::Words(values) => values.to_vec(),
            Buffer::Output(n) => vec![POISON; n],
        })
        .collect();
    let create = |words: &[u32], usage| {
        let size = (words.len().max(1) * 4) as u64;
        let descriptor = wgpu::BufferDescriptor {
            label: None,
            size,
            usage,
            mapped_at_creation: false,
        };
        let buffer = device.create_buffer(&descriptor);
        queue.write_buffer(&buffer, 0, bytemuck::cast_slice(words));
        buffer
    };
    let storage =
        wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST;
    let bound: Vec<wgpu::Buffer> = contents
        .iter()
        .map(|words| create(words, storage))
        .collect();
    let layout = pipeline.get_bind_group_layout(0);
    let bind_groups = dispatches.iter().map(|&(first, _)| {
        let mut words = [&[first], params].concat();
        words.resize(words.len().next_multiple_of(4), 0);
        let uniform = wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST;
        let uniform = create(&words, uniform);
        let entries: Vec<wgpu::BindGroupEntry<'_>> = bound
            .iter()
            .chain([&uniform])
            .zip(0..)
            .map(|(buffer, binding)| wgpu::BindGroupEntry {
                binding,
                resource: buffer.as_entire_binding(),
            })
            .collect();
        device.create_bind_group(&wgpu::BindGroupDescriptor {
            label: None,
            layout: &layout,
            entries: &entries,
        })
    });
    let bind_groups: Vec<wgpu::BindGroup> = bind_groups.collect();
    let mut encoder = device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
    {
        let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
        pass.set_pipeline(&pipeline);
        for (bind_group, &(_, workgroups)) in bind_groups.iter().zip(dispatches) {
            pass.set_bind_group(0, bind_group, &[]);
            pass.dispatch_workgroups(workgroups, 1, 1);
        }
    }
    let readable = wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST;
    let read: Vec<wgpu::Buffer> = bound
        .iter()
        .map(|buffer| {
            let (size, usage) = (buffer.size(), readable);
            let descriptor = wgpu::BufferDescriptor {
                label: None,
                size,
                usage,
                mapped_at_creation: false,
            };
            let copy = device.create_buffer(&descriptor);
            encoder.copy_buffer_to_buffer(buffer, 0, &copy, 0, size);
            copy
        })
        .collect();
    queue.submit([encoder.finish()]);
    if let Some(error) = pollster::block_on(scope.pop()) {
        return Err(format!("{}: {error}", kernel.name));
    }

    for buffer in &read {
        buffer.map_async(wgpu::MapMode::Read, .., |outcome| {
            outcome.expect("mapping a read buffer");
        });
    }
    device
        .poll(wgpu::PollType::wait_indefinitely())
        .map_err(|error| error.to_string())?;
    let mut outputs = Vec::new();
    for (index, (copy, before)) in read.iter().zip(&contents).enumerate() {
        let view = copy
            .get_mapped_range(..)
            .map_err(|error| error.to_string())?;
        let words: &[u32] = &bytemuck::cast_slice(&view)[..before.len()];
        let wrong = match buffers[index] {
            Buffer::Output(_) => words
                .iter()
                .position(|&word| word == POISON)
                .map(|at| (at, "was not written")),
            Buffer::Floats(_) | Buffer::Words(_) => words
                .iter()
                .zip(before)
                .position(|(after, before)| after != before)
                .map(|at| (at, "is an input and was written")),
            Buffer::Updated(_) => None,
        };
        if let Some((at, what)) = wrong {
            return Err(format!(
                "{}: element {at} of buffer {index} {what}",
                kernel.name
            ));
        }
        if matches!(buffers[index], Buffer::Output(_) | Buffer::Updated(_)) {
            outputs.push(words.iter().map(|&word| f32::from_bits(word)).collect());
        }
    }
    Ok(outputs)
}

fn single(values: &[f64]) -> Vec<f32> {
    values.iter().map(|&v| v as f32).collect()
}

fn double(values: &[f32]) -> Vec<f64> {
    values.iter().map(|&v| v.into()).collect()
}

/// The value that a kernel's file gives to one of its `@spec` constants.
fn constant(kernel: &Kernel, name: &str) -> u32 {
    match kernel
        .constants()
        .into_iter()
        .find(|(known, _)| *known == name)
    {
        Some((_, Value::U32(value))) => value,
        other => panic!("{}: {name} is {other:?}", kernel.name),
    }
}

/// Workgroups of `size` invocations for `n` items.
fn workgroups_for(n: usize, size: u32) -> u32 {
    n.div_ceil(size as usize) as u32
}

/// The sums of the columns of `parts`, by `shaders/sum_rows.wgsl`, level by level.
fn sum_rows(parts: &[f32], columns: usize) -> Vec<f32> {
    let (group, size) = (64, 64);
    let spec = Spec::new().u32("WG_SIZE", size).u32("GROUP", group as u32);
    let mut parts = parts.to_vec();
    while parts.len() > columns {
        let rows = parts.len() / columns;
        let sums = rows.div_ceil(group) * columns;
        let params = [rows as u32, columns as u32, 1f32.to_bits()];
        let buffers = [Buffer::Floats(&parts), Buffer::Output(sums)];
        let workgroups = workgroups_for(sums, size);
        parts = run(&catalog::SUM_ROWS, &spec, workgroups, &buffers, &params)
            .expect("a kernel that runs")
            .swap_remove(0);
    }
    parts
}

#[test]
fn every_kernel_of_the_catalog_is_launched_here() {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it");
    let files = std::fs::read_dir(tests.join("plain")).unwrap();
    let paths = files
        .map(|file| file.unwrap().path())
        .chain([tests.join("plain.rs")]);
    let text: String = paths
        .map(|path| std::fs::read_to_string(path).unwrap())
        .collect();
    for kernel in catalog::KERNELS {
        let name = format!("catalog::{}", kernel.name.to_uppercase());
        assert!(
            text.contains(&name),
            "no test launches {name} on plain wgpu"
        );
    }
}

#[test]
fn rows_sum_over_several_levels() {
    for rows in [1, 2, 64, 65, 64 * 64 + 3] {
        let parts: Vec<f32> = (0..rows * 3).map(|i| ((i * i) % 101) as f32).collect();
        let plain: Vec<f32> = (0..3)
            .map(|c| parts.iter().skip(c).step_by(3).sum())
            .collect();
        assert_eq!(sum_rows(&parts, 3), plain, "{rows} rows");
    }
}

/// A kernel that doubles its input, or fails to in the way that `body` says.
fn doubler(body: &str) -> Kernel {
    let source = format!(
        "struct Params {{ first_workgroup: u32, n: u32 }}
        @group(0) @binding(0) var<storage, read_write> x: array<f32>;
        @group(0) @binding(1) var<storage, read_write> y: array<f32>;
        @group(0) @binding(2) var<uniform> params: Params;
        var<workgroup> sh: array<f32, 64>;
        @compute @workgroup_size(64) fn main(@builtin(global_invocation_id) gid: vec3<u32>) {{
            let ix = params.first_workgroup * 64 + gid.x;
            {body}
        }}"
    );
    Kernel {
        name: "doubler",
        source: source.leak(),
        n_inputs: 1,
        n_outputs: 1,
    }
}

fn run_doubler(body: &str) -> Result<Vec<Vec<f32>>, String> {
    let x: Vec<f32> = (0..67).map(|i| i as f32).collect();
    run(
        &doubler(body),
        &Spec::new(),
        2,
        &[Buffer::Floats(&x), Buffer::Output(67)],
        &[67],
    )
}

#[test]
fn a_good_kernel_runs() {
    let outputs = run_doubler("if ix < params.n { y[ix] = 2.0 * x[ix]; }").unwrap();
    assert_eq!(
        outputs,
        [(0..67).map(|i| 2.0 * i as f32).collect::<Vec<_>>()]
    );
}

#[test]
fn an_element_not_written_is_named() {
    let report = run_doubler("if ix < params.n - 1u { y[ix] = 2.0 * x[ix]; }").unwrap_err();
    assert!(
        report.contains("element 66 of buffer 1 was not written"),
        "{report}"
    );
}

#[test]
fn a_written_input_is_named() {
    let report =
        run_doubler("if ix < params.n { y[ix] = 2.0; x[ix] = x[ix] + f32(ix / 3u); }").unwrap_err();
    assert!(
        report.contains("element 3 of buffer 0 is an input"),
        "{report}"
    );
}

#[test]
fn a_result_that_depends_on_the_split_is_named() {
    let body = "if ix < params.n { y[ix] = x[ix] + f32(params.first_workgroup); }";
    let report = run_doubler(body).unwrap_err();
    assert!(
        report.contains("element 64 of output 0 depends on the split"),
        "{report}"
    );
}

#[test]
fn a_write_outside_a_buffer_stays_inside_it() {
    // With checks on, an index past the end is caught or clamped: never a crash, never another buffer.
    let outputs =
        run_doubler("if ix < params.n { y[ix] = x[ix]; } else { y[ix + 1000000u] = 1.0; }");
    let report = format!("{outputs:?}");
    assert!(outputs.is_ok(), "{report}");
}

#[test]
fn what_wgpu_refuses_comes_back_as_a_report() {
    let report = run_doubler("y[ix] = undefined(x[ix]);").unwrap_err();
    assert!(report.contains("undefined"), "{report}");
    let report = run_doubler("y[ix] = 1.0 + f32(params.n);").unwrap_err();
    assert!(
        report.contains("binding"),
        "a binding not used is missing from the layout: {report}"
    );
}
