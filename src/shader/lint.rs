//! The rules every kernel keeps, beyond being valid WGSL. Each broken rule is one readable line.

use naga::{BinaryOperator, Expression, Function, Handle, ScalarKind, TypeInner};

use super::reflect::{Binding, Reflection};
use super::validate::{Validated, validate};
use super::{Kernel, Spec, budget};
use crate::Result;

/// The fields of a kernel's header, in order.
const HEADER: [&str; 7] = [
    "Math", "Shapes", "Grid", "Bounds", "Error", "Source", "Twin",
];

/// The rules that `kernel`, specialised by `spec`, breaks.
///
/// # Errors
/// [`Error::Shader`](crate::Error::Shader) when it cannot be specialised or is not valid.
pub fn lint(kernel: &Kernel, spec: &Spec) -> Result<Vec<String>> {
    let validated = validate(kernel.name, &kernel.specialise(spec)?)?;
    let reflection = Reflection::of(&validated);
    let mut broken = header(kernel);
    broken.extend(entry_point(&reflection));
    broken.extend(bindings(kernel, &reflection));
    broken.extend(first_workgroup(&validated));
    broken.extend(limits(&reflection));
    broken.extend(nan_tests(&validated));
    Ok(broken)
}

/// The file says what it is, computes and comes from, and where its twin and its error bound are.
fn header(kernel: &Kernel) -> Vec<String> {
    let mut broken = Vec::new();
    let comment: Vec<&str> = kernel
        .source
        .lines()
        .map_while(|l| l.strip_prefix("//"))
        .collect();
    let title = format!(" {}: ", kernel.name);
    if !comment.first().is_some_and(|line| line.starts_with(&title)) {
        broken.push(format!("the first line must be '//{title}<what it does>'"));
    }
    let mut from = 0;
    for field in HEADER {
        let start = format!(" {field} ");
        match comment[from..]
            .iter()
            .position(|line| line.starts_with(&start))
        {
            Some(at) => from += at + 1,
            None => broken.push(format!(
                "the header has no field '{field}', or not after the one before it"
            )),
        }
    }
    broken
}

/// One compute entry point of the name that burn calls.
fn entry_point(reflection: &Reflection) -> Vec<String> {
    let main = reflection.entry_points == ["main"] && reflection.workgroup_size != [0; 3];
    let report = || {
        format!(
            "the only entry point must be a compute 'main', not {:?}",
            reflection.entry_points
        )
    };
    if main { Vec::new() } else { vec![report()] }
}

/// Bindings as the launcher makes them: group 0, dense, inputs, outputs, then `params`. Every storage
/// buffer is `read_write`, since burn's tensors are parts of the same buffer; a binding that is not
/// used is missing from the layout that the pipeline derives.
fn bindings(kernel: &Kernel, reflection: &Reflection) -> Vec<String> {
    let mut broken = Vec::new();
    let resources = &reflection.resources;
    for (index, resource) in resources.iter().enumerate() {
        let name = &resource.name;
        if (resource.group, resource.binding) != (0, index as u32) {
            broken.push(format!(
                "'{name}' is at group {} binding {}; bindings are dense in group 0, it must be {index}",
                resource.group, resource.binding
            ));
        }
        if !resource.read && !resource.written {
            broken.push(format!("'{name}' is not used"));
        }
        let last = index + 1 == resources.len();
        match resource.kind {
            Binding::Uniform if last && name == "params" => {}
            Binding::Storage { .. } if last => {
                broken.push(format!(
                    "the last binding must be the uniform 'params', not '{name}'"
                ));
            }
            Binding::Storage { writable: false } => {
                broken.push(format!("'{name}' must be declared read_write"));
            }
            Binding::Storage { writable: true } if index < kernel.n_inputs && resource.written => {
                broken.push(format!(
                    "'{name}' is an input by the catalog, but it is written"
                ));
            }
            Binding::Storage { writable: true }
                if index >= kernel.n_inputs && !resource.written =>
            {
                broken.push(format!(
                    "'{name}' is an output by the catalog, but it is not written"
                ));
            }
            Binding::Storage { writable: true } => {}
            Binding::Uniform | Binding::Other => broken.push(format!(
                "'{name}' must be a storage buffer; the one uniform is 'params', the last binding"
            )),
        }
    }
    let (has, listed) = (
        reflection.storage_buffers(),
        kernel.n_inputs + kernel.n_outputs,
    );
    if has != listed {
        broken.push(format!(
            "{has} storage buffers are declared, the catalog lists {listed}"
        ));
    }
    broken
}

