//! Floating-point operations: what is registered where it runs, against the sequential oracle run on numbers that
//! count.

use bkbench::accounting::{FairFLOPsCounter, FairMemoryMeasurement, Tensors, Workload, estimate};
use bkbench::config::{MatchBasis, ModelConfig, Precision, TrainConfig};
use bkbench::math::oracle::{
    Counting, causal_conv as conv_oracle, linear_cross_entropy as loss_oracle, operations,
};
use bkbench::models::registry::{Architecture, ModelShape, matched_shapes};
use bkbench::models::{BatchShape, Family, LanguageModel};
use bkbench::ops::causal_conv::Activation;
use bkbench::ops::ledger::{Ledger, Op};
use bkbench::ops::resolvent_diag::bidirectional::{self, Gradient};
use bkbench::ops::resolvent_diag::{self, Coupling};
use bkbench::ops::{causal_conv, embedding, linear_cross_entropy, selective_scan};
use bkbench::quant::BitWidth;
use bkbench::results::{COSTS, Flops, FlopsBreakdown, FlopsCategory, FlopsPass, FlopsReport};
use bkbench::train::{Objective, Sequences, segments};
use bkbench::units::Bytes;
use bkbench::verify::flops::{agree, count};
use burn::tensor::{Device, Tensor};

use crate::support;

const PASSES: [FlopsPass; 3] = [FlopsPass::Forward, FlopsPass::Backward, FlopsPass::Update];
const VOCAB: usize = 61;

// ---- formulas ----

/// Every operation at sizes around 1 and at odd ones.
fn operations_at_odd_sizes() -> Vec<Op> {
    let mut ops = Vec::new();
    for (batch, seq, heads) in [(1, 1, 1), (2, 1, 3), (1, 2, 1), (3, 17, 1), (2, 37, 5)] {
        let all = batch * seq * heads;
        ops.extend([0, all].map(|couplings| Op::ResolventDiag {
            batch,
            seq,
            heads,
            couplings,
        }));
        ops.extend(
            [0, all - batch * heads].map(|couplings| Op::ResolventDiagBidirectional {
                batch,
                seq,
                heads,
                couplings,
            }),
        );
        ops.push(Op::ResolventDiagPublished { batch, seq, heads });
        ops.extend([1, 2, 7].map(|width| Op::Attention {
            batch,
            seq,
            heads,
            width,
        }));
        for size in [2, 3, 5] {
            ops.push(Op::CausalConv {
                batch,
                seq,
                channels: heads,
                d_conv: size,
            });
            ops.push(Op::SelectiveScan {
                batch,
                seq,
                d_inner: heads,
                d_state: size - 1,
            });
        }
    }
    // One matrix of one row cannot tell one coupling for all from one that varies.
    ops.retain(|op| {
        !matches!(
            op,
            Op::ResolventDiag {
                batch: 1,
                seq: 1,
                heads: 1,
                couplings: 0
            }
        )
    });
    for (rows, width) in [(1, 1), (1, 7), (13, 1), (5, 3), (11, 17)] {
        ops.extend([
            Op::Gather { rows, width },
            Op::Bias { rows, width },
            Op::Softmax { rows, width },
            Op::RmsNorm { rows, width },
            Op::LoadBalance { rows, width },
            Op::CrossEntropy { rows, vocab: width },
        ]);
        for columns in [1, 2, 19] {
            ops.push(Op::MatrixProduct {
                rows,
                inner: width,
                columns,
            });
        }
        ops.extend((1..=width.min(4)).map(|k| Op::TopK { rows, width, k }));
    }
    for n in [1, 2, 31, 97] {
        ops.extend([
            Op::Rotation { n: 2 * n },
            Op::Gelu { n },
            Op::Relu { n },
            Op::Silu { n },
            Op::Softplus { n },
            Op::Clamp { n },
            Op::Add { n },
            Op::Multiply { n },
            Op::Scale { n },
            Op::Mask { n },
            Op::DecayRates { n },
            Op::GradientSum { n },
            Op::ScaledSum { n },
            Op::SquaredNorm { n },
            Op::Rescale { n },
            Op::AdamW { n },
            Op::WeightDecay { n },
        ]);
    }
    ops
}

#[test]
fn formulas_are_what_the_sequential_algorithm_takes() {
    for op in operations_at_odd_sizes() {
        for pass in PASSES {
            let check = agree(op, pass);
            assert!(check.is_equal(), "{check}");
        }
    }
}

