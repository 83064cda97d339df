//! Starts guests with virtme-ng.
//!
//! Processes are started by `std::process`, not by duct: a guest is a tree of four processes (vng, a shell, virtme-run, QEMU) that
//! needs a process group of its own, to be killed as a whole and to be unaffected by the terminal's Ctrl-C, which the run loop
//! handles.
//!
//! vng's exit code is never used as a verdict: 255 can be a panic, a signal, an abort of QEMU, or an exit code.

use super::{
    Guest, GuestSpec, Launcher, Snapshot, VmError,
    command::{Files, arguments},
    guest::Stage,
    orphans, restore, snapshot,
};
use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

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
            // vng reads default options from the user's home directory; they could change the test.
            .env("HOME", stage.dir.path());
        // If vng was installed by `pip install --user`, Python must still find it.
        if let Some(home) = env::home_dir().filter(|_| env::var_os("PYTHONUSERBASE").is_none()) {
            command.env("PYTHONUSERBASE", home.join(".local"));
        }
        if let Some(path) = search_path(&spec.vng) {
            command.env("PATH", path);
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

/// vng starts `virtme-run` by name: in a virtual environment this program is only next to vng.
pub(super) fn search_path(vng: &Path) -> Option<std::ffi::OsString> {
    let beside = vng.parent().filter(|dir| !dir.as_os_str().is_empty())?;
    let path = env::var_os("PATH").unwrap_or_default();
    env::join_paths(std::iter::once(PathBuf::from(beside)).chain(env::split_paths(&path))).ok()
}
