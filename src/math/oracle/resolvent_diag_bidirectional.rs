//! The whole resolvent's diagonal of a tridiagonal matrix, its adjoint, and the gradient that the published
//! code takes in the adjoint's place, step by step.
//!
//! `G[i] = [(H - z)^-1]_ii` for a tridiagonal `H` with diagonal `diag` and products of off-diagonals
//! `coupling[i]` between rows i-1 and i. `coupling[0]` couples nothing.

use super::Number;
use super::resolvent_diag::Complex;

/// The inputs. A complex tensor holds the real parts of all heads, then the imaginary parts.
#[derive(Debug, Clone, Copy)]
pub struct Problem<'a, N> {
    /// Sequences.
    pub batch: usize,
    /// Rows of the matrix.
    pub seq: usize,
    /// Independent matrices.
    pub heads: usize,
    /// `[batch, seq, heads]`.
    pub diag: &'a [N],
    /// `[batch, seq, heads]`, or one value for all, which has no gradient.
    pub coupling: &'a [N],
    /// `[2, heads]`: real and imaginary parts of z.
    pub shift: &'a [N],
}

/// Gradients with respect to the inputs of the same names and shapes; that of z is (dL/dRe, dL/dIm).
#[derive(Debug, Clone)]
pub struct Gradients<N> {
    /// dL/d diag.
    pub diag: Vec<N>,
    /// dL/d coupling; empty where one value holds everywhere.
    pub coupling: Vec<N>,
    /// dL/d shift.
    pub shift: Vec<N>,
}

/// One matrix: a sequence and a head.
struct Matrix<N> {
    /// `diag - z`.
    s: Vec<Complex<N>>,
    /// Between rows i-1 and i; 0 at both ends, so that there is one more than rows.
    p: Vec<N>,
}

/// What the forward pass computed of one matrix.
#[derive(Debug, Clone)]
struct Pass<N> {
    /// `1 / (s[i] - p[i] g[i-1])`.
    g: Vec<Complex<N>>,
    /// `1 / (s[i] - p[i+1] r[i+1])`.
    r: Vec<Complex<N>>,
    /// `1 / (s[i] - p[i] g[i-1] - p[i+1] r[i+1])`.
    full: Vec<Complex<N>>,
}

impl<N: Number> Matrix<N> {
    fn pass(&self) -> Pass<N> {
        let n = self.s.len();
        let zeros = || vec![Complex::zero(); n];
        let (mut g, mut r, mut full) = (zeros(), zeros(), zeros());
        let mut after = zeros();
        let mut next = Complex::zero();
        for i in (0..n).rev() {
            after[i] = next.scaled(self.p[i + 1]);
            r[i] = self.s[i].minus(after[i]).reciprocal();
            next = r[i];
        }
        let mut last = Complex::zero();
        for i in 0..n {
            let left = self.s[i].minus(last.scaled(self.p[i]));
            g[i] = left.reciprocal();
            full[i] = left.minus(after[i]).reciprocal();
            last = g[i];
        }
        Pass { g, r, full }
    }
}

/// What the forward pass computed, matrix by matrix.
#[derive(Debug, Clone)]
pub struct Trace<N> {
    /// G, `[batch, seq, 2 * heads]`.
    pub full: Vec<N>,
    passes: Vec<Pass<N>>,
}

