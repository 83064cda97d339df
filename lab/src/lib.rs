//! The host runner: boots a matrix of kernels and reports which attach type was used.

pub mod bench;
pub mod bisect;
pub mod cli;
pub mod error;
pub mod guests;
pub mod lists;
pub mod project;
pub mod run;
pub mod setup;
pub mod shard;
pub mod shell;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
