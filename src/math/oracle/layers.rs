//! What lies between the sequence operations: matrix products, normalisation, activations, routing. Forward
//! passes return what their adjoints read; matrices are row-major.

use super::{Number, sigmoid};

/// `a b` `[rows, columns]` for `a` `[rows, inner]` and `b` `[inner, columns]`.
pub fn product<T: Number>(a: &[T], b: &[T], [rows, inner, columns]: [usize; 3]) -> Vec<T> {
    sums([rows, inner, columns], |row, i, column| {
        a[row * inner + i] * b[i * columns + column]
    })
}

/// `a b^T` `[rows, columns]` for `a` `[rows, inner]` and `b` `[columns, inner]`: also the gradient of
/// [`product`] by its first factor.
pub fn product_with_transposed<T: Number>(
    a: &[T],
    b: &[T],
    [rows, inner, columns]: [usize; 3],
) -> Vec<T> {
    sums([rows, inner, columns], |row, i, column| {
        a[row * inner + i] * b[column * inner + i]
    })
}

/// `a^T b` `[columns, width]` for `a` `[rows, columns]` and `b` `[rows, width]`: also the gradient of
/// [`product`] by its second factor.
pub fn product_of_transposed<T: Number>(
    a: &[T],
    b: &[T],
    [rows, columns, width]: [usize; 3],
) -> Vec<T> {
    sums([columns, rows, width], |column, row, i| {
        a[row * columns + column] * b[row * width + i]
    })
}

/// Sums over i of `term(row, i, column)`, `[rows, columns]`.
fn sums<T: Number>(
    [rows, inner, columns]: [usize; 3],
    term: impl Fn(usize, usize, usize) -> T,
) -> Vec<T> {
    let mut out = Vec::with_capacity(rows * columns);
    for row in 0..rows {
        for column in 0..columns {
            let add = |sum, i| sum + term(row, i, column);
            out.push((0..inner).fold(T::from_f64(0.0), add));
        }
    }
    out
}

/// `bias` added to every row of `x`.
pub fn add_bias<T: Number>(x: &[T], bias: &[T]) -> Vec<T> {
    let rows = x.chunks(bias.len());
    rows.flat_map(|row| row.iter().zip(bias).map(|(&x, &b)| x + b))
        .collect()
}

/// Sum over the rows of `d_y`, the gradient of [`add_bias`] by the bias.
pub fn d_bias<T: Number>(d_y: &[T], width: usize) -> Vec<T> {
    let mut d_bias = vec![T::from_f64(0.0); width];
    for row in d_y.chunks(width) {
        for (sum, &d) in d_bias.iter_mut().zip(row) {
            *sum = *sum + d;
        }
    }
    d_bias
}

/// Rows over their root mean square, times a weight (eps 1e-5).
#[derive(Debug, Clone)]
pub struct RmsNorm<T> {
    /// The output.
    pub y: Vec<T>,
    /// Before the weight.
    normalised: Vec<T>,
    /// Of each row.
    roots: Vec<T>,
}

impl<T: Number> RmsNorm<T> {
    /// Of the rows of `x`.
    pub fn forward(x: &[T], gamma: &[T]) -> Self {
        let width = gamma.len();
        let mut norm = Self {
            y: Vec::with_capacity(x.len()),
            normalised: Vec::with_capacity(x.len()),
            roots: Vec::new(),
        };
        for row in x.chunks(width) {
            let squares = row.iter().fold(T::from_f64(0.0), |sum, &x| sum + x * x);
            let mean = squares / T::from_f64(width as f64);
            let root = (mean + T::from_f64(1e-5)).sqrt();
            for (&x, &gamma) in row.iter().zip(gamma) {
                let normalised = x / root;
                norm.normalised.push(normalised);
                norm.y.push(normalised * gamma);
            }
            norm.roots.push(root);
        }
        norm
    }

    /// Gradients by `x` and by `gamma`.
    pub fn backward(&self, gamma: &[T], d_y: &[T]) -> (Vec<T>, Vec<T>) {
        let (zero, width) = (T::from_f64(0.0), gamma.len());
        let mut d_x = Vec::with_capacity(d_y.len());
        let mut d_gamma = vec![zero; width];
        let rows = d_y.chunks(width).zip(self.normalised.chunks(width));
        for ((d_y, normalised), &root) in rows.zip(&self.roots) {
            let mut dot = zero;
            let mut d_normalised = Vec::with_capacity(width);
            for i in 0..width {
                d_gamma[i] = d_gamma[i] + d_y[i] * normalised[i];
                let d = d_y[i] * gamma[i];
                dot = dot + d * normalised[i];
                d_normalised.push(d);
            }
            let mean = dot / T::from_f64(width as f64);
            let columns = d_normalised.iter().zip(normalised);
            d_x.extend(columns.map(|(&d, &x)| (d - x * mean) / root));
        }
        (d_x, d_gamma)
    }
}

