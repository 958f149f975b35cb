//! Audits: honest models pass, and every injected fault is caught.

use std::path::Path;

use assert_cmd::Command;
use bkbench::config::ModelConfig;
use bkbench::eval::audit::{Scored, causality, gradient, initial_loss, leaks, scores, truncation};
use bkbench::models::registry::{Architecture, ModelShape, matched_shapes};
use bkbench::models::{Choices, LanguageModel};
use bkbench::results::{
    AuditCheck, AuditReport, AuditedWeights, Finding, Finite, Leak, RunRecord, Verdict, Warning,
};
use burn::tensor::Device;

use bkbench::verify::audit::GradientProblem;

use crate::{made_up, support};

const VOCAB: usize = 47;
const N: usize = 90;
const CAUSAL: [Architecture; 7] = [
    Architecture::ResNetBk,
    Architecture::ResNetBkMh,
    Architecture::ResNetBkScatter,
    Architecture::ResNetBkAct,
    Architecture::Mamba,
    Architecture::NoMixer,
    Architecture::Transformer,
];

fn shape(architecture: Architecture) -> ModelShape {
    let config = ModelConfig {
        d_model: 32,
        n_layers: 2,
        ..ModelConfig::default()
    };
    matched_shapes(&[architecture], &config, VOCAB)
        .unwrap()
        .remove(0)
}

fn verdict(finding: Finding) -> Verdict {
    AuditCheck::from(finding).verdict
}

fn leak(finding: &Finding) -> Option<Leak> {
    match finding {
        Finding::Causality(search) | Finding::Truncation(search) => search.leak,
        other => panic!("{other:?}"),
    }
}

#[test]
fn every_model_is_causal_on_both_devices() {
    for architecture in CAUSAL {
        let shape = shape(architecture);
        for device in [support::cpu(), support::wgpu()] {
            let model = LanguageModel::new(&shape, 1, &device);
            for finding in leaks(&model, VOCAB, N, 1).unwrap() {
                assert_eq!(leak(&finding), None, "{architecture:?}: {finding}");
                assert_eq!(verdict(finding.clone()), Verdict::Pass, "{finding}");
            }
        }
    }
}

/// Logits of a causal model, each position's then altered by `fault(own, position, all)`.
fn faulty(
    fault: impl Fn(&mut [f32], usize, &[f32]),
) -> impl Fn(&[u32], &[Option<Choices>]) -> bkbench::Result<Scored> {
    let model = LanguageModel::new(&shape(Architecture::Mamba), 1, &support::cpu());
    move |tokens, pinned| {
        let mut scored = scores(&model, tokens, pinned)?;
        let clean = scored.logits.clone();
        for (position, own) in scored.logits.chunks_mut(VOCAB).enumerate() {
            fault(own, position, &clean);
        }
        Ok(scored)
    }
}

/// Adds `share` of the logits `ahead` positions later.
fn blend(ahead: usize, share: f32) -> impl Fn(&mut [f32], usize, &[f32]) {
    move |own, position, all| {
        if let Some(later) = all.chunks(VOCAB).nth(position + ahead) {
            own.iter_mut().zip(later).for_each(|(a, b)| *a += share * b);
        }
    }
}

#[test]
fn a_leak_is_caught_with_its_offset() {
    for (ahead, offset) in [(1, -1), (3, -3)] {
        let faulty = faulty(blend(ahead, 0.3));
        let finding = causality(&faulty, VOCAB, N, 1).unwrap();
        let Leak { first_offset, .. } = leak(&finding).expect("a leak");
        assert_eq!(first_offset, offset);
        let line = AuditCheck::from(finding).to_string();
        let expected = format!("first leaking offset -{ahead} ");
        assert!(
            line.starts_with("fail  causality: ") && line.contains(&expected),
            "{line}"
        );
    }
    // Small, but far above rounding.
    let finding = causality(&faulty(blend(1, 1e-3)), VOCAB, N, 1).unwrap();
    assert_eq!(leak(&finding).map(|leak| leak.first_offset), Some(-1));
    // Rounding is no leak.
    let finding = causality(&faulty(blend(1, 1e-6)), VOCAB, N, 1).unwrap();
    assert_eq!(verdict(finding.clone()), Verdict::Pass, "{finding}");
}

