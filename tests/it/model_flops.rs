//! FLOPs of whole models: what their passes register, the counter with the guide's names, the report of the command.

use bkbench::accounting::{FairFLOPsCounter, FairMemoryMeasurement, Tensors, Workload, estimate};
use bkbench::config::{MatchBasis, ModelConfig, Precision, TrainConfig};
use bkbench::models::registry::{Architecture, ModelShape, matched_shapes};
use bkbench::models::{BatchShape, Family, LanguageModel};
use bkbench::ops::ledger::{Ledger, Op};
use bkbench::quant::BitWidth;
use bkbench::results::{COSTS, FlopsBreakdown, FlopsCategory, FlopsPass, FlopsReport};
use bkbench::train::{Objective, Sequences, segments};
use bkbench::units::Bytes;
use bkbench::verify::flops::agree;
use burn::tensor::Device;

use crate::flops::VOCAB;
use crate::support;

fn config(top_k: usize) -> ModelConfig {
    ModelConfig {
        d_model: 20,
        n_layers: 2,
        top_k,
        ..ModelConfig::default()
    }
}

fn shape(architecture: Architecture, top_k: usize) -> ModelShape {
    matched_shapes(&[architecture], &config(top_k), VOCAB)
        .unwrap()
        .remove(0)
}

fn ids(n: usize) -> Vec<u32> {
    (0..n as u32).map(|i| i * i % VOCAB as u32).collect()
}

/// Rows on which the experts of each layer run in [`forward`].
fn expert_rows(shape: &ModelShape, device: &Device, tokens: BatchShape) -> Vec<u64> {
    let model = LanguageModel::new(shape, 3, device);
    let states = model.initial_states(tokens.batch);
    let hidden = model
        .infer(&ids(tokens.n_tokens()), tokens, states)
        .unwrap();
    hidden.expert_rows()
}

fn forward(shape: &ModelShape, device: &Device, tokens: BatchShape) -> FlopsBreakdown {
    let model = LanguageModel::new(shape, 3, device);
    FairFLOPsCounter::default()
        .count_detailed(&model, &ids(tokens.n_tokens()), tokens)
        .unwrap()
}

#[test]
fn the_formula_of_a_shape_is_what_its_model_registers() {
    let on_cpu = |architecture| (support::cpu(), architecture);
    let on_adapter = [
        Architecture::ResNetBk,
        Architecture::Mamba,
        Architecture::ResNetBkScatter,
        Architecture::ResNetBkAct,
        Architecture::Transformer,
    ]
    .map(|a| (support::wgpu(), a));
    let cases = Architecture::ALL.map(on_cpu).into_iter().chain(on_adapter);
    for (device, architecture) in cases {
        for (top_k, batch, seq_len) in [(1, 1, 1), (2, 3, 37)] {
            let tokens = BatchShape { batch, seq_len };
            let shape = shape(architecture, top_k);
            let registered = forward(&shape, &device, tokens);
            let ops = shape.forward_ops_as_routed(tokens, &expert_rows(&shape, &device, tokens));
            for category in FlopsCategory::ALL {
                let of = ops.iter().filter(|(of, _)| *of == category);
                let formula: u64 = of.map(|(_, op)| op.cost(FlopsPass::Forward)).sum();
                let ran = registered.of(|row| row.category == category);
                assert_eq!(
                    ran.algorithmic, formula,
                    "{architecture:?} {category:?} {tokens:?}"
                );
                assert!(
                    ran.executed >= ran.algorithmic,
                    "{architecture:?} {category:?}"
                );
            }
            let one = BatchShape { batch: 1, seq_len };
            let registered = forward(&shape, &device, one);
            let per_token = shape.forward_flops_per_token(seq_len);
            let n = seq_len as f64;
            let whole = registered.total().algorithmic as f64;
            let headless = registered.without_head().algorithmic as f64;
            let most = [per_token.with_head * n, per_token.without_head * n];
            if architecture.has_variable_cost() {
                assert!(whole <= most[0] && headless <= most[1], "{architecture:?}");
            } else {
                assert_eq!([whole, headless], most, "{architecture:?}");
            }
        }
    }
}

