//! What a kernel binds and needs, read from its validated module.

use naga::valid::GlobalUse;
use naga::{AddressSpace, ShaderStage, StorageAccess};

use super::validate::Validated;

/// How a kernel sees a resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Binding {
    /// A storage buffer.
    Storage {
        /// Whether it is declared `read_write`.
        writable: bool,
    },
    /// A uniform buffer.
    Uniform,
    /// Anything else: no kernel of ours has one.
    Other,
}

/// A bound resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resource {
    /// `@group`.
    pub group: u32,
    /// `@binding`.
    pub binding: u32,
    /// Name in the text.
    pub name: String,
    /// Kind of resource.
    pub kind: Binding,
    /// Whether the entry point reads it, or asks for its length.
    pub read: bool,
    /// Whether the entry point writes it.
    pub written: bool,
}

/// The needs of a kernel's entry point.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reflection {
    /// Names of the entry points.
    pub entry_points: Vec<String>,
    /// Bound resources, by group and binding.
    pub resources: Vec<Resource>,
    /// `@workgroup_size` of the first compute entry point; zeros where there is none.
    pub workgroup_size: [u32; 3],
    /// Bytes of workgroup memory.
    pub workgroup_bytes: u64,
}

impl Reflection {
    /// Reads the module.
    pub fn of(validated: &Validated) -> Self {
        let Validated { module, info } = validated;
        let compute = |e: &naga::EntryPoint| e.stage == ShaderStage::Compute;
        let first = module.entry_points.iter().position(compute);
        let mut resources = Vec::new();
        let mut workgroup_bytes = 0;
        for (handle, variable) in module.global_variables.iter() {
            if variable.space == AddressSpace::WorkGroup {
                workgroup_bytes += u64::from(module.types[variable.ty].inner.size(module.to_ctx()));
            }
            let Some(place) = &variable.binding else {
                continue;
            };
            let kind = match variable.space {
                AddressSpace::Storage { access } => Binding::Storage {
                    writable: access.contains(StorageAccess::STORE),
                },
                AddressSpace::Uniform => Binding::Uniform,
                _ => Binding::Other,
            };
            let usage = first.map_or(GlobalUse::empty(), |entry| {
                info.get_entry_point(entry)[handle]
            });
            resources.push(Resource {
                group: place.group,
                binding: place.binding,
                name: variable.name.clone().unwrap_or_default(),
                kind,
                read: usage.intersects(GlobalUse::READ | GlobalUse::QUERY | GlobalUse::ATOMIC),
                written: usage.intersects(GlobalUse::WRITE | GlobalUse::ATOMIC),
            });
        }
        resources.sort_by_key(|resource| (resource.group, resource.binding));
        Self {
            entry_points: module
                .entry_points
                .iter()
                .map(|entry| entry.name.clone())
                .collect(),
            resources,
            workgroup_size: first.map_or([0; 3], |entry| module.entry_points[entry].workgroup_size),
            workgroup_bytes,
        }
    }

    /// How many storage buffers the kernel binds.
    pub fn storage_buffers(&self) -> usize {
        self.resources
            .iter()
            .filter(|r| matches!(r.kind, Binding::Storage { .. }))
            .count()
    }

    /// Invocations of a workgroup.
    pub fn invocations(&self) -> u64 {
        self.workgroup_size.iter().map(|&n| u64::from(n)).product()
    }
}

#[cfg(test)]
mod tests {
    use super::super::validate::validate;
    use super::*;

    #[test]
    fn bindings_sizes_and_use_are_read() {
        let text = "
            struct Params { n: u32 }
            var<workgroup> sh: array<vec2<f32>, 100>;
            @group(0) @binding(2) var<uniform> params: Params;
            @group(0) @binding(0) var<storage, read_write> x: array<f32>;
            @group(0) @binding(1) var<storage, read> y: array<f32>;
            fn touch() { x[params.n] = sh[0].x; }
            @compute @workgroup_size(8, 4) fn main() { touch(); }";
        let reflection = Reflection::of(&validate("k", text).unwrap());
        assert_eq!(reflection.entry_points, ["main"]);
        assert_eq!(reflection.workgroup_size, [8, 4, 1]);
        assert_eq!(reflection.invocations(), 32);
        assert_eq!(reflection.workgroup_bytes, 800);
        assert_eq!(reflection.storage_buffers(), 2);
        let seen: Vec<_> = reflection
            .resources
            .iter()
            .map(|r| (r.name.as_str(), r.binding, r.kind, r.read, r.written))
            .collect();
        assert_eq!(
            seen,
            [
                ("x", 0, Binding::Storage { writable: true }, false, true),
                ("y", 1, Binding::Storage { writable: false }, false, false),
                ("params", 2, Binding::Uniform, true, false),
            ]
        );
    }
}
