//! The messages. The agent sends `Hello`, `Probed`, then for each cell `CellStarted` and `CellFinished`, then `Done`.
//! Any number of `Run`s may follow each other.
//!
//! A guest that becomes a snapshot is asked to `Settle` instead. Every guest restored from it hears `Resume` first, and
//! answers with `Hello` and `Probed` anew.
//!
//! A cell whose work is a program has `Output`, `Input`, `Resize` and `Signal` between its `CellStarted` and its
//! `CellFinished`. Both directions have a window: what is sent is acknowledged by `InputTaken` and `OutputTaken`. Where the machine has
//! memory for streams, the bytes of long ones are not sent: the host says `MapStreams` and hears `StreamsMapped`, and then both lay them
//! into that memory and say where they are, by `InputAt` and `OutputAt`.
//!
//! `Object` replaces an eBPF object of the guest's image before the first `Run`. `AgentPiece`s and `StartAgent` replace the agent itself:
//! the next one begins with a `Hello` of its own, and hears `Hello` as after a boot.
//!
//! In place of `Run` a guest may be asked for a `Shell`: `ShellReady` or `Refused`, then `Input` and `Output` as they come,
//! then `ShellAccount` where the witness watched, the staged cell's `CellFinished` where there is one, then `ShellExited`. Or for a `Measure`.

use crate::{
    capability::CapabilityReport,
    cell::CellId,
    frame::Message,
    measure::{MeasureRequest, Sample},
    outcome::CellReport,
    shell::{ShellRequest, Size, Stream},
    version::KernelVersion,
    witness::Account,
    work::CellJob,
};
use serde::{Deserialize, Serialize};

/// Both sides refuse another version.
pub const PROTOCOL_VERSION: u32 = 10;

/// Name of the virtio-serial port, in `/sys/class/virtio-ports/*/name` of the guest.
pub const PORT_NAME: &str = "org.netkit-lab.agent.0";

/// Messages of the agent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum AgentMessage {
    /// First message after boot, and the answer to `Resume` and `StartAgent`.
    Hello {
        /// [`PROTOCOL_VERSION`] of the agent.
        protocol: u32,
        /// The nonce of the answered message; `None` after boot.
        nonce: Option<u64>,
        /// The agent's own version.
        agent: String,
        /// `uname -r`.
        release: String,
        /// `uname -v`.
        version: String,
        /// The kernel's upstream version, which may differ from the distribution's number.
        kernel: KernelVersion,
        /// `CLOCK_BOOTTIME` when the agent started, milliseconds.
        boot_ms: u64,
    },
    /// The kernel's capabilities; sent once, before the first cell.
    Probed {
        /// One entry per capability.
        capabilities: Vec<CapabilityReport>,
        /// Modules that were loaded for the suite.
        modules: Vec<String>,
    },
    /// Sent before a cell's first action, so that a crash can be attributed to the cell.
    CellStarted {
        /// The cell.
        cell: CellId,
    },
    /// Sent after a cell's clean-up.
    CellFinished {
        /// Its report.
        report: Box<CellReport>,
    },
    /// Sent every [`HEARTBEAT_MS`] milliseconds by a separate thread.
    Heartbeat {
        /// `CLOCK_BOOTTIME`, milliseconds.
        uptime_ms: u64,
        /// The cell that is running.
        cell: Option<CellId>,
    },
    /// The guest is idle: a snapshot may be taken.
    Settled,
    /// The program of a `Shell` runs.
    ShellReady {
        /// Description of the built topology.
        welcome: String,
    },
    /// The agent cannot fulfil the request; the guest's state is unchanged.
    Refused {
        /// One line.
        message: String,
    },
    /// Output of the program.
    Output {
        /// Where.
        stream: Stream,
        /// What.
        #[serde(skip)]
        bytes: Vec<u8>,
    },
    /// Output of the program that is in the machine's memory for streams; after a `MapStreams`, which may have been for the program before.
    OutputAt {
        /// Where.
        stream: Stream,
        /// Where it begins in the stream's area, bytes.
        at: u32,
        /// Bytes, at least one.
        length: u32,
    },
    /// The answer to `MapStreams`: the memory is mapped, and what the running program reads and writes may be in it.
    StreamsMapped,
    /// The program has read input.
    InputTaken {
        /// Bytes since the last such message.
        bytes: u32,
    },
    /// What the program of a `Shell` attached.
    ShellAccount {
        /// The witness's account.
        account: Box<Account>,
    },
    /// The program has ended, and its topology was deleted.
    ShellExited {
        /// Its exit code; 128 + signal number if a signal ended it.
        code: u8,
    },
    /// New splats of the kernel log, as [`crate::complaint::scan`] finds them. Splats reported before
    /// `CellFinished` belong to the running cell, others occurred between cells.
    KernelLog {
        /// Lines of the log, each with its time stamp.
        text: String,
    },
    /// One setup of a `Measure` was measured once.
    Measured {
        /// The round, from 0.
        round: u32,
        /// Its index in the request.
        setup: u32,
        /// The figures.
        sample: Sample,
    },
    /// A line for the run's log.
    Log {
        /// The line.
        text: String,
    },
    /// All requested cells have finished.
    Done {
        /// Number of cells that ran.
        ran: u32,
    },
    /// The answer to `Shutdown`, and the last message.
    Farewell {
        /// Leaked objects, which did not exist before the first cell: `map 7`, `namespace net:[…]`.
        left: Vec<String>,
    },
    /// The agent cannot continue; it sends the reason before it stops.
    Fatal {
        /// One line.
        message: String,
    },
}

