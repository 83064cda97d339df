//! Tests that only showed up while a suite ran. Each is adopted as a cell, with a verdict of its own out of all attempts at the cell
//! that reported it.

use super::{KernelRun, Launch};
use crate::run::{judge, program::suite::Child};
use lab_protocol::CellId;
use lab_record::{event::Event, verdict::Verdict};
use std::collections::BTreeSet;

impl KernelRun<'_> {
    /// Keeps what the suite of a cell reported in this guest.
    pub(super) fn reported(&self, launch: &Launch, cell: &CellId) {
        let children = launch.children.take();
        if !children.is_empty() {
            self.progress().children.entry(cell.clone()).or_default().push((launch.number, children));
        }
    }

    /// Gives a verdict to each test that the suite of a cell reported.
    pub(super) fn adopt(&self, guest: u32, parent: &CellId) {
        let mut attempts = self.progress().children.remove(parent).unwrap_or_default();
        // The order of the last attempt, then what only earlier ones reported.
        let names: Vec<CellId> =
            attempts.iter().rev().flat_map(|(_, all)| all.iter().map(|it| it.info.id.clone())).collect();
        let mut seen = BTreeSet::new();
        for id in names.into_iter().filter(|id| seen.insert(id.clone())) {
            if self.plan.info(&id).is_some() {
                self.note(format!("{parent} reported {id}, which is a cell of its own: ignored"));
                continue;
            }
            let mut told: Vec<(u32, Child)> = Vec::new();
            for (number, children) in &mut attempts {
                let at = children.iter().position(|child| child.info.id == id);
                told.extend(at.map(|at| (*number, children.swap_remove(at))));
            }
            let Some((number, last)) = told.pop() else { continue };
            let earlier = told.into_iter().map(|(number, child)| (number, child.verdict()));
            let earlier = earlier.filter(|(_, verdict)| verdict.standing().is_bad()).collect();
            let info = Box::new(last.info.clone());
            let mut verdict =
                judge::judge(&self.kernel.facts, last.verdict(), earlier, self.lists, self.retries.on_flaky);
            // The suite's own list of known failures stands where the project's says nothing.
            last.excuse(&mut verdict);
            (self.emit)(Event::CellAdopted { kernel: self.id(), parent: parent.clone(), info });
            self.finish(if number == 0 { guest } else { number }, Verdict { ..verdict });
        }
    }
}
