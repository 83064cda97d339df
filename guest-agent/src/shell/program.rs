//! Starts the program with a terminal or pipes, and ends it.

use super::root::Environment;
use crate::error::AgentError;
use crate::processors;
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

/// Environment variable that marks the program and all processes that it starts, so that they can be found.
const MARK: &str = "NETKIT_LAB_SHELL=1";
/// Runs what follows by its name on `PATH`.
const BY_PATH: [&str; 4] = ["/bin/sh", "-c", "exec \"$@\"", "sh"];
/// End of input in a terminal: Ctrl-D.
const END_OF_INPUT: u8 = 4;
/// Maximum time for killed processes to disappear.
const GONE_WITHIN: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(2);

/// A program that was started.
pub struct ShellProgram {
    child: Child,
    terminal: Option<File>,
}

impl ShellProgram {
    /// Starts the program in a new session (setsid).
    ///
    /// # Errors
    /// The guest has no terminal, or the image no tools.
    pub fn start(root: &Environment, command: &[String], wanted: Option<&Wanted>) -> Result<Self, AgentError> {
        let terminal = wanted
            .map(|wanted| terminal::open(wanted.size))
            .transpose()
            .map_err(|errno| AgentError::Terminal(errno.into()))?;
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
                let seat = || pty.slave.try_clone().map(Stdio::from).map_err(AgentError::Terminal);
                [seat()?, seat()?, seat()?]
            }
            _ => [Stdio::piped(), Stdio::piped(), Stdio::piped()],
        };
        let [input, output, errors] = seats;
        start.stdin(input).stdout(output).stderr(errors);
        let has_terminal = terminal.is_some();
        let all = processors::all();
        // SAFETY: between fork and exec it makes three system calls, which are async-signal-safe, and allocates nothing.
        unsafe {
            start.pre_exec(move || {
                setsid()?;
                processors::allow(&all)?;
                if has_terminal {
                    terminal::take()?;
                }
                Ok(())
            });
        }
        let child =
            spawn_inside(root, start).map_err(|error| AgentError::Start { program: words[0].clone(), error })?;
        // With `start` and `pty.slave` the last copies of the terminal's inner end that are not the program's go.
        Ok(Self { child, terminal: terminal.map(|pty| File::from(pty.master)) })
    }

    /// The terminal, to set its size.
    pub fn terminal(&self) -> Option<Pty> {
        self.terminal.as_ref().and_then(|terminal| terminal.try_clone().ok()).map(Pty)
    }

    /// The program's output.
    pub fn outputs(&mut self) -> Vec<(Stream, Box<dyn Read + Send>)> {
        if let Some(terminal) = self.terminal.as_ref().and_then(|terminal| terminal.try_clone().ok()) {
            return vec![(Stream::Output, Box::new(terminal))];
        }
        let output = self.child.stdout.take().map(|pipe| (Stream::Output, Box::new(pipe) as Box<dyn Read + Send>));
        let errors = self.child.stderr.take().map(|pipe| (Stream::Error, Box::new(pipe) as Box<dyn Read + Send>));
        output.into_iter().chain(errors).collect()
    }

    /// The program's input.
    pub fn input(&mut self) -> ProgramInput {
        match self.terminal.as_ref().and_then(|terminal| terminal.try_clone().ok()) {
            Some(terminal) => ProgramInput::Terminal(terminal),
            None => self.child.stdin.take().map_or(ProgramInput::Closed, ProgramInput::Pipe),
        }
    }

    /// Waits for the program to end and returns its exit code, or 128 + signal number.
    ///
    /// # Errors
    /// It can't be waited for.
    pub fn wait(&mut self) -> Result<u8, AgentError> {
        let status = self.child.wait().map_err(AgentError::Wait)?;
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
pub enum ProgramInput {
    /// The controlling end of its terminal.
    Terminal(File),
    /// The program's standard input.
    Pipe(ChildStdin),
    /// The program has ended or closed its input.
    Closed,
}

impl ProgramInput {
    /// Writes input and waits until the program has read it; an empty slice is the end of input.
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

/// Kills the program and all processes that it started, in any session. They are found by an environment variable, so
/// that helper processes of a stopped case are not killed.
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
        // Empty for kernel threads and dead processes.
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environment.split(|byte| *byte == 0).any(|entry| entry == MARK.as_bytes())
    };
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(is_marked).map(Pid::from_raw).collect()
}