#[test]
fn a_packed_model_takes_what_a_dense_one_takes_and_executes_more() {
    let tokens = |seq_len| BatchShape { batch: 1, seq_len };
    for device in [support::cpu(), support::wgpu()] {
        for architecture in [Architecture::Mamba, Architecture::ResNetBk] {
            // Few rows of x, and many.
            for tokens in [tokens(3), tokens(37)] {
                let shape = shape(architecture, 1);
                let dense = LanguageModel::new(&shape, 3, &device);
                let packed = dense
                    .quantised(BitWidth::Int4, Family::is_packed, &device)
                    .unwrap();
                let ids = ids(tokens.n_tokens());
                let count = |model: &LanguageModel| {
                    let counter = FairFLOPsCounter::default();
                    counter.count_detailed(model, &ids, tokens).unwrap()
                };
                let (dense, packed) = (count(&dense), count(&packed));
                for category in FlopsCategory::ALL {
                    let of = |b: &FlopsBreakdown| b.of(|row| row.category == category).algorithmic;
                    assert_eq!(of(&dense), of(&packed), "{architecture:?} {category:?}");
                }
                assert!(packed.total().executed > dense.total().executed);
            }
        }
    }
}

/// What the gradient of one batch registers.
fn trained(shape: &ModelShape, train: &TrainConfig, segment: usize) -> FlopsBreakdown {
    let tokens = BatchShape {
        batch: 2,
        seq_len: 48,
    };
    let ids = ids(tokens.n_tokens());
    let sequences = Sequences {
        inputs: &ids,
        targets: &ids,
        shape: tokens,
    };
    let model = LanguageModel::new(shape, 3, &support::cpu().autodiff());
    let objective = Objective::new(&config(shape.top_k), train, 0, 0);
    let ledger = Ledger::default();
    ledger.watch(|| {
        let segments = segments(tokens.seq_len, segment);
        objective
            .gradient(&model, &sequences, &segments, None)
            .unwrap();
    });
    ledger.breakdown(tokens.batch, tokens.n_tokens())
}

#[test]
fn a_backward_pass_takes_two_products_for_each_of_the_forward_pass() {
    for architecture in Architecture::ALL {
        let trained = trained(&shape(architecture, 2), &TrainConfig::default(), 48);
        let products = |pass| {
            let of =
                |row: &bkbench::results::FlopsRow| row.op == "matrix_product" && row.pass == pass;
            trained.of(of).algorithmic
        };
        let (forward, backward) = (products(FlopsPass::Forward), products(FlopsPass::Backward));
        // By one factor alone: nothing asks for the gradient of the control's zeros, nor of a frozen router.
        let once = match architecture {
            Architecture::NoMixer => 2 * (2 * 96 * 2 * 20),
            Architecture::ResNetBkPublished => 2 * 2 * (2 * 96 * 20 * 4),
            _ => 0,
        };
        assert_eq!(backward, 2 * forward - once, "{architecture:?}");
        let mut rows = trained.rows.iter();
        let short = rows.find(|row| row.flops.executed < row.flops.algorithmic);
        assert_eq!(short, None, "{architecture:?}");
    }
}

#[test]
fn the_formula_of_a_training_step_is_near_what_it_registers() {
    for architecture in Architecture::ALL {
        let shape = shape(architecture, 1);
        let trained = trained(&shape, &TrainConfig::default(), 48);
        let registered = trained.total().algorithmic as f64 / 96.0;
        let off = shape.training_flops_per_token(48) / registered - 1.0;
        // Where it depends on the tokens, the formula is the most there can be.
        let most = if architecture.has_variable_cost() {
            1.0
        } else {
            0.02
        };
        assert!((-0.02..most).contains(&off), "{architecture:?}: {off}");
    }
}