#[test]
fn a_leak_at_the_last_position_alone_is_caught() {
    let faulty = faulty(|own, position, all| {
        if position + 2 == all.len() / VOCAB {
            blend(1, 0.3)(own, position, all);
        }
    });
    let finding = causality(&faulty, VOCAB, N, 1).unwrap();
    let leak = leak(&finding).expect("a leak");
    assert_eq!((leak.first_offset, leak.cut), (-1, N - 1));
}

#[test]
fn a_model_that_looks_at_the_length_of_its_input_is_caught_by_truncation_alone() {
    let faulty = faulty(|own, _, all| own[0] += all.len() as f32 / 1e3);
    assert_eq!(
        verdict(causality(&faulty, VOCAB, N, 1).unwrap()),
        Verdict::Pass
    );
    let finding = truncation(&faulty, VOCAB, N, 1).unwrap();
    assert_eq!(verdict(finding.clone()), Verdict::Fail);
    let leak = leak(&finding).expect("a leak");
    assert_eq!(leak.first_offset, -89, "every position moves");
}

#[test]
fn logits_that_are_not_finite_do_not_pass() {
    let faulty = faulty(|own, position, _| {
        if position == 7 {
            own[3] = f32::NAN;
        }
    });
    for search in [causality, truncation] {
        assert_eq!(
            verdict(search(&faulty, VOCAB, N, 1).unwrap()),
            Verdict::Fail
        );
    }
}

/// What routers do when rounding decides ties: choices flip in one text and in no other. One that looks ahead flips in
/// all of them.
#[test]
fn flips_are_counted_and_only_those_that_other_texts_show_are_a_leak() {
    use std::cell::RefCell;
    let clean = faulty(|_, _, _| {});
    for looks_ahead in [false, true] {
        let first: RefCell<Option<Vec<u32>>> = RefCell::new(None);
        let flips = |tokens: &[u32], pinned: &[Option<Choices>]| {
            let mut scored = clean(tokens, pinned)?;
            let mut first = first.borrow_mut();
            let first = first.get_or_insert_with(|| tokens.to_vec());
            let is_altered = !pinned.is_empty();
            if is_altered && (looks_ahead || tokens[0] == first[0]) {
                scored.flips = vec![0, 0];
            }
            Ok(scored)
        };
        let finding = causality(&flips, VOCAB, N, 1).unwrap();
        let Finding::Causality(search) = &finding else {
            panic!("{finding:?}");
        };
        assert_eq!(search.n_flips, 2 * search.cuts.len());
        let line = AuditCheck::from(finding.clone()).to_string();
        if looks_ahead {
            let leak = search.leak.expect("a leak");
            assert_eq!((leak.first_offset, leak.cut), (-89, 89));
            assert!(line.starts_with("fail  "), "{line}");
        } else {
            assert_eq!(search.leak, None);
            assert!(line.starts_with("warn  "), "{line}");
            assert!(
                line.contains("flips of routers in this text alone"),
                "{line}"
            );
        }
    }
}

#[test]
fn choices_are_pinned_and_told_apart_from_what_the_logits_do() {
    for architecture in [
        Architecture::ResNetBk,
        Architecture::ResNetBkScatter,
        Architecture::ResNetBkAct,
    ] {
        let model = LanguageModel::new(&shape(architecture), 1, &support::cpu());
        let tokens: Vec<u32> = (0..60).map(|i| i * 11 % VOCAB as u32).collect();
        let other: Vec<u32> = (0..60).map(|i| i * 17 % VOCAB as u32).collect();
        let free = scores(&model, &tokens, &[]).unwrap();
        assert!(free.flips.is_empty());
        // Pinned to its own choices it says the same, to those of another text something else.
        let own = scores(&model, &tokens, &free.choices).unwrap();
        assert_eq!((own.flips.len(), &own.logits), (0, &free.logits));
        let foreign = scores(&model, &other, &[]).unwrap().choices;
        let pinned = scores(&model, &tokens, &foreign).unwrap();
        assert!(!pinned.flips.is_empty(), "{architecture:?}");
        assert_ne!(pinned.logits, free.logits, "{architecture:?}");
        assert_eq!(pinned.choices, foreign);
        // Of a few tokens alone, the others choose as before.
        let few: Vec<_> = foreign
            .iter()
            .map(|layer| layer.as_ref().map(|choices| choices.first(3)))
            .collect();
        let pinned = scores(&model, &tokens, &few).unwrap();
        assert!(pinned.flips.iter().all(|&position| position < 3));
    }
}

