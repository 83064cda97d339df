//! Restores guests from snapshots: starts QEMU with the recorded command line, and loads the saved state.
//!
//! virtme-ng is not used: its start takes longer than the whole restore, and it would only produce the command line,
//! which was recorded.

use super::{
    Guest, GuestSpec, Places, Snapshot, VmError,
    confine::Reach,
    guest::{LaunchStage, MachineGuest},
    orphans,
    qmp::Monitor,
    streams, threads,
};
use std::{
    fs::{self, File},
    process::Command,
    thread,
    time::{Duration, Instant},
};

/// Maximum time until QEMU offers its monitor.
const START: Duration = Duration::from_secs(20);
/// Interval at which the monitor is looked for: QEMU offers it 20 ms after its start, and the guest waits for nothing else.
const MONITOR_POLL: Duration = Duration::from_millis(1);

/// Starts a guest from a snapshot.
pub fn start(spec: &GuestSpec, snapshot: &Snapshot) -> Result<MachineGuest, VmError> {
    // The console of a restored guest starts with the console of the boot.
    let console = |cause| VmError::File { what: "console", path: spec.console.clone(), cause };
    fs::copy(snapshot.console(), &spec.console).map_err(console)?;
    finish(LaunchStage::set(spec)?, spec, snapshot)
}

/// Starts it in a directory that is ready.
pub fn finish(stage: LaunchStage, spec: &GuestSpec, snapshot: &Snapshot) -> Result<MachineGuest, VmError> {
    let name = orphans::guest_name(&spec.name)?;
    let state = snapshot.state();
    let file = |cause| VmError::File { what: "snapshot", path: state.clone(), cause };
    let state = File::open(&state).map_err(file)?;
    let places = Places { dir: stage.dir.path(), name: &name, memory: &snapshot.memory() };
    let mut command = Command::new(&snapshot.recipe.program);
    command
        .env("PATH", lab_base::programs::search_path())
        .args(snapshot.recipe.replay(&places))
        .args(threads::options(spec))
        // Behind the others, whose places on the bus are in the state.
        .args(streams::make(spec, &stage.files)?)
        .args(["-incoming", "defer"]);
    let socket = stage.files.qmp.clone();
    let reach =
        Reach::of(spec, stage.dir.path(), &snapshot.recipe.program).and_snapshot(&snapshot.memory(), &snapshot.state());
    let mut guest = stage.start(command, spec, &reach)?;
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
        thread::sleep(MONITOR_POLL);
    };
    monitor.ignore_shared_memory()?;
    monitor.load(&state)?;
    Ok(guest)
}
