//! Guests for shells and measurements.

use super::Guests;
use crate::{
    error::Error,
    guests::machine::{Shape, kernel_files},
    lists::Lists,
    run::{
        common::{Common, GuestFiles, Retries},
        queue::Isolate,
        room::Room,
        timing::Timing,
        visit::{self, Visited},
        visitor::Visitor,
    },
    world::World,
};
use lab_base::{lock::lock, say::say, text};
use lab_image::Sends;
use lab_record::{
    event::{Accelerator, Event},
    exit::Exit,
    plan::{Plan, PlannedKernel},
};
use lab_report::progress;
use lab_vm::snapshot::SnapshotStore;
use std::sync::{Arc, Mutex};

/// Prints the events of a session, and records the guest's release.
#[derive(Default)]
pub struct VisitLog {
    release: Mutex<String>,
}

impl VisitLog {
    /// Handles an event.
    fn event(&self, event: &Event) {
        if let Event::Booted { release, .. } = event {
            *lock(&self.release) = text::line(release, 80);
        }
        if let Some(line) = progress::of_visit(event) {
            say(&line);
        }
    }

    /// `uname -r` of the guest, once it is up.
    pub fn release(&self) -> String {
        lock(&self.release).clone()
    }
}

impl Guests {
    /// Connects a visitor to a guest of one of the kernels, which gets the files of `world`.
    pub fn visit(
        &self,
        id: &str,
        shape: &Shape,
        cold: bool,
        world: Option<Arc<World>>,
        visitor: &dyn Visitor,
        told: &VisitLog,
    ) -> Result<Visited, Error> {
        let unpacked = self.kernels.iter().find(|unpacked| unpacked.id == id).ok_or(Error::NothingSelected)?;
        let scratch = lab_vm::scratch()?;
        let prepared = self.machine.prepare(
            unpacked,
            shape.profile,
            Sends::Nothing,
            self.acceleration.accel,
            scratch.path().to_owned(),
        );
        let mut prepared = shape.of(prepared.map_err(|error| Error::Host(error.to_string()))?);
        prepared.files = world.map(|world| GuestFiles { world, kernel: kernel_files(unpacked) });
        let accelerator = Accelerator::from(&self.acceleration);
        let facts = self.facts().into_iter().find(|facts| facts.id == id).ok_or(Error::NothingSelected)?;
        let snapshots = (!cold).then(|| SnapshotStore::below(self.machine.cache()));
        let common = Common {
            plan: &Plan::new(Vec::new(), Vec::new(), false),
            launcher: &self.launcher,
            snapshots: snapshots.as_ref(),
            isolate: Isolate::Kernel,
            split: false,
            room: &Room::unlimited(),
            timing: Timing::default().scaled(accelerator.time_scale),
            rescale: &|boot| self.acceleration.time_scale(Some(boot)),
            estimate: &|_, _| 0,
            mutant: None,
            lists: &Lists::default(),
            retries: Retries::default(),
            content: None,
            earlier: None,
            streams: None,
            holder: None,
            interrupt: &self.interrupt,
            emit: &|event| told.event(&event),
        };
        let visited = visit::visit(common, &PlannedKernel { facts, cells: Vec::new() }, &prepared, visitor);
        self.distrust_kvm_unless(visited != Visited::Lost || !told.release().is_empty());
        Ok(visited)
    }

    /// The exit code of a command that a signal ended.
    pub fn interrupted(&self) -> Exit {
        self.interrupt.signal().map_or(Exit::Infra, Exit::Interrupted)
    }
}
