//! Which parameters are quantised, and models whose matrices are packed.
//!
//! Packed are the embedding, which is also the head unless there is one of its own, and the weight of every linear
//! layer but the router. Everything else stays `f32`: norms, biases, `a_log`, the skip D, the convolution, the
//! bias of the step size, the scale and the shifts of the resolvent, the router.

use std::collections::BTreeMap;

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{Device, Tensor, TensorData};

use super::LanguageModel;
use super::matrix::Matrix;
use crate::hardware::{adapter_of, read};
use crate::ops::packed_matmul::PackedTensor;
use crate::quant::{BitWidth, Layout, PackedMatrix};
use crate::units::Bytes;
use crate::{Error, Result};

/// Parameters that are quantised together, and apart from others in a study of sensitivity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// Token embedding, and the head where that is the same matrix.
    Embedding,
    /// A head of its own.
    Head,
    /// Mamba: into the block.
    InProj,
    /// Mamba: step size, B and C from the inputs.
    XProj,
    /// Mamba: step size of every channel from its few.
    DtProj,
    /// Mamba: decay rates. In studies of sensitivity only, see [`Family::is_packed`].
    ALog,
    /// Mamba: out of the block.
    OutProj,
    /// ResNet-BK: first matrix of the experts.
    ExpertsUp,
    /// ResNet-BK: second matrix of the experts.
    ExpertsDown,
    /// ResNet-BK: the resolvent's potential.
    Potential,
    /// ResNet-BK: out of the resolvent.
    Output,
    /// Transformer: queries, keys and values.
    AttentionIn,
    /// Transformer: out of the attention.
    AttentionOut,
    /// Transformer: first matrix of the feed-forward network.
    FeedForwardUp,
    /// Transformer: second matrix of the feed-forward network.
    FeedForwardDown,
}

impl Family {
    /// Name in results.
    pub fn name(self) -> &'static str {
        match self {
            Self::Embedding => "embedding",
            Self::Head => "head",
            Self::InProj => "in_proj",
            Self::XProj => "x_proj",
            Self::DtProj => "dt_proj",
            Self::ALog => "a_log",
            Self::OutProj => "out_proj",
            Self::ExpertsUp => "experts.up",
            Self::ExpertsDown => "experts.down",
            Self::Potential => "potential",
            Self::Output => "output",
            Self::AttentionIn => "attention.in",
            Self::AttentionOut => "attention.out",
            Self::FeedForwardUp => "feed_forward.up",
            Self::FeedForwardDown => "feed_forward.down",
        }
    }

    /// Whether a quantised model packs it: all but `a_log`, which no product reads. Where a study of sensitivity
    /// quantises that one too, it stays `f32` and takes the values that its codes stand for.
    pub fn is_packed(self) -> bool {
        self != Self::ALog
    }

    /// Whether its matrices turn tokens into activations or back.
    fn is_of_vocabulary(self) -> bool {
        matches!(self, Self::Embedding | Self::Head)
    }
}

/// A parameter that can be quantised.
#[derive(Debug)]
pub struct Part<'a> {
    /// Path in the module, as in [`weights::named`](super::weights::named).
    pub path: String,
    /// What it belongs to.
    pub family: Family,
    /// Where it is.
    pub place: Place<'a>,
}

/// Where a [`Part`] is.
#[derive(Debug)]
pub enum Place<'a> {
    /// A matrix, to be packed.
    Matrix(&'a mut Matrix),
    /// Values that stay `f32`, to be replaced by what their codes stand for.
    Values(&'a mut Param<Tensor<2>>),
}

impl<'a> Part<'a> {
    /// A matrix under `path`.
    pub(super) fn matrix(path: impl Into<String>, family: Family, matrix: &'a mut Matrix) -> Self {
        Self {
            path: path.into(),
            family,
            place: Place::Matrix(matrix),
        }
    }

    /// The same under a longer path.
    #[must_use]
    pub(super) fn within(mut self, path: &str) -> Self {
        self.path = format!("{path}.{}", self.path);
        self
    }

    /// How it lies when it is packed to `width`; none where it is not, or is already.
    pub(super) fn packed_layout(&self, width: BitWidth) -> Option<Layout> {
        match &self.place {
            Place::Matrix(Matrix::Dense(matrix)) => {
                let [first, second] = matrix.dims();
                let [rows, columns] = if self.family.is_of_vocabulary() {
                    [first, second]
                } else {
                    [second, first]
                };
                Some(Layout {
                    width,
                    rows,
                    columns,
                })
            }
            Place::Matrix(Matrix::Packed(_)) | Place::Values(_) => None,
        }
    }

    /// Quantises it. A packed matrix goes to `device`.
    fn quantise(self, width: BitWidth, device: &Device) -> Result<()> {
        let packed = |tensor: Tensor<2>| {
            let shape = tensor.dims();
            let values = read::floats(tensor, &format!("reading {}", self.path))?;
            PackedMatrix::pack(width, shape, &values)
        };
        match self.place {
            Place::Matrix(place) => {
                let Matrix::Dense(matrix) = &*place else {
                    let problem = format!("{} is packed already", self.path);
                    return Err(Error::CheckFailed(problem));
                };
                let matrix = if self.family.is_of_vocabulary() {
                    matrix.val()
                } else {
                    matrix.val().transpose()
                };
                *place = Matrix::Packed(PackedTensor::new(packed(matrix)?, device));
            }
            Place::Values(param) => {
                let (shape, at) = (param.dims(), param.device());
                let values = packed(param.val())?.dequantise();
                let values = Tensor::from_data(TensorData::new(values, shape), &at);
                *param = Param::initialized(param.id, values);
            }
        }
        Ok(())
    }
}

/// Bytes of a model's tensors: exactly those in the file that [`LanguageModel::save_packed`] writes, header left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    /// Codes of the packed matrices, their rows padded to whole words.
    pub codes: Bytes,
    /// Scales of the packed matrices, padded to whole words.
    pub scales: Bytes,
    /// What is `f32`.
    pub rest: Bytes,
    /// What of all this embedding and head take.
    pub embedding: Bytes,
}

