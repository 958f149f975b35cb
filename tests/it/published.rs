//! Models in the layout of the official Mamba code: golden weights written out so give the golden loss, in every
//! precision, and files that do not fit are refused with all that is wrong.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use bkbench::hardware::read;
use bkbench::models::checkpoint::{Loaded, Origin, load};
use bkbench::models::safetensors::Safetensors;
use bkbench::models::{BatchShape, LanguageModel};
use bkbench::quant::BitWidth;
use bkbench::results::RunRecord;
use burn::tensor::Device;
use half::{bf16, f16};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::cli::refused_in;
use crate::support;

/// A kind of float in a file, and its rounding.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Float {
    F32,
    F16,
    Bf16,
}

impl Float {
    const ALL: [Self; 3] = [Self::F32, Self::F16, Self::Bf16];

    fn dtype(self) -> &'static str {
        match self {
            Self::F32 => "F32",
            Self::F16 => "F16",
            Self::Bf16 => "BF16",
        }
    }

    fn bytes(self, value: f64) -> Vec<u8> {
        match self {
            Self::F32 => (value as f32).to_le_bytes().to_vec(),
            Self::F16 => f16::from_f64(value).to_le_bytes().to_vec(),
            Self::Bf16 => bf16::from_f64(value).to_le_bytes().to_vec(),
        }
    }

    /// The largest relative error of a rounding.
    fn roundoff(self) -> f64 {
        let significant_bits = match self {
            Self::F32 => 24,
            Self::F16 => 11,
            Self::Bf16 => 8,
        };
        f64::powi(2.0, -significant_bits)
    }

    fn rounded(self, value: f64) -> f64 {
        match self {
            Self::F32 => f64::from(value as f32),
            Self::F16 => f16::from_f64(value).to_f64(),
            Self::Bf16 => bf16::from_f64(value).to_f64(),
        }
    }
}

type Tensors = BTreeMap<String, (Vec<usize>, Vec<f64>)>;

/// A `.safetensors` file, written by the format's own description.
fn file(tensors: &Tensors, float: Float) -> Vec<u8> {
    let (mut header, mut data) = (serde_json::Map::new(), Vec::new());
    header.insert("__metadata__".into(), json!({"format": "pt"}));
    for (name, (shape, values)) in tensors {
        let from = data.len();
        data.extend(values.iter().flat_map(|&value| float.bytes(value)));
        let entry =
            json!({"dtype": float.dtype(), "shape": shape, "data_offsets": [from, data.len()]});
        header.insert(name.clone(), entry);
    }
    let header = Value::from(header).to_string().into_bytes();
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header);
    file.extend(data);
    file
}

/// A golden case of a whole model.
struct Case {
    manifest: Value,
    file: Safetensors,
}

impl Case {
    fn all(path: &str) -> Vec<Self> {
        let text = fs::read_to_string(format!("{path}.json")).unwrap();
        let manifest: Value = serde_json::from_str(&text).unwrap();
        let cases = manifest["cases"].as_array().unwrap();
        let tensors = format!("{path}.safetensors");
        let case = |case: &Value| Self {
            manifest: case.clone(),
            file: Safetensors::parse(&tensors, fs::read(&tensors).unwrap()).unwrap(),
        };
        cases.iter().map(case).collect()
    }

    /// The committed one: two layers, 29 tokens, tied head.
    fn small() -> Self {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/mamba_lm_small");
        Self::all(path).remove(0)
    }

    fn values(&self, name: &str) -> Vec<f64> {
        let name = format!("{}/{name}", self.manifest["name"].as_str().unwrap());
        self.file.get(&name).unwrap().doubles()
    }

    fn ids(&self, name: &str) -> Vec<u32> {
        self.values(name).into_iter().map(|id| id as u32).collect()
    }

    fn loss(&self) -> f64 {
        self.values("loss")[0]
    }

    /// The tensors whose names begin so.
    fn tensors(&self, prefix: &str) -> Tensors {
        let prefix = format!("{}/{prefix}.", self.manifest["name"].as_str().unwrap());
        let named = |(name, tensor): (&str, _)| {
            let tensor: bkbench::models::safetensors::StoredTensor<'_> = tensor;
            let name = name.strip_prefix(&prefix)?.to_owned();
            Some((name, (tensor.shape.to_vec(), tensor.doubles())))
        };
        self.file.iter().filter_map(named).collect()
    }

