//! `verify`: right results pass on every device, and wrong ones fail by name.

use std::fs;
use std::path::{Path, PathBuf};

use bkbench::Error;
use bkbench::hardware::{DeviceChoice, Hardware, open};
use bkbench::models::safetensors::Safetensors;
use bkbench::verify::{CaseReport, Report, verify};
use serde_json::{Value, json};

fn cpu() -> Hardware {
    open(&DeviceChoice::Cpu, None).expect("the CPU")
}

fn devices() -> [Hardware; 2] {
    let wgpu = DeviceChoice::Wgpu {
        api: None,
        which: None,
    };
    let advice = "a wgpu adapter; scripts/setup.sh installs a software one";
    [cpu(), open(&wgpu, None).expect(advice)]
}

fn committed() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

/// A folder with a copy of the committed vectors of `name`, changed by `change`.
fn changed(name: &str, change: impl FnOnce(&mut Value, &mut Vec<u8>)) -> tempfile::TempDir {
    let [manifest, tensors] = ["json", "safetensors"].map(|kind| format!("{name}.{kind}"));
    let text = fs::read(committed().join(&manifest)).expect("the manifest");
    let mut content: Value = serde_json::from_slice(&text).expect("a JSON manifest");
    let mut bytes = fs::read(committed().join(&tensors)).expect("the tensors");
    change(&mut content, &mut bytes);
    let folder = tempfile::tempdir().expect("a folder");
    fs::write(folder.path().join(manifest), content.to_string()).expect("a written manifest");
    fs::write(folder.path().join(tensors), bytes).expect("written tensors");
    folder
}

/// What fails in `folder` on the CPU.
fn failures(folder: &tempfile::TempDir) -> Vec<String> {
    let report = verify(Some(folder.path()), &cpu()).expect("a folder of vectors");
    report.failures()
}

/// Multiplies the values of `tensor` in the file by `factor`.
fn scale_tensor(bytes: &mut [u8], tensor: &str, factor: f64) {
    let header = 8 + u64::from_le_bytes(bytes[..8].try_into().expect("8 bytes")) as usize;
    let entries: Value = serde_json::from_slice(&bytes[8..header]).expect("a JSON header");
    let entry = &entries[tensor];
    let offset = |i: usize| header + entry["data_offsets"][i].as_u64().expect("an offset") as usize;
    let values = &mut bytes[offset(0)..offset(1)];
    match entry["dtype"].as_str() {
        Some("F64") => {
            for value in values.as_chunks_mut().0 {
                *value = (f64::from_le_bytes(*value) * factor).to_le_bytes();
            }
        }
        Some("F32") => {
            for value in values.as_chunks_mut().0 {
                *value = (f32::from_le_bytes(*value) * factor as f32).to_le_bytes();
            }
        }
        other => panic!("{tensor}: dtype {other:?}"),
    }
}

fn assert_passes(report: &Report) {
    assert_eq!(report.failures(), Vec::<String>::new());
    let totals = report.totals();
    assert!(totals.cases > 50 && totals.tensors > 300, "{totals:?}");
    assert_eq!(report.dispatches > 0, report.device.api.is_some());
}

#[test]
fn the_embedded_vectors_and_the_oracle_agree_on_both_devices() {
    for hardware in devices() {
        let report = verify(None, &hardware).unwrap();
        // Other tests dispatch kernels meanwhile: on the CPU the count says nothing here.
        let dispatches = match hardware.fingerprint.api {
            Some(_) => report.dispatches,
            None => 0,
        };
        let in_half = |case: &CaseReport| case.case.starts_with("f16 products");
        let has_half = hardware.adapter.as_ref().is_some_and(|it| it.features.f16);
        assert_eq!(report.cases.iter().any(in_half), has_half);
        assert_passes(&Report {
            dispatches,
            ..report
        });
    }
}

