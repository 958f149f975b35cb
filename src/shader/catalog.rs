//! Every kernel of the project. A file in `shaders/` that is not listed here fails a test.

use super::Kernel;

/// Texts that a kernel may `// #import`, by name.
pub const SHARED: &[(&str, &str)] = &[];

/// All kernels.
pub const KERNELS: &[&Kernel] = &[];
