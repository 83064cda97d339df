//! The host runner: boots a matrix of kernels and reports which attach type was used.

pub mod agent_package;
pub mod artifacts;
pub mod bench;
pub mod bench_suite;
pub mod bisect;
pub mod cli;
pub mod compare;
pub mod datapath;
pub mod durations;
pub mod error;
pub mod event;
pub mod history;
pub mod interrupt;
pub mod judge;
pub mod kernels;
pub mod lists;
pub mod machine;
pub mod mutants;
pub mod paths;
pub mod plan;
pub mod report;
pub mod results;
pub mod run;
pub mod selection;
pub mod setup;
pub mod shard;
pub mod shell;
pub mod synthetic;
#[doc(hidden)]
pub mod testing;
pub mod text;
pub mod verdict;
pub mod vm;
pub mod watch;
