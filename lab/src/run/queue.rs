//! The cells of a kernel that have no verdict yet, and the pieces in which guests take them.

use lab_protocol::CellId;
use lab_record::plan::Plan;
use std::collections::VecDeque;

/// Which cells share a guest.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Isolate {
    /// All cells share one guest.
    #[default]
    #[value(alias = "suite")]
    Kernel,
    /// The cells of an area share a guest.
    #[value(alias = "file")]
    Group,
    /// Every cell has a fresh guest.
    #[value(alias = "test")]
    Case,
    /// First as `kernel`, then as `case`: a cell with different outcomes fails.
    Both,
}

/// Number of cells in a piece if several guests of a kernel share the work: small enough that no guest is busy long
/// after the others have finished.
pub const PIECE: usize = 8;

/// Cells that no guest has taken.
#[derive(Debug)]
pub struct Queue<'a> {
    plan: &'a Plan,
    cells: VecDeque<CellId>,
    /// Cells to be repeated, each in a guest of its own, after all others.
    again: VecDeque<CellId>,
}

impl<'a> Queue<'a> {
    /// Creates a queue of all cells in the order of execution.
    pub fn new(plan: &'a Plan, cells: impl Iterator<Item = CellId>) -> Self {
        Self { plan, cells: cells.collect(), again: VecDeque::new() }
    }

    /// Number of cells that no guest has taken.
    pub fn waiting(&self) -> usize {
        self.cells.len() + self.again.len()
    }

    /// The next piece for a guest that has taken `before` pieces, the last cell of which was `last`.
    pub fn take(&mut self, isolate: Isolate, shared: bool, before: usize, last: Option<&CellId>) -> Vec<CellId> {
        if self.cells.is_empty() {
            let next = if before == 0 { self.again.pop_front() } else { None };
            return next.into_iter().collect();
        }
        let count = match isolate {
            Isolate::Case if before > 0 => 0,
            Isolate::Case => 1,
            // A guest that a program leaves dirty gets no other: so it is known after each whether there is a next one.
            Isolate::Group if self.is_program() => {
                let next = self.cells.front().and_then(|cell| self.area(cell));
                usize::from(before == 0 || next == last.and_then(|cell| self.area(cell)))
            }
            Isolate::Kernel | Isolate::Both if self.is_program() => 1,
            Isolate::Group if before > 0 => 0,
            Isolate::Group => {
                let first = self.cells.front().and_then(|cell| self.area(cell));
                self.cells.iter().take_while(|cell| self.area(cell) == first).count()
            }
            Isolate::Kernel | Isolate::Both if shared => PIECE,
            Isolate::Kernel | Isolate::Both => self.cells.len(),
        };
        self.cells.drain(..count.min(self.cells.len())).collect()
    }

    fn area(&self, cell: &CellId) -> Option<&'a str> {
        self.plan.info(cell).map(|info| &*info.area)
    }

    /// Whether the next cell is a program of others.
    fn is_program(&self) -> bool {
        let next = self.cells.front().and_then(|cell| self.plan.info(cell));
        next.is_some_and(|info| info.work.program().is_some())
    }

    /// Queues a cell for a fresh guest after all others.
    pub fn again(&mut self, cell: CellId) {
        self.again.push_back(cell);
    }

    /// Returns cells that a guest took but did not report.
    pub fn give_back(&mut self, cells: Vec<CellId>) {
        cells.into_iter().rev().for_each(|cell| self.cells.push_front(cell));
    }

    /// Removes all remaining cells.
    pub fn drain(&mut self) -> Vec<CellId> {
        self.cells.drain(..).chain(self.again.drain(..)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lab_record::testing::{cell, facts};

    #[test]
    fn a_piece_contains_the_cells_that_may_share_a_guest() {
        let ids: Vec<String> = (0..20).map(|number| format!("A{number:02}-x[tc]")).collect();
        let mut infos: Vec<_> = ids.iter().map(|id| cell(id)).collect();
        infos[3..].iter_mut().for_each(|info| info.area = "mprog".to_owned());
        let plan = Plan::new(vec![facts("6.12", "6.12.43")], infos, false);
        let cells = || ids.iter().map(|id| CellId(id.clone().into()));
        let mut queue = Queue::new(&plan, cells());
        let group = queue.take(Isolate::Group, true, 0, None);
        assert_eq!(group.len(), 3, "the first area");
        assert!(queue.take(Isolate::Group, true, 1, None).is_empty(), "and no other area in the same guest");
        assert_eq!(queue.take(Isolate::Case, true, 0, None).len(), 1);
        assert_eq!(queue.take(Isolate::Kernel, true, 0, None).len(), PIECE);
        queue.give_back(group.clone());
        assert_eq!(queue.take(Isolate::Kernel, false, 1, None)[..3], group, "returned cells are next");
        assert_eq!(queue.waiting(), 0);
    }
}
