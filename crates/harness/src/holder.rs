//! A process that only holds a descriptor, so that a case can observe what the kernel releases when the process ends.

use std::{
    io,
    os::fd::OwnedFd,
    process::{Child, Command, Stdio},
};

/// Argument with which the agent's binary runs as such a process.
pub const HOLD: &str = "--hold";

/// The process; killed on drop.
#[derive(Debug)]
pub struct Holder(Child);

impl Holder {
    /// Starts the process and passes it the descriptor; this process closes its own.
    ///
    /// # Errors
    /// The process can't be started.
    pub fn of(descriptor: impl Into<OwnedFd>) -> io::Result<Self> {
        Command::new("/proc/self/exe")
            .arg(HOLD)
            .stdin(Stdio::from(descriptor.into()))
            .stdout(Stdio::null())
            .spawn()
            .map(Self)
    }

    /// Kills the process and waits for its end.
    ///
    /// # Errors
    /// `kill` or `wait` failed.
    pub fn kill(mut self) -> io::Result<()> {
        self.0.kill()?;
        self.0.wait().map(drop)
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        // After `kill()` both calls have no effect.
        _ = self.0.kill();
        _ = self.0.wait();
    }
}