#[test]
fn every_operation_comes_back_once_and_gradients_of_what_is_shared_are_summed() {
    let (n_layers, rows, d_model, d_inner, n_experts) = (2, 96, 20, 40, 4);
    for (architecture, top_k, readers) in [
        // Of the residual stream, and of what the convolution makes.
        (Architecture::Mamba, 1, rows * (d_model + 2 * d_inner)),
        // Of the stream and the block's input (router, experts, potential), of the router's probabilities and
        // of the experts' rows.
        (Architecture::ResNetBk, 1, rows * (3 * d_model + n_experts)),
        (
            Architecture::ResNetBk,
            2,
            rows * (3 * d_model + 2 * n_experts + 2 * d_model),
        ),
        (Architecture::NoMixer, 1, rows * (2 * d_model + n_experts)),
        (Architecture::ResNetBkPublished, 1, rows * 2 * d_model),
        // One choice more, and its logits, which the balance among the experts reads.
        (
            Architecture::ResNetBkAct,
            1,
            rows * (3 * d_model + 2 * (n_experts + 1)),
        ),
        // Of the stream, before either branch.
        (Architecture::Transformer, 1, rows * 2 * d_model),
    ] {
        let trained = trained(&shape(architecture, top_k), &TrainConfig::default(), 48);
        let times = |pass, of: &bkbench::results::FlopsRow| {
            let same = trained.rows.iter().find(|row| {
                row.pass == pass
                    && row.op == of.op
                    && row.sizes == of.sizes
                    && row.category == of.category
            });
            same.map_or(0, |row| row.times)
        };
        let one_pass = [
            "top_k",
            "phase_routing",
            "scaled_sum",
            "matrix_product",
            "softmax",
            "bias",
        ];
        let forward = trained
            .rows
            .iter()
            .filter(|row| row.pass == FlopsPass::Forward);
        for row in forward.filter(|row| !one_pass.contains(&row.op.as_str())) {
            let frozen =
                architecture == Architecture::ResNetBkPublished && row.op == "load_balance";
            let expected = if frozen { 0 } else { row.times };
            let came_back = times(FlopsPass::Backward, row);
            assert_eq!(came_back, expected, "{architecture:?} {row}");
        }
        let sums = trained.of(|row| row.op == "gradient_sum").algorithmic as usize;
        // The embedding is the head.
        assert_eq!(
            sums,
            n_layers * readers + VOCAB * d_model,
            "{architecture:?} {top_k}"
        );
    }
}

#[test]
fn what_is_computed_again_is_executed_and_no_part_of_the_algorithm() {
    for architecture in [Architecture::Mamba, Architecture::ResNetBk] {
        let shape = shape(architecture, 1);
        let plain = TrainConfig::default();
        let whole = trained(&shape, &plain, 48);
        let by_layer = TrainConfig {
            gradient_checkpointing: true,
            ..plain.clone()
        };
        let by_layer = trained(&shape, &by_layer, 48);
        let algorithmic = |b: &FlopsBreakdown| b.total().algorithmic;
        assert_eq!(algorithmic(&by_layer), algorithmic(&whole));
        let forward = |b: &FlopsBreakdown| {
            b.of(|row| row.pass == FlopsPass::Forward && row.category != FlopsCategory::Head)
        };
        let (once, twice) = (forward(&whole), forward(&by_layer));
        assert!(
            twice.executed > once.executed * 19 / 10,
            "{once:?} {twice:?}"
        );

        let pieces = trained(&shape, &plain, 16);
        assert!(pieces.total().executed > whole.total().executed);
        // Rates, shifts and fractions are worked out once a segment.
        let ratio = algorithmic(&pieces) as f64 / algorithmic(&whole) as f64;
        assert!((1.0..1.02).contains(&ratio), "{ratio}");
    }
}

#[test]
fn models_matched_by_flops_agree_in_flops() {
    for (d_model, n_layers, top_k) in [(64, 2, 1), (256, 6, 1), (96, 3, 2)] {
        let config = ModelConfig {
            d_model,
            n_layers,
            top_k,
            match_basis: MatchBasis::Flops,
            ..ModelConfig::default()
        };
        let mut models = Architecture::ALL.to_vec();
        if d_model < 256 {
            // Projections and attention over 512 positions take more than that.
            let error = matched_shapes(&models, &config, 256).unwrap_err();
            let expected = "transformer is the larger one even with a hidden width of 1";
            assert!(error.to_string().contains(expected), "{error}");
            models.retain(|&model| model != Architecture::Transformer);
        }
        let shapes = matched_shapes(&models, &config, 256).unwrap();
        let flops = |shape: &ModelShape| shape.forward_flops_per_token(512).without_head;
        let mamba = flops(&shapes[1]);
        for shape in &shapes {
            let ratio = flops(shape) / mamba;
            assert!(
                (ratio - 1.0).abs() < 0.02,
                "{:?} {ratio}",
                shape.architecture
            );
        }
    }
}

// ---- the guide's names ----

