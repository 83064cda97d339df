//! Guests by virtme-ng.
//!
//! The process is a `std::process` one and not duct's: the guest is a tree of four processes (vng, a shell,
//! virtme-run, QEMU) that has to be its own process group, to be killed as one and to be out of reach of the
//! terminal's Ctrl-C, which the run loop answers in its own order.
//!
//! vng's exit code is not a verdict (255 is a panic, a signal, an abort of QEMU, or 255) and is never read as one.

use super::{
    Guest, GuestSpec, Launcher, Snapshot, VmError,
    command::{Files, arguments},
    guest::Stage,
    orphans, restore, snapshot,
};
use lab_base::{process::without_settings, programs};
use std::{env, fs, path::Path, process::Command};

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
        let home = |source| VmError::File { what: "vng's home", path: stage.dir.path().to_owned(), source };
        without_settings(stage.dir.path()).map_err(home)?;
        let mut command = Command::new(&spec.vng);
        command
            .args(arguments(spec, &stage.files, &orphans::guest_name(&spec.name)?)?)
            // vng calls `virtme-run` by name: in a virtual environment that is next to vng, and nowhere else.
            .env("PATH", programs::search_path_behind(spec.vng.parent()))
            // vng reads default options from the user's home or else from /etc, and any of them would change what is tested.
            .env("HOME", stage.dir.path());
        // Where vng itself came from `pip install --user`, Python still has to find it.
        if let Some(home) = env::home_dir().filter(|_| env::var_os("PYTHONUSERBASE").is_none()) {
            command.env("PYTHONUSERBASE", home.join(".local"));
        }
        Ok(Box::new(stage.start(command, spec)?))
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