/// Largest piece of an agent in one message, bytes: an agent is larger than a frame may be.
pub const AGENT_PIECE: usize = 1 << 20;

/// Interval between heartbeats, milliseconds of guest time.
pub const HEARTBEAT_MS: u64 = 1000;

/// Messages of the host.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum HostMessage {
    /// Answer to the agent's hello.
    Hello {
        /// [`PROTOCOL_VERSION`] of the host.
        protocol: u32,
    },
    /// Finish all work: a snapshot will be taken. The agent answers `Settled`.
    Settle,
    /// First message to a guest that was restored from a snapshot.
    Resume {
        /// [`PROTOCOL_VERSION`] of the host.
        protocol: u32,
        /// The agent's `Hello` repeats it, so that a message from before the snapshot is not taken for the answer.
        nonce: u64,
        /// Wall clock for the guest, nanoseconds since the epoch.
        now_unix_ns: u64,
        /// Random bytes of the host: guests of the same snapshot must not have the same random numbers.
        entropy: [u8; 32],
    },
    /// An eBPF object in place of the one in the guest's image, for all cells of this guest; before `Run`. Behind an `AgentPiece` it is
    /// for the next agent, and this one does not read it.
    Object {
        /// Its name in the image: `lab.o` or `datapath.o`.
        name: String,
        /// The object.
        #[serde(skip)]
        bytes: Vec<u8>,
    },
    /// A piece of an agent that takes this one's place; after its `Hello` and before any `Run`, in guests that run cases alone.
    AgentPiece {
        /// At most [`AGENT_PIECE`] bytes, in order.
        #[serde(skip)]
        bytes: Vec<u8>,
    },
    /// The agent is whole: start it in this one's place. The kernel, its modules and the mounts stay what they are; the next agent
    /// probes anew.
    StartAgent {
        /// The next agent's `Hello` repeats it, so that no message of this one is taken for the answer.
        nonce: u64,
    },
    /// Run these cells, in this order.
    Run {
        /// The cells, with what each does.
        cells: Vec<CellJob>,
        /// Factor on every deadline in the guest: 1.0 under KVM, more under TCG.
        time_scale: f32,
        /// Wall clock for the guest, nanoseconds since the epoch.
        now_unix_ns: u64,
        /// Name of a mutant, which the suite must detect.
        mutant: Option<String>,
    },
    /// Build a topology and run a program in it.
    Shell(Box<ShellRequest>),
    /// Input for the program.
    Input {
        /// What; nothing is the end of all input.
        #[serde(skip)]
        bytes: Vec<u8>,
    },
    /// Map the machine's memory for the running program's streams, see [`crate::work::STREAM_MEMORY`]. An agent that can't does not answer.
    MapStreams,
    /// Input for the program that is in that memory; after `StreamsMapped`.
    InputAt {
        /// Where it begins in the area for input, bytes.
        at: u32,
        /// Bytes, at least one.
        length: u32,
    },
    /// The host took what the program wrote.
    OutputTaken {
        /// Where.
        stream: Stream,
        /// Bytes since the last such message.
        bytes: u32,
    },
    /// Nobody reads this stream any more: the program is to find it closed, as a pipe without a reader.
    OutputClosed {
        /// Which.
        stream: Stream,
    },
    /// The program's terminal has another size.
    Resize(Size),
    /// A signal for the program and all of its process group.
    Signal {
        /// Its number.
        signal: i32,
    },
    /// Measure setups against each other; answered by `Measured` each, then `Done`, or `Refused` at the first that fails.
    Measure(Box<MeasureRequest>),
    /// Power off.
    Shutdown,
}

impl Message for AgentMessage {
    fn carried(&mut self) -> Option<&mut Vec<u8>> {
        if let Self::Output { bytes, .. } = self { Some(bytes) } else { None }
    }

    fn carries(&self) -> Option<&[u8]> {
        if let Self::Output { bytes, .. } = self { Some(bytes) } else { None }
    }
}

impl Message for HostMessage {
    fn carried(&mut self) -> Option<&mut Vec<u8>> {
        match self {
            Self::Input { bytes } | Self::Object { bytes, .. } | Self::AgentPiece { bytes } => Some(bytes),
            _ => None,
        }
    }

    fn carries(&self) -> Option<&[u8]> {
        match self {
            Self::Input { bytes } | Self::Object { bytes, .. } | Self::AgentPiece { bytes } => Some(bytes),
            _ => None,
        }
    }
}
