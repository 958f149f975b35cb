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
    /// `[batch, seq, heads]`.
    pub coupling: &'a [N],
    /// `[2, heads]`: real and imaginary parts of z.
    pub shift: &'a [N],
}

/// Gradients with respect to the inputs of the same names and shapes; that of z is (dL/dRe, dL/dIm).
#[derive(Debug, Clone)]
pub struct Gradients<N> {
    /// dL/d diag.
    pub diag: Vec<N>,
    /// dL/d coupling.
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

impl<N: Number> Matrix<N> {
    /// `1 / (s[i] - p[i] g[i-1])`.
    fn left(&self) -> Vec<Complex<N>> {
        let mut g: Vec<Complex<N>> = Vec::with_capacity(self.s.len());
        for (i, s) in self.s.iter().enumerate() {
            let before = g.last().copied().unwrap_or_else(Complex::zero);
            g.push(s.minus(before.scaled(self.p[i])).reciprocal());
        }
        g
    }

    /// `1 / (s[i] - p[i+1] r[i+1])`.
    fn right(&self) -> Vec<Complex<N>> {
        let mut r: Vec<Complex<N>> = Vec::with_capacity(self.s.len());
        for (i, s) in self.s.iter().enumerate().rev() {
            let after = r.last().copied().unwrap_or_else(Complex::zero);
            r.push(s.minus(after.scaled(self.p[i + 1])).reciprocal());
        }
        r.reverse();
        r
    }

    /// `1 / (s[i] - p[i] g[i-1] - p[i+1] r[i+1])`.
    fn full(&self) -> Vec<Complex<N>> {
        let (g, r) = (self.left(), self.right());
        let at = |x: &[Complex<N>], i: usize| x.get(i).copied().unwrap_or_else(Complex::zero);
        let entry = |i: usize| {
            let before = at(&g, i.wrapping_sub(1)).scaled(self.p[i]);
            let after = at(&r, i + 1).scaled(self.p[i + 1]);
            self.s[i].minus(before).minus(after).reciprocal()
        };
        (0..self.s.len()).map(entry).collect()
    }
}

impl<N: Number> Problem<'_, N> {
    fn row(&self, b: usize, i: usize) -> usize {
        b * self.seq + i
    }

    fn matrix(&self, b: usize, h: usize) -> Matrix<N> {
        let zero = N::from_f64(0.0);
        let at = |i: usize| self.row(b, i) * self.heads + h;
        let s = |i: usize| {
            let re = self.diag[at(i)] - self.shift[h];
            Complex(re, -self.shift[self.heads + h])
        };
        let p = |i: usize| match i {
            0 => zero,
            _ if i == self.seq => zero,
            _ => self.coupling[at(i)],
        };
        Matrix {
            s: (0..self.seq).map(s).collect(),
            p: (0..=self.seq).map(p).collect(),
        }
    }

    /// Complex element of `[batch, seq, 2 * heads]`.
    fn complex(&self, x: &[N], row: usize, h: usize) -> Complex<N> {
        let at = row * 2 * self.heads + h;
        Complex(x[at], x[at + self.heads])
    }

    /// G, `[batch, seq, 2 * heads]`.
    pub fn forward(&self) -> Vec<N> {
        let mut out = vec![N::from_f64(0.0); 2 * self.diag.len()];
        for b in 0..self.batch {
            for h in 0..self.heads {
                for (i, full) in self.matrix(b, h).full().into_iter().enumerate() {
                    let at = self.row(b, i) * 2 * self.heads + h;
                    (out[at], out[at + self.heads]) = (full.0, full.1);
                }
            }
        }
        out
    }

    /// Exact adjoint of [`Problem::forward`]; `d_full` `[batch, seq, 2 * heads]` is the cotangent of G.
    ///
    /// With `w = dL/dRe - i dL/dIm`, `rho = w G^2`, and the cotangents of `p[i] g[i-1]` and `p[i+1] r[i+1]`
    /// carried on:
    /// `lamL[i] = p[i+1] (rho[i+1] + lamL[i+1] g[i+1]^2)`, `lamR[i] = p[i] (rho[i-1] + lamR[i-1] r[i-1]^2)`.
    pub fn adjoint(&self, d_full: &[N]) -> Gradients<N> {
        let zero = N::from_f64(0.0);
        let mut d_diag = vec![zero; self.diag.len()];
        let mut d_coupling = vec![zero; self.diag.len()];
        let mut d_shift = vec![zero; 2 * self.heads];
        for b in 0..self.batch {
            for h in 0..self.heads {
                let matrix = self.matrix(b, h);
                let (g, r, p) = (matrix.left(), matrix.right(), &matrix.p);
                let rho: Vec<Complex<N>> = matrix
                    .full()
                    .into_iter()
                    .enumerate()
                    .map(|(i, full)| {
                        let w = self.complex(d_full, self.row(b, i), h).conj();
                        w.times(full.times(full))
                    })
                    .collect();
                let n = self.seq;
                let (mut lam_l, mut lam_r) = (vec![Complex::zero(); n], vec![Complex::zero(); n]);
                for i in (1..n).rev() {
                    let from = rho[i].plus(lam_l[i].times(g[i]).times(g[i]));
                    lam_l[i - 1] = from.scaled(p[i]);
                }
                for i in 1..n {
                    let from = rho[i - 1].plus(lam_r[i - 1].times(r[i - 1]).times(r[i - 1]));
                    lam_r[i] = from.scaled(p[i]);
                }
                for i in 0..n {
                    let at = self.row(b, i) * self.heads + h;
                    let left = lam_l[i].times(g[i]).times(g[i]);
                    let right = lam_r[i].times(r[i]).times(r[i]);
                    let sum = rho[i].plus(left).plus(right);
                    d_diag[at] = -sum.0;
                    d_shift[h] = d_shift[h] + sum.0;
                    d_shift[self.heads + h] = d_shift[self.heads + h] - sum.1;
                    if i > 0 {
                        let by_left = rho[i].plus(left).times(g[i - 1]);
                        let before = lam_r[i - 1].times(r[i - 1]).times(r[i - 1]);
                        let by_right = rho[i - 1].plus(before).times(r[i]);
                        d_coupling[at] = by_left.plus(by_right).0;
                    }
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
        let number = N::from_f64;
        let full = self.forward();
        let mut d_diag = Vec::with_capacity(self.diag.len());
        for row in 0..self.batch * self.seq {
            for h in 0..self.heads {
                let g = self.complex(&full, row, h);
                let w = self.complex(d_full, row, h);
                let square = g.times(g);
                // |G^2| is |G|^2, which needs no root.
                let size = g.0 * g.0 + g.1 * g.1;
                let mut denominator = square;
                if size < number(1e-3) {
                    denominator = square.scaled(number(1e-3) / (size + number(1e-9)));
                }
                denominator.0 = denominator.0 + number(1e-6);
                let sum = w.times(square).plus(w.times(denominator.reciprocal()));
                let value = -(sum.0 * number(0.5));
                d_diag.push(if value > number(1e3) {
                    number(1e3)
                } else if value < number(-1e3) {
                    number(-1e3)
                } else {
                    value
                });
            }
        }
        d_diag
    }
}
