//! Runs the same cells twice: in a shared guest, and each in a fresh guest.

use lab_protocol::CellId;
use lab_record::verdict::Verdict;
use std::collections::{BTreeMap, BTreeSet};

/// Verdicts of the first round.
#[derive(Debug, Default)]
pub struct Shared(BTreeMap<CellId, Verdict>);

impl Shared {
    /// Stores a verdict until its cell has run again.
    pub fn keep(&mut self, verdict: Verdict) {
        self.0.insert(verdict.report.cell.clone(), verdict);
    }

    /// Removes and returns a verdict.
    pub fn take(&mut self, cell: &CellId) -> Option<Verdict> {
        self.0.remove(cell)
    }

    /// The cells with a stored verdict.
    pub fn cells(&self) -> BTreeSet<CellId> {
        self.0.keys().cloned().collect()
    }

    /// Verdicts of cells that did not run again.
    pub fn left(self) -> Vec<Verdict> {
        self.0.into_values().collect()
    }
}
