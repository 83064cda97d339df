//! Starts guests: virtme-ng composes QEMU's command line, and the lab starts QEMU.
//!
//! Processes are started by `std::process`, not by duct: a guest needs a process group of its own, so that the terminal's
//! Ctrl-C does not reach it; the run loop handles Ctrl-C.

use super::{
    Guest, GuestSpec, Launcher, Snapshot, VmError,
    command::{Files, arguments},
    compose,
    confine::Reach,
    guest::LaunchStage,
    orphans, restore, snapshot,
};
use lab_base::facts::Facts;
use std::{env, fs, path::Path};

#[derive(Debug)]
pub struct VngLauncher {
    facts: Facts,
}

impl VngLauncher {
    /// Creates a launcher, which keeps checksums in the cache. Also ends guests that a killed `lab` process left behind, and removes their directories.
    pub fn new(cache: &Path) -> Self {
        orphans::reap();
        orphans::sweep(&env::temp_dir());
        Self { facts: Facts::below(cache) }
    }
}

impl Launcher for VngLauncher {
    fn launch(&self, spec: &GuestSpec) -> Result<Box<dyn Guest>, VmError> {
        let console = |cause| VmError::File { what: "console", path: spec.console.clone(), cause };
        fs::write(&spec.console, []).map_err(console)?;
        let stage = LaunchStage::set(spec)?;
        let command = compose::machine(spec, &stage.files, &orphans::guest_name(&spec.name)?)?;
        let reach = Reach::of(spec, stage.dir.path(), Path::new(command.get_program()));
        Ok(Box::new(stage.start(command, spec, &reach)?))
    }

    fn restore(&self, spec: &GuestSpec, snapshot: &Snapshot) -> Result<Box<dyn Guest>, VmError> {
        Ok(Box::new(restore::start(spec, snapshot)?))
    }

    fn fingerprint(&self, spec: &GuestSpec) -> Result<String, VmError> {
        // Values that differ between launches are left out of the fingerprint.
        let spec = GuestSpec { memory_file: None, ..spec.clone() };
        let words = arguments(&spec, &Files::below(Path::new("/launch")), &spec.name)?;
        snapshot::fingerprint(&spec, &words, Some(&self.facts))
    }
}
