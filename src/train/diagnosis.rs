//! Where a value stopped being finite.

use std::cell::RefCell;

use burn::module::{Module, ModuleVisitor, Param};
use burn::optim::GradientsParams;
use burn::tensor::Tensor;

use super::gradient::{Objective, Sequences};
use crate::Result;
use crate::models::{LanguageModel, Observer};
use crate::ops::non_finite;
use crate::results::NonFinite;

/// Looks for the first value of a step that is not finite: one more forward pass, in which a kernel looks at
/// the bits after every operation, and then the gradients of that step, from the last layer to the first.
/// `None` when all of them are finite.
///
/// # Errors
/// A device that fails.
pub fn diagnose(
    objective: &Objective,
    model: &LanguageModel,
    batch: &Sequences<'_>,
    segment_len: usize,
    gradients: &GradientsParams,
) -> Result<Option<NonFinite>> {
    let finder = Finder::default();
    objective.observe(&model.valid(), batch, segment_len, &finder)?;
    match finder.first.into_inner() {
        Some(found) => found.map(Some),
        None => last_parameter(model, gradients),
    }
}

/// Keeps the first sight of a value that is not finite.
#[derive(Debug, Default)]
struct Finder {
    first: RefCell<Option<Result<NonFinite>>>,
}

impl Observer for Finder {
    fn see(&self, layer: usize, what: &'static str, values: Tensor<1>) {
        let mut first = self.first.borrow_mut();
        if first.is_some() {
            return;
        }
        let found = |_| NonFinite::Forward {
            layer,
            operation: what.to_owned(),
        };
        *first = match non_finite::count(values) {
            Ok(0) => None,
            other => Some(other.map(found)),
        };
    }
}

/// The last parameter, in the order of the module, whose gradient is not finite: the backward pass came to it
/// first.
fn last_parameter(model: &LanguageModel, gradients: &GradientsParams) -> Result<Option<NonFinite>> {
    struct Last<'a> {
        path: Vec<String>,
        gradients: &'a GradientsParams,
        found: Result<Option<NonFinite>>,
    }
    impl ModuleVisitor for Last<'_> {
        fn enter_module(&mut self, name: &str, _container: &str) {
            self.path.push(name.to_owned());
        }
        fn exit_module(&mut self, _name: &str, _container: &str) {
            self.path.pop();
        }
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            let Some(gradient) = self.gradients.get::<D>(param.id) else {
                return;
            };
            let n = gradient.shape().num_elements();
            match (&self.found, non_finite::count(gradient.reshape([n]))) {
                (Err(_), _) | (_, Ok(0)) => {}
                (_, Ok(_)) => {
                    let parameter = self.path.join(".");
                    self.found = Ok(Some(NonFinite::Backward { parameter }));
                }
                (_, Err(error)) => self.found = Err(error),
            }
        }
    }
    let mut last = Last {
        path: Vec::new(),
        gradients,
        found: Ok(None),
    };
    model.visit(&mut last);
    last.found
}
