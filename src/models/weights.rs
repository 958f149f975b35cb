//! Parameters by name: reading, hashing, and loading from elsewhere.

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::{Tensor, TensorData};
use sha2::{Digest, Sha256};

use crate::hardware::read;
use crate::{Error, Result};

/// One parameter on the host, row-major.
#[derive(Debug, Clone)]
pub struct Weight {
    /// Path in the module, for example `layers.0.block.Mamba.in_proj.weight`. Linear weights are
    /// `[d_input, d_output]`.
    pub name: String,
    /// Shape.
    pub shape: Vec<usize>,
    /// Values.
    pub values: Vec<f32>,
}

/// All parameters in the order of the module.
///
/// # Errors
/// A device that fails.
pub fn named<M: Module>(module: &M) -> Result<Vec<Weight>> {
    struct Reader {
        path: Vec<String>,
        weights: Result<Vec<Weight>>,
    }
    impl ModuleVisitor for Reader {
        fn enter_module(&mut self, name: &str, _container: &str) {
            self.path.push(name.to_owned());
        }
        fn exit_module(&mut self, _name: &str, _container: &str) {
            self.path.pop();
        }
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            if let Ok(weights) = &mut self.weights {
                let (name, tensor) = (self.path.join("."), param.val().inner());
                let shape = tensor.dims().to_vec();
                match read::floats(tensor, "reading weights") {
                    Ok(values) => weights.push(Weight {
                        name,
                        shape,
                        values,
                    }),
                    Err(error) => self.weights = Err(error),
                }
            }
        }
    }
    let mut reader = Reader {
        path: Vec::new(),
        weights: Ok(Vec::new()),
    };
    module.visit(&mut reader);
    reader.weights
}

/// Names and shapes of all parameters in the order of the module.
pub fn shapes<M: Module>(module: &M) -> Vec<(String, Vec<usize>)> {
    #[derive(Default)]
    struct Reader {
        path: Vec<String>,
        shapes: Vec<(String, Vec<usize>)>,
    }
    impl ModuleVisitor for Reader {
        fn enter_module(&mut self, name: &str, _container: &str) {
            self.path.push(name.to_owned());
        }
        fn exit_module(&mut self, _name: &str, _container: &str) {
            self.path.pop();
        }
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            let shape = param.dims().to_vec();
            self.shapes.push((self.path.join("."), shape));
        }
    }
    let mut reader = Reader::default();
    module.visit(&mut reader);
    reader.shapes
}

/// sha256 over names, shapes and the little-endian bits of all parameters.
///
/// # Errors
/// A device that fails.
pub fn sha256<M: Module>(module: &M) -> Result<String> {
    let mut hash = Sha256::new();
    for weight in named(module)? {
        hash.update(format!("{} {:?}\n", weight.name, weight.shape));
        hash.update(bytemuck::cast_slice::<f32, u8>(&weight.values));
    }
    Ok(format!("{:x}", hash.finalize()))
}

/// Replaces every parameter by `fetch(name, shape)`, row-major.
///
/// # Errors
/// What `fetch` returns first, or [`Error::Shape`] when it returns another number of values.
pub fn load<M: Module>(
    module: M,
    fetch: impl FnMut(&str, &[usize]) -> Result<Vec<f32>>,
) -> Result<M> {
    struct Loader<F> {
        path: Vec<String>,
        fetch: F,
        failure: Option<Error>,
    }
    impl<F: FnMut(&str, &[usize]) -> Result<Vec<f32>>> ModuleMapper for Loader<F> {
        fn enter_module(&mut self, name: &str, _container: &str) {
            self.path.push(name.to_owned());
        }
        fn exit_module(&mut self, _name: &str, _container: &str) {
            self.path.pop();
        }
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            if self.failure.is_some() {
                return param;
            }
            let shape = param.dims();
            match (self.fetch)(&self.path.join("."), &shape) {
                Ok(values) if values.len() == shape.iter().product::<usize>() => param.map(|old| {
                    let data = TensorData::new(values, shape);
                    let new = Tensor::from_data(data, &old.device());
                    if old.is_require_grad() {
                        new.require_grad()
                    } else {
                        new
                    }
                }),
                Ok(values) => {
                    self.failure = Some(Error::Shape {
                        op: "loading weights",
                        arg: "values",
                        expected: format!("{}: {shape:?}", self.path.join(".")),
                        got: vec![values.len()],
                    });
                    param
                }
                Err(error) => {
                    self.failure = Some(error);
                    param
                }
            }
        }
    }
    let mut loader = Loader {
        path: Vec::new(),
        fetch,
        failure: None,
    };
    let module = module.map(&mut loader);
    match loader.failure {
        Some(error) => Err(error),
        None => Ok(module),
    }
}
