//! The host runner: boots a matrix of kernels and reports which attach type was used.

pub mod kernels;
pub mod vm;
pub mod paths;
pub mod setup;
pub mod artifacts;
pub mod cli;
pub mod machine;
pub mod error;
pub mod event;
pub mod interrupt;
pub mod judge;
pub mod plan;
pub mod report;
pub mod run;
pub mod selection;
pub mod text;
#[cfg(test)]
mod testing;