    fn config(&self) -> Value {
        let of = |name: &str| self.manifest[name].clone();
        json!({
            "d_model": of("d_model"),
            "n_layer": of("n_layer"),
            "vocab_size": of("vocab"),
            "ssm_cfg": of("ssm_cfg"),
            "rms_norm": true,
            "residual_in_fp32": true,
            "fused_add_norm": true,
            "pad_vocab_size_multiple": 1,
            "tie_embeddings": of("tie_embeddings"),
        })
    }

    /// Writes the model into `folder`.
    fn write(&self, folder: &Path, float: Float) {
        fs::write(folder.join("config.json"), self.config().to_string()).unwrap();
        let weights = file(&self.tensors("w"), float);
        fs::write(folder.join("model.safetensors"), weights).unwrap();
    }

    fn read(&self, folder: &Path, device: &Device) -> Loaded {
        let loaded = load(folder, device).unwrap();
        assert_eq!(loaded.origin, Origin::Published);
        assert_eq!(loaded.shape.n_layers as u64, self.manifest["n_layer"]);
        loaded
    }

    /// Mean cross-entropy of the case's batch under a model.
    fn loss_of(&self, model: &LanguageModel) -> f64 {
        let batch = self.manifest["B"].as_u64().unwrap() as usize;
        let (inputs, targets) = (self.ids("input_ids"), self.ids("targets"));
        let seq_len = inputs.len() / batch;
        let shape = BatchShape { batch, seq_len };
        let states = model.initial_states(batch);
        let hidden = model.infer(&inputs, shape, states).unwrap();
        let nll = model.nll(hidden.x, &targets, 512).unwrap();
        let nll = read::doubles(nll, "reading a loss").unwrap();
        nll.iter().sum::<f64>() / nll.len() as f64
    }

    /// Every precision gives the golden loss. A weight w that a precision rounds by d, |d| <= u |w|, moves the loss by
    /// g d to first order, where g is its golden gradient. The second order is smaller by d / w again, so that it is of
    /// the size of u times the sum of all |g d|; four times that is let pass.
    fn gives_the_golden_loss(&self, device: &Device) {
        let f32_error = self.manifest["tol_f32"]["loss_rel"].as_f64().unwrap() * self.loss();
        for float in Float::ALL {
            let folder = tempfile::tempdir().unwrap();
            self.write(folder.path(), float);
            let loss = self.loss_of(&self.read(folder.path(), device).model);
            let (mut moved, mut at_most) = (0.0, 0.0);
            let gradients = self.tensors("g");
            for (name, (_, weights)) in self.tensors("w") {
                for (&weight, &gradient) in weights.iter().zip(&gradients[&name].1) {
                    let by = gradient * (float.rounded(weight) - weight);
                    moved += by;
                    at_most += f64::abs(by);
                }
            }
            let off = loss - self.loss();
            println!("{float:?}: off {off:.3e}, first order {moved:.3e}, at most {at_most:.3e}");
            assert!(
                (off - moved).abs() <= f32_error + 4.0 * float.roundoff() * at_most,
                "{float:?}: off by {off}, and its weights move it by {moved}"
            );
        }
    }
}

#[test]
fn golden_weights_give_the_golden_loss_in_every_precision_on_both_devices() {
    for device in [support::cpu(), support::wgpu()] {
        Case::small().gives_the_golden_loss(&device);
    }
}

#[test]
#[ignore = "needs BKBENCH_DATA, the folder that holds data/ and golden/"]
fn all_golden_models_give_the_golden_loss_in_every_precision() {
    let data = std::env::var("BKBENCH_DATA").expect("BKBENCH_DATA names the data folder");
    let cases = Case::all(&format!("{data}/golden/mamba_lm"));
    assert!(cases.len() > 1, "one with a head of its own");
    for case in cases {
        case.gives_the_golden_loss(&support::cpu());
    }
}

