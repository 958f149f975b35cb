//! How far the kernels lie from the oracle on the tensors that a trained model feeds them.

use serde::{Deserialize, Serialize};

use super::{Cell, Finite, Warning};

/// An error of a kernel this many times that at the shortest length is no rounding any more.
const DRIFT_FACTOR: f64 = 100.0;

/// Error of one operation in one layer, at one end of a sequence.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KernelError {
    /// The operation, for example `selective_scan`.
    pub operation: String,
    /// The layer, counted from 1.
    pub layer: usize,
    /// First position that was compared; the oracle ran from position 0.
    pub first: usize,
    /// Last position that was compared.
    pub last: usize,
    /// `max|x - oracle| / max|oracle|`; absent where it is not finite.
    pub max: Option<Finite>,
    /// `||x - oracle|| / ||oracle||`; absent where it is not finite.
    pub rms: Option<Finite>,
}

impl KernelError {
    /// `max`, infinite where it is not finite.
    pub fn largest(&self) -> f64 {
        self.max.map_or(f64::INFINITY, Finite::get)
    }
}

/// The kernels that drifted: more than a hundred times further from the oracle than at the shortest length of the same
/// benchmark, budget, model and seed, or not finite. Whatever the order in which cells ran.
pub fn kernel_drift(cells: &[Cell]) -> Vec<Warning> {
    let of_cell = |cell: &Cell| {
        let measured = cells.iter().filter(|other| !errors(other).is_empty());
        let shortest = measured
            .filter(|other| (&other.model, other.seed) == (&cell.model, cell.seed))
            .filter(|other| (other.benchmark, other.at_budget) == (cell.benchmark, cell.at_budget))
            .min_by_key(|other| other.seq_len)
            .unwrap_or(cell);
        let warning = |(error, at_shortest): (&KernelError, f64)| Warning::KernelDrift {
            model: cell.model.clone(),
            place: cell.place(),
            seed: cell.seed,
            error: error.max,
            operation: error.operation.clone(),
            layer: error.layer,
            shortest_len: shortest.seq_len,
            error_at_shortest: Finite::new(at_shortest),
        };
        let drifted = drifted(errors(cell), errors(shortest)).into_iter();
        drifted.map(warning).collect::<Vec<_>>()
    };
    cells.iter().flat_map(of_cell).collect()
}

fn errors(cell: &Cell) -> &[KernelError] {
    let metrics = cell.metrics.as_ref();
    metrics.map_or(&[], |metrics| &metrics.kernel_errors)
}

/// Those of `errors` that are more than a hundred times that of the same operation and layer at the shortest
/// length, at whichever end it is larger, or not finite; each with the latter.
fn drifted<'a>(
    errors: &'a [KernelError],
    at_shortest: &[KernelError],
) -> Vec<(&'a KernelError, f64)> {
    let with_reference = |error: &'a KernelError| {
        let same = |other: &&KernelError| {
            (&other.operation, other.layer) == (&error.operation, error.layer)
        };
        let same = at_shortest.iter().filter(same);
        let reference = same.map(KernelError::largest).fold(0.0, f64::max);
        (error, reference)
    };
    let has_drifted = |(error, reference): &(&KernelError, f64)| {
        !error.largest().is_finite() || error.largest() > DRIFT_FACTOR * reference
    };
    let all = errors.iter().map(with_reference);
    all.filter(has_drifted).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(layer: usize, max: f64) -> KernelError {
        KernelError {
            operation: "selective_scan".into(),
            layer,
            first: 0,
            last: 1023,
            max: Finite::new(max),
            rms: Finite::new(max / 2.0),
        }
    }

    #[test]
    fn a_kernel_has_drifted_beyond_a_hundred_times_its_error_at_the_shortest_length() {
        let shortest = [error(1, 1e-7), error(1, 3e-7), error(2, 1e-6)];
        let layers = |errors: &[KernelError]| -> Vec<(usize, f64)> {
            let drifted = drifted(errors, &shortest).into_iter();
            drifted.map(|(error, at)| (error.layer, at)).collect()
        };
        assert_eq!(layers(&[error(1, 2.9e-5), error(2, 9.9e-5)]), []);
        assert_eq!(layers(&[error(1, 3.1e-5), error(2, 3.1e-5)]), [(1, 3e-7)]);
        assert_eq!(layers(&[error(2, f64::NAN)]), [(2, 1e-6)]);
        assert_eq!(layers(&shortest), [], "measured by itself");
    }
}
