//! Starts guests with virtme-ng.
//!
//! Processes are started by `std::process`, not by duct: a guest is a tree of four processes (vng, a shell, virtme-run,
//! QEMU) that needs a process group of its own, to be killed as a whole and to be unaffected by the terminal's Ctrl-C,
//! which the run loop handles.
//!
//! vng's exit code is never used as a verdict: 255 can be a panic, a signal, an abort of QEMU, or an exit code.

use super::{
    Guest, GuestSpec, Launcher, Snapshot, VmError,
    command::{Files, arguments},
    guest::Stage,
    orphans, restore, snapshot,
};
use lab_base::programs;
use std::{env, fs, path::Path, process::Command};

#[derive(Debug)]
pub struct VngLauncher(());

impl VngLauncher {
    /// Creates a launcher. Also ends guests that a killed `lab` process left behind, and removes their directories.
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
        let mut command = Command::new(&spec.vng);
        command
            .args(arguments(spec, &stage.files, &orphans::guest_name(&spec.name)?)?)
            // vng calls `virtme-run` by name: in a virtual environment that is next to vng, and nowhere else.
            .env("PATH", programs::search_path_behind(spec.vng.parent()))
            // vng reads default options from the user's home directory; they could change the test.
            .env("HOME", stage.dir.path());
        // If vng was installed by `pip install --user`, Python must still find it.
        if let Some(home) = env::home_dir().filter(|_| env::var_os("PYTHONUSERBASE").is_none()) {
            command.env("PYTHONUSERBASE", home.join(".local"));
        }
        Ok(Box::new(stage.start(command, spec)?))
    }

    fn restore(&self, spec: &GuestSpec, snapshot: &Snapshot) -> Result<Box<dyn Guest>, VmError> {
        Ok(Box::new(restore::start(spec, snapshot)?))
    }

    fn fingerprint(&self, spec: &GuestSpec) -> Result<String, VmError> {
        // Values that differ between launches are left out of the fingerprint.
        let spec = GuestSpec { memory_file: None, ..spec.clone() };
        let words = arguments(&spec, &Files::below(Path::new("/launch")), &spec.name)?;
        snapshot::fingerprint(&spec, &words)
    }
}
