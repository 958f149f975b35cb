//! Matrices in fewer bits, on the host: the widths, how codes and scales lie in words, and packing.
//!
//! What a model packs is in `models::quantised`, what multiplies packed matrices in `ops::packed_matmul`.

mod layout;
mod pack;
mod width;

pub use layout::Layout;
pub use pack::PackedMatrix;
pub use width::BitWidth;