#[test]
fn a_formula_off_by_one_term_is_caught() {
    let scan = |batch, seq, d_inner, d_state| Op::SelectiveScan {
        batch,
        seq,
        d_inner,
        d_state,
    };
    let (n, states) = (2 * 37 * 5, 2 * 37 * 5 * 3);
    let (op, rows) = (
        scan(2, 37, 5, 3),
        Op::RmsNorm {
            rows: 11,
            width: 17,
        },
    );
    let resolvent = |couplings| Op::ResolventDiag {
        batch: 2,
        seq: 37,
        heads: 5,
        couplings,
    };
    let conv = Op::CausalConv {
        batch: 2,
        seq: 37,
        channels: 5,
        d_conv: 4,
    };
    let loss = Op::CrossEntropy {
        rows: 11,
        vocab: 17,
    };
    // Each a formula that somebody could have written.
    let mutants: [(&str, Op, FlopsPass, u64); 12] = [
        ("the usual 9 B L D N", op, FlopsPass::Forward, 9 * states),
        (
            "delta u for every state",
            op,
            FlopsPass::Forward,
            8 * states,
        ),
        ("delta u left out", op, FlopsPass::Forward, 7 * states),
        (
            "the gradient of c left out",
            op,
            FlopsPass::Backward,
            12 * states + 3 * n,
        ),
        (
            "delta's own gradient left out",
            op,
            FlopsPass::Backward,
            14 * states + n,
        ),
        ("Im z not negated", resolvent(0), FlopsPass::Forward, 11 * n),
        (
            "Re z not taken off",
            resolvent(0),
            FlopsPass::Forward,
            10 * n + 10,
        ),
        (
            "couplings counted that have no gradient",
            resolvent(0),
            FlopsPass::Backward,
            22 * n + 20,
        ),
        (
            "the final state's cotangent left out",
            conv,
            FlopsPass::Backward,
            17 * n,
        ),
        ("one addition less a sum", conv, FlopsPass::Forward, 7 * n),
        (
            "root and epsilon left out",
            rows,
            FlopsPass::Forward,
            4 * 11 * 17 + 11,
        ),
        (
            "the target's difference left out",
            loss,
            FlopsPass::Forward,
            4 * 11 * 17 + 11,
        ),
    ];
    for (mistake, op, pass, cost) in mutants {
        let counted = count(op, pass);
        assert_eq!(counted, op.cost(pass), "{mistake}");
        assert_ne!(counted, cost, "{mistake}");
    }
}

#[test]
fn an_operation_with_its_activation_is_the_sum_of_both() {
    let numbers =
        |n: usize| -> Vec<Counting> { (0..n).map(|i| Counting(0.1 * i as f64 - 1.0)).collect() };
    let inputs = conv_oracle::Inputs {
        batch: 2,
        seq_len: 7,
        channels: 3,
        d_conv: 4,
        silu: true,
        x: numbers(42),
        weight: numbers(12),
        bias: numbers(3),
        x0: numbers(18),
    };
    let conv = Op::CausalConv {
        batch: 2,
        seq: 7,
        channels: 3,
        d_conv: 4,
    };
    let both = |pass| conv.cost(pass) + Op::Silu { n: 42 }.cost(pass);
    let (trace, forward) = operations(|| inputs.trace());
    let (_, backward) = operations(|| inputs.adjoint(&trace, &numbers(42), &numbers(18)));
    assert_eq!((forward, backward), (both(PASSES[0]), both(PASSES[1])));

    let (x, weight, targets) = (numbers(15), numbers(21), [0, 6, 3, 3, 1]);
    let product = Op::MatrixProduct {
        rows: 5,
        inner: 3,
        columns: 7,
    };
    let loss = Op::CrossEntropy { rows: 5, vocab: 7 };
    let (_, forward) = operations(|| loss_oracle::nll(&x, &weight, 3, &targets));
    let head = product.cost(PASSES[0]) + loss.cost(PASSES[0]);
    assert_eq!(forward, head);
    let scale = Counting(0.2);
    let (_, all) = operations(|| loss_oracle::gradients(&x, &weight, 3, &targets, scale));
    assert_eq!(
        all - forward,
        2 * product.cost(PASSES[1]) + loss.cost(PASSES[1])
    );
}

// ---- operations ----

/// Numbers in (0, 1), all different.
fn leaf<const D: usize>(shape: [usize; D], device: &Device) -> Tensor<D> {
    let n: usize = shape.iter().product();
    let values: Vec<f64> = (0..n).map(|i| (i as f64 * 0.618 + 0.3).fract()).collect();
    let tensor = support::tensor(&values, shape, device, burn::tensor::DType::F32);
    if device.is_autodiff() {
        tensor.require_grad()
    } else {
        tensor
    }
}

