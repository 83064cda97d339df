//! The program: its terminal or its pipes, its environment, its end.

use super::root::Environment;
use crate::program::terminal::{self, Pty};
use lab_protocol::shell::{Stream, Terminal as Wanted};
use nix::{
    sched::{CloneFlags, unshare},
    sys::signal::{Signal, kill},
    unistd::{Pid, setsid},
};
use std::{
    fs::{self, File},
    io::{self, Read, Write},
    os::unix::process::{CommandExt, ExitStatusExt},
    process::{Child, ChildStdin, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

/// In the environment of the program and of all that it starts, by which they are found.
const MARK: &str = "NETKIT_LAB_SHELL=1";
/// Runs what follows by its name on `PATH`.
const BY_PATH: [&str; 4] = ["/bin/sh", "-c", "exec \"$@\"", "sh"];
/// End of input in a terminal: Ctrl-D.
const END_OF_INPUT: u8 = 4;
/// How long killed processes may take to go.
const GONE_WITHIN: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(2);

/// A program that was started.
pub struct ShellProgram {
    child: Child,
    terminal: Option<File>,
}

impl ShellProgram {
    /// Starts it in a session of its own.
    ///
    /// # Errors
    /// One line.
    pub fn start(root: &Environment, command: &[String], wanted: Option<&Wanted>) -> Result<Self, String> {
        let terminal = wanted
            .map(|wanted| terminal::open(wanted.size))
            .transpose()
            .map_err(|errno| format!("no terminal in the guest: {errno}"))?;
        // busybox's own way prefers its applets, `ip` and `tc` among them, to what is on the path.
        let by_path: &[&str] = if root.is_foreign() { &["/usr/bin/env"] } else { &BY_PATH };
        let words = by_path.iter().map(|word| (*word).to_owned());
        let words: Vec<String> =
            words.chain(if command.is_empty() { root.shell() } else { command.to_vec() }).collect();
        let mut start = Command::new(&words[0]);
        start.args(&words[1..]).env_clear().envs(root.variables());
        if let Some((key, value)) = MARK.split_once('=') {
            start.env(key, value);
        }
        let seats = match (&terminal, wanted) {
            (Some(pty), Some(wanted)) => {
                start.env("TERM", root.terminal(&wanted.kind));
                let seat = || pty.slave.try_clone().map(Stdio::from).map_err(|error| error.to_string());
                [seat()?, seat()?, seat()?]
            }
            _ => [Stdio::piped(), Stdio::piped(), Stdio::piped()],
        };
        let [input, output, errors] = seats;
        start.stdin(input).stdout(output).stderr(errors);
        let has_terminal = terminal.is_some();
        // SAFETY: between fork and exec it makes two system calls, which are async-signal-safe, and allocates nothing.
        unsafe {
            start.pre_exec(move || {
                setsid()?;
                if has_terminal {
                    terminal::take()?;
                }
                Ok(())
            });
        }
        let child = spawn_inside(root, start).map_err(|error| format!("{}: {error}", words[0]))?;
        // With `start` and `pty.slave` the last copies of the terminal's inner end that are not the program's go.
        Ok(Self { child, terminal: terminal.map(|pty| File::from(pty.master)) })
    }

    /// The terminal, for resizing.
    pub fn terminal(&self) -> Option<Pty> {
        self.terminal.as_ref().and_then(|terminal| terminal.try_clone().ok()).map(Pty)
    }

    /// What it writes.
    pub fn outputs(&mut self) -> Vec<(Stream, Box<dyn Read + Send>)> {
        if let Some(terminal) = self.terminal.as_ref().and_then(|terminal| terminal.try_clone().ok()) {
            return vec![(Stream::Output, Box::new(terminal))];
        }
        let output = self.child.stdout.take().map(|pipe| (Stream::Output, Box::new(pipe) as Box<dyn Read + Send>));
        let errors = self.child.stderr.take().map(|pipe| (Stream::Error, Box::new(pipe) as Box<dyn Read + Send>));
        output.into_iter().chain(errors).collect()
    }

    /// Where its input goes.
    pub fn input(&mut self) -> Input {
        match self.terminal.as_ref().and_then(|terminal| terminal.try_clone().ok()) {
            Some(terminal) => Input::Terminal(terminal),
            None => self.child.stdin.take().map_or(Input::Closed, Input::Pipe),
        }
    }

    /// Waits for its end: its exit code, or 128 + signal.
    ///
    /// # Errors
    /// One line where it can't be waited for.
    pub fn wait(&mut self) -> Result<u8, String> {
        let status = self.child.wait().map_err(|error| format!("waiting for the program: {error}"))?;
        let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(1);
        Ok(u8::try_from(code).unwrap_or(1))
    }
}

/// Starts a program in a root. That belongs to the thread, which is given up afterwards.
fn spawn_inside(root: &Environment, mut start: Command) -> io::Result<Child> {
    thread::scope(|scope| {
        let thread = scope.spawn(move || {
            if root.is_foreign() {
                unshare(CloneFlags::CLONE_FS)?;
                root.enter()?;
            }
            start.spawn()
        });
        thread.join().unwrap_or_else(|_| Err(io::Error::other("the agent panicked while it started it")))
    })
}

/// Where input goes.
pub enum Input {
    /// The controlling end of its terminal.
    Terminal(File),
    /// Its standard input.
    Pipe(ChildStdin),
    /// Nowhere: it has ended, or reads no more.
    Closed,
}

impl Input {
    /// Hands input over, waiting until it is taken; nothing is the end of all input.
    pub fn write(&mut self, bytes: &[u8]) {
        let written = match self {
            Self::Terminal(terminal) if bytes.is_empty() => terminal.write_all(&[END_OF_INPUT]),
            Self::Terminal(terminal) => terminal.write_all(bytes),
            Self::Pipe(pipe) if !bytes.is_empty() => pipe.write_all(bytes).and_then(|()| pipe.flush()),
            Self::Pipe(_) => Err(std::io::ErrorKind::UnexpectedEof.into()),
            Self::Closed => Ok(()),
        };
        if written.is_err() {
            *self = Self::Closed;
        }
    }
}

/// Kills the program and all that it started, in any session. They are found by their environment, since helpers of a
/// stopped case must stay.
pub fn end_all() {
    let deadline = Instant::now() + GONE_WITHIN;
    loop {
        let left = marked();
        if left.is_empty() || Instant::now() > deadline {
            return;
        }
        for pid in left {
            let _ = kill(pid, Signal::SIGKILL);
        }
        thread::sleep(POLL);
    }
}

fn marked() -> Vec<Pid> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let is_marked = |pid: &i32| {
        // Empty for kernel threads and for what is dead already.
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environment.split(|byte| *byte == 0).any(|entry| entry == MARK.as_bytes())
    };
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(is_marked).map(Pid::from_raw).collect()
}
