//! laplace