#[test]
fn an_untrained_model_that_knows_its_targets_is_caught() {
    let guessing = (VOCAB as f64).ln();
    assert_eq!(verdict(initial_loss(&[guessing; 8], VOCAB)), Verdict::Pass);
    // A third of the targets is known.
    let mut leaky = [guessing; 9];
    leaky[..3].fill(0.01);
    assert_eq!(verdict(initial_loss(&leaky, VOCAB)), Verdict::Fail);
    assert_eq!(
        verdict(initial_loss(&[guessing + 1.5; 8], VOCAB)),
        Verdict::Warn
    );
    assert_eq!(verdict(initial_loss(&[], VOCAB)), Verdict::Fail);
}

#[test]
fn right_gradients_pass_and_one_that_is_wrong_by_one_per_cent_fails() {
    for architecture in CAUSAL {
        for device in [support::cpu(), support::wgpu()] {
            check_gradients(architecture, &device);
        }
    }
}

fn check_gradients(architecture: Architecture, device: &Device) {
    let problem = GradientProblem::new(architecture, device).unwrap();
    let loss = |index: usize, values: &[f64]| problem.loss(index, values);
    let right = gradient(&problem.weights, &problem.gradients, true, &loss).unwrap();
    assert_eq!(
        verdict(right.clone()),
        Verdict::Pass,
        "{architecture:?}: {right}"
    );
    let mut n_judged = 0;
    for index in 0..problem.weights.len() {
        let name = &problem.weights[index].name;
        let mut wrong = problem.gradients[index].clone();
        // An expert that no token chose, or the resolvent's weights in a model without mixing.
        if wrong.iter().all(|&g| g == 0.0) {
            continue;
        }
        n_judged += 1;
        for value in &mut wrong {
            *value *= 1.01;
        }
        let alone = std::slice::from_ref(&problem.weights[index]);
        let loss = |_: usize, values: &[f64]| problem.loss(index, values);
        let finding = gradient(alone, &[wrong], true, &loss).unwrap();
        assert_eq!(verdict(finding), Verdict::Fail, "{architecture:?}: {name}");
    }
    assert!(
        n_judged > problem.weights.len() / 2,
        "{architecture:?}: {n_judged}"
    );
}

#[test]
fn a_gradient_that_is_missing_is_caught() {
    let problem = GradientProblem::new(Architecture::Mamba, &support::cpu()).unwrap();
    let loss = |index: usize, values: &[f64]| problem.loss(index, values);
    let mut none = problem.gradients.clone();
    none[0].fill(0.0);
    let finding = gradient(&problem.weights, &none, true, &loss).unwrap();
    assert_eq!(verdict(finding), Verdict::Fail);
}

const TINY: &str = "
[models]
control = \"resnetbk\"
[model]
d_model = 16
n_layers = 1
[data]
tokenizer = \"bytes\"
[longcontext]
seq_lengths = [64]
";
const TEXT: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/tests/data/pride_and_prejudice.txt"
);

fn audit(dir: &Path, line: &str) -> std::process::Output {
    std::fs::write(
        dir.join("tiny.toml"),
        TINY.replace("[data]", &format!("[data]\ntext = {TEXT:?}")),
    )
    .unwrap();
    let mut command = Command::cargo_bin("bkbench").unwrap();
    command
        .current_dir(dir)
        .env("BKBENCH_CACHE", dir.join("cache"))
        .args(line.split_whitespace());
    command.output().unwrap()
}