/// Softmax of each row.
pub fn softmax<T: Number>(x: &[T], width: usize) -> Vec<T> {
    let mut y = Vec::with_capacity(x.len());
    for row in x.chunks(width) {
        let largest = row.iter().fold(row[0], |m, &x| if x > m { x } else { m });
        let exponentials: Vec<T> = row.iter().map(|&x| (x - largest).exp()).collect();
        let sum = exponentials
            .iter()
            .fold(T::from_f64(0.0), |sum, &e| sum + e);
        y.extend(exponentials.iter().map(|&e| e / sum));
    }
    y
}

/// Gradient of [`softmax`] from its output `y`.
pub fn d_softmax<T: Number>(y: &[T], d_y: &[T], width: usize) -> Vec<T> {
    let mut d_x = Vec::with_capacity(y.len());
    for (y, d_y) in y.chunks(width).zip(d_y.chunks(width)) {
        let products = y.iter().zip(d_y);
        let dot = products.fold(T::from_f64(0.0), |sum, (&y, &d)| sum + y * d);
        d_x.extend(y.iter().zip(d_y).map(|(&y, &d)| y * (d - dot)));
    }
    d_x
}

/// `x` where it is positive, else 0; the gradient is `relu` of the same signs: [`masked`].
pub fn relu<T: Number>(x: &[T]) -> Vec<T> {
    masked(x, x)
}

/// `d` where `x` is positive, else 0.
pub fn masked<T: Number>(x: &[T], d: &[T]) -> Vec<T> {
    let zero = T::from_f64(0.0);
    let pairs = x.iter().zip(d);
    pairs
        .map(|(&x, &d)| if x > zero { d } else { zero })
        .collect()
}

/// `x sigmoid(x)`.
#[derive(Debug, Clone)]
pub struct Silu<T> {
    /// The output.
    pub y: Vec<T>,
    sigmoid: Vec<T>,
}

impl<T: Number> Silu<T> {
    /// Of every element.
    pub fn forward(x: &[T]) -> Self {
        let sigmoid: Vec<T> = x.iter().map(|&x| sigmoid(x)).collect();
        let y = x.iter().zip(&sigmoid).map(|(&x, &s)| x * s).collect();
        Self { y, sigmoid }
    }

    /// Gradient by `x`.
    pub fn backward(&self, d_y: &[T]) -> Vec<T> {
        let saved = self.sigmoid.iter().zip(&self.y);
        let one = T::from_f64(1.0);
        (d_y.iter().zip(saved))
            .map(|(&d, (&s, &y))| d * (s + y * (one - s)))
            .collect()
    }
}

/// `x Phi(x)` by its approximation `x sigmoid(2 sqrt(2 / pi) (x + 0.044715 x^3))` (Hendrycks & Gimpel 2016).
#[derive(Debug, Clone)]
pub struct Gelu<T> {
    /// The output.
    pub y: Vec<T>,
    /// Of each `x`, with the sigmoid.
    squares: Vec<(T, T)>,
}

impl<T: Number> Gelu<T> {
    /// The factors of `x` and of `x^3` in the argument.
    fn factors() -> [f64; 2] {
        let linear = 2.0 * (2.0 / std::f64::consts::PI).sqrt();
        [linear, 0.044_715 * linear]
    }

    /// Of every element.
    pub fn forward(x: &[T]) -> Self {
        let [linear, cubic] = Self::factors().map(T::from_f64);
        let square = |&x: &T| {
            let square = x * x;
            (square, sigmoid(x * (linear + cubic * square)))
        };
        let squares: Vec<(T, T)> = x.iter().map(square).collect();
        let y = x.iter().zip(&squares).map(|(&x, &(_, s))| x * s).collect();
        Self { y, squares }
    }

    /// Gradient by `x`.
    pub fn backward(&self, d_y: &[T]) -> Vec<T> {
        let [linear, cubic] = Self::factors();
        let (linear, cubic) = (T::from_f64(linear), T::from_f64(3.0 * cubic));
        let one = T::from_f64(1.0);
        let saved = self.squares.iter().zip(&self.y);
        (d_y.iter().zip(saved))
            .map(|(&d, (&(square, s), &y))| d * (s + y * (one - s) * (linear + cubic * square)))
            .collect()
    }
}

