//! Clipping and `AdamW`, parameter by parameter.

use super::Number;

/// Sum of the squares.
pub fn squared_norm<T: Number>(x: &[T]) -> T {
    x.iter().fold(T::from_f64(0.0), |sum, &x| sum + x * x)
}

/// Every element times `factor`.
pub fn rescale<T: Number>(x: &[T], factor: T) -> Vec<T> {
    x.iter().map(|&x| x * factor).collect()
}

/// Settings of a step; what depends on its number alone has been worked out.
#[derive(Debug, Clone, Copy)]
pub struct AdamW<T> {
    /// Share of the old moments that is kept, and of what is new.
    pub betas: [(T, T); 2],
    /// What the moments are divided by: 1 minus a beta to the power of the step.
    pub corrections: [T; 2],
    /// Added to the root.
    pub epsilon: T,
    /// Learning rate.
    pub rate: T,
    /// 1 minus learning rate times weight decay, where there is any.
    pub decay: Option<T>,
}

impl<T: Number> AdamW<T> {
    /// One parameter after a step, and its moments (Loshchilov & Hutter 2019, algorithm 2).
    pub fn step(&self, parameter: T, gradient: T, moments: [T; 2]) -> (T, [T; 2]) {
        let Self {
            betas: [(keep_1, new_1), (keep_2, new_2)],
            corrections,
            epsilon,
            rate,
            decay,
        } = *self;
        let first = keep_1 * moments[0] + new_1 * gradient;
        let second = keep_2 * moments[1] + new_2 * (gradient * gradient);
        let root = (second / corrections[1]).sqrt();
        let update = first / corrections[0] / (root + epsilon);
        let kept = decay.map_or(parameter, |decay| parameter * decay);
        (kept - rate * update, [first, second])
    }
}