#[test]
fn rows_that_pad_the_vocabulary_take_part_in_the_loss() {
    let case = Case::small();
    let folder = tempfile::tempdir().unwrap();
    let mut config = case.config();
    // The default is 8: three rows more.
    config
        .as_object_mut()
        .unwrap()
        .remove("pad_vocab_size_multiple");
    let mut tensors = case.tensors("w");
    let (shape, values) = tensors.get_mut("backbone.embedding.weight").unwrap();
    assert_eq!(shape[0], 29);
    shape[0] = 32;
    values.resize(32 * shape[1], 0.0);
    fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
    let path = folder.path().join("padded.safetensors");
    fs::write(&path, file(&tensors, Float::F32)).unwrap();
    // By its own name, with config.json beside it.
    let loaded = case.read(&path, &support::cpu());
    assert_eq!(loaded.shape.vocab_size, 32);

    // The rows are 0, and so are their logits.
    let nll = |(logits, &target): (&[f64], &u32)| {
        let sum: f64 = logits.iter().map(|logit| logit.exp()).sum();
        (sum + 3.0).ln() - logits[target as usize]
    };
    let (logits, targets) = (case.values("logits"), case.ids("targets"));
    let expected = logits.chunks(29).zip(&targets).map(nll).sum::<f64>() / targets.len() as f64;
    let loss = case.loss_of(&loaded.model);
    assert!(
        (loss / expected - 1.0).abs() < 1e-5,
        "{loss} is not {expected}"
    );
}

#[test]
fn a_tied_head_may_be_written_twice_and_not_be_another() {
    let case = Case::small();
    let folder = tempfile::tempdir().unwrap();
    case.write(folder.path(), Float::F32);
    let mut tensors = case.tensors("w");
    let embedding = tensors["backbone.embedding.weight"].clone();
    tensors.insert("lm_head.weight".into(), embedding);
    let path = folder.path().join("model.safetensors");
    fs::write(&path, file(&tensors, Float::Bf16)).unwrap();
    case.read(folder.path(), &support::cpu());
    tensors.get_mut("lm_head.weight").unwrap().1[7] += 1.0;
    fs::write(&path, file(&tensors, Float::Bf16)).unwrap();
    let error = load(folder.path(), &support::cpu()).unwrap_err();
    assert_eq!(error.exit_code(), 2);
    assert!(error.to_string().contains("ties them"), "{error}");
}

/// A published model in `model/`, a text, and a tokenizer for its 29 ids: `t0` to `t28`.
fn place() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("model");
    fs::create_dir(&folder).unwrap();
    Case::small().write(&folder, Float::F32);
    fs::write(dir.path().join("text.txt"), "t1 t2 t3 t4 t28 t0 t7").unwrap();
    let ids: BTreeMap<String, u32> = (0..29).map(|id| (format!("t{id}"), id)).collect();
    let tokenizer = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
        "pre_tokenizer": {"type": "WhitespaceSplit"}, "post_processor": null, "decoder": null,
        "model": {"type": "WordLevel", "vocab": ids, "unk_token": "t0"},
    });
    fs::write(dir.path().join("words.json"), tokenizer.to_string()).unwrap();
    dir
}

fn printed(dir: &Path, line: &str) -> (String, String) {
    let output = assert_cmd::Command::cargo_bin("bkbench")
        .unwrap()
        .current_dir(dir)
        .args(line.split_whitespace())
        .output()
        .unwrap();
    let [stdout, stderr] = [output.stdout, output.stderr].map(|it| String::from_utf8(it).unwrap());
    assert!(output.status.success(), "{line}: {stderr}");
    (stdout, stderr)
}

