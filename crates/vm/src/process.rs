//! The processes of one guest, all in one process group of ours.
//!
//! They are found through their group: a wrapper may start QEMU as a child, and a stock virtme-ng is an ancestor of the
//! QEMU that it starts.

use nix::{
    errno::Errno,
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
        // Reading what the kernel says of each process of the host takes longer than asking for the group.
        let is_gone = killpg(self.0, None) == Err(Errno::ESRCH);
        let all = (!is_gone).then(all_processes);
        all.into_iter().flatten().flatten().flatten().filter_map(move |process| self.member(process))
    }

    /// The process with its name, if it is a living member.
    fn member(self, process: Process) -> Option<(Process, String)> {
        let stat = process.stat().ok()?;
        let alive = !matches!(stat.state(), Ok(ProcState::Zombie | ProcState::Dead));
        (alive && stat.pgrp == self.0.as_raw()).then_some((process, stat.comm))
    }

    /// The QEMU process, if it runs: the leader itself, if nothing had to start it.
    pub fn qemu(self) -> Option<Process> {
        let leader = Process::new(self.0.as_raw()).ok().and_then(|leader| self.member(leader));
        let mut all = leader.into_iter().chain(std::iter::once_with(|| self.members()).flatten());
        all.find(|(_, name)| name.starts_with("qemu")).map(|(process, _)| process)
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        os::unix::process::CommandExt,
        process::{Command, Stdio},
    };

    #[test]
    fn a_member_is_found_until_the_whole_group_has_gone() {
        // The leader ends before its child.
        let script = "sleep 1000 & exec sleep 0";
        let mut leader = Command::new("sh").args(["-c", script]).stdin(Stdio::null()).process_group(0).spawn().unwrap();
        let group = Group::led_by(leader.id());
        leader.wait().unwrap();
        assert_eq!((group.survivors(), group.qemu().is_some()), (1, false));
        group.kill_all();
        assert_eq!(group.survivors(), 0);
    }
}
