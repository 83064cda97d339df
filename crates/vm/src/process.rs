//! The processes of one guest, all in one process group of ours.
//!
//! They are found through their group: a wrapper may start QEMU as a child, and a stock virtme-ng is an ancestor of the
//! QEMU that it starts.

use nix::{
    sys::signal::{Signal, kill, killpg},
    unistd::Pid,
};
use procfs::process::{ProcState, Process, all_processes};
use std::{
    thread,
    time::{Duration, Instant},
};

/// Polling interval for conditions outside of this process.
pub const POLL: Duration = Duration::from_millis(5);

/// A process group, identified by the pid of its leader.
#[derive(Debug, Clone, Copy)]
pub struct Group(Pid);

impl Group {
    /// The group of which `leader` is the leader.
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

    /// The QEMU process, if it runs.
    pub fn qemu(self) -> Option<Process> {
        self.members().find(|(_, name)| name.starts_with("qemu")).map(|(process, _)| process)
    }

    /// Sends SIGTERM to QEMU. Its ancestors only wait for it, so they end afterwards and reap their children. Returns false
    /// if there is no QEMU process yet.
    pub fn terminate_qemu(self) -> bool {
        self.qemu().is_some_and(|qemu| kill(Pid::from_raw(qemu.pid()), Signal::SIGTERM).is_ok())
    }

    /// Number of living members.
    pub fn survivors(self) -> usize {
        self.members().count()
    }

    /// Kills all members. Repeats until none is left, in case a process forks meanwhile.
    pub fn kill_all(self) {
        let deadline = Instant::now() + Duration::from_secs(5);
        while self.members().next().is_some() && Instant::now() < deadline {
            let _ = killpg(self.0, Signal::SIGKILL);
            thread::sleep(POLL);
        }
    }
}
