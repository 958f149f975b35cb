//! resolvent_diag
