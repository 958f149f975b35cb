//! Pure mathematics: random numbers by coordinate and the sequential oracle.

pub mod oracle;
pub mod random;
