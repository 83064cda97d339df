//! A fault: what is injected, the expected result, and the actual result.

use crate::{fake::Scenario, real::Stage};
use std::path::PathBuf;

/// A row of the table.
pub struct Fault {
    /// Its name.
    pub name: &'static str,
    /// Description of the fault.
    pub injected: &'static str,
    /// The expected result.
    pub expected: Expected,
    /// How it is injected.
    pub how: How,
}

/// The expected result of a fault.
pub struct Expected {
    /// The exit code.
    pub exit: i32,
    /// Prefixes of `case word: message`, one per cell that matters.
    pub cells: &'static [&'static str],
    /// Texts that must occur in the notes, the losses or the output.
    pub told: &'static [&'static str],
}

/// How a fault is injected.
pub enum How {
    /// A guest without a virtual machine, in a separate process.
    Fake(fn() -> Scenario),
    /// The `lab` program on real guests.
    Real(fn(&Stage) -> Seen),
}

/// The actual result of a fault.
#[derive(Default)]
pub struct Seen {
    /// Exit code of the process that counts.
    pub exit: Option<i32>,
    /// Its output, both streams.
    pub printed: String,
    /// The last line that it prints: of the summary, or, where there is none, of what went wrong.
    pub last: String,
    /// Directories of the runs, which must be complete.
    pub runs: Vec<PathBuf>,
}

/// The evaluation of a fault.
#[derive(Default)]
pub struct Result {
    /// Differences from the expected result.
    pub wrong: Vec<String>,
    /// Number of planned cells without a verdict.
    pub lost: usize,
    /// Number of cells with more than one verdict.
    pub duplicated: usize,
    /// Processes, mounts and temporary files that were left behind.
    pub left: Vec<String>,
}
