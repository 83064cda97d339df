//! The processes of one guest: vng, a shell, virtme-run and QEMU, all in one process group of ours.
//!
//! They are found through their group, since nobody tells QEMU's pid: vng's grandchild is QEMU's parent.

use nix::{
    sys::signal::{Signal, kill, killpg},
    unistd::Pid,
};
use procfs::process::{ProcState, Process, all_processes};
use std::{
    thread,
    time::{Duration, Instant},
};

/// How often a condition outside this process is looked at again.
pub const POLL: Duration = Duration::from_millis(5);

/// A process group, by the pid of its leader.
#[derive(Debug, Clone, Copy)]
pub struct Group(Pid);

impl Group {
    /// The group that `leader` was started in.
    pub fn led_by(leader: u32) -> Self {
        Self(Pid::from_raw(i32::try_from(leader).expect("pids are below 2^22")))
    }

    /// Members that are not zombies: a container's init may never reap those.
    fn members(self) -> impl Iterator<Item = (Process, String)> {
        all_processes().into_iter().flatten().flatten().filter_map(move |process| {
            let stat = process.stat().ok()?;
            let alive = !matches!(stat.state(), Ok(ProcState::Zombie | ProcState::Dead));
            (alive && stat.pgrp == self.0.as_raw()).then_some((process, stat.comm))
        })
    }

    /// The virtual machine, once it runs.
    pub fn qemu(self) -> Option<Process> {
        self.members().find(|(_, name)| name.starts_with("qemu")).map(|(process, _)| process)
    }

    /// Asks the virtual machine to end. Its ancestors only wait for it, so they end after it, each reaping its child.
    /// False where there is no virtual machine yet.
    pub fn terminate_qemu(self) -> bool {
        self.qemu().is_some_and(|qemu| kill(Pid::from_raw(qemu.pid()), Signal::SIGTERM).is_ok())
    }

    /// How many members are alive.
    pub fn survivors(self) -> usize {
        self.members().count()
    }

    /// Kills whatever is left. A process that forks while it is killed is caught by the next look.
    pub fn kill_all(self) {
        let deadline = Instant::now() + Duration::from_secs(5);
        while self.members().next().is_some() && Instant::now() < deadline {
            let _ = killpg(self.0, Signal::SIGKILL);
            thread::sleep(POLL);
        }
    }
}
