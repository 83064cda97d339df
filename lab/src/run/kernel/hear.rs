//! Converts a guest's messages to events, and assigns splats to the cell that was running, or to none.

use super::{KernelRun, Launch};
use crate::run::{
    evidence,
    judge::{self, SeenAttempt},
    left::left_behind,
    session::{Farewell, GuestMessage},
    splat::scan_kernel_log,
};

use lab_protocol::{CellReport, ErrorKind, Outcome};
use lab_record::{
    event::{Event, Moment},
    excuse::Excuse,
    splat::Splat,
};
use lab_vm::Accel;

impl KernelRun<'_> {
    pub(super) fn hear(&self, launch: &Launch, word: GuestMessage) {
        let (kernel, guest) = (self.id(), launch.number);
        match word {
            GuestMessage::Hello { release, version, kernel: kernel_version, after } => {
                launch.hello.set(Some(after));
                (self.emit)(Event::Booted {
                    kernel,
                    guest,
                    release,
                    version,
                    kernel_version,
                    boot_ms: u64::try_from(after.as_millis()).unwrap_or(u64::MAX),
                });
            }
            GuestMessage::Probed { capabilities, modules } => {
                let warnings = judge::probe_warnings(&self.kernel.facts, &capabilities);
                self.learn(&capabilities);
                (self.emit)(Event::Probed { kernel, guest, capabilities, modules });
                // All guests of a kernel have the same probe results; one event is enough.
                if guest == 1 {
                    warnings.into_iter().for_each(|warning| self.note(warning));
                }
            }
            GuestMessage::Started(cell) => {
                let moment = if launch.is_fresh() { Moment::Boot } else { Moment::Between };
                self.outside(launch, moment, launch.splats_before(&format!("begin {cell}")));
                launch.began(&cell);
                (self.emit)(Event::CellStarted { kernel, guest, cell });
            }
            GuestMessage::Closed(files, children) => {
                launch.streams.replace(files);
                launch.children.replace(children);
            }
            GuestMessage::Finished(report) => self.finished(launch, *report),
            GuestMessage::KernelLog(text) => launch.log(scan_kernel_log(&text)),
            GuestMessage::Note(text) => self.note(text),
        }
    }

    fn finished(&self, launch: &Launch, mut report: CellReport) {
        let owner = self.owner(&report.cell);
        let mut files = launch.streams.take();
        files.extend(evidence::keep(launch.directory(), &self.id(), &owner, &mut report).unwrap_or_else(|error| {
            self.note(format!("evidence of {}: {error}", report.cell));
            Vec::new()
        }));
        let cores = launch.take_cores(&self.id(), &owner);
        files.extend(cores.files);
        report.log.extend(cores.told);
        let splats = launch.inside(launch.splats_before(&format!("end {}", report.cell)));
        let is_program = self.plan.info(&report.cell).is_some_and(|info| info.work.program().is_some());
        if is_program && let Some(left) = left_behind(&report, &splats) {
            launch.dirty.replace(Some(format!("{} {left}", report.cell)));
        }
        let seen = SeenAttempt { splats, files, ..SeenAttempt::reported(report) };
        if matches!(seen.report.outcome, Outcome::Errored { kind: ErrorKind::Hang, .. }) {
            launch.cost.replace(Some(seen.report.cell.clone()));
            launch.hung.replace(Some(seen));
        } else {
            self.verdict(launch, seen);
        }
    }

    /// Splats that occurred in no cell.
    pub(super) fn outside(&self, launch: &Launch, moment: Moment, splats: Vec<Splat>) {
        for mut splat in splats {
            // A restored guest's console repeats the messages of the boot, and all boots of a kernel print the same
            // splats.
            if moment == Moment::Boot && !self.progress().boot_splats.insert(splat.fingerprint.clone()) {
                continue;
            }
            self.lists.allow(&self.kernel.facts, &mut splat);
            // A guest under KVM has the host's processor, or the one that an outer hypervisor provides.
            let found = moment == Moment::Boot && launch.spec.accel == Accel::Kvm && splat.is_about_processor();
            if found && splat.allowed.is_none() {
                let reason = "about this host's processor, which guests under KVM also have: not a fault of the kernel";
                splat.allowed = Some(Excuse { reason: reason.to_owned(), link: None, expires: None });
            }
            splat.suspects = launch.suspects();
            (self.emit)(Event::Splat { kernel: self.id(), guest: launch.number, moment, splat: Box::new(splat) });
        }
    }

    /// Handles the regular end of a guest; `survivors` of its processes still exist.
    pub(super) fn ended(&self, launch: &Launch, farewell: Farewell, survivors: usize) {
        let moment = if launch.is_fresh() { Moment::Boot } else { Moment::Teardown };
        self.outside(launch, moment, launch.splats());
        let mut problems = farewell.problems();
        if survivors > 0 {
            problems.push(format!("{survivors} of its processes still ran after its end"));
        }
        (self.emit)(Event::GuestEnded {
            kernel: self.id(),
            guest: launch.number,
            shutdown_ms: u64::try_from(farewell.after.as_millis()).unwrap_or(u64::MAX),
            problems,
        });
    }
}
