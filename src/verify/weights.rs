//! Weights and gradients of cases, which are named and laid out as by the official Mamba code: weights are called
//! `w.<name>` in the files and their gradients `g.<name>`.

use burn::module::{Module, ModuleVisitor, Param};
use burn::optim::GradientsParams;
use burn::tensor::Tensor;

use super::case::Case;
use crate::hardware::read;
use crate::models::stored::{self, Layout};
use crate::{Error, Result};

/// `module` with the case's weights.
pub(super) fn load<M: Module>(case: &mut Case<'_>, module: M, layout: Layout) -> Result<M> {
    stored::load(module, layout, |stored| {
        let name = format!("w.{}", stored.name);
        let weight = case.host(&name)?;
        if weight.shape != stored.shape {
            return Err(case.bad(format!("{name} has shape {:?}", weight.shape)));
        }
        Ok(weight.values.iter().map(|&value| value as f32).collect())
    })
}

/// Compares the gradients of all parameters of `module`.
pub(super) fn check_gradients<M: Module>(
    case: &mut Case<'_>,
    module: &M,
    gradients: &GradientsParams,
    layout: Layout,
    bound: &str,
) -> Result<()> {
    struct Checker<'a, 'b> {
        path: Vec<String>,
        case: &'a mut Case<'b>,
        gradients: &'a GradientsParams,
        layout: Layout,
        bound: &'a str,
        outcome: Result<()>,
    }
    impl Checker<'_, '_> {
        fn check<const D: usize>(&mut self, param: &Param<Tensor<D>>) -> Result<()> {
            let path = self.path.join(".");
            let gradient = self
                .gradients
                .get::<D>(param.id)
                .ok_or_else(|| Error::CheckFailed(format!("no gradient reached {path}")))?;
            let shape = gradient.dims();
            let stored = stored::find(self.layout, &path, &shape)?;
            let name = format!("g.{}", stored.name);
            let values = read::doubles(gradient, &format!("reading {name}"))?;
            let values = stored.to_file(values);
            self.case
                .check_host(&name, &stored.shape, &values, self.bound)
        }
    }
    impl ModuleVisitor for Checker<'_, '_> {
        fn enter_module(&mut self, name: &str, _container: &str) {
            self.path.push(name.to_owned());
        }
        fn exit_module(&mut self, _name: &str, _container: &str) {
            self.path.pop();
        }
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            if self.outcome.is_ok() {
                self.outcome = self.check(param);
            }
        }
    }
    let mut checker = Checker {
        path: Vec::new(),
        case,
        gradients,
        layout,
        bound,
        outcome: Ok(()),
    };
    module.visit(&mut checker);
    checker.outcome
}
