//! Requests to run a shell or a command in a guest.

use crate::{attach::LinkKind, cell::CellId};
use serde::{Deserialize, Serialize};

/// What the guest builds, and the program that it then runs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ShellRequest {
    /// What to build first.
    pub stage: ShellStage,
    /// The files that the program sees.
    pub root: Root,
    /// The program and its arguments; empty means a shell.
    pub command: Vec<String>,
    /// A terminal for the program. Without it, standard output and standard error are separate.
    pub terminal: Option<Terminal>,
    /// Factor on every deadline of a case.
    pub time_scale: f32,
    /// Wall clock for the guest, nanoseconds since the epoch.
    pub now_unix_ns: u64,
}

/// What to build before the program starts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "stage", rename_all = "kebab-case")]
pub enum ShellStage {
    /// Nothing.
    Bare,
    /// A topology of the library.
    Topology {
        /// Its name.
        name: String,
        /// Kind of the workloads' link, where the topology leaves the choice.
        device: Option<LinkKind>,
    },
    /// A cell, up to its first packet, or up to its last attachment if it sends none. It continues when the program
    /// ends.
    Case {
        /// The cell.
        cell: CellId,
    },
}

/// The files that a program in a guest sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Root {
    /// The files of the image.
    Image,
    /// The host's files, read-only; files that the guest writes are only in its memory.
    Host,
}

/// The user's terminal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Terminal {
    /// `$TERM`.
    pub kind: String,
    /// Its size.
    pub size: Size,
}

/// Size of a terminal, characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Size {
    /// Lines.
    pub rows: u16,
    /// Characters in a line.
    pub columns: u16,
}

/// Output stream of a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stream {
    /// Standard output, or the terminal.
    Output,
    /// Standard error.
    Error,
}

/// Maximum unread input of a program, bytes: the host waits for [`crate::AgentMessage::InputTaken`] before it sends
/// more.
pub const INPUT_WINDOW: usize = 64 << 10;
