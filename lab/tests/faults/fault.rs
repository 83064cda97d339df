//! One fault: what is broken, what the lab must make of it, and what was seen.

use crate::{fake::Scenario, real::Stage};
use std::path::PathBuf;

/// A row of the table.
pub struct Fault {
    /// Its name.
    pub name: &'static str,
    /// What is broken, for people.
    pub injected: &'static str,
    /// What must come of it.
    pub expected: Expected,
    /// How it is injected.
    pub how: How,
}

/// What must come of a fault.
pub struct Expected {
    /// The exit code; several where signals and reports race.
    pub exit: i32,
    /// Beginnings of `case word: message`, one per cell that matters.
    pub cells: &'static [&'static str],
    /// Words that must be among the notes, the losses or what was printed.
    pub told: &'static [&'static str],
}

/// How a fault is injected.
pub enum How {
    /// A guest without a machine, in a process of its own.
    Fake(fn() -> Scenario),
    /// The program itself, on real guests.
    Real(fn(&Stage) -> Seen),
}

/// What a fault led to.
#[derive(Default)]
pub struct Seen {
    /// Exit code of the process that counts.
    pub exit: Option<i32>,
    /// What it printed, both streams.
    pub printed: String,
    /// Directories of the runs, complete as they should be.
    pub runs: Vec<PathBuf>,
}

/// What is held against a fault.
#[derive(Default)]
pub struct Result {
    /// What differs from what was expected; empty where nothing does.
    pub wrong: Vec<String>,
    /// Planned cells without a verdict.
    pub lost: usize,
    /// Cells with more than one.
    pub duplicated: usize,
    /// Processes, mounts and temporary files that outlived it.
    pub left: Vec<String>,
}
