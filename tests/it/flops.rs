//! Floating-point operations: what is registered where it runs, against the sequential oracle run on numbers that
//! count.

use bkbench::config::Precision;
use bkbench::math::oracle::{
    Counting, causal_conv as conv_oracle, linear_cross_entropy as loss_oracle, operations,
};
use bkbench::ops::causal_conv::Activation;
use bkbench::ops::ledger::{Ledger, Op};
use bkbench::ops::resolvent_diag::bidirectional::Gradient;
use bkbench::ops::resolvent_diag::{Coupling, bidirectional};
use bkbench::ops::{
    causal_conv, embedding, linear_cross_entropy, resolvent_diag, rms_norm, selective_scan,
    skip_gate,
};
use bkbench::results::{Flops, FlopsPass};
use bkbench::verify::flops::{agree, count};
use burn::tensor::{Device, Tensor};

use crate::support;

pub(crate) const PASSES: [FlopsPass; 3] =
    [FlopsPass::Forward, FlopsPass::Backward, FlopsPass::Update];
pub(crate) const VOCAB: usize = 61;

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
            Op::PhaseRouting {
                rows,
                n_experts: width,
            },
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
        let rows = batch * seq;
        let flat = || leaf([rows, width], device);
        registers(&[Op::RmsNorm { rows, width }], || {
            let y = rms_norm::normalise(flat(), leaf([width], device)).unwrap();
            y.unsqueeze()
        });
        let gate = [
            Op::Scale { n },
            Op::Add { n },
            Op::Silu { n },
            Op::Multiply { n },
        ];
        registers(&gate, || {
            let inputs = skip_gate::Inputs {
                y: flat(),
                u: flat(),
                skip: leaf([width], device),
                z: flat(),
            };
            skip_gate::gated(inputs).unwrap().unsqueeze()
        });
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
