//! Guests for visitors.

use super::Guests;
use crate::{
    error::{Error, Exit},
    event::{Accelerator, Event},
    lists::Lists,
    plan::{Plan, PlannedKernel},
    run::{
        kernel::{Common, Retries},
        queue::Isolate,
        room::Room,
        timing::Timing,
        visit::{self, Visited, Visitor},
    },
    vm::snapshot::Store,
};
use lab_image::{Profile, Wanted};

/// Whether it is only this profile that needs a module.
fn is_own(profile: Profile, module: &str) -> bool {
    !Wanted::committed(Profile::Suite).names().any(|name| name == module)
        && Wanted::committed(profile).names().any(|name| name == module)
}

impl Guests {
    /// Takes a visitor to a guest of one of the kernels; what happens is told by `emit`.
    pub fn visit(
        &self,
        id: &str,
        profile: Profile,
        cold: bool,
        visitor: &dyn Visitor,
        emit: &(dyn Fn(Event) + Sync),
    ) -> Result<Visited, Error> {
        let unpacked = self.kernels.iter().find(|unpacked| unpacked.id == id).ok_or(Error::NothingSelected)?;
        let scratch = tempfile::tempdir().map_err(Error::file("create", std::env::temp_dir()))?;
        let prepared = self.machine.prepare(unpacked, profile, self.acceleration.accel, scratch.path().to_owned());
        let prepared = prepared.map_err(Error::Host)?;
        let own: Vec<&str> =
            prepared.image.missing.iter().map(String::as_str).filter(|it| is_own(profile, it)).collect();
        if !own.is_empty() {
            let missing = own.join(", ");
            return Err(Error::Usage(format!(
                "{id} has no {missing}, by which the profile `host` shows files; Debian's generic builds have, such as \
                 {id}-generic"
            )));
        }
        let accelerator = Accelerator::from(&self.acceleration);
        let facts = self.facts().into_iter().find(|facts| facts.id == id).ok_or(Error::NothingSelected)?;
        let snapshots = (!cold).then(|| Store::below(self.machine.cache()));
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
            interrupt: &self.interrupt,
            emit,
        };
        Ok(visit::visit(common, &PlannedKernel { facts, cells: Vec::new() }, &prepared, visitor))
    }

    /// Ends on the terminal's end too.
    pub fn hang_up_too(&self) -> Result<(), Error> {
        self.interrupt.also_on_hangup().map_err(Error::file("watch", "signals"))
    }

    /// The exit code of a command that a signal ended.
    pub fn interrupted(&self) -> Exit {
        self.interrupt.signal().map_or(Exit::Infra, Exit::Interrupted)
    }
}
