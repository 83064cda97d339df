//! A person or a command inside a guest.

use crate::{attach::LinkKind, cell::CellId, world::WorldSpec};
use serde::{Deserialize, Serialize};

/// What a guest is to prepare, and what it then runs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ShellRequest {
    /// What is built first.
    pub stage: Stage,
    /// What the program sees as `/`; `None` is the image.
    pub world: Option<WorldSpec>,
    /// The program and its arguments; none is a shell.
    pub command: Vec<String>,
    /// A terminal for the program. Without one its output and its errors stay apart.
    pub terminal: Option<Terminal>,
    /// Factor on every deadline of a case.
    pub time_scale: f32,
    /// Wall clock for the guest, nanoseconds since the epoch.
    pub now_unix_ns: u64,
}

/// What is built before the program starts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "stage", rename_all = "kebab-case")]
pub enum Stage {
    /// Nothing.
    Bare,
    /// A topology of the library.
    Topology {
        /// Its name.
        name: String,
        /// Kind of the workloads' link, where the topology leaves the choice.
        device: Option<LinkKind>,
    },
    /// A cell, up to its first packet; one that sends none, up to its last attachment. It goes on when the program ends.
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

/// Characters that fit on a terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Size {
    /// Lines.
    pub rows: u16,
    /// Characters in a line.
    pub columns: u16,
}

/// Where a program wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stream {
    /// Standard output, or the terminal.
    Output,
    /// Standard error.
    Error,
}

/// Bytes of input that may be on their way to a program that does not read: the host waits for
/// [`crate::AgentMessage::InputTaken`] before it sends more.
pub const INPUT_WINDOW: usize = 64 << 10;