impl<N: Number> Problem<'_, N> {
    fn row(&self, b: usize, i: usize) -> usize {
        b * self.seq + i
    }

    fn matrix(&self, b: usize, h: usize) -> Matrix<N> {
        let at = |i: usize| self.row(b, i) * self.heads + h;
        let minus_eta = -self.shift[self.heads + h];
        let s = |i: usize| Complex(self.diag[at(i)] - self.shift[h], minus_eta);
        Matrix {
            s: (0..self.seq).map(s).collect(),
            p: self.couplings(b, h),
        }
    }

    /// Between rows i-1 and i; 0 at both ends.
    fn couplings(&self, b: usize, h: usize) -> Vec<N> {
        let coupling = |i: usize| match self.coupling {
            _ if i == 0 || i == self.seq => N::from_f64(0.0),
            [one] => *one,
            all => all[self.row(b, i) * self.heads + h],
        };
        (0..=self.seq).map(coupling).collect()
    }

    /// Complex element of `[batch, seq, 2 * heads]`.
    fn complex(&self, x: &[N], row: usize, h: usize) -> Complex<N> {
        let at = row * 2 * self.heads + h;
        Complex(x[at], x[at + self.heads])
    }

    /// G, `[batch, seq, 2 * heads]`.
    pub fn forward(&self) -> Vec<N> {
        self.trace().full
    }

    /// G with what the adjoint reads of the way there.
    pub fn trace(&self) -> Trace<N> {
        let mut full = vec![N::from_f64(0.0); 2 * self.diag.len()];
        let mut passes = Vec::with_capacity(self.batch * self.heads);
        for b in 0..self.batch {
            for h in 0..self.heads {
                let pass = self.matrix(b, h).pass();
                for (i, value) in pass.full.iter().enumerate() {
                    let at = self.row(b, i) * 2 * self.heads + h;
                    (full[at], full[at + self.heads]) = (value.0, value.1);
                }
                passes.push(pass);
            }
        }
        Trace { full, passes }
    }

    /// Exact adjoint of [`Problem::forward`]; `d_full` `[batch, seq, 2 * heads]` is the cotangent of G.
    pub fn adjoint(&self, d_full: &[N]) -> Gradients<N> {
        self.adjoint_of(&self.trace(), d_full)
    }

    /// As [`Problem::adjoint`], from a trace of the forward pass.
    ///
    /// With `w = dL/dRe - i dL/dIm`, `rho = w G^2`, and the cotangents of minus the denominators of g and r:
    /// `left[i] = rho[i] + p[i+1] left[i+1] g[i]^2`, `right[i] = rho[i] + p[i] right[i-1] r[i]^2`.
    pub fn adjoint_of(&self, trace: &Trace<N>, d_full: &[N]) -> Gradients<N> {
        let zero = N::from_f64(0.0);
        let varies = self.coupling.len() == self.diag.len();
        let mut d_diag = vec![zero; self.diag.len()];
        let mut d_coupling = vec![zero; if varies { self.diag.len() } else { 0 }];
        let mut d_shift = vec![zero; 2 * self.heads];
        for b in 0..self.batch {
            for h in 0..self.heads {
                let p = self.couplings(b, h);
                let Pass { g, r, full } = &trace.passes[b * self.heads + h];
                let n = self.seq;
                let mut rho = vec![Complex::zero(); n];
                let mut left = rho.clone();
                let mut from_right = Complex::zero();
                for i in (0..n).rev() {
                    let w = self.complex(d_full, self.row(b, i), h).conj();
                    rho[i] = w.times(full[i].times(full[i]));
                    left[i] = rho[i].plus(from_right.times(g[i].times(g[i])));
                    from_right = left[i].scaled(p[i]);
                }
                let mut right_before = Complex::zero();
                let mut from_left = Complex::zero();
                for i in 0..n {
                    let at = self.row(b, i) * self.heads + h;
                    let beyond = from_left.times(r[i].times(r[i]));
                    let right = rho[i].plus(beyond);
                    let sum = left[i].plus(beyond);
                    d_diag[at] = -sum.0;
                    d_shift[h] = d_shift[h] + sum.0;
                    d_shift[self.heads + h] = d_shift[self.heads + h] - sum.1;
                    if varies && i > 0 {
                        d_coupling[at] =
                            left[i].real_times(g[i - 1]) + right_before.real_times(r[i]);
                    }
                    from_left = right.scaled(p[i + 1]);
                    right_before = right;
                }
            }
        }
        Gradients {
            diag: d_diag,
            coupling: d_coupling,
            shift: d_shift,
        }
    }

    /// What the published code returns as the gradient of `diag`, `[batch, seq, heads]`, for the cotangent
    /// `d_full`; it has none for the other inputs.
    ///
    /// `-Re(w G^2) / 2 - Re(w / (D + 1e-6)) / 2` within +-1000, with `w = dL/dRe + i dL/dIm` and D the
    /// square of G, stretched to a modulus of 1e-3 where it is smaller.
    pub fn published(&self, d_full: &[N]) -> Vec<N> {
        self.published_of(&self.forward(), d_full)
    }

    /// As [`Problem::published`], from the output `full` of [`Problem::forward`].
    pub fn published_of(&self, full: &[N], d_full: &[N]) -> Vec<N> {
        let number = N::from_f64;
        let mut d_diag = Vec::with_capacity(self.diag.len());
        for row in 0..self.batch * self.seq {
            for h in 0..self.heads {
                let g = self.complex(full, row, h);
                let w = self.complex(d_full, row, h);
                let square = g.times(g);
                // |G^2| is |G|^2, which needs no root.
                let size = g.0 * g.0 + g.1 * g.1;
                let mut stretch = number(1e-3) / (size + number(1e-9));
                if size >= number(1e-3) {
                    stretch = number(1.0);
                }
                let mut denominator = square.scaled(stretch);
                denominator.0 = denominator.0 + number(1e-6);
                let sum = w.real_times(square) + w.real_times(denominator.reciprocal());
                let mut value = -(sum * number(0.5));
                if value > number(1e3) {
                    value = number(1e3);
                }
                if value < number(-1e3) {
                    value = number(-1e3);
                }
                d_diag.push(value);
            }
        }
        d_diag
    }
}