#[test]
#[ignore = "needs BKBENCH_DATA, the folder that holds data/ and golden/"]
fn all_golden_vectors_agree_on_both_devices() {
    let data = std::env::var_os("BKBENCH_DATA").expect("BKBENCH_DATA names the data folder");
    let golden = Path::new(&data).join("golden");
    for hardware in devices() {
        let report = verify(Some(&golden), &hardware).unwrap();
        assert_eq!(report.failures(), Vec::<String>::new());
    }
}

#[test]
fn a_wrong_reference_fails_and_names_the_tensor() {
    for (file, case, tensor) in [
        ("bk_small", "bk04_B2N64_n3_rand_z0+0.1i", "dc_z"),
        ("bk_small", "bk04_B2N64_n3_rand_z0+0.1i", "G"),
        ("bk_small", "bk04_B2N64_n3_rand_z0+0.1i", "d_a"),
        ("bk_small", "bk04_B2N64_n3_rand_z0+0.1i", "d_bc"),
        ("bk_small", "bk04_B2N64_n3_rand_z0+0.1i", "d_z"),
        ("bk_upstream", "ups1_B2N128", "exact_d_he_diag"),
        ("bk_upstream", "ups0_B1N63", "first_features"),
        ("bk_upstream", "ups1_B2N128", "first_d_he_diag_blend0.5"),
        ("bk_upstream", "ups0_B1N63", "head_features"),
        ("mamba_conv", "conv02_B2D5L64K4", "d_weight"),
        ("mamba_scan_small", "scan04_B2D4L65N4_normal", "last_state"),
        (
            "mamba_block_small",
            "block03_B1L20d12n4",
            "final_conv_state",
        ),
        (
            "mamba_block_small",
            "block03_B1L20d12n4",
            "g.dt_proj.weight",
        ),
        (
            "mamba_lm_small",
            "lm00",
            "g.backbone.layers.1.mixer.dt_proj.weight",
        ),
        ("mamba_lm_small", "lm00", "traj_adamw"),
    ] {
        let scale = |factor: f64| {
            changed(file, |_, bytes| {
                scale_tensor(bytes, &format!("{case}/{tensor}"), factor);
            })
        };
        for factor in [1.01, 0.0, f64::NAN] {
            let lines = failures(&scale(factor));
            let named = |line: &String| line.contains(case) && line.contains(tensor);
            assert!(
                !lines.is_empty() && lines.iter().all(named),
                "{factor}: {lines:?}"
            );
        }
        assert_eq!(failures(&scale(1.0)), Vec::<String>::new());
    }
}

#[test]
fn what_cannot_be_read_or_is_not_known_fails_by_name() {
    let case = "conv02_B2D5L64K4";
    let change_case = |change: fn(&mut Value)| {
        changed("mamba_conv", |manifest, _| {
            change(&mut manifest["cases"][2]);
        })
    };
    for (folder, part) in [
        (
            change_case(|c| c["op"] = json!("fourier")),
            "unknown op 'fourier'",
        ),
        (change_case(|c| c["op"] = json!(7)), "bad manifest entry"),
        (change_case(|c| c["silu"] = Value::Null), "bad parameters"),
        (
            change_case(|c| c["tensors"] = Value::Null),
            "bad manifest entry",
        ),
        (
            change_case(|c| c["tol_f32"] = json!({})),
            "tol_f32.forward_rel_max",
        ),
        (
            change_case(|c| c["tensors"]["dq"] = json!({"dtype": "F32", "shape": [1]})),
            "not known: dq",
        ),
        (
            change_case(|c| c["tensors"]["y"]["shape"] = json!([2, 64, 5])),
            "y has shape [2, 5, 64] in the file and [2, 64, 5] in the manifest",
        ),
        (
            change_case(|c| c["tensors"]["d_bias"] = Value::Null),
            "bad manifest entry",
        ),
        (change_case(|c| c["has_bias"] = json!(false)), "d_bias"),
    ] {
        let lines = failures(&folder);
        assert!(
            lines
                .iter()
                .any(|line| line.contains(case) && line.contains(part)),
            "{part}: {lines:?}"
        );
    }

    let truncated = changed("mamba_conv", |_, bytes| bytes.truncate(bytes.len() - 1));
    assert!(failures(&truncated)[0].contains("truncated"));
    let elsewhere = changed("mamba_conv", |manifest, _| manifest["file"] = json!("none"));
    let lines = failures(&elsewhere);
    assert!(lines[0].starts_with("mamba_conv.json"), "{lines:?}");
    assert!(
        lines[1].contains("no manifest names mamba_conv.safetensors"),
        "{lines:?}"
    );
    let bare = changed("mamba_conv", |manifest, _| {
        *manifest = json!({"file": "none"});
    });
    assert!(failures(&bare)[0].contains("is no manifest"));
}

