//! A process that holds a descriptor and does nothing, so that a case can see what its end releases.

use std::{
    io,
    os::fd::OwnedFd,
    process::{Child, Command, Stdio},
};

/// Argument by which the agent's binary becomes such a process.
pub const HOLD: &str = "--hold";

/// The process. Dropping it kills it.
#[derive(Debug)]
pub struct Holder(Child);

impl Holder {
    /// Hands the descriptor over: this process keeps none.
    ///
    /// # Errors
    /// Where the process can't be started.
    pub fn of(descriptor: impl Into<OwnedFd>) -> io::Result<Self> {
        Command::new("/proc/self/exe")
            .arg(HOLD)
            .stdin(Stdio::from(descriptor.into()))
            .stdout(Stdio::null())
            .spawn()
            .map(Self)
    }

    /// SIGKILL, and waits until the process is gone.
    ///
    /// # Errors
    /// Where it can't be signalled or waited for.
    pub fn kill(mut self) -> io::Result<()> {
        self.0.kill()?;
        self.0.wait().map(drop)
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        // After kill() both find nothing left to do.
        _ = self.0.kill();
        _ = self.0.wait();
    }
}