/// What runs in `f` and in the backward pass of its result registers `expected`, each at what the oracle takes.
fn registers(expected: &[Op], f: impl FnOnce() -> Tensor<3>) {
    let ledger = Ledger::default();
    ledger.watch(|| drop(f().sum().backward()));
    let mut both: Vec<(Op, FlopsPass)> = expected
        .iter()
        .flat_map(|&op| [(op, FlopsPass::Forward), (op, FlopsPass::Backward)])
        .collect();
    both.sort_unstable();
    assert_eq!(ledger.ops(), both);
    for (op, pass) in both {
        let check = agree(op, pass);
        assert!(check.is_equal(), "{check}");
    }
    let registered = ledger.breakdown(1, 1);
    for row in &registered.rows {
        assert!(row.flops.executed >= row.flops.algorithmic, "{row}");
    }
    let cost = |pass| expected.iter().map(|op| op.cost(pass)).sum::<u64>();
    for pass in PASSES {
        let algorithmic = registered.of(|row| row.pass == pass).algorithmic;
        assert_eq!(algorithmic, cost(pass), "{expected:?}");
    }
}

fn every_operation(device: &Device) {
    let device = &device.clone().autodiff();
    let state = |shape: [usize; 3]| leaf(shape, device);
    // Shorter than a chunk, several chunks, one more than a chunk.
    for (batch, seq, width) in [(1, 1, 1), (2, 33, 3), (1, 300, 17), (2, 7, 64)] {
        let x = || leaf([batch, seq, width], device);
        let n = batch * seq * width;
        let conv = Op::CausalConv {
            batch,
            seq,
            channels: width,
            d_conv: 4,
        };
        for (activation, ops) in [
            (Activation::Identity, vec![conv]),
            (Activation::Silu, vec![conv, Op::Silu { n }]),
        ] {
            registers(&ops, || {
                let (weight, bias) = (leaf([width, 4], device), leaf([width], device));
                let [x0, d_last] = [(); 2].map(|()| state([batch, 3, width]));
                causal_conv::train(x(), weight, bias, x0, d_last.detach(), activation).unwrap()
            });
        }
        let scan = Op::SelectiveScan {
            batch,
            seq,
            d_inner: width,
            d_state: 5,
        };
        for (softplus, ops) in [(false, vec![scan]), (true, vec![scan, Op::Softplus { n }])] {
            registers(&ops, || {
                let inputs = selective_scan::Inputs {
                    u: x(),
                    delta_raw: x(),
                    a: -leaf([width, 5], device),
                    b: leaf([batch, seq, 5], device),
                    c: leaf([batch, seq, 5], device),
                    softplus,
                };
                let [h0, d_last] = [(); 2].map(|()| state([batch, width, 5]));
                selective_scan::train(inputs, h0, d_last.detach()).unwrap()
            });
        }
        // A long reach (0.01) goes in three phases.
        for (varies, eta) in [(false, 1.0), (true, 1.0), (false, 0.01)] {
            let coupling = || match varies {
                true => Coupling::Varying(x()),
                false => Coupling::Constant(1.0),
            };
            // A single element has the shape of a constant.
            let varies = varies || n == 1;
            let shift = || leaf([2, width], device) + 0.01;
            let causal = Op::ResolventDiag {
                batch,
                seq,
                heads: width,
                couplings: if varies { n } else { 0 },
            };
            registers(&[causal], || {
                let [g0, d_last] = [(); 2].map(|()| leaf([batch, 2 * width], device));
                let d_last = d_last.detach();
                resolvent_diag::train(x(), coupling(), shift(), g0, d_last, eta).unwrap()
            });
            let exact = Op::ResolventDiagBidirectional {
                batch,
                seq,
                heads: width,
                couplings: if varies { n - batch * width } else { 0 },
            };
            let published = Op::ResolventDiagPublished {
                batch,
                seq,
                heads: width,
            };
            for (op, gradient) in [(exact, Gradient::Exact), (published, Gradient::Published)] {
                registers(&[op], || {
                    bidirectional::diagonal(x(), coupling(), shift(), eta, gradient).unwrap()
                });
            }
        }
        let ids: Vec<u32> = (0..seq as u32).map(|i| i * i % 7).collect();
        registers(&[Op::Gather { rows: seq, width }], || {
            let rows = embedding::gather_rows(leaf([7, width], device), &ids).unwrap();
            rows.unsqueeze()
        });
    }
}

