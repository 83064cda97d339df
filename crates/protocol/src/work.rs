//! What a cell does: a case that is compiled into the agent, or a program that the host names.

use crate::{
    capability::Capability,
    cell::CellId,
    raw::Raw,
    shell::{ShellStage, Stream, Terminal},
    witness::AttachRules,
    world::WorldSpec,
};
use serde::{Deserialize, Serialize};
use std::{fmt, time::Duration};

/// What a cell does.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Work {
    /// A case of the agent's own, by the cell's id.
    #[default]
    Case,
    /// A program.
    Program(Box<CellProgram>),
}

impl Work {
    /// Whether it is a case of the agent.
    pub const fn is_case(&self) -> bool {
        matches!(self, Self::Case)
    }

    /// The program, if it is one.
    pub fn program(&self) -> Option<&CellProgram> {
        match self {
            Self::Case => None,
            Self::Program(program) => Some(program),
        }
    }
}

/// A cell that is to run, with everything that the agent must know of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CellJob {
    /// The cell.
    pub cell: CellId,
    /// What it does.
    #[serde(default, skip_serializing_if = "Work::is_case")]
    pub work: Work,
    /// What the kernel must have; of a case the agent knows it itself.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub requires: Vec<Capability>,
}

impl CellJob {
    /// A case of the agent.
    pub const fn case(cell: CellId) -> Self {
        Self { cell, work: Work::Case, requires: Vec::new() }
    }
}

/// A program in a guest. Its streams are pipes, or a pseudo-terminal; never the port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CellProgram {
    /// Name and arguments; at least the name.
    pub argv: Vec<Raw>,
    /// Its environment. In a plan only what the command line states: what the caller's environment adds is sent to the guest
    /// and written nowhere, since it may hold secrets.
    pub env: Vec<(Raw, Raw)>,
    /// Names of variables that the caller's environment adds.
    #[serde(default)]
    pub inherit: Inherit,
    /// Working directory; the root if it is empty.
    pub cwd: Raw,
    /// What it sees as `/`; the agent's own root if `None`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub world: Option<WorldSpec>,
    /// What is built first.
    pub stage: ShellStage,
    /// The node in whose network namespace it runs; the guest's first one if `None`.
    pub node: Option<String>,
    /// User and group; root if `None`.
    pub user: Option<(u32, u32)>,
    /// Its terminal; pipes if `None`.
    pub terminal: Option<Terminal>,
    /// Time after which it is ended, milliseconds; never if `None`. Taken literally, whatever the accelerator.
    pub timeout_ms: Option<u64>,
    /// Largest core dump of one of its processes that is kept, bytes: its soft limit of core files. 0 keeps none.
    #[serde(default)]
    pub core_bytes: u64,
    /// Kernel parameters that are set first, in its network namespace: `net.ipv4.ip_forward`, `1`.
    pub sysctl: Vec<(String, String)>,
    /// Whether its streams go to and come from the host's; otherwise it reads nothing.
    pub input: bool,
    /// Whether the witness watches it, and what is demanded of what it attaches.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub witness: Option<AttachRules>,
}

/// Which variables a program has of the caller.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Inherit {
    /// None but these.
    Named(Vec<String>),
    /// All.
    #[default]
    All,
}

/// How a program ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProgramEnd {
    /// Its end.
    pub how: HowEnded,
    /// Bytes that it wrote to its standard output, or to its terminal.
    pub output: u64,
    /// Bytes that it wrote to its standard error.
    pub errors: u64,
    /// Processes that it left running, which were killed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub processes: Vec<String>,
}

/// The end of a program.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "end", rename_all = "kebab-case")]
pub enum HowEnded {
    /// It exited.
    Exited {
        /// Its exit code.
        code: u8,
    },
    /// A signal ended it.
    Killed {
        /// Its number.
        signal: i32,
        /// Whether the kernel wrote its memory to a file.
        core: bool,
    },
    /// It was ended at its timeout.
    TimedOut {
        /// The timeout, milliseconds.
        after_ms: u64,
    },
    /// It could not be started.
    NotStarted {
        /// 127 where it was not found, 126 where it can't be executed, as shells say it.
        code: u8,
    },
}

/// Exit code of a command that was ended at its timeout, as of timeout(1).
pub const TIMED_OUT: u8 = 124;
/// Exit code of a command that can't be executed, as POSIX shells have it.
pub const NOT_EXECUTABLE: u8 = 126;
/// Exit code of a command that was not found.
pub const NOT_FOUND: u8 = 127;

