//! The ledger of floating-point operations, to which every operation writes where it runs.
//!
//! A [`Ledger`] hears of what runs within [`Ledger::watch`] on that thread; operations register before they hand
//! their work to other threads. Where nobody watches, an operation looks at one thread-local flag. Gradients
//! are registered when they are computed: an identity node of burn's graph stands where a gradient passes and
//! remembers who watched the forward pass. The conventions: `docs/flops.md`.

mod autodiff;
mod cost;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use burn::backend::Dispatch;
use burn::tensor::Tensor;

use crate::results::{Flops, FlopsBreakdown, FlopsCategory, FlopsPass, FlopsRow};
use autodiff::LedgerBackend;

pub use cost::Op;
pub(in crate::ops) use cost::{
    RESOLVENT_COUPLING_BACK, RESOLVENT_ROW, RESOLVENT_ROW_BACK, SILU, SOFTPLUS, attention_pair,
    attention_pair_back, attention_weight,
};

type Book = BTreeMap<(FlopsCategory, FlopsPass, Op), Tally>;

/// What was registered, by operation and size. Clones share one book.
#[derive(Debug, Clone, Default)]
pub struct Ledger(Arc<Mutex<Book>>);

#[derive(Debug, Clone, Copy, Default)]
struct Tally {
    times: u64,
    flops: Flops,
}

thread_local! {
    /// Who watches this thread.
    static CONTEXT: RefCell<Option<Context>> = const { RefCell::new(None) };
}

/// Who watches, and how what runs is to be understood.
#[derive(Debug, Clone)]
struct Context {
    ledger: Ledger,
    /// What everything here is for, whatever it is.
    category: Option<FlopsCategory>,
    /// So many of so many rows are no padding.
    rows: (usize, usize),
    /// Whether it only repeats what another pass computes.
    is_repeated: bool,
}

impl Ledger {
    /// Runs `f` and registers its operations.
    pub fn watch<R>(&self, f: impl FnOnce() -> R) -> R {
        let context = Context {
            ledger: self.clone(),
            category: None,
            rows: (1, 1),
            is_repeated: false,
        };
        scoped(Some(context), f)
    }

    /// What was registered while `n_sequences` of `n_tokens` in all went through.
    pub fn breakdown(&self, n_sequences: usize, n_tokens: usize) -> FlopsBreakdown {
        let row = |(&(category, pass, op), tally): (&(_, _, Op), &Tally)| FlopsRow {
            category,
            pass,
            op: op.name().to_owned(),
            sizes: op.sizes(),
            times: tally.times,
            flops: tally.flops,
        };
        FlopsBreakdown {
            n_sequences: n_sequences as u64,
            n_tokens: n_tokens as u64,
            rows: self.book().iter().map(row).collect(),
        }
    }

