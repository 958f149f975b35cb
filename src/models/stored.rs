//! How files hold the parameters of a module, and modules filled from them.

use std::collections::BTreeMap;

use burn::module::Module;

use super::safetensors::{Safetensors, StoredTensor};
use super::weights;
use crate::{Error, Result};

/// A parameter as a file holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// Its name there.
    pub name: String,
    /// Its shape there.
    pub shape: Vec<usize>,
    axes: Axes,
}

/// How the axes in a file differ from ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Axes {
    Equal,
    /// A matrix whose rows are our columns.
    Transposed,
    /// A second axis of size 1.
    MiddleAxis,
}

/// How a file holds the parameter at a path, of a shape, of a module; `None` for parameters it does not know.
pub type Layout = fn(path: &str, shape: &[usize]) -> Option<Stored>;

impl Stored {
    /// Under `name`, with the axes it has here.
    pub fn equal(name: impl Into<String>, shape: &[usize]) -> Self {
        Self {
            name: name.into(),
            shape: shape.to_vec(),
            axes: Axes::Equal,
        }
    }

    /// Under `name`, with rows and columns exchanged.
    pub fn transposed(name: impl Into<String>, shape: &[usize]) -> Self {
        Self {
            name: name.into(),
            shape: shape.iter().rev().copied().collect(),
            axes: Axes::Transposed,
        }
    }

    /// Under `name`, with an axis of size 1 behind the first.
    pub fn with_middle_axis(name: impl Into<String>, shape: &[usize]) -> Self {
        let mut stored = Self::equal(name, shape);
        stored.shape.insert(1, 1);
        stored.axes = Axes::MiddleAxis;
        stored
    }

    /// The file's `values` in our order.
    pub fn from_file<T: Copy>(&self, values: Vec<T>) -> Vec<T> {
        self.exchanged(values, &self.shape)
    }

    /// Our `values` in the file's order.
    pub fn to_file<T: Copy>(&self, values: Vec<T>) -> Vec<T> {
        let ours: Vec<usize> = self.shape.iter().rev().copied().collect();
        self.exchanged(values, &ours)
    }

    /// `values` of a matrix of `shape`, column by column where rows and columns are exchanged.
    fn exchanged<T: Copy>(&self, values: Vec<T>, shape: &[usize]) -> Vec<T> {
        match (self.axes, shape) {
            (Axes::Transposed, &[rows, columns]) => (0..values.len())
                .map(|i| values[i % rows * columns + i / rows])
                .collect(),
            _ => values,
        }
    }
}

/// The layout of the files that bkbench writes: names and axes as they are.
pub fn ours(path: &str, shape: &[usize]) -> Option<Stored> {
    Some(Stored::equal(path, shape))
}

/// How `layout` holds the parameter at `path`.
///
/// # Errors
/// [`Error::CheckFailed`] when it knows none there.
pub fn find(layout: Layout, path: &str, shape: &[usize]) -> Result<Stored> {
    layout(path, shape)
        .ok_or_else(|| Error::CheckFailed(format!("parameter {path} has no name in that layout")))
}

/// `module` with the values that `fetch` returns, in the file's order.
///
/// # Errors
/// What `fetch` returns first.
pub fn load<M: Module>(
    module: M,
    layout: Layout,
    mut fetch: impl FnMut(&Stored) -> Result<Vec<f32>>,
) -> Result<M> {
    weights::load(module, |path, shape| {
        let stored = find(layout, path, shape)?;
        Ok(stored.from_file(fetch(&stored)?))
    })
}

/// `module` with the weights in `file`, which errors call `what`.
///
/// # Errors
/// [`Error::BadInput`] that names every tensor that is missing, of another shape, no float, or not known.
pub fn load_file<M: Module>(
    module: M,
    layout: Layout,
    file: &Safetensors,
    what: &str,
) -> Result<M> {
    let mut expected = BTreeMap::new();
    for (path, shape) in weights::shapes(&module) {
        let stored = find(layout, &path, &shape)?;
        expected.insert(stored.name, stored.shape);
    }
    let misfit = |(name, shape): (&String, &Vec<usize>)| match file.get(name) {
        None => Some(format!("{name} is missing")),
        Some(tensor) if tensor.shape != shape => Some(format!(
            "{name} has shape {:?} instead of {shape:?}",
            tensor.shape
        )),
        Some(tensor) if !tensor.dtype.is_float() => {
            Some(format!("{name} holds {:?}", tensor.dtype))
        }
        Some(_) => None,
    };
    let unknown = file
        .iter()
        .filter(|(name, _)| !expected.contains_key(*name));
    let problems: Vec<String> = expected
        .iter()
        .filter_map(misfit)
        .chain(unknown.map(|(name, _)| format!("{name} is not known")))
        .collect();
    if !problems.is_empty() {
        return Err(Error::bad_input(
            what,
            format!(
                "{} tensor(s) do not fit the model: {}",
                problems.len(),
                problems.join("; ")
            ),
            "give weights and description of one model",
        ));
    }
    load(module, layout, |stored| {
        file.get(&stored.name)
            .map(StoredTensor::floats)
            .ok_or_else(|| Error::CheckFailed(format!("{} is gone", stored.name)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_are_exchanged_there_and_back() {
        let ours = vec![1, 2, 3, 4, 5, 6];
        let stored = Stored::transposed("w", &[2, 3]);
        assert_eq!(stored.shape, [3, 2]);
        let theirs = stored.to_file(ours.clone());
        assert_eq!(theirs, [1, 4, 2, 5, 3, 6]);
        assert_eq!(stored.from_file(theirs), ours);

        let stored = Stored::with_middle_axis("w", &[2, 3]);
        assert_eq!(stored.shape, [2, 1, 3]);
        assert_eq!(stored.from_file(stored.to_file(ours.clone())), ours);
    }
}
