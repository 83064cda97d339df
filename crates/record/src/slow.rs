//! Findings about time: cells of a kernel that take several times as long as they used to.

use serde::{Deserialize, Serialize};

/// Cells of a kernel that took several times as long as recorded. It is a finding of its own, since none of these cells failed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Slow {
    /// Which cells: `all cells`, `area datapath`, `tcx`, `nk-l2`.
    pub cells: String,
    /// Number of cells that were compared.
    pub count: usize,
    /// How many times as long they took.
    pub factor: f64,
    /// The same of the rest of the run: of its other kernels, and of this kernel's other cells. At least 1.
    pub others: f64,
    /// Their time in this run without what their guests waited for the host, milliseconds.
    pub took_ms: u64,
    /// Their recorded time, milliseconds.
    pub recorded_ms: u64,
    /// Which record that is.
    pub record: String,
}

impl Slow {
    /// The finding in one line.
    pub fn line(&self) -> String {
        let Self { cells, count, factor, others, took_ms, recorded_ms, record } = self;
        let (took, recorded) = (*took_ms as f64 / 1e3, *recorded_ms as f64 / 1e3);
        format!(
            "{cells}: {} took {factor:.1} times as long as recorded ({took:.1} s, recorded {recorded:.1} s; the rest of the \
             run: {others:.1} times; record of {record})",
            lab_base::text::count(*count, "cell")
        )
    }
}
