//! All integration tests in one binary: one link of the whole tree.

mod hardware;
mod support;
