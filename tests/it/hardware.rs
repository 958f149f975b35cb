//! Opening real devices: the software adapter and the CPU backend.

use bkbench::Error;
use bkbench::config::Precision;
use bkbench::hardware::adapters::Class;
use bkbench::hardware::choice::selector;
use bkbench::hardware::{DeviceChoice, Hardware, adapter_of, adapters, open, open_as, read};
use burn::tensor::{Device, Tensor};

fn choice(text: &str) -> DeviceChoice {
    text.parse().expect("a device")
}

/// 64 numbers through a matrix product and a sum along rows.
fn work(device: &Device) -> Vec<f32> {
    let x = Tensor::<1>::from_floats(
        std::array::from_fn::<f32, 64, _>(|i| i as f32 / 8.0).as_slice(),
        device,
    );
    let x = x.reshape([8, 8]);
    read::floats(x.clone().matmul(x).sum_dim(1), "testing").expect("a working device")
}

#[test]
fn the_cpu_opens_and_computes() {
    let hardware = open(&choice("cpu"), None).unwrap();
    assert_eq!(work(&hardware.device).len(), 8);
    assert_eq!(hardware.memory_in_use(), None);
    assert_eq!(hardware.fingerprint.api, None);
    assert!(hardware.fingerprint.threads.is_some());
}

#[test]
fn every_adapter_named_by_its_selector_computes_what_the_cpu_does() {
    let expected = work(&open(&choice("cpu"), None).unwrap().device);
    let list = adapters::list();
    assert!(
        !list.is_empty(),
        "no wgpu adapter; scripts/setup.sh installs a software one"
    );
    for (index, adapter) in list.iter().enumerate().filter(|(_, a)| a.unfit().is_none()) {
        let device = selector(&list, index);
        let hardware = open(&choice(&device), None).unwrap();
        assert_eq!(hardware.fingerprint.adapter, adapter.name, "{device}");
        assert_eq!(hardware.fingerprint.api, Some(adapter.api), "{device}");
        // Small integers over 8: every product and sum is exact in any order.
        assert_eq!(work(&hardware.device), expected, "{device}");
    }
}

#[test]
fn f16_is_asked_of_adapters_that_have_it_and_of_nothing_else() {
    let refused = |hardware: &Hardware| match hardware.require(Precision::Mixed) {
        Err(error @ Error::BadInput { .. }) => error.to_string(),
        other => panic!("{other:?}"),
    };
    let cpu = open(&choice("cpu"), None).unwrap();
    cpu.require(Precision::F32).unwrap();
    assert!(refused(&cpu).contains("is the CPU backend"));

    let mut hardware = open(&choice("wgpu"), None).unwrap();
    let (name, adapter) = (hardware.fingerprint.adapter.clone(), &mut hardware.adapter);
    adapter.as_mut().unwrap().features.f16 = true;
    hardware.require(Precision::Mixed).unwrap();
    hardware.adapter.as_mut().unwrap().features.f16 = false;
    hardware.require(Precision::F32).unwrap();
    let message = refused(&hardware);
    assert!(
        message.contains(&name) && message.contains("shader-f16"),
        "{message}"
    );
}

#[test]
fn opening_twice_gives_the_same_device() {
    let first = open(&choice("wgpu"), None).unwrap();
    let second = open(&choice("wgpu"), None).unwrap();
    assert_eq!(first.device, second.device);
    assert_eq!(first.fingerprint, second.fingerprint);
}

#[test]
fn the_kernels_of_either_class_may_be_asked_for_and_the_fingerprint_says_which_ran() {
    let own = open(&choice("wgpu"), None).unwrap();
    for class in [Class::Software, Class::Gpu] {
        let hardware = open_as(&choice("wgpu"), None, Some(class)).unwrap();
        assert_eq!(hardware.fingerprint.kernels, Some(class));
        let adapter = adapter_of(&hardware.device).unwrap();
        assert_eq!(Some(adapter), hardware.adapter.as_ref());
        assert_eq!(adapter.class, class);
        let is_own = own.adapter.as_ref().unwrap().class == class;
        assert_eq!(hardware.device == own.device, is_own);
        assert_eq!(hardware.fingerprint == own.fingerprint, is_own);
        work(&hardware.device);
    }
    assert_eq!(
        open(&choice("cpu"), None).unwrap().fingerprint.kernels,
        None
    );
}

#[test]
fn memory_in_use_counts_the_tensors() {
    let hardware = open(&choice("wgpu"), None).unwrap();
    let x = Tensor::<1>::zeros([16 << 20], &hardware.device);
    hardware.device.sync().unwrap();
    // Other tests hold memory on this adapter too: only the lower bound is ours.
    assert!(hardware.memory_in_use().unwrap() >= 64 << 20);
    drop(x);
}

#[test]
fn a_device_that_is_not_there_or_not_the_required_one_is_bad_input() {
    for (device, required) in [
        ("wgpu:no such adapter", None),
        ("wgpu:99", None),
        ("cpu", Some("Tesla T4")),
        ("wgpu", Some("Tesla T99")),
    ] {
        match open(&choice(device), required) {
            Err(error @ Error::BadInput { .. }) => assert_eq!(error.exit_code(), 2),
            other => panic!("{device}: {other:?}"),
        }
    }
    let name = open(&choice("wgpu"), None).unwrap().fingerprint.adapter;
    open(&choice("wgpu"), Some(&name.to_uppercase())).unwrap();
}

#[test]
fn a_part_of_a_name_is_enough_and_namesakes_are_announced() {
    let list = adapters::list();
    let part = list[0].name.split(' ').next().unwrap().to_lowercase();
    let namesakes = list
        .iter()
        .filter(|a| a.name.to_lowercase().contains(&part))
        .count();
    let hardware = open(&choice(&format!("wgpu:{part}")), None).unwrap();
    assert!(hardware.fingerprint.adapter.to_lowercase().contains(&part));
    assert_eq!(
        hardware.notes.len(),
        usize::from(namesakes > 1),
        "{:?}",
        hardware.notes
    );
}
