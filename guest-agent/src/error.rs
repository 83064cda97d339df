//! Why the agent gives up.

use lab_harness::HarnessError;
use lab_protocol::{PROTOCOL_VERSION, frame::FrameError};
use nix::errno::Errno;
use std::{io, path::PathBuf};

/// An error of the agent, one line: it goes to the host, or to the console where there is no port.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// The harness can't go on.
    #[error(transparent)]
    Harness(#[from] HarnessError),
    /// A message is larger than a frame may be.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The port can't be opened, duplicated, read or written.
    #[error("the port to the host failed: {0}")]
    Port(io::Error),
    /// A file of the guest can't be made or written.
    #[error("{}: {error}", .path.display())]
    File { path: PathBuf, error: io::Error },
    /// `mount(2)` was refused.
    #[error("cannot mount {kind} on {target}: {errno}")]
    Mount { kind: String, target: String, errno: Errno },
    /// The root of a foreign program can't be made.
    #[error(transparent)]
    World(#[from] crate::world::MountError),
    /// The topology has no such node.
    #[error("the topology has no node {node}; it has {}", .nodes.join(", "))]
    NoNode { node: String, nodes: Vec<String> },
    /// No thread can be started.
    #[error("no thread for cells: {0}")]
    Thread(io::Error),
    /// A thread of the agent panicked.
    #[error("the agent panicked while it ran cells")]
    Panicked,
    /// `uname(2)` was refused.
    #[error("uname: {0}")]
    Uname(Errno),
    /// The kernel's release names no version.
    #[error("the kernel release `{0}` cannot be parsed: expected for example 6.12.0")]
    Release(String),
    /// The host is of another version of the lab.
    #[error("the host uses protocol {0}, the agent {PROTOCOL_VERSION}")]
    Protocol(u32),
    /// The agent that was sent can't be executed.
    #[error("the agent that the host sent can't be started: {0}")]
    Successor(io::Error),
    /// The host sent a message before the one that has to precede it.
    #[error("the host sent {message} {when}")]
    OutOfTurn { message: &'static str, when: &'static str },
    /// No pseudo-terminal (`pty(7)`).
    #[error("no terminal in the guest: {0}")]
    Terminal(io::Error),
    /// A program can't be started.
    #[error("{program}: {error}")]
    Start { program: String, error: io::Error },
    /// `wait4(2)` was refused.
    #[error("waiting for the program: {0}")]
    Wait(io::Error),
}

impl AgentError {
    /// An error about a file.
    pub fn file(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        |error| Self::File { path, error }
    }
}