impl HowEnded {
    /// The exit code as a shell would have it.
    pub const fn code(&self) -> u8 {
        match *self {
            Self::Exited { code } | Self::NotStarted { code } => code,
            Self::Killed { signal, .. } => 128 + (signal & 0x7f) as u8,
            Self::TimedOut { .. } => TIMED_OUT,
        }
    }
}

impl fmt::Display for HowEnded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exited { code } => write!(f, "exit code {code}"),
            Self::Killed { signal, core } => {
                write!(f, "ended by signal {signal}{}{}", name(*signal), if *core { ", core dumped" } else { "" })
            }
            Self::TimedOut { after_ms } => {
                write!(f, "still running after {:.1?}, and ended", Duration::from_millis(*after_ms))
            }
            Self::NotStarted { code } => write!(f, "not started ({code})"),
        }
    }
}

/// Linux's names of the signals that end programs (signal(7), x86).
fn name(signal: i32) -> &'static str {
    match signal {
        1 => " (SIGHUP)",
        2 => " (SIGINT)",
        3 => " (SIGQUIT)",
        4 => " (SIGILL)",
        5 => " (SIGTRAP)",
        6 => " (SIGABRT)",
        7 => " (SIGBUS)",
        8 => " (SIGFPE)",
        9 => " (SIGKILL)",
        11 => " (SIGSEGV)",
        13 => " (SIGPIPE)",
        14 => " (SIGALRM)",
        15 => " (SIGTERM)",
        31 => " (SIGSYS)",
        _ => "",
    }
}

/// Where a program with a root of its own asks its agent to wait until the host has taken so many bytes of its standard output:
/// it writes the number and a line feed, and reads to the end.
pub const TAKEN_SOCKET: &str = "/run/lab/taken";
/// Bytes of one stream that may be on their way to the host: the agent waits for [`crate::HostMessage::OutputTaken`] before it
/// reads more of what the program writes, so that a reader who is slow slows the program and nothing else.
pub const OUTPUT_WINDOW: usize = 1 << 20;
/// Bytes of input that may be on their way to a program.
pub const PROGRAM_INPUT_WINDOW: usize = 1 << 20;
/// Bytes of one piece of a program's stream, at most; also what a pipe holds (pipe(7)).
pub const STREAM_PIECE: usize = 64 << 10;
/// Bytes of the memory that an emulated machine has for a program's streams, beside its ports: a virtio-serial port takes 4 KiB of input
/// at a time, each with an interrupt and a turn of QEMU's main loop, and its frames cost an emulated guest a checksum.
///
/// Each stream has [`STREAM_AREA`] of it. Who writes lays one piece behind the other, each whole, and begins at the area's start
/// again where one does not fit. The messages say where each is.
pub const STREAM_MEMORY: usize = 8 << 20;
/// Bytes of one stream's area: input first, then the program's two streams.
pub const STREAM_AREA: usize = 2 << 20;
/// Where the area for input begins.
pub const INPUT_AREA: usize = 0;

/// Where the area of one of the program's own streams begins.
pub const fn output_area(stream: Stream) -> usize {
    match stream {
        Stream::Output => STREAM_AREA,
        Stream::Error => 2 * STREAM_AREA,
    }
}

/// Where in an area the next piece begins: behind the last one, which ended at `next`, or at the start.
pub const fn place(next: usize, length: usize) -> usize {
    if next + length > STREAM_AREA { 0 } else { next }
}

// Nothing is overwritten that has yet to be taken: who writes waits at the window, and leaves less than a piece at the area's end unused.
const _: () =
    assert!(PROGRAM_INPUT_WINDOW + 2 * STREAM_PIECE <= STREAM_AREA && OUTPUT_WINDOW + 2 * STREAM_PIECE <= STREAM_AREA);
// QEMU's device has a power of two.
const _: () = assert!(3 * STREAM_AREA <= STREAM_MEMORY && STREAM_MEMORY.is_power_of_two());

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_areas_of_the_streams_do_not_overlap_and_are_within_the_memory() {
        let mut begins = [INPUT_AREA, output_area(Stream::Output), output_area(Stream::Error)];
        begins.sort_unstable();
        assert!(begins.windows(2).all(|pair| pair[1] - pair[0] >= STREAM_AREA), "{begins:?}");
        assert!(begins[2] + STREAM_AREA <= STREAM_MEMORY, "{begins:?}");
    }
}
