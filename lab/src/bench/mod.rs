//! Measurements: boots, the suite, the datapath; and mutants, which measure the suite itself.

pub mod boot;
pub mod datapath;
pub mod mutants;
pub mod suite;
