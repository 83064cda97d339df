//! Requests to run a shell or a command in a guest.

use crate::{attach::LinkKind, cell::CellId, world::WorldSpec};
use serde::{Deserialize, Serialize};

/// What the guest builds, and the program that it then runs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ShellRequest {
    /// What is built first.
    pub stage: ShellStage,
    /// What the program sees as `/`; `None` is the image.
    pub world: Option<WorldSpec>,
    /// The program and its arguments; none is a shell.
    pub command: Vec<String>,
    /// A terminal for the program. Without it, standard output and standard error are separate.
    pub terminal: Option<Terminal>,
    /// Whether the witness watches what the program attaches.
    pub is_watched: bool,
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

/// The terminal that a person sits at.
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
