//! Two rounds of the same cells: in a guest that they share, and each in a pristine one.

use lab_protocol::CellId;
use lab_record::verdict::Verdict;
use std::collections::{BTreeMap, BTreeSet};

/// The first round's verdicts.
#[derive(Debug, Default)]
pub struct Shared(BTreeMap<CellId, Verdict>);

impl Shared {
    /// Keeps one until its cell has run again.
    pub fn keep(&mut self, verdict: Verdict) {
        self.0.insert(verdict.report.cell.clone(), verdict);
    }

    /// Gives one out.
    pub fn take(&mut self, cell: &CellId) -> Option<Verdict> {
        self.0.remove(cell)
    }

    /// The cells that have one.
    pub fn cells(&self) -> BTreeSet<CellId> {
        self.0.keys().cloned().collect()
    }

    /// Those whose cells did not run again.
    pub fn left(self) -> Vec<Verdict> {
        self.0.into_values().collect()
    }
}
