//! Cells that guests are started for. Where each cell has a guest of its own, another guest helps only if a cell is left for it.

use super::{super::queue::Isolate, KernelRun, Progress};
use std::cell::Cell;

/// The right to start a guest; it counts against the waiting cells until the guest has taken one.
pub(super) struct CellClaim<'r, 'a> {
    run: &'r KernelRun<'a>,
    counts: Cell<bool>,
}

impl CellClaim<'_, '_> {
    /// The guest takes its cell now.
    pub(super) fn settle(&self, progress: &mut Progress<'_>) {
        progress.claims -= usize::from(self.counts.take());
    }
}

impl Drop for CellClaim<'_, '_> {
    fn drop(&mut self) {
        if self.counts.get() {
            self.settle(&mut self.run.progress());
        }
    }
}

impl<'a> KernelRun<'a> {
    /// A claim on a waiting cell, if there is one that no other guest was started for.
    pub(super) fn claim(&self) -> Option<CellClaim<'_, 'a>> {
        let mut progress = self.progress();
        if progress.unclaimed() == 0 {
            return None;
        }
        let counts = progress.isolate == Isolate::Case;
        progress.claims += usize::from(counts);
        Some(CellClaim { run: self, counts: Cell::new(counts) })
    }

    /// A claim that no cell is needed for: on a kernel without cells, which is only booted.
    pub(super) fn claim_of_boot(&self) -> CellClaim<'_, 'a> {
        CellClaim { run: self, counts: Cell::new(false) }
    }

    /// Cells that no guest has taken or was started for.
    pub fn unclaimed(&self) -> usize {
        self.progress().unclaimed()
    }
}

impl Progress<'_> {
    fn unclaimed(&self) -> usize {
        let waiting = if self.stopped.is_some() { 0 } else { self.queue.waiting() };
        waiting.saturating_sub(self.claims)
    }
}