/// Each row's first half and second half are the parts of complex numbers, turned by the angle whose `(cos, sin)`
/// has their place in `turns`; turned back, the gradient.
pub fn rotate<T: Number>(x: &[T], turns: &[(T, T)], width: usize) -> Vec<T> {
    let half = width / 2;
    let mut y = Vec::with_capacity(x.len());
    for (row, turns) in x.chunks(width).zip(turns.chunks(half)) {
        let (re, im) = row.split_at(half);
        y.extend((0..half).map(|i| re[i] * turns[i].0 - im[i] * turns[i].1));
        y.extend((0..half).map(|i| re[i] * turns[i].1 + im[i] * turns[i].0));
    }
    y
}

/// `x` kept within `low..=high`.
pub fn clamp<T: Number>(x: &[T], low: T, high: T) -> Vec<T> {
    let bounded = |x: T| {
        let x = if x > high { high } else { x };
        if x < low { low } else { x }
    };
    x.iter().map(|&x| bounded(x)).collect()
}

/// Gradient of [`clamp`]: 0 outside.
pub fn d_clamp<T: Number>(x: &[T], d_y: &[T], low: T, high: T) -> Vec<T> {
    let inside = |(&x, &d): (&T, &T)| {
        let (below, above) = (x < low, x > high);
        if below | above { T::from_f64(0.0) } else { d }
    };
    x.iter().zip(d_y).map(inside).collect()
}

/// Element by element.
pub fn add<T: Number>(x: &[T], y: &[T]) -> Vec<T> {
    x.iter().zip(y).map(|(&x, &y)| x + y).collect()
}

/// Element by element; with the cotangent for one factor, the gradient by the other.
pub fn multiply<T: Number>(x: &[T], y: &[T]) -> Vec<T> {
    x.iter().zip(y).map(|(&x, &y)| x * y).collect()
}

/// Rows of `x` times `factors`, one a column.
pub fn scale<T: Number>(x: &[T], factors: &[T]) -> Vec<T> {
    let rows = x.chunks(factors.len());
    rows.flat_map(|row| multiply(row, factors)).collect()
}

/// Gradients of [`scale`] by `x` and by the factors.
pub fn d_scale<T: Number>(x: &[T], factors: &[T], d_y: &[T]) -> (Vec<T>, Vec<T>) {
    let mut d_factors = vec![T::from_f64(0.0); factors.len()];
    for (x, d_y) in x.chunks(factors.len()).zip(d_y.chunks(factors.len())) {
        for ((sum, &x), &d) in d_factors.iter_mut().zip(x).zip(d_y) {
            *sum = *sum + d * x;
        }
    }
    (scale(d_y, factors), d_factors)
}

/// Mamba's decay rates from their logarithms: `-exp(x)`, whose derivative is itself.
pub fn decay_rates<T: Number>(logarithms: &[T]) -> Vec<T> {
    logarithms.iter().map(|&x| -x.exp()).collect()
}

/// The columns of the `k` largest values of each row, the first among equals.
pub fn top_k<T: Number>(x: &[T], width: usize, k: usize) -> Vec<usize> {
    let mut chosen = Vec::new();
    for row in x.chunks(width) {
        let mut left: Vec<usize> = (0..width).collect();
        for _ in 0..k {
            let largest = |best: usize, at: usize| {
                if row[left[at]] > row[left[best]] {
                    at
                } else {
                    best
                }
            };
            let best = (1..left.len()).fold(0, largest);
            chosen.push(left.remove(best));
        }
    }
    chosen
}

/// The part of (0, pi), cut into `n_experts` equal ones, in which the phase of each complex number of `g` lies, and where
/// its size exceeds `threshold` the nearer part beside it.
pub fn by_phase<T: Number>(
    g: &[T],
    n_experts: usize,
    threshold: f64,
) -> Vec<(usize, Option<usize>)> {
    let scale = T::from_f64(n_experts as f64 / std::f64::consts::PI);
    let part = |pair: &[T]| {
        let position = pair[1].atan2(pair[0]) * scale;
        let is_past = |&bound: &usize| position >= T::from_f64(bound as f64);
        let first = (1..n_experts).filter(is_past).count();
        let is_upper_half = position - T::from_f64(first as f64) >= T::from_f64(0.5);
        let squared = pair[0] * pair[0] + pair[1] * pair[1];
        let is_large = squared > T::from_f64(threshold * threshold);
        let above = Some(first + 1).filter(|&part| part < n_experts);
        let below = first.checked_sub(1);
        let nearer = if is_upper_half {
            above.or(below)
        } else {
            below.or(above)
        };
        (first, nearer.filter(|_| is_large))
    };
    g.chunks(2).map(part).collect()
}

