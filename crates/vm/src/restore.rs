//! Guests from snapshots: QEMU is started as virtme-ng once started it, and told to take over the saved state.
//!
//! virtme-ng itself is left out: its start costs more than the whole restore, and what it adds is the command line,
//! which was recorded from the machine that it made.

use super::{
    Guest, GuestSpec, Places, Snapshot, VmError,
    guest::{MachineGuest, Stage},
    orphans,
    process::POLL,
    qmp::Monitor,
};
use std::{
    fs::{self, File},
    process::Command,
    thread,
    time::{Duration, Instant},
};

/// How long QEMU may take to offer its monitor.
const START: Duration = Duration::from_secs(20);

/// Starts a guest where the snapshot left off.
pub fn start(spec: &GuestSpec, snapshot: &Snapshot) -> Result<MachineGuest, VmError> {
    // A console tells the whole life of its guest, the boot included.
    let console = |source| VmError::File { what: "console", path: spec.console.clone(), source };
    fs::copy(snapshot.console(), &spec.console).map_err(console)?;
    let stage = Stage::set(spec)?;
    let name = orphans::guest_name(&spec.name)?;
    let state = snapshot.state();
    let file = |source| VmError::File { what: "snapshot", path: state.clone(), source };
    let state = File::open(&state).map_err(file)?;
    let places = Places { dir: stage.dir.path(), name: &name, memory: &snapshot.memory() };
    let mut command = Command::new(&snapshot.recipe.program);
    command.args(snapshot.recipe.replay(&places)).args(["-incoming", "defer"]);
    let socket = stage.files.qmp.clone();
    let mut guest = stage.start(command, spec)?;
    let deadline = Instant::now() + START;
    let mut monitor = loop {
        match Monitor::connect(&socket) {
            Ok(monitor) => break monitor,
            Err(error) if Instant::now() >= deadline => return Err(error),
            Err(_) => {}
        }
        if let Some(exit) = guest.exited() {
            return Err(VmError::Exited { guest: spec.name.clone(), exit });
        }
        thread::sleep(POLL);
    };
    monitor.ignore_shared_memory()?;
    monitor.load(&state)?;
    Ok(guest)
}