#[test]
fn a_flag_leaves_out_its_category() {
    let all = FairFLOPsCounter::default();
    let shape = shape(Architecture::ResNetBk, 1);
    let model = LanguageModel::new(&shape, 3, &support::cpu());
    let tokens = BatchShape {
        batch: 1,
        seq_len: 37,
    };
    let total = all.count(&model, &ids(37), tokens).unwrap();
    let breakdown = all.count_detailed(&model, &ids(37), tokens).unwrap();
    assert_eq!(total, breakdown.total().algorithmic);
    let without: [(FairFLOPsCounter, FlopsCategory); 4] = [
        (
            FairFLOPsCounter {
                count_activations: false,
                ..all
            },
            FlopsCategory::Activations,
        ),
        (
            FairFLOPsCounter {
                count_normalization: false,
                ..all
            },
            FlopsCategory::Normalization,
        ),
        (
            FairFLOPsCounter {
                count_routing: false,
                ..all
            },
            FlopsCategory::Routing,
        ),
        (
            FairFLOPsCounter {
                count_state_updates: false,
                ..all
            },
            FlopsCategory::StateUpdates,
        ),
    ];
    for (counter, category) in without {
        let left = counter.count(&model, &ids(37), tokens).unwrap();
        let of = breakdown.of(|row| row.category == category).algorithmic;
        assert!(of > 0, "{category:?}");
        assert_eq!(left, total - of, "{category:?}");
    }
}

#[test]
fn memory_is_measured_by_category() {
    let shape = shape(Architecture::Mamba, 1);
    let work = Workload {
        precision: Precision::F32,
        batch: 2,
        seq_len: 64,
        segment: 64,
        loss_chunk_tokens: 64,
        layer_by_layer: false,
        states_on_host: false,
    };
    let all = FairMemoryMeasurement::default();
    let whole = all.measure(&shape, work, Tensors::OnHeap);
    assert_eq!(whole, estimate(&shape, work, Tensors::OnHeap));
    let least = FairMemoryMeasurement {
        include_activations: false,
        include_gradients: false,
        include_optimizer_states: false,
        include_buffers: false,
    };
    let least = least.measure(&shape, work, Tensors::OnHeap);
    assert_eq!(least.total(), whole.parameters);
    assert!(least.parameters > Bytes(0));
}

// ---- the report ----

#[test]
fn a_report_fails_on_any_count_that_does_not_agree_and_reads_back() {
    let tokens = BatchShape {
        batch: 1,
        seq_len: 37,
    };
    let shape = shape(Architecture::Mamba, 1);
    let formula = shape.forward_ops(tokens).into_iter();
    let mut report = FlopsReport {
        model: "mamba".into(),
        costs: COSTS,
        forward: forward(&shape, &support::cpu(), tokens),
        training: trained(&shape, &TrainConfig::default(), 48),
        forward_by_formula: formula.map(|(_, op)| op.cost(FlopsPass::Forward)).sum(),
        agreement: vec![agree(Op::Silu { n: 7 }, FlopsPass::Forward)],
    };
    assert_eq!(report.failures(), Vec::<String>::new());
    let text = serde_json::to_string(&report).unwrap();
    assert_eq!(serde_json::from_str::<FlopsReport>(&text).unwrap(), report);
    report.agreement[0].registered += 1;
    report.forward_by_formula -= 1;
    let failures = report.failures();
    assert_eq!(failures.len(), 2);
    assert!(failures[0].contains("silu forward"), "{failures:?}");
    assert!(format!("{report:#}").contains("DIFFER"));
}

#[test]
fn the_command_prints_the_breakdown_and_its_agreement() {
    let run = |args: &str| {
        let output = assert_cmd::Command::cargo_bin("bkbench")
            .unwrap()
            .args(args.split_whitespace())
            .output()
            .unwrap();
        (
            output.status.code(),
            String::from_utf8(output.stdout).unwrap(),
        )
    };
    for architecture in Architecture::ALL {
        let model = architecture.name();
        let (code, stdout) = run(&format!(
            "audit --model {model} --flops --json --device cpu --quiet"
        ));
        assert_eq!(code, Some(0), "{stdout}");
        let document: serde_json::Value = serde_json::from_str(&stdout).unwrap();
        assert_eq!(document["passed"], true);
        let report: FlopsReport = serde_json::from_value(document["report"].clone()).unwrap();
        assert_eq!(report.failures(), Vec::<String>::new(), "{model}");
        assert!(report.agreement.len() > 40, "{model}");
    }
    let (code, stdout) = run("audit --model mamba --flops --verbose --device cpu --quiet");
    assert_eq!(code, Some(0), "{stdout}");
    for expected in [
        "state_updates",
        "a token without head",
        "selective_scan [batch 1",
        "equal  silu",
    ] {
        assert!(stdout.contains(expected), "{expected}: {stdout}");
    }
    let (code, _) = run("audit --model mamba --verbose");
    assert_eq!(code, Some(2));
}