#[test]
fn a_published_model_is_scored_and_written_from_on_the_command_line() {
    let dir = place();
    let case = Case::small();
    let line = "eval --checkpoint model --text text.txt --device cpu --window 4 --json --quiet";
    let (stdout, _) = printed(dir.path(), &format!("{line} --tokenizer words.json"));
    let document: Value = serde_json::from_str(&stdout).unwrap();
    // By hand: windows of 4 and 2 tokens, each from an empty state.
    let model = case.read(&dir.path().join("model"), &support::cpu()).model;
    let ids = [1, 2, 3, 4, 28, 0, 7];
    let mut sum = 0.0;
    for (from, to) in [(0, 4), (4, 6)] {
        let shape = BatchShape {
            batch: 1,
            seq_len: to - from,
        };
        let hidden = model
            .infer(&ids[from..to], shape, model.initial_states(1))
            .unwrap();
        let nll = model.nll(hidden.x, &ids[from + 1..=to], 512).unwrap();
        sum += support::values(nll).iter().sum::<f64>();
    }
    let evaluation = &document["evaluation"];
    let nats = evaluation["nll_sum_nats"].as_f64().unwrap();
    assert!((nats / sum - 1.0).abs() < 1e-6, "{nats} is not {sum}");
    assert_eq!(
        (&evaluation["n_tokens"], &evaluation["n_bytes"]),
        (&json!(6), &json!(21))
    );
    assert_eq!(
        document["checkpoint"]["origin"],
        json!({"layout": "published"})
    );
    let bits = evaluation["bits_per_byte"].as_f64().unwrap();
    assert!((bits - nats / std::f64::consts::LN_2 / 21.0).abs() < 1e-12);

    // A tokenizer beside the model is its own.
    fs::copy(
        dir.path().join("words.json"),
        dir.path().join("model/tokenizer.json"),
    )
    .unwrap();
    let (stdout, stderr) = printed(
        dir.path(),
        "eval --checkpoint model --text text.txt --device cpu",
    );
    assert!(stdout.contains("windows of 2,048 tokens"), "{stdout}");
    assert!(
        stdout.contains("6 tokens of tokenizer.json scored"),
        "{stdout}"
    );
    assert!(stderr.contains("scoring 7 tokens on "), "{stderr}");
    let (stdout, stderr) = printed(
        dir.path(),
        "generate --checkpoint model --prompt t3 --n_tokens 5 --temperature 0 --device cpu",
    );
    assert!(
        stdout.starts_with("t3") && stdout.matches('t').count() == 6,
        "{stdout}"
    );
    assert!(stderr.contains("5 tokens after a prompt of 1"), "{stderr}");
}

#[test]
fn every_tensor_that_does_not_fit_is_named_at_once() {
    let dir = place();
    let mut tensors = Case::small().tensors("w");
    tensors.remove("backbone.norm_f.weight");
    tensors.remove("backbone.layers.1.mixer.D");
    let moved = tensors.remove("backbone.layers.0.mixer.A_log").unwrap();
    tensors.insert("backbone.layers.2.mixer.A_log".into(), moved);
    let (shape, _) = tensors
        .get_mut("backbone.layers.1.mixer.x_proj.weight")
        .unwrap();
    shape.swap(0, 1);
    fs::write(
        dir.path().join("model/model.safetensors"),
        file(&tensors, Float::F32),
    )
    .unwrap();
    for command in [
        "eval --text text.txt --tokenizer words.json",
        "generate --prompt t1 --tokenizer words.json",
        "run --benchmark quantization --text text.txt --tokenizer words.json",
    ] {
        let message = refused_in(
            dir.path(),
            &format!("{command} --checkpoint model --device cpu"),
        );
        for part in [
            "5 tensor(s)",
            "backbone.norm_f.weight is missing",
            "backbone.layers.1.mixer.D is missing",
            "backbone.layers.0.mixer.A_log is missing",
            "backbone.layers.2.mixer.A_log is not known",
            "backbone.layers.1.mixer.x_proj.weight has shape [32, 17] instead of [17, 32]",
        ] {
            assert!(message.contains(part), "{part}: {message}");
        }
        assert_eq!(message.lines().count(), 1, "{message}");
    }
}

