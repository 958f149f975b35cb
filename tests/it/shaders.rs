//! Every kernel of the catalog as a text: no adapter is needed.

use bkbench::shader::catalog::{KERNELS, SHARED};
use bkbench::shader::lint::lint;
use bkbench::shader::translate::{Language, translate};
use bkbench::shader::validate::validate;
use bkbench::shader::{Kernel, Spec, Value};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Stems of the files of a folder that end in `.extension`; nothing where there is no folder.
fn stems(folder: &str, extension: &str) -> BTreeSet<String> {
    let Ok(entries) = std::fs::read_dir(root().join(folder)) else {
        return BTreeSet::new();
    };
    let paths = entries.map(|entry| entry.expect("a readable folder").path());
    let wanted = |path: &PathBuf| path.extension().is_some_and(|found| found == extension);
    paths
        .filter(wanted)
        .map(|path| {
            path.file_stem()
                .expect("a file name")
                .to_string_lossy()
                .into_owned()
        })
        .collect()
}

/// The file's own constants, and each one changed alone: a `bool` flipped, a `u32` halved.
fn specs(kernel: &Kernel) -> Vec<Spec> {
    let changed = kernel
        .constants()
        .into_iter()
        .filter_map(|(name, value)| match value {
            Value::Bool(value) => Some(Spec::new().bool(name, !value)),
            Value::U32(value) if value > 1 => Some(Spec::new().u32(name, value / 2)),
            Value::U32(_) => None,
        });
    std::iter::once(Spec::new()).chain(changed).collect()
}

#[test]
fn the_catalog_lists_exactly_the_files_in_shaders() {
    let listed: Vec<String> = KERNELS
        .iter()
        .map(|kernel| kernel.name.to_owned())
        .collect();
    assert_eq!(
        listed,
        stems("shaders", "wgsl").into_iter().collect::<Vec<_>>()
    );
    let shared: BTreeSet<String> = SHARED.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(shared, stems("shaders/shared", "wgsl"));
    for kernel in KERNELS {
        let file = root().join(format!("shaders/{}.wgsl", kernel.name));
        assert_eq!(
            kernel.source,
            std::fs::read_to_string(file).unwrap(),
            "{}",
            kernel.name
        );
    }
}

#[test]
fn every_kernel_has_a_docs_page_that_names_it() {
    let pages: Vec<(String, String)> = stems("docs", "md")
        .into_iter()
        .map(|stem| {
            let text = std::fs::read_to_string(root().join(format!("docs/{stem}.md"))).unwrap();
            (stem, text)
        })
        .collect();
    for kernel in KERNELS {
        let op = kernel
            .name
            .split("_fwd")
            .next()
            .unwrap()
            .split("_bwd")
            .next()
            .unwrap();
        let named = |(stem, text): &(String, String)| stem == op || text.contains(kernel.name);
        assert!(
            pages.iter().any(named),
            "no page docs/{op}.md, and no other page names {}",
            kernel.name
        );
    }
}

#[test]
fn every_twin_that_a_kernel_names_is_there() {
    for kernel in KERNELS {
        let twin = kernel
            .source
            .lines()
            .find_map(|line| line.strip_prefix("// Twin    "));
        let Some(twin) = twin else { continue };
        let (file, function) = twin.split_once(' ').unwrap_or((twin, ""));
        let text = std::fs::read_to_string(root().join(file))
            .unwrap_or_else(|error| panic!("{}: {file}: {error}", kernel.name));
        assert!(
            text.contains(&format!("fn {function}")),
            "{}: {twin}",
            kernel.name
        );
    }
}

#[test]
fn every_kernel_validates_as_it_lies_on_disk() {
    for kernel in KERNELS
        .iter()
        .filter(|kernel| !kernel.source.contains("// #import "))
    {
        validate(kernel.name, kernel.source).unwrap();
    }
}

#[test]
fn every_kernel_keeps_the_rules_for_every_specialisation() {
    for kernel in KERNELS {
        for spec in specs(kernel) {
            let broken = lint(kernel, &spec).unwrap();
            assert!(
                broken.is_empty(),
                "{} {spec:?}:\n{}",
                kernel.name,
                broken.join("\n")
            );
        }
    }
}

#[test]
fn every_kernel_translates_to_every_language() {
    for kernel in KERNELS {
        for spec in specs(kernel) {
            let validated = validate(kernel.name, &kernel.specialise(&spec).unwrap()).unwrap();
            for language in Language::ALL {
                assert!(
                    !translate(kernel.name, &validated, language)
                        .unwrap()
                        .is_empty()
                );
            }
        }
    }
}
