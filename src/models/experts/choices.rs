//! Which experts a token is sent to: decided on the host, from a router's probabilities or from the resolvent.

use std::f32::consts::PI;

/// `|G|` above which the phase sends a token to two experts: half of the bound of `|G|` at the shift z = i.
const TWO_ABOVE: f32 = 0.5;

/// The experts of each token, the first choice first; `None` is no expert.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choices {
    /// Token by token.
    experts: Vec<Option<u32>>,
    per_token: usize,
}

impl Choices {
    /// The `per_token` likeliest of each row of `probabilities`, the lowest index first among equals. Columns from
    /// `n_experts` on are no expert.
    pub(super) fn likeliest(
        probabilities: &[f32],
        width: usize,
        n_experts: usize,
        per_token: usize,
    ) -> Self {
        let mut experts = Vec::with_capacity(probabilities.len() / width * per_token);
        for row in probabilities.chunks(width) {
            let mut order: Vec<usize> = (0..width).collect();
            // A stable sort keeps the lowest index first among equals.
            order.sort_by(|&a, &b| row[b].total_cmp(&row[a]));
            let chosen = order[..per_token].iter();
            experts.extend(chosen.map(|&choice| (choice < n_experts).then_some(choice as u32)));
        }
        Self { experts, per_token }
    }

    /// By the phase of `g`, pairs of real and imaginary part: (0, pi) is cut into as many equal parts as there are
    /// experts. Where `|G|` exceeds [`TWO_ABOVE`], the expert of the nearer neighbouring part comes second.
    pub(super) fn by_phase(g: &[f32], n_experts: usize) -> Self {
        let mut experts = Vec::with_capacity(g.len());
        for pair in g.chunks(2) {
            let (re, im) = (pair[0], pair[1]);
            let position = im.atan2(re) / PI * n_experts as f32;
            let first = (position as usize).min(n_experts - 1);
            let above = (first + 1 < n_experts).then_some(first + 1);
            let below = first.checked_sub(1);
            let nearer = if position - first as f32 >= 0.5 {
                above.or(below)
            } else {
                below.or(above)
            };
            let is_two = re * re + im * im > TWO_ABOVE * TWO_ABOVE;
            let second = nearer.filter(|_| is_two);
            experts.extend([Some(first as u32), second.map(|expert| expert as u32)]);
        }
        Self {
            experts,
            per_token: 2,
        }
    }

    /// Choices a token, no expert among them.
    pub(super) fn per_token(&self) -> usize {
        self.per_token
    }

    /// Token by token.
    pub(super) fn rows(&self) -> impl Iterator<Item = &[Option<u32>]> {
        self.experts.chunks(self.per_token)
    }

    /// 1 at the choice `k` of each token, `[tokens, width]`, no expert being the last column.
    pub(super) fn one_hot(&self, k: usize, width: usize) -> Vec<f32> {
        let mut one_hot = vec![0.0; self.experts.len() / self.per_token * width];
        for (row, columns) in self.rows().zip(one_hot.chunks_mut(width)) {
            columns[row[k].map_or(width - 1, |expert| expert as usize)] = 1.0;
        }
        one_hot
    }

    /// The share of the choice `k` of each token, equal among its experts.
    pub(super) fn shares(&self, k: usize) -> Vec<f32> {
        let share = |row: &[Option<u32>]| {
            let n_experts = row.iter().flatten().count();
            row[k].map_or(0.0, |_| 1.0 / n_experts as f32)
        };
        self.rows().map(share).collect()
    }

    /// Those of the first `n_tokens` tokens.
    #[must_use]
    pub fn first(&self, n_tokens: usize) -> Self {
        let n = (n_tokens * self.per_token).min(self.experts.len());
        Self {
            experts: self.experts[..n].to_vec(),
            per_token: self.per_token,
        }
    }

    /// Takes the choices of as many tokens as `pinned` has, and returns the tokens whose own were others.
    pub(super) fn pin(&mut self, pinned: &Self) -> Vec<usize> {
        let rows = self.rows().zip(pinned.rows());
        let differs = |(token, (own, pinned))| (own != pinned).then_some(token);
        let flipped = rows.enumerate().filter_map(differs).collect();
        let n = pinned.experts.len().min(self.experts.len());
        self.experts[..n].copy_from_slice(&pinned.experts[..n]);
        flipped
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(choices: &Choices) -> Vec<Vec<Option<u32>>> {
        choices.rows().map(<[_]>::to_vec).collect()
    }

    #[test]
    fn the_likeliest_come_first_and_columns_beyond_the_experts_are_none() {
        let probabilities = [0.2, 0.5, 0.3, 0.3, 0.3, 0.4];
        let choices = Choices::likeliest(&probabilities, 3, 2, 2);
        assert_eq!(rows(&choices), [[Some(1), None], [None, Some(0)]]);
    }

    #[test]
    fn the_phase_picks_the_part_it_lies_in_and_a_large_value_its_neighbour_too() {
        let at = |size: f32, part: f32| {
            let phase = part / 4.0 * PI;
            [size * phase.cos(), size * phase.sin()]
        };
        let g: Vec<f32> = [
            at(0.4, 0.2),
            at(0.4, 3.9),
            at(0.6, 1.3),
            at(0.6, 1.7),
            // Beyond the ends there is nobody.
            at(0.6, 0.2),
            at(0.6, 3.9),
            [-1.0, 0.0],
            [f32::NAN, 0.0],
        ]
        .concat();
        let expected = [
            [Some(0), None],
            [Some(3), None],
            [Some(1), Some(0)],
            [Some(1), Some(2)],
            [Some(0), Some(1)],
            [Some(3), Some(2)],
            [Some(3), Some(2)],
            [Some(0), None],
        ];
        assert_eq!(rows(&Choices::by_phase(&g, 4)), expected);
        let alone = Choices::by_phase(&g[..4], 1);
        assert_eq!(rows(&alone), [[Some(0), None]; 2]);
    }

    #[test]
    fn the_phase_picks_what_the_oracle_picks() {
        use crate::math::oracle::layers::by_phase;
        use crate::math::random::{Coordinate, Purpose, normal_vec};
        let mut g = normal_vec(3, Coordinate::new(Purpose::Test), 2000, 0.5);
        for im in g.iter_mut().skip(1).step_by(2) {
            *im = im.abs();
        }
        let exact: Vec<f64> = g.iter().copied().map(f64::from).collect();
        for n_experts in [1, 2, 3, 8] {
            let chosen = by_phase(&exact, n_experts, f64::from(TWO_ABOVE));
            let expert = |expert: usize| Some(expert as u32);
            let expected = chosen
                .into_iter()
                .map(|(a, b)| [expert(a), b.and_then(expert)]);
            let expected: Vec<_> = expected.collect();
            assert_eq!(rows(&Choices::by_phase(&g, n_experts)), expected);
        }
    }

    #[test]
    fn pinned_tokens_take_their_choices_and_the_others_are_named() {
        let mut choices = Choices::likeliest(&[0.6, 0.4, 0.3, 0.7, 0.9, 0.1], 2, 2, 1);
        let pinned = Choices::likeliest(&[0.6, 0.4, 0.7, 0.3, 0.1, 0.9], 2, 2, 1);
        assert_eq!(choices.pin(&pinned.first(2)), [1]);
        assert_eq!(rows(&choices), [[Some(0)], [Some(0)], [Some(0)]]);
    }
}
