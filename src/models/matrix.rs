//! A matrix of a model: dense where it is trained, packed where it is only used.

use burn::module::{
    Content, Devices, Module, ModuleDisplay, ModuleDisplayDefault, ModuleMapper, ModuleVisitor,
    Param,
};
use burn::tensor::{Device, Tensor};

use crate::ops::packed_matmul::PackedTensor;

/// A matrix, in modules under the name of the field that holds it, whichever it is.
#[derive(Debug, Clone)]
pub enum Matrix {
    /// Floats, which an optimiser may change. The axes are what the field says.
    Dense(Param<Tensor<2>>),
    /// Codes and scales; a row is an output, or a token of the vocabulary.
    Packed(PackedTensor),
}

impl Matrix {
    /// Where it is.
    pub fn device(&self) -> Device {
        match self {
            Self::Dense(matrix) => matrix.lazy_device(),
            Self::Packed(matrix) => matrix.device(),
        }
    }
}

/// `$body` for what either variant holds.
macro_rules! either {
    ($self:expr, $matrix:ident => $body:expr) => {
        match $self {
            Matrix::Dense($matrix) => $body,
            Matrix::Packed($matrix) => $body,
        }
    };
}

/// The same variant, of `$body` for what it holds.
macro_rules! map_either {
    ($self:expr, $matrix:ident => $body:expr) => {
        match $self {
            Matrix::Dense($matrix) => Matrix::Dense($body),
            Matrix::Packed($matrix) => Matrix::Packed($body),
        }
    };
}

/// By hand: a derived one would put the variant into the names of the parameters.
impl Module for Matrix {
    fn collect_devices(&self, devices: Devices) -> Devices {
        either!(self, matrix => matrix.collect_devices(devices))
    }

    fn fork(self, device: &Device) -> Self {
        map_either!(self, matrix => matrix.fork(device))
    }

    fn to_device(self, device: &Device) -> Self {
        map_either!(self, matrix => matrix.to_device(device))
    }

    fn train(self) -> Self {
        map_either!(self, matrix => matrix.train())
    }

    fn valid(&self) -> Self {
        map_either!(self, matrix => matrix.valid())
    }

    fn materialize(self) -> Self {
        map_either!(self, matrix => matrix.materialize())
    }

    fn visit<V: ModuleVisitor>(&self, visitor: &mut V) {
        either!(self, matrix => matrix.visit(visitor));
    }

    fn map<M: ModuleMapper>(self, mapper: &mut M) -> Self {
        map_either!(self, matrix => Module::map(matrix, mapper))
    }
}

impl ModuleDisplayDefault for Matrix {
    fn content(&self, content: Content) -> Option<Content> {
        either!(self, matrix => matrix.content(content))
    }
}

impl ModuleDisplay for Matrix {}
