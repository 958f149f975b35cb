//! Names and layouts of the published Mamba code's `state_dict`.
//!
//! Weights are called `w.<name>` in the files and their gradients `g.<name>`. Linear weights are
//! `[d_output, d_input]` there, and the convolution's weight is `[channels, 1, d_conv]`.

use burn::module::{Module, ModuleVisitor, Param};
use burn::optim::GradientsParams;
use burn::tensor::Tensor;

use super::case::Case;
use crate::hardware::read;
use crate::models::weights;
use crate::{Error, Result};

/// The published name of a parameter of a Mamba block.
pub(super) fn block_name(path: &str) -> Option<String> {
    Some(match path {
        "a_log" => "A_log".to_owned(),
        "d_skip" => "D".to_owned(),
        "conv_weight" => "conv1d.weight".to_owned(),
        "conv_bias" => "conv1d.bias".to_owned(),
        _ if path.contains("_proj.") => path.to_owned(),
        _ => return None,
    })
}

/// The published name of a parameter of a language model of Mamba blocks.
pub(super) fn model_name(path: &str) -> Option<String> {
    Some(match path {
        "embedding" => "backbone.embedding.weight".to_owned(),
        "norm.gamma" => "backbone.norm_f.weight".to_owned(),
        "head" => "lm_head.weight".to_owned(),
        _ => {
            let (layer, path) = path.strip_prefix("layers.")?.split_once('.')?;
            let name = match path.strip_prefix("block.Mamba.") {
                Some(path) => format!("mixer.{}", block_name(path)?),
                None if path == "norm.gamma" => "norm.weight".to_owned(),
                None => return None,
            };
            format!("backbone.layers.{layer}.{name}")
        }
    })
}

/// `module` with the case's weights.
pub(super) fn load<M: Module>(
    case: &mut Case<'_>,
    module: M,
    name_of: fn(&str) -> Option<String>,
) -> Result<M> {
    weights::load(module, |path, shape| {
        let name = format!("w.{}", name_of(path).ok_or_else(|| unnamed(path))?);
        let weight = case.host(&name)?;
        let layout = Layout::of(&name);
        if weight.shape != layout.published(shape) {
            return Err(case.bad(format!("{name} has shape {:?}", weight.shape)));
        }
        let values = layout.exchanged(&weight.values, &weight.shape);
        Ok(values.into_iter().map(|value| value as f32).collect())
    })
}

/// Compares the gradients of all parameters of `module`.
pub(super) fn check_gradients<M: Module>(
    case: &mut Case<'_>,
    module: &M,
    gradients: &GradientsParams,
    name_of: fn(&str) -> Option<String>,
    bound: &str,
) -> Result<()> {
    struct Checker<'a, 'b> {
        path: Vec<String>,
        case: &'a mut Case<'b>,
        gradients: &'a GradientsParams,
        name_of: fn(&str) -> Option<String>,
        bound: &'a str,
        outcome: Result<()>,
    }
    impl Checker<'_, '_> {
        fn check<const D: usize>(&mut self, param: &Param<Tensor<D>>) -> Result<()> {
            let path = self.path.join(".");
            let name = format!("g.{}", (self.name_of)(&path).ok_or_else(|| unnamed(&path))?);
            let gradient = self
                .gradients
                .get::<D>(param.id)
                .ok_or_else(|| Error::CheckFailed(format!("no gradient reached {path}")))?;
            let shape = gradient.dims();
            let values = read::doubles(gradient, &format!("reading {name}"))?;
            let layout = Layout::of(&name);
            let values = layout.exchanged(&values, &shape);
            self.case
                .check_host(&name, &layout.published(&shape), &values, self.bound)
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
        name_of,
        bound,
        outcome: Ok(()),
    };
    module.visit(&mut checker);
    checker.outcome
}

/// How a published tensor differs from ours.
#[derive(Clone, Copy)]
enum Layout {
    Equal,
    Transposed,
    /// A second axis of size 1.
    MiddleAxis,
}

impl Layout {
    fn of(name: &str) -> Self {
        if name.ends_with("_proj.weight") {
            Self::Transposed
        } else if name.ends_with("conv1d.weight") {
            Self::MiddleAxis
        } else {
            Self::Equal
        }
    }

    /// The published shape of what has `shape` here.
    fn published(self, shape: &[usize]) -> Vec<usize> {
        match (self, shape) {
            (Self::Transposed, &[rows, columns]) => vec![columns, rows],
            (Self::MiddleAxis, &[rows, columns]) => vec![rows, 1, columns],
            _ => shape.to_vec(),
        }
    }

    /// The values in the other order; `shape` is the one they have.
    fn exchanged(self, values: &[f64], shape: &[usize]) -> Vec<f64> {
        match (self, shape) {
            (Self::Transposed, &[rows, columns]) => (0..values.len())
                .map(|i| values[i % rows * columns + i / rows])
                .collect(),
            _ => values.to_vec(),
        }
    }
}

fn unnamed(path: &str) -> Error {
    Error::CheckFailed(format!("parameter {path} has no published name"))
}