    /// The operations that were registered, each once.
    pub fn ops(&self) -> Vec<(Op, FlopsPass)> {
        let mut ops: Vec<_> = self
            .book()
            .keys()
            .map(|&(_, pass, op)| (op, pass))
            .collect();
        ops.sort_unstable();
        ops.dedup();
        ops
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Context {
    fn register(&self, op: Op, pass: FlopsPass, executed: u64) {
        let (real, all) = self.rows;
        let algorithmic = if self.is_repeated {
            0
        } else {
            // Exact: what padded rows pass through is linear in rows.
            op.cost(pass) * real as u64 / all as u64
        };
        let category = self.category.unwrap_or(op.category());
        let mut book = self.ledger.book();
        let tally = book.entry((category, pass, op)).or_default();
        tally.times += 1;
        tally.flops += Flops {
            algorithmic,
            executed,
        };
    }
}

/// Runs `f` with another context, and then puts the old one back.
fn scoped<R>(context: Option<Context>, f: impl FnOnce() -> R) -> R {
    struct Restore(Option<Context>);
    impl Drop for Restore {
        fn drop(&mut self) {
            CONTEXT.set(self.0.take());
        }
    }
    let _restore = Restore(CONTEXT.replace(context));
    f()
}

/// Runs `f` with the context changed, where somebody watches.
fn changed<R>(change: impl FnOnce(&mut Context), f: impl FnOnce() -> R) -> R {
    match context() {
        None => f(),
        Some(mut context) => {
            change(&mut context);
            scoped(Some(context), f)
        }
    }
}

fn context() -> Option<Context> {
    CONTEXT.with_borrow(Clone::clone)
}

/// Whatever runs in `f`, and its gradient, is for this.
pub(crate) fn within<R>(category: FlopsCategory, f: impl FnOnce() -> R) -> R {
    changed(|context| context.category = Some(category), f)
}

/// Of the `all` rows on which the operations in `f` run only `real` are no padding.
pub(crate) fn padded<R>(real: usize, all: usize, f: impl FnOnce() -> R) -> R {
    changed(|context| context.rows = (real, all), f)
}

/// What runs in `f` only repeats what another pass computes: executed, and no part of the algorithm.
pub(crate) fn repeated<R>(f: impl FnOnce() -> R) -> R {
    changed(|context| context.is_repeated = true, f)
}

/// `op` runs as the algorithm has it.
pub(crate) fn register(op: Op, pass: FlopsPass) {
    register_as(op, pass, || op.cost(pass));
}

/// `op` runs, in so many operations.
pub(crate) fn register_as(op: Op, pass: FlopsPass, executed: impl FnOnce() -> u64) {
    if let Some(context) = context() {
        context.register(op, pass, executed());
    }
}

/// `y`, the output of `op`: its forward pass is registered now, its backward pass when a gradient comes.
pub(crate) fn counted<const D: usize>(y: Tensor<D>, op: Op) -> Tensor<D> {
    counted_as(y, op, |pass| op.cost(pass))
}

/// As [`counted`], for an operation that takes as many operations as `executed` says.
pub(crate) fn counted_as<const D: usize>(
    y: Tensor<D>,
    op: Op,
    executed: impl Fn(FlopsPass) -> u64,
) -> Tensor<D> {
    register_as(op, FlopsPass::Forward, || executed(FlopsPass::Forward));
    passing(y, op, || executed(FlopsPass::Backward))
}

/// `x`, to which a gradient will only come through the backward pass of `op`.
pub(crate) fn on_gradient<const D: usize>(x: Tensor<D>, op: Op) -> Tensor<D> {
    passing(x, op, || op.cost(FlopsPass::Backward))
}

/// `x`, which so many operations read: their gradients are summed.
pub(crate) fn shared<const D: usize>(x: Tensor<D>, n_readers: usize) -> Tensor<D> {
    match x.shape().num_elements() * n_readers.saturating_sub(1) {
        0 => x,
        n => on_gradient(x, Op::GradientSum { n }),
    }
}

/// `x`, which is cut into so many pieces: burn sums gradients of the whole, each 0 outside its piece.
pub(crate) fn cut<const D: usize>(x: Tensor<D>, n_pieces: usize) -> Tensor<D> {
    repeated(|| shared(x, n_pieces))
}

/// The factors of a matrix product that is about to run, `[rows, inner]` and `[inner, columns]`.
pub(crate) fn matrix_product(a: Tensor<2>, b: Tensor<2>) -> (Tensor<2>, Tensor<2>) {
    let ([rows, inner], [_, columns]) = (a.dims(), b.dims());
    let op = Op::MatrixProduct {
        rows,
        inner,
        columns,
    };
    register(op, FlopsPass::Forward);
    (on_gradient(a, op), on_gradient(b, op))
}

/// A vector that is about to be added to each of `rows` rows.
pub(crate) fn bias(bias: Tensor<1>, rows: usize) -> Tensor<1> {
    let [width] = bias.dims();
    let op = Op::Bias { rows, width };
    register(op, FlopsPass::Forward);
    on_gradient(bias, op)
}

fn passing<const D: usize>(x: Tensor<D>, op: Op, executed: impl FnOnce() -> u64) -> Tensor<D> {
    match context() {
        Some(context) if x.is_autodiff() => {
            let entry = Entry {
                context,
                op,
                executed: executed(),
            };
            Tensor::from_dispatch(Dispatch::passing(x.into_dispatch(), entry))
        }
        _ => x,
    }
}

/// What a gradient that passes registers.
#[derive(Debug, Clone)]
struct Entry {
    context: Context,
    op: Op,
    executed: u64,
}

impl Entry {
    fn register(&self) {
        self.context
            .register(self.op, FlopsPass::Backward, self.executed);
    }
}
