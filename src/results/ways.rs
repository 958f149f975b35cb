//! A record of several ways to set learning rates, way by way, and what it lacks.

use super::{Cell, Finite, RunRecord, Tuning};
use crate::config::{Benchmark, Config, Fairness};

impl RunRecord {
    /// The same with learning rates set in one way alone.
    #[must_use]
    pub(super) fn in_way(&self, fairness: Fairness) -> Self {
        let mut record = self.with(Config {
            fairness: vec![fairness],
            ..self.config.clone()
        });
        record.cells.retain(|cell| self.is_in_way(cell, fairness));
        record.derive();
        record
    }

    /// Whether all trials of a setting have run. Before that, the best rate so far is no choice.
    fn is_tuned(&self, benchmark: Benchmark, setting: &str) -> bool {
        let labels = self.config.models.labels();
        let models: Vec<&str> = labels.iter().map(String::as_str).collect();
        let tuning = self.tuning.as_ref();
        tuning.is_some_and(|tuning| tuning.untried(benchmark, setting, &models).is_none())
    }

    /// Whether a cell has the learning rate that its model is reported at. A cell may belong to both ways.
    fn is_in_way(&self, cell: &Cell, fairness: Fairness) -> bool {
        let wanted = match fairness {
            Fairness::Identical => Finite::new(self.config.train.learning_rate),
            Fairness::EqualTuning => {
                let setting = cell.setting();
                let chosen = |tuning: &Tuning| {
                    let chosen = tuning.chosen(cell.benchmark, &setting, &cell.model);
                    chosen.and_then(|chosen| chosen.learning_rate)
                };
                let tuning = self.tuning.as_ref();
                let tuning = tuning.filter(|_| self.is_tuned(cell.benchmark, &setting));
                tuning.and_then(chosen)
            }
        };
        wanted == Some(cell.learning_rate)
    }

    /// The ways of setting learning rates that a cell belongs to.
    pub(super) fn ways_of(&self, cell: &Cell) -> Vec<Fairness> {
        let mut ways = self.config.fairness.clone();
        if ways.len() > 1 {
            ways.retain(|&fairness| self.is_in_way(cell, fairness));
        }
        ways
    }

    /// Every way in which learning rates were set alone, each with its cells and what follows from them.
    pub fn ways(&self) -> Vec<Self> {
        if self.config.fairness.len() == 1 {
            return vec![self.clone()];
        }
        let ways = self.config.fairness.iter();
        ways.map(|&fairness| self.in_way(fairness)).collect()
    }

    /// The way that stands for the run where one alone is shown: the first.
    #[must_use]
    pub fn headline(self) -> Self {
        match self.config.fairness[..] {
            [first, _, ..] => self.in_way(first),
            _ => self,
        }
    }

    /// Cells that have not been run; those of a model of which no trial completed never will be. While trials are
    /// missing, none of the cells that they choose the rate for counts as run.
    pub fn n_missing(&self) -> u64 {
        let n_cells = self.n_cells();
        if self.config.fairness == [Fairness::Identical] {
            return n_cells.saturating_sub(self.cells.len() as u64);
        }
        let tuning = self.tuning.iter();
        let given_up = tuning
            .flat_map(|tuning| &tuning.chosen)
            .filter(|chosen| chosen.learning_rate.is_none())
            .filter(|chosen| self.is_tuned(chosen.benchmark, &chosen.setting))
            .count() as u64;
        let missing = |&fairness: &Fairness| {
            let found = self
                .cells
                .iter()
                .filter(|cell| self.is_in_way(cell, fairness));
            let found = found.count() as u64;
            match fairness {
                Fairness::Identical => n_cells.saturating_sub(found),
                Fairness::EqualTuning => {
                    n_cells.saturating_sub(found + given_up * self.config.seeds.count)
                }
            }
        };
        self.config.fairness.iter().map(missing).sum()
    }
}