#[test]
fn files_that_are_no_model_are_refused_with_the_reason() {
    let dir = place();
    let weights = dir.path().join("model/model.safetensors");
    let config = dir.path().join("model/config.json");
    let (whole, described) = (fs::read(&weights).unwrap(), fs::read(&config).unwrap());
    let of_model = "--checkpoint model --text text.txt --tokenizer words.json --device cpu";
    let lines = [
        format!("eval {of_model}"),
        format!("run --benchmark quantization --output new.json {of_model}"),
    ];
    let changed = |key: &str, value: Value| {
        let mut config = Case::small().config();
        config[key] = value;
        config.to_string().into_bytes()
    };
    // An integer where weights belong, of the right shape.
    let header = 8 + u64::from_le_bytes(whole[..8].try_into().unwrap()) as usize;
    let text = String::from_utf8(whole[8..header].to_vec()).unwrap();
    let mut header: Value = serde_json::from_str(&text).unwrap();
    header["backbone.norm_f.weight"] =
        json!({"dtype": "I64", "shape": [16], "data_offsets": [0, 128]});
    let header = header.to_string().into_bytes();
    let start = 8 + text.len();
    let integers = [
        &(header.len() as u64).to_le_bytes()[..],
        &header,
        &whole[start..],
    ]
    .concat();

    let mut cases = vec![
        (&weights, whole[..whole.len() - 1].to_vec(), "truncated"),
        (&weights, whole[..100].to_vec(), "truncated"),
        (&weights, b"It is a truth".to_vec(), "no safetensors file"),
        (&weights, Vec::new(), "truncated"),
        (&weights, integers, "backbone.norm_f.weight holds I64"),
        (&config, b"{".to_vec(), "no configuration"),
        (
            &config,
            changed("d_model", Value::Null),
            "d_model is missing",
        ),
        (
            &config,
            changed("headdim", json!(64)),
            "headdim is not known",
        ),
        (
            &config,
            changed("ssm_cfg", json!({"layer": "Mamba2"})),
            "ssm_cfg.layer is Mamba2",
        ),
        (
            &config,
            changed("rms_norm", json!(false)),
            "rms_norm is false",
        ),
    ];
    // Sizes for which no machine has the memory are told from the weights before any is asked for.
    for (key, size) in [
        ("d_model", 60_000),
        ("d_model", 1_u64 << 40),
        ("n_layer", 60_000),
    ] {
        cases.push((&config, changed(key, json!(size)), "config.json"));
    }
    for (path, bytes, part) in cases {
        fs::write(path, bytes).unwrap();
        for line in &lines {
            let message = refused_in(dir.path(), line);
            assert!(message.contains(part), "{part}: {message}");
        }
        fs::write(&weights, &whole).unwrap();
        fs::write(&config, &described).unwrap();
    }
    for (removed, part) in [
        (&weights, "model.safetensors: cannot be read"),
        (&config, "neither checkpoints nor config.json"),
    ] {
        fs::remove_file(removed).unwrap();
        for line in &lines {
            let message = refused_in(dir.path(), line);
            assert!(message.contains(part), "{part}: {message}");
        }
        fs::write(&weights, &whole).unwrap();
        fs::write(&config, &described).unwrap();
    }
    for (checkpoint, part) in [
        ("absent", "cannot be read"),
        ("text.txt", "no config.json beside it"),
        (".", "neither checkpoints nor config.json"),
    ] {
        let line = format!("eval --checkpoint {checkpoint} --text text.txt --device cpu");
        let message = refused_in(dir.path(), &line);
        assert!(message.contains(part), "{part}: {message}");
    }
}

#[test]
fn texts_tokenizers_and_settings_that_cannot_be_are_refused() {
    let dir = place();
    fs::write(dir.path().join("latin1.txt"), b"na\xefve text").unwrap();
    fs::write(dir.path().join("empty.txt"), b"").unwrap();
    fs::write(dir.path().join("short.txt"), b"t1").unwrap();
    fs::write(dir.path().join("no.json"), b"{}").unwrap();
    let words = "--tokenizer words.json";
    for (line, part) in [
        ("eval --text absent.txt", "absent.txt: cannot be read"),
        ("eval --text latin1.txt", "not UTF-8 from byte 2 on"),
        ("eval --text empty.txt", "is empty"),
        ("eval --text text.txt", "does not tell which tokenizer"),
        (
            "run --benchmark quantization --text text.txt",
            "does not tell which tokenizer",
        ),
        (
            "run --benchmark quantization --text text.txt --tokenizer bytes",
            "model has 29; give the tokenizer of this model",
        ),
        (
            &format!("run --benchmark quantization --text text.txt --bit_widths 8 3 {words}"),
            "a list of 32, 16, 8, 4 and 2",
        ),
        (
            &format!("run --benchmark longcontext --text text.txt {words}"),
            "--benchmark quantization be the only benchmark",
        ),
        (
            "eval --text text.txt --tokenizer bytes",
            "has 256 ids, and the vocabulary of model has 29",
        ),
        (
            "generate --prompt t1 --tokenizer gpt2",
            "has 50,257 ids, and the vocabulary of model has 29",
        ),
        (
            "eval --text text.txt --tokenizer no.json",
            "tokenizer no.json",
        ),
        (&format!("eval --text short.txt {words}"), "1 token(s) long"),
        (
            &format!("eval --text text.txt --window 0 {words}"),
            "--window 0",
        ),
        (
            &format!("generate --prompt t1 --temperature -1 {words}"),
            "--temperature -1",
        ),
        (
            &format!("generate --prompt t1 --temperature nan {words}"),
            "--temperature NaN",
        ),
        (
            &format!("generate --prompt t1 --top_k 0 {words}"),
            "--top_k 0",
        ),
        (
            &format!("generate --prompt t1 --n_tokens 0 {words}"),
            "--n_tokens 0",
        ),
        (
            &format!("generate --prompt= {words}"),
            "the prompt: is empty",
        ),
    ] {
        let message = refused_in(
            dir.path(),
            &format!("{line} --checkpoint model --device cpu"),
        );
        assert!(message.contains(part), "{part}: {message}");
        assert_eq!(message.lines().count(), 1, "{message}");
    }
}

