//! Starts the program with a terminal or pipes, and ends it.

use super::root::{Environment, TOOLS};
use crate::error::AgentError;
use lab_protocol::shell::{Size, Stream, Terminal as Wanted};
use nix::{
    fcntl::{FcntlArg, FdFlag, fcntl},
    libc,
    pty::{OpenptyResult, Winsize, openpty},
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use std::{
    fs::{self, File},
    io::{Read, Write},
    os::{fd::AsRawFd, unix::process::ExitStatusExt},
    process::{Child, ChildStdin, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

/// Environment variable that marks the program and all processes that it starts, so that they can be found.
const MARK: &str = "NETKIT_LAB_SHELL=1";
/// End of input in a terminal: Ctrl-D.
const END_OF_INPUT: u8 = 4;
/// Maximum time for killed processes to disappear.
const GONE_WITHIN: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(2);

nix::ioctl_write_ptr_bad!(
    /// `TIOCSWINSZ`: sets a terminal's size and sends `SIGWINCH` to its foreground processes.
    set_size,
    libc::TIOCSWINSZ,
    Winsize
);

/// The controlling end of a terminal.
pub struct Pty(File);

impl Pty {
    /// Sets the terminal's size.
    pub fn resize(&self, size: Size) {
        let size = window(size);
        // SAFETY: the kernel reads the structure, which lives until the call returns, and keeps no pointer.
        let _ = unsafe { set_size(self.0.as_raw_fd(), &size) };
    }
}

const fn window(size: Size) -> Winsize {
    Winsize { ws_row: size.rows, ws_col: size.columns, ws_xpixel: 0, ws_ypixel: 0 }
}

/// The program's end of a terminal; the program gets it as its standard streams only.
fn open_terminal(size: Size) -> nix::Result<OpenptyResult> {
    let pty = openpty(Some(&window(size)), None)?;
    for end in [&pty.master, &pty.slave] {
        fcntl(end, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
    }
    Ok(pty)
}

/// A started program.
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
            .map(|wanted| open_terminal(wanted.size))
            .transpose()
            .map_err(|errno| AgentError::Terminal(errno.into()))?;
        // busybox creates the session and sets its controlling terminal; with std that needs unsafe code after a fork.
        let mut words = vec!["setsid".to_owned()];
        words.extend(terminal.as_ref().map(|_| "-c".to_owned()));
        words.extend(root.enter());
        words.extend(if command.is_empty() { root.shell() } else { command.to_vec() });
        let mut start = Command::new(TOOLS);
        start.args(words).env_clear().envs(root.variables()).current_dir("/");
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
        let child = start.stdin(input).stdout(output).stderr(errors).spawn();
        let child = child.map_err(|error| AgentError::Start { program: TOOLS, error })?;
        // Dropping `start` and `pty.slave` closes the last copies of the terminal's inner end outside the program.
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

/// Destination of input.
pub enum ProgramInput {
    /// The controlling end of the program's terminal.
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
