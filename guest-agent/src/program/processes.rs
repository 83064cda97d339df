//! The processes of a program: all that were not there before it. PID 1 reaps those whose parents have gone.

use nix::{
    errno::Errno,
    sys::{
        signal::{Signal, kill},
        wait::{Id, WaitPidFlag, WaitStatus, waitid, waitpid},
    },
    unistd::Pid,
};
use std::{
    collections::BTreeSet,
    fs,
    time::{Duration, Instant},
};

/// How long what a program left may go on by itself, such as the `tee` behind `> >(tee log)`.
const GRACE: Duration = Duration::from_millis(500);
/// How long killed processes may take to go.
const GONE_WITHIN: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(2);
/// `PF_KTHREAD` of include/linux/sched.h.
const KERNEL_THREAD: u64 = 0x0020_0000;
/// Names of processes in a report.
const NAMED: usize = 20;

/// The processes that there were before a program.
pub struct Before(BTreeSet<i32>);

/// Processes that could not be killed within [`GONE_WITHIN`].
pub struct Immortal;

impl Before {
    /// Lists them: by their numbers alone, since an emulated guest takes a hundredth of a second to read what the kernel says of each
    /// of its threads.
    pub fn now() -> Self {
        Self(numbers().collect())
    }

    /// Waits for the program, and reaps every other process of it that ends meanwhile.
    ///
    /// # Errors
    /// The kernel's answer.
    pub fn wait_for(&self, program: Pid) -> nix::Result<WaitStatus> {
        loop {
            // Only looked at, so that the agent's own children are left to who waits for them.
            let ended = match waitid(Id::All, WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT) {
                Err(Errno::EINTR) => continue,
                Err(error) => return Err(error),
                Ok(status) => status.pid(),
            };
            match ended {
                Some(pid) if pid == program => return waitpid(pid, None),
                Some(pid) if !self.0.contains(&pid.as_raw()) => drop(waitpid(pid, Some(WaitPidFlag::WNOHANG))),
                // One that the agent has not waited for yet.
                _ => {
                    std::thread::sleep(POLL);
                    if let Ok(status) = waitpid(program, Some(WaitPidFlag::WNOHANG))
                        && status != WaitStatus::StillAlive
                    {
                        return Ok(status);
                    }
                }
            }
        }
    }

    /// Lets what the program left end by itself for a moment, then kills it. Names what was killed.
    ///
    /// # Errors
    /// [`Immortal`].
    pub fn end_all(&self) -> Result<Vec<String>, Immortal> {
        let begin = Instant::now();
        let mut killed: BTreeSet<String> = BTreeSet::new();
        loop {
            let left = self.left();
            if left.is_empty() {
                return Ok(killed.into_iter().take(NAMED).collect());
            }
            let age = begin.elapsed();
            if age > GRACE + GONE_WITHIN {
                return Err(Immortal);
            }
            if age > GRACE {
                for process in left {
                    let _ = kill(Pid::from_raw(process.pid), Signal::SIGKILL);
                    killed.insert(process.told());
                }
            }
            std::thread::sleep(POLL);
        }
    }

    /// Processes that live and were not there before. Those that have ended are reaped.
    fn left(&self) -> Vec<Process> {
        let new = numbers().filter(|pid| !self.0.contains(pid)).filter_map(read).filter(|process| !process.is_kernels);
        let (dead, left): (Vec<Process>, Vec<Process>) = new.partition(|process| process.is_dead);
        for process in dead {
            let _ = waitpid(Pid::from_raw(process.pid), Some(WaitPidFlag::WNOHANG));
        }
        left
    }
}

struct Process {
    pid: i32,
    name: String,
    is_dead: bool,
    is_kernels: bool,
}

impl Process {
    fn told(&self) -> String {
        format!("{} ({})", self.name, self.pid)
    }
}

fn numbers() -> impl Iterator<Item = i32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// A process; `None` if it has gone meanwhile.
fn read(pid: i32) -> Option<Process> {
    parse(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// `pid (name) state ppid pgrp session tty_nr tpgid flags …` (proc_pid_stat(5)); a name may hold anything.
fn parse(stat: &str) -> Option<Process> {
    let (head, rest) = stat.rsplit_once(')')?;
    let (pid, name) = head.split_once('(')?;
    let mut fields = rest.split_ascii_whitespace();
    let state = fields.next()?;
    let flags: u64 = fields.nth(5)?.parse().ok()?;
    Some(Process {
        pid: pid.trim().parse().ok()?,
        name: name.to_owned(),
        is_dead: matches!(state, "Z" | "X"),
        is_kernels: flags & KERNEL_THREAD != 0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn a_line_of_the_kernel_is_read_whatever_the_name() {
        let process = parse("41 (a) b (c) Z 1 41 41 0 -1 4228108 121 0 0\n").unwrap();
        assert_eq!((process.told(), process.is_dead, process.is_kernels), ("a) b (c (41)".to_owned(), true, false));
        let kernels = parse("2 (kthreadd) S 0 0 0 0 -1 2129984 0 0\n").unwrap();
        assert!(kernels.is_kernels && !kernels.is_dead);
        assert!(parse("").is_none() && parse("1 (x").is_none());
    }

    #[test]
    fn what_was_started_since_is_found_and_what_was_there_is_not() {
        let mut early = Command::new("sleep").arg("60").spawn().unwrap();
        let before = Before::now();
        let mut late = Command::new("sleep").arg("60").spawn().unwrap();
        let found: Vec<i32> = before.left().into_iter().map(|process| process.pid).collect();
        assert!(found.contains(&(late.id() as i32)) && !found.contains(&(early.id() as i32)));
        for child in [&mut early, &mut late] {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }
}