/// A launch is split into dispatches by the first word of `params`.
fn first_workgroup(validated: &Validated) -> Option<String> {
    let module = &validated.module;
    let mut variables = module.global_variables.iter().map(|(_, variable)| variable);
    let params = variables.find(|variable| variable.name.as_deref() == Some("params"))?;
    let first = match &module.types[params.ty].inner {
        TypeInner::Struct { members, .. } => members.first().and_then(|m| m.name.as_deref()),
        _ => None,
    };
    (first != Some("first_workgroup"))
        .then(|| "the first word of 'params' must be 'first_workgroup'".to_owned())
}

fn limits(reflection: &Reflection) -> Vec<String> {
    let uses = [
        (
            "storage buffers",
            reflection.storage_buffers() as u64,
            u64::from(budget::STORAGE_BUFFERS),
        ),
        (
            "invocations a workgroup",
            reflection.invocations(),
            u64::from(budget::INVOCATIONS),
        ),
        (
            "bytes of workgroup memory",
            reflection.workgroup_bytes,
            budget::WORKGROUP_BYTES,
        ),
    ];
    let over = uses.into_iter().filter(|(_, used, limit)| used > limit);
    over.map(|(what, used, limit)| format!("{used} {what}, at most {limit} are portable"))
        .collect()
}

/// Compilers may assume that NaN does not occur, so a value compared with itself tests nothing.
fn nan_tests(validated: &Validated) -> Vec<String> {
    let module = &validated.module;
    let functions = module
        .functions
        .iter()
        .map(|(handle, f)| (f, &validated.info[handle]));
    let entries = module.entry_points.iter().enumerate();
    let entries = entries.map(|(i, entry)| (&entry.function, validated.info.get_entry_point(i)));
    let mut broken = Vec::new();
    for (function, info) in functions.chain(entries) {
        for (_, expression) in function.expressions.iter() {
            let Expression::Binary { op, left, right } = *expression else {
                continue;
            };
            let compares = matches!(
                op,
                BinaryOperator::Equal
                    | BinaryOperator::NotEqual
                    | BinaryOperator::Less
                    | BinaryOperator::LessEqual
                    | BinaryOperator::Greater
                    | BinaryOperator::GreaterEqual
            );
            let kind = info[left].ty.inner_with(&module.types).scalar_kind();
            if compares && kind == Some(ScalarKind::Float) && same(function, left, right) {
                let name = function.name.as_deref().unwrap_or("main");
                broken.push(format!(
                    "'{name}' compares a float with itself: compilers may assume no NaN"
                ));
            }
        }
    }
    broken
}

