//! Guests by virtme-ng: it puts the machine together, and the lab starts it.
//!
//! The process is a `std::process` one and not duct's: it has to be its own process group, to be out of reach of the
//! terminal's Ctrl-C, which the run loop answers in its own order.

use super::{
    Guest, GuestSpec, Launcher, Snapshot, VmError,
    command::{Files, arguments},
    compose,
    confine::Reach,
    guest::Stage,
    orphans, restore, snapshot,
};
use std::{env, fs, path::Path};

/// Boots guests with virtme-ng and QEMU.
#[derive(Debug)]
pub struct VngLauncher(());

impl VngLauncher {
    /// Also ends guests that an earlier lab left behind when it was killed, and removes their directories.
    pub fn new() -> Self {
        orphans::reap();
        orphans::sweep(&env::temp_dir());
        Self(())
    }
}

impl Default for VngLauncher {
    fn default() -> Self {
        Self::new()
    }
}

impl Launcher for VngLauncher {
    fn launch(&self, spec: &GuestSpec) -> Result<Box<dyn Guest>, VmError> {
        let console = |source| VmError::File { what: "console", path: spec.console.clone(), source };
        fs::write(&spec.console, []).map_err(console)?;
        let stage = Stage::set(spec)?;
        let command = compose::machine(spec, &stage.files, &orphans::guest_name(&spec.name)?)?;
        let reach = Reach::of(spec, stage.dir.path(), Path::new(command.get_program()));
        Ok(Box::new(stage.start(command, spec, &reach)?))
    }

    fn restore(&self, spec: &GuestSpec, snapshot: &Snapshot) -> Result<Box<dyn Guest>, VmError> {
        Ok(Box::new(restore::start(spec, snapshot)?))
    }

    fn fingerprint(&self, spec: &GuestSpec) -> Result<String, VmError> {
        // The same words for every launch: directories and names that differ each time are no part of a guest.
        let spec = GuestSpec { memory_file: None, ..spec.clone() };
        let words = arguments(&spec, &Files::below(Path::new("/launch")), &spec.name)?;
        snapshot::fingerprint(&spec, &words)
    }
}
