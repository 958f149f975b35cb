//! A number that counts what is done with it.

use std::cell::Cell;
use std::cmp::Ordering;
use std::ops::{Add, Div, Mul, Neg, Sub};

use super::Number;

thread_local! {
    /// Operations on this thread.
    static DONE: Cell<u64> = const { Cell::new(0) };
}

/// An `f64` of which every operation counts one: sum, difference, product, quotient, change of sign, comparison
/// and elementary function.
#[derive(Debug, Clone, Copy)]
pub struct Counting(pub f64);

/// What `f` returns, and how many operations on [`Counting`] it did.
pub fn operations<R>(f: impl FnOnce() -> R) -> (R, u64) {
    let before = DONE.get();
    let result = f();
    (result, DONE.get() - before)
}

fn counted<T>(result: T) -> T {
    DONE.set(DONE.get() + 1);
    result
}

macro_rules! binary {
    ($trait:ident, $method:ident) => {
        impl $trait for Counting {
            type Output = Self;
            fn $method(self, other: Self) -> Self {
                counted(Self(self.0.$method(other.0)))
            }
        }
    };
}
binary!(Add, add);
binary!(Sub, sub);
binary!(Mul, mul);
binary!(Div, div);

impl Neg for Counting {
    type Output = Self;
    fn neg(self) -> Self {
        counted(Self(-self.0))
    }
}

impl PartialEq for Counting {
    fn eq(&self, other: &Self) -> bool {
        counted(self.0 == other.0)
    }
}

impl PartialOrd for Counting {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        counted(self.0.partial_cmp(&other.0))
    }
}

macro_rules! function {
    ($($method:ident),*) => {
        $(fn $method(self) -> Self {
            counted(Self(self.0.$method()))
        })*
    };
}

impl Number for Counting {
    fn from_f64(x: f64) -> Self {
        Self(x)
    }
    function!(exp, ln, ln_1p, sqrt, abs);
    fn atan2(self, other: Self) -> Self {
        counted(Self(self.0.atan2(other.0)))
    }
    fn max(self, other: Self) -> Self {
        counted(Self(Number::max(self.0, other.0)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::math::oracle::resolvent_diag::Complex;

    #[test]
    fn arithmetic_counts_what_the_cost_table_says() {
        let (a, b) = (Counting(2.0), Counting(3.0));
        let cost = |f: &dyn Fn() -> Counting| operations(f).1;
        assert_eq!(cost(&|| a * b + a), 2, "a multiply-add");
        let (x, y) = (Complex(a, b), Complex(b, a));
        assert_eq!(cost(&|| x.times(y).0), 6);
        assert_eq!(cost(&|| x.reciprocal().0), 6);
        assert_eq!(cost(&|| -a.exp() / b.sqrt()), 4);
        let ((), comparisons) = operations(|| assert!(a < b && b >= a && a != b));
        assert_eq!(comparisons, 3);
        assert_eq!((a * b + a).0.to_bits(), 8.0_f64.to_bits());
    }
}
