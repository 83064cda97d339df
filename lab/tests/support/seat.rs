//! `lab` in a terminal of its own: its foreground process, key input, and its end.

use nix::{
    fcntl::{FcntlArg, FdFlag, fcntl},
    pty::openpty,
    sys::{
        signal::{Signal, kill},
        termios::{Termios, tcgetattr},
    },
    unistd::Pid,
};
use std::{
    fs::File,
    io::{Read, Write},
    os::fd::OwnedFd,
    process::{Child, Command, Stdio},
    sync::mpsc::{self, Receiver},
    thread,
    time::{Duration, Instant},
};

/// Maximum wait for anything, on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(300);
/// Maximum time for a program to end after a signal, together with its guests.
const LEAVING: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(10);
const SILENCE: Duration = Duration::from_secs(2);

/// Collects a program's output.
pub struct Ear {
    pieces: Receiver<Vec<u8>>,
    heard: String,
}

impl Ear {
    pub fn on(mut source: impl Read + Send + 'static) -> Self {
        let (sender, pieces) = mpsc::channel();
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(count @ 1..) = source.read(&mut buffer) {
                if sender.send(buffer[..count].to_vec()).is_err() {
                    return;
                }
            }
        });
        Self { pieces, heard: String::new() }
    }

    /// Waits for text; later output is left for the next call.
    #[track_caller]
    pub fn wait_for(&mut self, words: &str) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(at) = self.heard.find(words) {
                self.heard.drain(..at + words.len());
                return;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            let piece = self.pieces.recv_timeout(left);
            let piece = piece.unwrap_or_else(|_| panic!("no `{words}` in: {}", self.heard));
            self.heard.push_str(&String::from_utf8_lossy(&piece));
        }
    }

    /// The output since the last call, up to its end or until a long pause.
    pub fn rest(&mut self) -> &str {
        while let Ok(piece) = self.pieces.recv_timeout(SILENCE) {
            self.heard.push_str(&String::from_utf8_lossy(&piece));
        }
        &self.heard
    }
}

/// A command in a terminal; it is killed when the test ends.
pub struct Seat {
    child: Child,
    keyboard: File,
    pub screen: Ear,
    /// Kept open, so that its modes can be checked after the command has ended.
    terminal: Option<OwnedFd>,
    found: Termios,
}

impl Seat {
    /// Starts a command as the leader of a session with this terminal.
    pub fn take(command: &Command) -> Self {
        let pty = openpty(None, None).unwrap();
        // Other child processes must not inherit the terminal's descriptors.
        for end in [&pty.master, &pty.slave] {
            fcntl(end, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)).unwrap();
        }
        let seat = || Stdio::from(pty.slave.try_clone().unwrap());
        let found = tcgetattr(&pty.slave).unwrap();
        // setsid of util-linux, since std can't set a controlling terminal without unsafe code after fork. It executes the
        // command, which keeps its pid.
        let mut start = Command::new("setsid");
        start.arg("--ctty").arg(command.get_program()).args(command.get_args()).env("TERM", "xterm");
        start.envs(command.get_envs().filter_map(|(key, value)| Some((key, value?))));
        let child = start.stdin(seat()).stdout(seat()).stderr(seat()).spawn().unwrap();
        let keyboard = File::from(pty.master);
        let screen = Ear::on(keyboard.try_clone().unwrap());
        Self { child, keyboard, screen, terminal: Some(pty.slave), found }
    }

    pub fn press(&mut self, keys: &[u8]) {
        self.keyboard.write_all(keys).unwrap();
    }

    pub fn signal(&self, signal: Signal) {
        kill(self.pid(), signal).unwrap();
    }

    /// Also the id of its session, which its child processes share unless they leave it.
    pub fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.id()).unwrap())
    }

    fn wait(&mut self, limit: Duration) -> Option<std::process::ExitStatus> {
        let deadline = Instant::now() + limit;
        loop {
            let status = self.child.try_wait().unwrap();
            if status.is_some() || Instant::now() > deadline {
                return status;
            }
            thread::sleep(POLL);
        }
    }

    /// Waits for the end; returns the exit code and the remaining output. The terminal's modes must have been restored.
    #[track_caller]
    pub fn leave(mut self) -> (Option<i32>, String) {
        let Some(status) = self.wait(PATIENCE) else { panic!("it stays: {}", self.screen.rest()) };
        let now = tcgetattr(self.terminal.as_ref().unwrap()).unwrap();
        assert!(now.local_flags == self.found.local_flags, "{:?} was {:?}", now.local_flags, self.found.local_flags);
        assert!(now.input_flags == self.found.input_flags && now.output_flags == self.found.output_flags);
        self.terminal = None;
        (status.code(), self.screen.rest().to_owned())
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        if self.wait(Duration::ZERO).is_none() {
            self.signal(Signal::SIGTERM);
            if self.wait(LEAVING).is_none() {
                let _ = self.child.kill();
                let _ = self.child.wait();
            }
        }
    }
}
