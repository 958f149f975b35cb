//! The rows on which experts run.

use super::choices::Choices;

/// Which token goes where.
#[derive(Debug)]
pub(super) struct Plan {
    /// Token of each gathered row, expert by expert, padding included.
    pub tokens: Vec<u32>,
    /// Rows of each expert, padding included; 0 where it was not chosen.
    pub padded_rows: Vec<usize>,
    /// One entry for each choice of a token.
    pub choices: Vec<Choice>,
    /// Rows of each expert that are no padding.
    pub counts: Vec<u64>,
    /// Whether some choice is no expert.
    pub has_idle: bool,
}

/// The first choices of all tokens, or the second ones, and so on.
#[derive(Debug, Clone, Default)]
pub(super) struct Choice {
    /// Row of the gathered experts' output for each token; the row behind the last one for no expert.
    pub slots: Vec<u32>,
    /// Tokens that it sends to an expert.
    pub n_sent: usize,
    /// Those of them that an earlier choice has sent to an expert, too.
    pub n_added: usize,
}

impl Plan {
    pub(super) fn new(choices: &Choices, n_experts: usize) -> Self {
        let mut members: Vec<Vec<(u32, usize)>> = vec![Vec::new(); n_experts];
        let mut by_choice = vec![Choice::default(); choices.per_token()];
        for (token, row) in choices.rows().enumerate() {
            let mut was_sent = false;
            for (k, expert) in row.iter().enumerate() {
                // Until the rows are known, nowhere.
                by_choice[k].slots.push(u32::MAX);
                let Some(expert) = *expert else { continue };
                members[expert as usize].push((token as u32, k));
                by_choice[k].n_sent += 1;
                by_choice[k].n_added += usize::from(was_sent);
                was_sent = true;
            }
        }
        let n_tokens = by_choice.first().map_or(0, |choice| choice.slots.len());
        let counts = members.iter().map(|m| m.len() as u64).collect();

        let (mut tokens, mut padded_rows) = (Vec::new(), Vec::with_capacity(n_experts));
        for list in &members {
            let first = tokens.len();
            for &(token, k) in list {
                by_choice[k].slots[token as usize] = tokens.len() as u32;
                tokens.push(token);
            }
            // A single token, as when text is written, is the one shape more that pays.
            let rows = if n_tokens == 1 {
                list.len()
            } else {
                padded(list.len())
            };
            // Padding rows compute token 0 again; nothing reads them and their gradient is 0.
            tokens.resize(first + rows, 0);
            padded_rows.push(rows);
        }
        let behind = tokens.len() as u32;
        let mut has_idle = false;
        for slot in by_choice.iter_mut().flat_map(|choice| &mut choice.slots) {
            has_idle |= *slot == u32::MAX;
            *slot = (*slot).min(behind);
        }
        Self {
            tokens,
            padded_rows,
            choices: by_choice,
            counts,
            has_idle,
        }
    }

    /// Rows of all experts that are no padding.
    pub(super) fn n_sent(&self) -> usize {
        self.choices.iter().map(|choice| choice.n_sent).sum()
    }
}

/// Rows are padded to quarter steps between powers of two: every new matmul shape costs a pipeline, and
/// this bounds both the shapes (four an octave) and the waste (a quarter at most).
fn padded(rows: usize) -> usize {
    if rows <= 16 {
        return if rows == 0 { 0 } else { 16 };
    }
    let step = rows.next_power_of_two() / 8;
    rows.next_multiple_of(step)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_token_finds_its_expert_and_ties_go_to_the_lowest_index() {
        let probabilities = [0.1, 0.7, 0.2, 0.4, 0.4, 0.2, 0.2, 0.2, 0.6];
        let plan = Plan::new(&Choices::likeliest(&probabilities, 3, 3, 2), 3);
        let expert_of = |slot: u32| {
            let mut end = 0;
            plan.padded_rows.iter().position(|rows| {
                end += rows;
                (slot as usize) < end
            })
        };
        let experts_of = |k: usize| -> Vec<_> {
            let slots = plan.choices[k].slots.iter();
            slots.map(|&slot| expert_of(slot)).collect()
        };
        assert_eq!(experts_of(0), [Some(1), Some(0), Some(2)]);
        assert_eq!(experts_of(1), [Some(2), Some(1), Some(0)]);
        for choice in &plan.choices {
            for (token, &slot) in choice.slots.iter().enumerate() {
                assert_eq!(plan.tokens[slot as usize], token as u32);
            }
            assert_eq!(choice.n_sent, 3);
        }
        assert_eq!((plan.choices[0].n_added, plan.choices[1].n_added), (0, 3));
        assert_eq!(plan.counts, [2, 2, 2]);
        assert!(!plan.has_idle);
    }

    #[test]
    fn a_token_without_an_expert_gets_the_row_behind_the_last() {
        // The third column is no expert: first choice of the first token, second one of the second.
        let probabilities = [0.1, 0.2, 0.7, 0.6, 0.1, 0.3];
        let plan = Plan::new(&Choices::likeliest(&probabilities, 3, 2, 2), 2);
        assert!(plan.has_idle);
        let (first, second) = (&plan.choices[0], &plan.choices[1]);
        let behind = plan.tokens.len() as u32;
        assert_eq!((first.slots[0], second.slots[1]), (behind, behind));
        assert!(first.slots[1] < behind && second.slots[0] < behind);
        assert_eq!((first.n_sent, second.n_sent, plan.n_sent()), (1, 1, 2));
        assert_eq!((first.n_added, second.n_added), (0, 0));

        let nobody = Plan::new(&Choices::likeliest(&[0.1, 0.9], 2, 1, 1), 1);
        assert_eq!((nobody.tokens.len(), nobody.n_sent()), (0, 0));
        assert_eq!(nobody.choices[0].slots, [0]);
    }

    #[test]
    fn padding_wastes_at_most_a_quarter_and_never_shrinks() {
        for rows in 17..5000 {
            let p = padded(rows);
            assert!(p >= rows && p * 4 <= rows * 5, "{rows} rows padded to {p}");
        }
        assert_eq!((padded(0), padded(1), padded(16)), (0, 16, 16));
    }
}
