//! variational
