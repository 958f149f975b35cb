//! AdamW with decay on matrices only, and clipping by the norm over all parameters at once.
//!
//! burn clips one tensor at a time; the clipping here is by the global norm, as the field does it.

use burn::module::{Module, ModuleVisitor, Param, ParamGroup, ParamId};
use burn::optim::{GradientsParams, ModuleOptimizer};
use burn::tensor::Tensor;

use super::moments::AdamW;
use crate::config::TrainConfig;
use crate::ops;
use crate::ops::ledger::{self, Op};
use crate::results::FlopsPass;

/// Which parameters weight decay acts on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decay {
    /// Matrices only; never biases, norms, scalars, `a_log` or D.
    Standard,
    /// Every parameter, as in the golden training curves.
    All,
}

/// `AdamW` for `module` as the configuration says.
pub fn adamw<M: Module>(module: &M, config: &TrainConfig, decay: Decay) -> ModuleOptimizer {
    let with_decay = |weight_decay: f64| AdamW {
        betas: config.betas.map(|beta| beta as f32),
        epsilon: config.epsilon as f32,
        weight_decay: weight_decay as f32,
    };
    match decay {
        Decay::All => with_decay(config.weight_decay).into(),
        Decay::Standard => ModuleOptimizer::from(with_decay(0.0)).with_group(
            ParamGroup::from_ids(matrices(module)),
            with_decay(config.weight_decay),
            None,
        ),
    }
}

/// Parameters of rank 2 but `a_log`, whose entries are decay rates and no weights.
fn matrices<M: Module>(module: &M) -> Vec<ParamId> {
    #[derive(Default)]
    struct Matrices {
        path: Vec<String>,
        ids: Vec<ParamId>,
    }
    impl ModuleVisitor for Matrices {
        fn enter_module(&mut self, name: &str, _container: &str) {
            self.path.push(name.to_owned());
        }
        fn exit_module(&mut self, _name: &str, _container: &str) {
            self.path.pop();
        }
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            if D == 2 && self.path.last().is_none_or(|name| name != "a_log") {
                self.ids.push(param.id);
            }
        }
    }
    let mut matrices = Matrices::default();
    module.visit(&mut matrices);
    matrices.ids
}

/// Squared norm over the gradients of all parameters, `[1]`; `None` without any gradient.
pub fn squared_norm<M: Module>(module: &M, gradients: &GradientsParams) -> Option<Tensor<1>> {
    struct Squares<'a> {
        gradients: &'a GradientsParams,
        terms: Vec<Tensor<1>>,
    }
    impl ModuleVisitor for Squares<'_> {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            if let Some(gradient) = self.gradients.get::<D>(param.id) {
                self.terms.push(ops::squared_norm::squared_norm(gradient));
            }
        }
    }
    let mut squares = Squares {
        gradients,
        terms: Vec::new(),
    };
    module.visit(&mut squares);
    (!squares.terms.is_empty()).then(|| Tensor::cat(squares.terms, 0).sum_dim(0))
}

/// Scales the gradients of all parameters by `factor`.
pub fn scale<M: Module>(module: &M, gradients: GradientsParams, factor: f64) -> GradientsParams {
    struct Scaler {
        gradients: GradientsParams,
        factor: f64,
    }
    impl ModuleVisitor for Scaler {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            if let Some(gradient) = self.gradients.remove::<D>(param.id) {
                let n = gradient.shape().num_elements();
                ledger::register(Op::Rescale { n }, FlopsPass::Update);
                self.gradients
                    .register(param.id, gradient.mul_scalar(self.factor));
            }
        }
    }
    let mut scaler = Scaler { gradients, factor };
    module.visit(&mut scaler);
    scaler.gradients
}
