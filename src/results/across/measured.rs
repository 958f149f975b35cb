//! The cells of one adapter's runs, as they stand beside those of others.

use super::Place;
use crate::Result;
use crate::config::Fairness;
use crate::results::compatibility::other_numbers;
use crate::results::observation::{Observation, observations};
use crate::results::{Cell, RunRecord};

/// What was measured on one adapter, in every way of setting learning rates; a cell may belong to both.
pub(super) struct Measured<'a> {
    pub(super) cells: Vec<(Fairness, &'a Cell)>,
    pub(super) observations: Vec<(Fairness, Observation<'a>)>,
}

impl<'a> Measured<'a> {
    /// The cells of runs of one fingerprint, each seed of a model and setting once, and all seeds at one learning rate.
    pub(super) fn of(runs: &[&'a (String, RunRecord)], notes: &mut Vec<String>) -> Result<Self> {
        let mut all = Self {
            cells: Vec::new(),
            observations: Vec::new(),
        };
        for (name, record) in runs {
            let known = all.cells.len();
            for cell in &record.cells {
                for fairness in record.ways_of(cell) {
                    let note = all.enter(known, name, fairness, cell)?;
                    notes.extend(note.filter(|note| !notes.contains(note)));
                }
            }
            for observation in observations(record) {
                let of_this =
                    |(_, cell): &&(Fairness, &Cell)| std::ptr::eq(*cell, observation.cell);
                for (fairness, _) in all.cells[known..].iter().filter(of_this) {
                    all.observations.push((*fairness, observation.clone()));
                }
            }
        }
        Ok(all)
    }

    /// Enters a cell of the run `name` beside the `known` ones of the runs before it, unless they hold its seed or have
    /// another learning rate there; what is to be said of that.
    fn enter(
        &mut self,
        known: usize,
        name: &str,
        fairness: Fairness,
        cell: &'a Cell,
    ) -> Result<Option<String>> {
        let known = self.cells[..known].iter();
        let known = known.filter(|(way, other)| *way == fairness && is_of_one_place(other, cell));
        let here: Vec<&Cell> = known.map(|(_, other)| *other).collect();
        let place = format!("{} at {}", cell.model, cell.setting());
        let other_rate = here
            .iter()
            .find(|other| other.learning_rate != cell.learning_rate);
        if let Some(other) = other_rate {
            return Ok(Some(format!(
                "{place}, {}, has the learning rate {} in {name} and {} in the run before it on the same adapter; its \
                 seeds are not taken together, and the first counts",
                fairness.title(),
                cell.learning_rate.get(),
                other.learning_rate.get()
            )));
        }
        let Some(twin) = here.iter().find(|other| other.seed == cell.seed) else {
            self.cells.push((fairness, cell));
            return Ok(None);
        };
        let is_same = other_numbers(twin, cell)?.is_empty();
        Ok((!is_same).then(|| {
            format!(
                "{place}, seed {}, has other numbers in {name} than in the run before it on the same adapter; the first \
                 counts",
                cell.seed
            )
        }))
    }

    pub(super) fn observations_at(&self, place: &Place) -> Vec<Observation<'a>> {
        let is_here = |(fairness, it): &&(Fairness, Observation<'_>)| {
            *fairness == place.fairness
                && (it.cell.benchmark, &it.setting, &it.cell.model)
                    == (place.benchmark, &place.setting, &place.model)
        };
        let all = self.observations.iter().filter(is_here);
        all.map(|(_, it)| it.clone()).collect()
    }

    pub(super) fn cells_at(&self, place: &Place) -> Vec<&'a Cell> {
        let is_here = |(fairness, cell): &&(Fairness, &Cell)| {
            (*fairness, cell.benchmark, cell.model.as_str())
                == (place.fairness, place.benchmark, place.model.as_str())
                && cell.setting() == place.setting
        };
        let all = self.cells.iter().filter(is_here);
        all.map(|(_, cell)| *cell).collect()
    }
}

/// Whether two cells are of one model at one setting.
pub(super) fn is_of_one_place(a: &Cell, b: &Cell) -> bool {
    (a.benchmark, &a.model) == (b.benchmark, &b.model) && a.setting() == b.setting()
}
