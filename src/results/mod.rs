//! The versioned record of a run: provenance, cells, atomic files, guide-shaped export.