/// Sum over rows and columns of `x` times a weight a column: with the fractions of all choices for weights, the
/// load balance of a router.
pub fn load_balance<T: Number>(x: &[T], weights: &[T]) -> T {
    let means = d_bias(x, weights.len());
    let products = means.iter().zip(weights);
    products.fold(T::from_f64(0.0), |sum, (&x, &w)| sum + x * w)
}

/// Gradient of [`load_balance`] by any row of `x`.
pub fn d_load_balance<T: Number>(weights: &[T], d: T) -> Vec<T> {
    weights.iter().map(|&w| w * d).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::math::random::{Coordinate, Purpose, normal_vec};

    fn normals(row: u32, n: usize) -> Vec<f64> {
        let stream = Coordinate {
            row,
            ..Coordinate::new(Purpose::Test)
        };
        normal_vec(5, stream, n, 1.0)
            .into_iter()
            .map(f64::from)
            .collect()
    }

    /// The gradient of `sum(w f(x))` by differences against `exact`.
    fn differs(f: &dyn Fn(&[f64]) -> Vec<f64>, x: &[f64], w: &[f64], exact: &[f64]) {
        const STEP: f64 = 1e-6;
        let objective = |x: &[f64]| multiply(&f(x), w).iter().sum::<f64>();
        for i in 0..x.len() {
            let mut moved = x.to_vec();
            moved[i] += STEP;
            let up = objective(&moved);
            moved[i] -= 2.0 * STEP;
            let slope = (up - objective(&moved)) / (2.0 * STEP);
            assert!((slope - exact[i]).abs() < 1e-7, "{i}: {slope} {}", exact[i]);
        }
    }

    #[test]
    fn adjoints_are_derivatives() {
        let (x, w, factors) = (normals(1, 15), normals(2, 15), normals(3, 5));
        let norm = RmsNorm::forward(&x, &factors);
        let (d_x, d_gamma) = norm.backward(&factors, &w);
        differs(&|x| RmsNorm::forward(x, &factors).y, &x, &w, &d_x);
        differs(&|g| RmsNorm::forward(&x, g).y, &factors, &w, &d_gamma);
        let y = softmax(&x, 5);
        differs(&|x| softmax(x, 5), &x, &w, &d_softmax(&y, &w, 5));
        differs(
            &|x| Silu::forward(x).y,
            &x,
            &w,
            &Silu::forward(&x).backward(&w),
        );
        let gelu = Gelu::forward(&x);
        differs(&|x| Gelu::forward(x).y, &x, &w, &gelu.backward(&w));
        differs(&|x| relu(x), &x, &w, &masked(&x, &w));
        differs(
            &|x| clamp(x, -0.5, 0.5),
            &x,
            &w,
            &d_clamp(&x, &w, -0.5, 0.5),
        );
        let (d_x, d_factors) = d_scale(&x, &factors, &w);
        differs(&|x| scale(x, &factors), &x, &w, &d_x);
        differs(&|f| scale(&x, f), &factors, &w, &d_factors);
        let rates = decay_rates(&x);
        differs(&decay_rates, &x, &w, &multiply(&rates, &w));
        let b = normals(4, 10);
        let out = normals(5, 6);
        let sizes = [3, 5, 2];
        let d_a = product_with_transposed(&out, &b, [3, 2, 5]);
        differs(&|a| product(a, &b, sizes), &x, &out, &d_a);
        let d_b = product_of_transposed(&x, &out, [3, 5, 2]);
        differs(&|b| product(&x, b, sizes), &b, &out, &d_b);
        let balance = |x: &[f64]| vec![load_balance(x, &factors)];
        differs(
            &balance,
            &x,
            &[2.0],
            &d_load_balance(&factors, 2.0).repeat(3),
        );
    }

    #[test]
    fn the_first_of_equals_is_chosen() {
        assert_eq!(top_k(&[0.1, 0.7, 0.7, 0.4], 4, 3), [1, 2, 3]);
    }
}