/// Whether two expressions are the same value, spelled the same way.
fn same(function: &Function, left: Handle<Expression>, right: Handle<Expression>) -> bool {
    let same = |a, b| same(function, a, b);
    left == right
        || match (&function.expressions[left], &function.expressions[right]) {
            (Expression::Load { pointer: a }, Expression::Load { pointer: b }) => same(*a, *b),
            (
                Expression::AccessIndex { base: a, index: i },
                Expression::AccessIndex { base: b, index: j },
            ) => i == j && same(*a, *b),
            (
                Expression::Access { base: a, index: i },
                Expression::Access { base: b, index: j },
            ) => same(*a, *b) && same(*i, *j),
            (a, b) => a == b,
        }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "\
// k: doubles.
//
// Math    y = 2 x
// Shapes  x, y: (n)
// Grid    one invocation an element
// Bounds  any n
// Error   none
// Source  own
// Twin    none
";
    const BODY: &str = "
struct Params { first_workgroup: u32, n: u32 }
var<workgroup> sh: array<f32, 64>;
@group(0) @binding(0) var<storage, read_write> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> y: array<f32>;
@group(0) @binding(2) var<uniform> params: Params;
@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(local_invocation_index) i: u32) {
    sh[i] = 2.0;
    let ix = gid.x;
    if ix < params.n { y[ix] = sh[i] * x[ix]; }
}
";

    /// What the lint says of the good kernel with `from` replaced by `to`.
    fn broken(from: &str, to: &str) -> Vec<String> {
        let good = format!("{HEAD}{BODY}");
        assert!(good.contains(from), "{from}");
        let source = good.replace(from, to).leak();
        lint(
            &Kernel {
                name: "k",
                source,
                n_inputs: 1,
                n_outputs: 1,
            },
            &Spec::new(),
        )
        .unwrap()
    }

    fn breaks(from: &str, to: &str, expected: &str) {
        let broken = broken(from, to);
        assert!(
            broken.iter().any(|line| line.contains(expected)),
            "{expected}: {broken:?}"
        );
    }

    #[test]
    fn a_good_kernel_is_clean() {
        assert_eq!(broken("", ""), Vec::<String>::new());
    }

    #[test]
    fn the_header_must_be_complete_and_in_order() {
        breaks("// k: doubles", "// j: doubles", "first line");
        breaks("// Grid ", "// Gird ", "'Grid'");
        breaks("// Twin    none\n", "", "'Twin'");
        breaks(
            "// Math    y = 2 x\n// Shapes  x, y: (n)\n",
            "// Shapes  x, y: (n)\n// Math    y = 2 x\n",
            "'Shapes'",
        );
    }

    #[test]
    fn the_entry_point_must_be_main_and_alone() {
        breaks("fn main", "fn start", "compute 'main'");
        breaks(
            "var<workgroup>",
            "@compute @workgroup_size(1) fn more() {}\nvar<workgroup>",
            "compute 'main'",
        );
    }

    #[test]
    fn bindings_must_be_those_the_launcher_makes() {
        breaks("@binding(1)", "@binding(3)", "must be 1");
        breaks("@group(0) @binding(2)", "@group(1) @binding(0)", "group 1");
        breaks("* x[ix]", "", "'x' is not used");
        breaks("< params.n", "< 7u", "'params' is not used");
        breaks(
            "read_write> x",
            "read> x",
            "'x' must be declared read_write",
        );
        breaks(
            "= sh[i] * x[ix]",
            "= sh[i] * x[ix]; x[ix] = 1.0",
            "input by the catalog",
        );
        breaks(
            "y[ix] = sh[i] * x[ix]",
            "x[ix] = y[ix] + sh[i]",
            "'y' is an output by the catalog",
        );
        breaks("params", "shape", "the one uniform is 'params'");
        breaks(
            "var<uniform> params: Params",
            "var<storage, read_write> params: Params",
            "last binding must be",
        );
    }

    #[test]
    fn a_kernel_must_know_the_dispatch_it_is_in() {
        breaks(
            "first_workgroup: u32, n: u32",
            "n: u32, first_workgroup: u32",
            "must be 'first_workgroup'",
        );
    }

    #[test]
    fn a_buffer_more_than_the_catalog_lists_is_seen() {
        let source = format!("{HEAD}{BODY}").leak();
        let kernel = Kernel {
            name: "k",
            source,
            n_inputs: 1,
            n_outputs: 2,
        };
        let broken = lint(&kernel, &Spec::new()).unwrap();
        assert_eq!(
            broken,
            ["2 storage buffers are declared, the catalog lists 3"]
        );
    }

    #[test]
    fn what_not_every_adapter_offers_is_refused() {
        breaks(
            "@workgroup_size(64)",
            "@workgroup_size(64, 8)",
            "512 invocations",
        );
        breaks("array<f32, 64>", "array<f32, 4097>", "16388 bytes");
        let declare =
            |i| format!("@group(0) @binding({i}) var<storage, read_write> b{i}: array<f32>;");
        let extra = (3..10).map(declare).collect::<Vec<_>>().concat();
        breaks("@compute", &format!("{extra}@compute"), "9 storage buffers");
    }

    #[test]
    fn a_value_compared_with_itself_is_no_test() {
        breaks(
            "ix < params.n",
            "ix < params.n && x[ix] == x[ix]",
            "compares a float with itself",
        );
        breaks(
            "let ix = gid.x;",
            "let ix = gid.x; var v = x[ix]; if v != v { return; }",
            "compares a float",
        );
        breaks(
            "let ix = gid.x;",
            "let ix = gid.x; let v = x[ix]; if !(v <= v) { return; }",
            "compares a float",
        );
        assert_eq!(
            broken(
                "let ix = gid.x;",
                "let ix = gid.x; if x[ix] == x[ix + 1u] { return; }"
            ),
            Vec::<String>::new()
        );
    }
}