impl Size {
    /// Everything.
    pub fn total(self) -> Bytes {
        Bytes(self.codes.0 + self.scales.0 + self.rest.0)
    }
}

/// Bytes of so many words.
fn bytes_of(words: usize) -> u64 {
    4 * words as u64
}

impl LanguageModel {
    /// The model on `device` with the parameters of the families that `which` names quantised to `width`, packed on
    /// the host one by one; [`Family::is_packed`] names those of a quantised model. At `fp32` the model as it is.
    /// The result is for inference: it has no graph, and no dense copy of what is packed.
    ///
    /// # Errors
    /// [`Error::BadInput`] with name, size and limit, before anything is done, for a tensor of the result that is
    /// larger than `device` can bind; [`Error::Domain`] for a weight that is not finite; [`Error::CheckFailed`] for
    /// one that is packed already; a device that fails.
    pub fn quantised(
        &self,
        width: BitWidth,
        which: impl Fn(Family) -> bool,
        device: &Device,
    ) -> Result<Self> {
        let device = device.clone().without_autodiff();
        let mut model = self.valid();
        let mut parts = model.parts();
        parts.retain(|part| width != BitWidth::Fp32 && which(part.family));
        self.check_bindings(width, &parts, &device)?;
        for part in parts {
            part.quantise(width, &device)?;
        }
        Ok(model.to_device(&device))
    }

    /// What embedding, head, packed matrices and the rest take.
    pub fn size(&self) -> Size {
        let (mut codes, mut scales, mut embedding) = (0, 0, 0);
        for part in self.clone().parts() {
            let bytes = match &part.place {
                Place::Matrix(Matrix::Packed(matrix)) => {
                    let layout = matrix.layout();
                    codes += bytes_of(layout.code_words());
                    scales += bytes_of(layout.scale_words());
                    bytes_of(layout.n_words())
                }
                Place::Matrix(Matrix::Dense(matrix)) => bytes_of(matrix.dims().iter().product()),
                Place::Values(_) => continue,
            };
            if part.family.is_of_vocabulary() {
                embedding += bytes;
            }
        }
        Size {
            codes: Bytes(codes),
            scales: Bytes(scales),
            rest: Bytes(bytes_of(self.num_params())),
            embedding: Bytes(embedding),
        }
    }

    /// The families that the model has, each once.
    pub fn families(&self) -> Vec<Family> {
        let mut families: Vec<Family> = self.clone().parts().iter().map(|p| p.family).collect();
        families.sort_unstable();
        families.dedup();
        families
    }

    /// That `device` can bind every tensor of the model with `parts` packed.
    fn check_bindings(&self, width: BitWidth, parts: &[Part<'_>], device: &Device) -> Result<()> {
        let Some(adapter) = adapter_of(device) else {
            return Ok(());
        };
        let limit = adapter.limits.binding;
        let mut tensors = sizes(self);
        for part in parts {
            if let Some(layout) = part.packed_layout(width) {
                tensors.insert(part.path.clone(), bytes_of(layout.n_words()));
            }
        }
        let too_large = tensors.into_iter().find(|(_, bytes)| *bytes > limit.0);
        too_large.map_or(Ok(()), |(path, bytes)| {
            Err(Error::bad_input(
                format!("tensor '{path}' at {width}"),
                format!(
                    "takes {}, {} binds {limit} at most",
                    Bytes(bytes),
                    adapter.name
                ),
                "take fewer bits, another device, or --device cpu",
            ))
        })
    }
}

/// Bytes of all `f32` parameters, by path.
fn sizes(model: &LanguageModel) -> BTreeMap<String, u64> {
    #[derive(Default)]
    struct Sizes {
        path: Vec<String>,
        bytes: BTreeMap<String, u64>,
    }
    impl ModuleVisitor for Sizes {
        fn enter_module(&mut self, name: &str, _container: &str) {
            self.path.push(name.to_owned());
        }
        fn exit_module(&mut self, _name: &str, _container: &str) {
            self.path.pop();
        }
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            let words = param.lazy_shape().num_elements();
            self.bytes.insert(self.path.join("."), bytes_of(words));
        }
    }
    let mut sizes = Sizes::default();
    model.visit(&mut sizes);
    sizes.bytes
}
