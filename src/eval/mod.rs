//! Held-out evaluation and audits.