#[test]
fn a_negative_product_is_refused_at_its_place_and_that_passes() {
    let bytes = fs::read(committed().join("bk_small.safetensors")).unwrap();
    let file = Safetensors::parse("bk_small", bytes).unwrap();
    let case = "bk08_B1N40_n3_negprod_z0+1i";
    let values = |name: &str| file.get(&format!("{case}/{name}")).unwrap().doubles();
    let (b, c) = (values("b"), values("c"));
    let mut products = b.iter().zip(&c).map(|(b, c)| b * c);
    let first = products.position(|p| p < 0.0).unwrap();

    let report = verify(None, &cpu()).unwrap();
    let refused: Vec<&String> = report
        .cases
        .iter()
        .filter_map(|c| c.refused.as_ref())
        .collect();
    assert_eq!(refused.len(), 2, "once in f32, once in f64");
    let index = format!("element [0, {}, 0]", first + 1);
    assert!(
        refused.iter().all(|error| error.contains(&index)),
        "{refused:?}"
    );
}

#[test]
fn a_folder_without_manifests_is_bad_input() {
    let empty = tempfile::tempdir().unwrap();
    for folder in [empty.path(), Path::new("/no/such/folder")] {
        match verify(Some(folder), &cpu()) {
            Err(error @ Error::BadInput { .. }) => assert_eq!(error.exit_code(), 2),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn the_command_prints_one_document_and_its_exit_code_tells() {
    let run = |folder: &Path| {
        let output = assert_cmd::Command::cargo_bin("bkbench")
            .unwrap()
            .args(["verify", "--device", "cpu", "--json", "--golden"])
            .arg(folder)
            .output()
            .unwrap();
        (output.status.code(), output.stdout)
    };
    let right = changed("mamba_conv", |_, _| ());
    let (code, stdout) = run(right.path());
    let document: Value = serde_json::from_slice(&stdout).unwrap();
    assert_eq!((code, &document["passed"]), (Some(0), &json!(true)));
    assert_eq!(document["failures"], json!([]));

    let wrong = changed("mamba_conv", |manifest, _| {
        manifest["cases"][0]["op"] = json!("fourier");
    });
    let (code, stdout) = run(wrong.path());
    let document: Value = serde_json::from_slice(&stdout).unwrap();
    assert_eq!((code, &document["passed"]), (Some(1), &json!(false)));
    assert_eq!(document["totals"]["failed"], 1);

    assert_eq!(run(Path::new("/no/such/folder")), (Some(2), Vec::new()));
}

#[test]
fn the_table_ends_with_its_totals() {
    let output = assert_cmd::Command::cargo_bin("bkbench")
        .unwrap()
        .args(["verify", "--device", "cpu"])
        .output()
        .unwrap();
    let stdout = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{stdout}");
    let last = stdout.lines().last().unwrap();
    assert!(
        last.ends_with(" tensors compared, 0 failed, 0 WGSL dispatches"),
        "{last}"
    );
}
