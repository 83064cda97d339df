//! The host runner: boots a matrix of kernels and reports which attach type was used.

pub mod vm;
pub mod paths;
pub mod setup;
