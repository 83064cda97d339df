//! The host runner: boots a matrix of kernels and reports which attach type was used.

pub mod artifacts;
pub mod bench;
pub mod bench_suite;
pub mod bisect;
pub mod cli;
pub mod datapath;
pub mod durations;
pub mod error;
pub mod judge;
pub mod lists;
pub mod machine;
pub mod mutants;
pub mod run;
pub mod setup;
pub mod shard;
pub mod shell;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod watch;