#[test]
fn every_operation_registers_what_it_takes_on_the_cpu() {
    every_operation(&support::cpu());
}

#[test]
fn every_operation_registers_what_it_takes_on_an_adapter() {
    every_operation(&support::wgpu());
}

#[test]
fn the_loss_registers_its_products_and_its_rows() {
    for device in [support::cpu(), support::wgpu()] {
        let (x, weight) = ([13, 5], [7, 5]);
        let targets: Vec<u32> = (0..13).map(|i| i * 3 % 7).collect();
        let cost = |trained: bool| {
            let ledger = Ledger::default();
            ledger.watch(|| {
                if trained {
                    let device = device.clone().autodiff();
                    let (x, weight) = (leaf(x, &device), leaf(weight, &device));
                    let loss =
                        linear_cross_entropy::train(x, weight, &targets, 4, 0.1, Precision::F32)
                            .unwrap();
                    drop(loss.backward());
                } else {
                    let (x, weight) = (leaf(x, &device), leaf(weight, &device));
                    linear_cross_entropy::infer(x, weight, &targets, 4).unwrap();
                }
            });
            ledger.breakdown(1, 13)
        };
        let (product, rows) = (2 * 13 * 5 * 7, 13 * (4 * 7 + 2));
        let inferred = cost(false);
        assert_eq!(inferred.total().algorithmic, product + rows);
        let trained = cost(true);
        let of = |pass| trained.of(|row| row.pass == pass).algorithmic;
        assert_eq!(of(FlopsPass::Forward), product + rows + 14);
        assert_eq!(of(FlopsPass::Backward), 2 * product + 13 * (7 + 2));
        assert_eq!(trained.without_head(), Flops::default());
        assert!(trained.total().executed > trained.total().algorithmic);
    }
}

// ---- the ledger ----

#[test]
fn a_ledger_hears_what_runs_in_its_scope_and_nothing_else() {
    let device = support::cpu();
    let gather = || embedding::gather_rows(leaf([7, 3], &device), &[1, 2]).unwrap();
    let (outer, inner) = (Ledger::default(), Ledger::default());
    gather();
    outer.watch(|| {
        gather();
        let panicked = std::panic::catch_unwind(|| inner.watch(|| panic!("within")));
        assert!(panicked.is_err());
        inner.watch(gather);
        std::thread::spawn(|| {
            embedding::gather_rows(leaf([7, 3], &support::cpu()), &[1]).unwrap();
        })
        .join()
        .unwrap();
        gather();
    });
    gather();
    let times = |ledger: &Ledger| {
        ledger
            .breakdown(1, 1)
            .rows
            .iter()
            .map(|row| row.times)
            .sum::<u64>()
    };
    assert_eq!((times(&outer), times(&inner)), (2, 1));
}

#[test]
fn a_gradient_registers_with_whoever_watched_the_forward_pass_on_whatever_thread_it_comes() {
    let device = support::cpu().autodiff();
    let (forward, other) = (Ledger::default(), Ledger::default());
    let rows = forward.watch(|| embedding::gather_rows(leaf([7, 3], &device), &[1, 2]).unwrap());
    let sum = rows.sum();
    let watching = other.clone();
    std::thread::spawn(move || watching.watch(|| drop(sum.backward())))
        .join()
        .unwrap();
    let op = Op::Gather { rows: 2, width: 3 };
    assert_eq!(
        forward.ops(),
        [(op, FlopsPass::Forward), (op, FlopsPass::Backward)]
    );
    assert_eq!(other.ops(), []);
}

// ---- models ----

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
        Architecture::Transformer,
    ]
    .map(|a| (support::wgpu(), a));
    let cases = Architecture::ALL.map(on_cpu).into_iter().chain(on_adapter);
    for (device, architecture) in cases {
        for (top_k, batch, seq_len) in [(1, 1, 1), (2, 3, 37)] {
            let tokens = BatchShape { batch, seq_len };
            let shape = shape(architecture, top_k);
            let registered = forward(&shape, &device, tokens);
            let ops = shape.forward_ops(tokens);
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
            assert_eq!(
                per_token.with_head * n,
                registered.total().algorithmic as f64
            );
            let headless = registered.without_head().algorithmic as f64;
            assert_eq!(per_token.without_head * n, headless);
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
        assert!(off.abs() < 0.02, "{architecture:?}: {off}");
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
        let one_pass = ["top_k", "scaled_sum", "matrix_product", "softmax", "bias"];
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
            assert!(error.to_string().contains("cannot be matched"), "{error}");
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