#[test]
fn the_command_prints_a_line_a_check_and_ends_with_its_exit_code() {
    let dir = tempfile::tempdir().unwrap();
    for model in CAUSAL {
        let line = format!(
            "audit --model {} --config tiny.toml --device cpu",
            model.name()
        );
        let output = audit(dir.path(), &line);
        let stdout = String::from_utf8(output.stdout).unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{line}: {stdout}{stderr}");
        let names = [
            "causality",
            "truncation",
            "initial loss",
            "gradient",
            "determinism",
            "equal data",
            "matching",
            "kernels",
        ];
        for name in names {
            // The smoke comparison matches sizes, not what a token uses: 3.5 times, which is worth a warning.
            let verdict = if name == "matching" { "warn" } else { "pass" };
            let is_it = |l: &&str| l.starts_with(&format!("{verdict}  {name}: "));
            let matches = stdout.lines().filter(is_it).count();
            assert_eq!(matches, 1, "{line}, {name}: {stdout}");
        }
    }
    assert!(
        !dir.path().join("results").exists(),
        "an audit leaves nothing"
    );

    let output = audit(
        dir.path(),
        "audit --model gpt --config tiny.toml --device cpu",
    );
    assert_eq!(output.status.code(), Some(2));
    std::fs::write(
        dir.path().join("short.txt"),
        "A text of less than 64 characters.",
    )
    .unwrap();
    std::fs::write(
        dir.path().join("short.toml"),
        TINY.replace("[data]", "[data]\ntext = \"short.txt\""),
    )
    .unwrap();
    let output = audit(
        dir.path(),
        "audit --model mamba --config short.toml --device cpu",
    );
    assert_eq!(
        output.status.code(),
        Some(2),
        "nothing to train on is bad input"
    );
}

#[test]
fn the_published_model_fails_with_its_first_leaking_offset() {
    let dir = tempfile::tempdir().unwrap();
    let line = "audit --model resnetbk-published --config tiny.toml --device cpu";
    let output = audit(dir.path(), line);
    let stdout = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1), "{stdout}");
    for check in ["causality", "truncation"] {
        let start = format!("fail  {check}: ");
        let found = stdout.lines().find(|line| line.starts_with(&start));
        let found = found.unwrap_or_else(|| panic!("{stdout}"));
        assert!(found.contains("first leaking offset -"), "{found}");
    }
    assert!(stdout.contains("\nwarn  gradient: "), "{stdout}");
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(stderr.contains("2 check(s) failed"), "{stderr}");
}

#[test]
fn a_run_trains_the_published_model_and_keeps_it_apart() {
    let dir = tempfile::tempdir().unwrap();
    let output = audit(
        dir.path(),
        "run --config tiny.toml --model_b resnetbk-published --steps 3 --num_seeds 2 --seq_lengths 64 \
         --device cpu --quiet --output guide.json",
    );
    let stdout = String::from_utf8(output.stdout).unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let (compared, apart) = stdout
        .split_once("\nnot causal")
        .expect("a table of its own");
    assert!(!compared.contains("resnetbk-published"), "{stdout}");
    assert!(apart.contains("resnetbk-published"), "{stdout}");
    let folder = stdout
        .lines()
        .find_map(|line| line.strip_prefix("results: "));
    let record = RunRecord::load(&dir.path().join(folder.unwrap())).unwrap();
    let audited: Vec<(&str, AuditedWeights, u64, bool)> = record
        .audits
        .iter()
        .map(|audit| {
            (
                audit.model.as_str(),
                audit.weights,
                audit.seed,
                audit.is_causal(),
            )
        })
        .collect();
    let expected = [
        ("resnetbk", AuditedWeights::Initial, 42, true),
        ("resnetbk-published", AuditedWeights::Initial, 42, false),
        ("resnetbk", AuditedWeights::Final, 42, true),
        ("resnetbk-published", AuditedWeights::Final, 42, false),
    ];
    assert_eq!(audited, expected);
    assert_eq!(record.cells.len(), 4, "it is trained all the same");
    let guide = std::fs::read_to_string(dir.path().join("guide.json")).unwrap();
    assert!(
        guide.contains("resnetbk") && !guide.contains("published"),
        "{guide}"
    );
}