#[test]
fn a_published_model_is_measured_at_every_width() {
    let dir = place();
    let words: Vec<String> = (0..4000_u32).map(|i| format!("t{}", i * i % 29)).collect();
    fs::write(dir.path().join("long.txt"), words.join(" ")).unwrap();
    let flags = "--text long.txt --tokenizer words.json --device cpu";
    let line = format!("run --benchmark quantization --checkpoint model {flags}");
    let (stdout, _) = printed(dir.path(), &format!("{line} --output guide.json"));
    let folder = stdout.lines().find_map(|l| l.strip_prefix("results: "));
    let folder = dir.path().join(folder.unwrap());
    let record = RunRecord::load(&folder).unwrap();

    let [cell] = &record.cells[..] else {
        panic!("one model, one cell");
    };
    let given = cell.given.as_ref().unwrap();
    let weights = dir.path().join("model/model.safetensors");
    let sha256 = format!("{:x}", Sha256::digest(fs::read(weights).unwrap()));
    assert_eq!(given.file_sha256, sha256);
    assert!(given.path.is_absolute() && given.path.ends_with("model"));
    assert_eq!((given.layout.as_str(), given.steps), ("published", None));
    // Nothing is said of a training.
    assert_eq!((cell.n_steps, &cell.metrics), (0, &None));
    assert!(record.summaries.is_empty());
    assert_eq!(record.config.models.names().collect::<Vec<_>>(), ["mamba"]);
    assert_eq!(record.config.models.b, None);
    assert_eq!(record.n_cells(), 1);
    assert_eq!(
        (record.config.model.d_model, record.config.model.n_layers),
        (16, 2)
    );
    assert!(
        stdout.contains(&sha256) && stdout.contains("not trained here"),
        "{stdout}"
    );
    assert!(!stdout.contains("training loss"), "{stdout}");

    let metrics = cell.quantization.as_ref().unwrap();
    let widths: Vec<BitWidth> = metrics.widths.iter().map(|at| at.width).collect();
    assert_eq!(widths, BitWidth::ALL);
    let whole = &metrics.widths[0];
    assert_eq!(whole.size.total().0, 4 * cell.parameters.total);
    let guide = fs::read(dir.path().join("guide.json")).unwrap();
    let guide: Value = serde_json::from_slice(&guide).unwrap();
    let ppl = whole.evaluation.as_ref().unwrap().token_perplexity.unwrap();
    assert_eq!(guide["fp32"]["mamba"]["ppl"], ppl.get());
    assert_eq!(guide["int2"]["mamba"]["n_seeds"], 1);
    assert!(folder.join("quantization.png").exists());

    // The weights are looked for leaks as those of a training are.
    assert!(record.audits.iter().any(|audit| audit.model == "mamba"));
    let (replayed, _) = printed(dir.path(), &format!("replay {}", folder.display()));
    assert!(replayed.contains("0 differ"), "{replayed}");
    printed(dir.path(), &format!("resume {}", folder.display()));
    printed(dir.path(), &format!("report {}", folder.display()));
    let page = fs::read_to_string(folder.join("report.html")).unwrap();
    assert!(
        page.contains("No comparison: mamba is the only model"),
        "{page}"
    );
    assert!(
        page.contains(&sha256) && !page.contains("Training loss by"),
        "{page}"
    );
}

#[test]
fn flags_of_a_training_are_refused_beside_a_model_that_is_given() {
    let dir = place();
    for flags in [
        "--model_a mamba",
        "--steps 3",
        "--num_seeds 2",
        "--save_checkpoints",
        "--checkpoint_every 3",
    ] {
        let line = format!(
            "run --benchmark quantization --checkpoint model --text text.txt --tokenizer words.json {flags}"
        );
        let message = refused_in(dir.path(), &line);
        assert!(
            message.contains("cannot be used with"),
            "{flags}: {message}"
        );
    }
}
