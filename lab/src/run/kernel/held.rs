//! Guests of a kernel that are not started but taken from where they are held.

use super::{KernelRun, Launch};
use crate::run::{
    common::Prepared,
    held::{HoldOrder, rehearsal},
    session::ProgramHost,
};
use lab_record::plan::Expectation;
use lab_vm::{Guest, Snapshot};

impl KernelRun<'_> {
    /// A guest that was restored from the snapshot before it was asked for.
    pub(super) fn take_held(&self, launch: &Launch, snapshot: Option<&Snapshot>) -> Option<Box<dyn Guest>> {
        self.holder?.take(&snapshot?.key(), &launch.spec)
    }

    /// Asks for guests that are ready for a run like this one.
    pub(super) fn offer(&self, prepared: &Prepared) {
        let (Some(holder), Some(snapshot)) = (self.holder, self.warm()) else { return };
        let launch = Launch::new(0, prepared.spec.clone(), self.timing, prepared);
        let programs = self.programs(&launch);
        let run = self.kernel.cells.iter().filter(|cell| cell.expectation == Expectation::Run);
        let infos = run.filter_map(|cell| self.plan.info(&cell.id));
        holder.offer(HoldOrder {
            key: snapshot.key(),
            spec: prepared.spec.clone(),
            version: self.kernel.facts.version,
            time_scale: self.timing.scale,
            jobs: rehearsal(infos.map(|info| programs.job(info))),
            files: prepared.files.as_ref().map(|files| files.kernel.clone()),
        });
    }
}