#[test]
fn two_processes_train_to_equal_bits_and_the_json_says_so() {
    let dir = tempfile::tempdir().unwrap();
    for device in ["cpu", "wgpu"] {
        let line = format!("audit --model resnetbk --config tiny.toml --device {device} --json");
        let output = audit(dir.path(), &line);
        assert!(
            output.status.success(),
            "{line}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        let document: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(document["passed"], true);
        let report: AuditReport = serde_json::from_value(document["reports"][0].clone()).unwrap();
        let determinism = report.checks.iter().find_map(|check| match &check.finding {
            Finding::Determinism {
                difference,
                weights_sha256,
                moments_sha256,
                ..
            } => Some((
                difference.clone(),
                weights_sha256.len(),
                moments_sha256.len(),
            )),
            _ => None,
        });
        assert_eq!(determinism, Some((None, 64, 64)), "{device}");
    }
}

/// A second process that trains to other bits, or does not train, is known by its warning.
#[cfg(unix)]
#[test]
fn a_second_process_that_differs_is_reported() {
    use bkbench::verify::audit::Audit;
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let program = dir.path().join("other");
    let mut config = bkbench::config::Config::default();
    config.model.d_model = 16;
    config.model.n_layers = 1;
    config.data.text = Some(TEXT.into());
    config.data.tokenizer = "bytes".into();
    config.longcontext.seq_lengths = vec![32];
    let hardware = bkbench::hardware::open(&"cpu".parse().unwrap(), None).unwrap();
    let dataset = bkbench::data::load_with_cache(&config.data, dir.path(), &mut |_| {}).unwrap();
    let difference = |script: &str| {
        std::fs::write(&program, script).unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        let audit = Audit {
            config: &config,
            hardware: &hardware,
            dataset: &dataset,
            program: &program,
        };
        let reports = audit.models(&[Architecture::Mamba], &mut |_| {}).unwrap();
        let check = reports[0]
            .checks
            .iter()
            .find(|check| matches!(check.finding, Finding::Determinism { .. }));
        let check = check.unwrap();
        assert_eq!(check.verdict, Verdict::Warn);
        check.to_string()
    };
    let line = difference("#!/bin/sh\necho out of luck >&2\nexit 3\n");
    assert!(
        line.contains("a second process failed: out of luck"),
        "{line}"
    );
    let hashes = r#"{"ids_sha256":"a","tokenizer_sha256":"b","data_order_sha256":"c","weights_sha256":"d","moments_sha256":"e"}"#;
    let line = difference(&format!("#!/bin/sh\necho '{hashes}'\n"));
    assert!(
        line.contains("and weights d, moments e in another process"),
        "{line}"
    );
}

#[test]
fn a_model_that_is_not_causal_stands_apart() {
    let mut record: RunRecord = made_up::record(200, false);
    let search = bkbench::results::LeakSearch {
        n_tokens: 512,
        cuts: vec![1],
        largest_change: Finite::new(0.3),
        leak: Some(Leak {
            first_offset: -1,
            cut: 1,
        }),
        n_flips: 0,
    };
    record.audits.push(AuditReport {
        model: "mamba".into(),
        weights: AuditedWeights::Final,
        seed: 42,
        checks: vec![Finding::Causality(search).into()],
    });
    let table = bkbench::report::table::table(&record);
    let (compared, apart) = table
        .split_once("\nnot causal")
        .expect("a table of its own");
    assert!(
        compared.contains("resnetbk") && !compared.contains("mamba"),
        "{table}"
    );
    assert!(
        apart.contains("mamba") && !apart.contains("resnetbk"),
        "{table}"
    );
    let guide = bkbench::results::GuideResults::new(&record);
    assert!(guide.entry(512, "mamba").is_none() && guide.entry(512, "resnetbk").is_some());
    let warning = Warning::NotCausal {
        model: "mamba".into(),
        first_leaking_offset: -1,
    };
    assert!(warning.to_string().contains("offset -1"));
}
