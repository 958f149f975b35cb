//! Causal resolvent diagonal of a tridiagonal matrix, and its adjoint, step by step.
//!
//! `g[i] = [(H_{0..i} - z)^-1]_ii`, the last diagonal entry of the inverse of the leading block, for a
//! tridiagonal `H` with diagonal `diag` and products of off-diagonals `coupling[i]` between rows i-1 and
//! i. `coupling[0]` couples row 0 to the state `g0` carried from an earlier segment (0 at the start).

use super::Number;

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
    /// `[batch, 2 * heads]`.
    pub g0: &'a [N],
}

/// Gradients with respect to the inputs of the same names and shapes; those of complex inputs are
/// (dL/dRe, dL/dIm).
#[derive(Debug, Clone)]
pub struct Gradients<N> {
    /// dL/d diag.
    pub diag: Vec<N>,
    /// dL/d coupling; empty where one value holds everywhere.
    pub coupling: Vec<N>,
    /// dL/d shift.
    pub shift: Vec<N>,
    /// dL/d g0.
    pub g0: Vec<N>,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Complex<N>(pub(super) N, pub(super) N);

impl<N: Number> Complex<N> {
    pub(super) fn zero() -> Self {
        Self(N::from_f64(0.0), N::from_f64(0.0))
    }
    pub(super) fn plus(self, o: Self) -> Self {
        Self(self.0 + o.0, self.1 + o.1)
    }
    pub(super) fn minus(self, o: Self) -> Self {
        Self(self.0 - o.0, self.1 - o.1)
    }
    pub(super) fn times(self, o: Self) -> Self {
        Self(self.0 * o.0 - self.1 * o.1, self.0 * o.1 + self.1 * o.0)
    }
    pub(super) fn scaled(self, s: N) -> Self {
        Self(self.0 * s, self.1 * s)
    }
    pub(super) fn reciprocal(self) -> Self {
        let norm = self.0 * self.0 + self.1 * self.1;
        Self(self.0 / norm, -self.1 / norm)
    }
    pub(super) fn conj(self) -> Self {
        Self(self.0, -self.1)
    }
    /// `self` plus the conjugate of `o`.
    pub(super) fn plus_conj(self, o: Self) -> Self {
        Self(self.0 + o.0, self.1 - o.1)
    }
    /// Real part of the product.
    pub(super) fn real_times(self, o: Self) -> N {
        self.0 * o.0 - self.1 * o.1
    }
}

impl<N: Number> Problem<'_, N> {
    fn at(&self, b: usize, i: usize, h: usize) -> usize {
        (b * self.seq + i) * self.heads + h
    }

    fn coupling(&self, ix: usize) -> N {
        match self.coupling {
            [one] => *one,
            all => all[ix],
        }
    }

    /// Complex element `h` of row `row` of a tensor of `2 * heads` columns.
    fn complex(&self, x: &[N], row: usize, h: usize) -> Complex<N> {
        Complex(
            x[row * 2 * self.heads + h],
            x[(row * 2 + 1) * self.heads + h],
        )
    }

    fn set(&self, x: &mut [N], row: usize, h: usize, value: Complex<N>) {
        (
            x[row * 2 * self.heads + h],
            x[(row * 2 + 1) * self.heads + h],
        ) = (value.0, value.1);
    }

    /// g, `[batch, seq, 2 * heads]`: `g[i] = 1 / (diag[i] - z - coupling[i] g[i-1])`.
    pub fn forward(&self) -> Vec<N> {
        let mut out = vec![N::from_f64(0.0); self.batch * self.seq * 2 * self.heads];
        for b in 0..self.batch {
            for h in 0..self.heads {
                let mut g = self.complex(self.g0, b, h);
                let minus_eta = -self.shift[self.heads + h];
                for i in 0..self.seq {
                    let ix = self.at(b, i, h);
                    let s = Complex(self.diag[ix] - self.shift[h], minus_eta);
                    g = s.minus(g.scaled(self.coupling(ix))).reciprocal();
                    self.set(&mut out, b * self.seq + i, h, g);
                }
            }
        }
        out
    }

    /// Exact adjoint of [`Problem::forward`]. `d_g` `[batch, seq, 2 * heads]` is the cotangent of g,
    /// `d_g_last` `[batch, 2 * heads]` that of the final state.
    ///
    /// With `w = dL/dRe - i dL/dIm` and `dg[i] = -g[i]^2 d(diag[i] - z - coupling[i] g[i-1])`:
    /// `lambda[i] = w[i] + coupling[i+1] g[i+1]^2 lambda[i+1]`.
    pub fn adjoint(&self, d_g: &[N], d_g_last: &[N]) -> Gradients<N> {
        self.adjoint_of(&self.forward(), d_g, d_g_last)
    }

    /// As [`Problem::adjoint`], from the output `g_all` of [`Problem::forward`].
    pub fn adjoint_of(&self, g_all: &[N], d_g: &[N], d_g_last: &[N]) -> Gradients<N> {
        let zero = N::from_f64(0.0);
        let varies = self.coupling.len() == self.diag.len();
        let mut d_diag = vec![zero; self.diag.len()];
        let mut d_coupling = vec![zero; if varies { self.diag.len() } else { 0 }];
        let mut d_shift = vec![zero; 2 * self.heads];
        let mut d_g0 = vec![zero; self.g0.len()];
        for b in 0..self.batch {
            for h in 0..self.heads {
                let mut from_right = self.complex(d_g_last, b, h).conj();
                for i in (0..self.seq).rev() {
                    let (row, ix) = (b * self.seq + i, self.at(b, i, h));
                    let g = self.complex(g_all, row, h);
                    let lambda = from_right.plus_conj(self.complex(d_g, row, h));
                    let q = g.times(g).times(lambda);
                    d_diag[ix] = -q.0;
                    if varies {
                        let before = match i {
                            0 => self.complex(self.g0, b, h),
                            _ => self.complex(g_all, row - 1, h),
                        };
                        d_coupling[ix] = q.real_times(before);
                    }
                    d_shift[h] = d_shift[h] + q.0;
                    d_shift[self.heads + h] = d_shift[self.heads + h] - q.1;
                    from_right = q.scaled(self.coupling(ix));
                }
                self.set(&mut d_g0, b, h, from_right.conj());
            }
        }
        Gradients {
            diag: d_diag,
            coupling: d_coupling,
            shift: d_shift,
            g0: d_g0,
        }
    }
}
