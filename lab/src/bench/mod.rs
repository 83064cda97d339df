//! Measurements: boots, the suite's time, the datapath; and mutants, which measure how well the suite detects faults.

pub mod boot;
pub mod check;
pub mod datapath;
pub mod desk;
pub mod exec;
pub mod mutants;
pub mod plants;
pub mod suite;
