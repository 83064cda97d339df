//! Errors of the harness, in contrast to verdicts on the kernel ([`Stop`](crate::ctx::Stop)).

use crate::suite::SuiteError;
use lab_bpf::BpfError;
use lab_netlink::NetlinkError;
use lab_protocol::CellId;
use lab_topology::TopologyError;
use nix::errno::Errno;
use std::{io, path::PathBuf};

/// Why the harness can't go on. Each is one line.
#[derive(Debug, thiserror::Error)]
pub enum HarnessError {
    /// An eBPF object of the image can't be read.
    #[error(transparent)]
    Bpf(#[from] BpfError),
    /// The host sent an object that no guest takes.
    #[error("the host sent the object {0:?}, which can't be exchanged")]
    NotExchangeable(String),
    /// An object of the host can't be written.
    #[error("cannot write {}: {error}", .path.display())]
    Object {
        /// Its place in the guest.
        path: PathBuf,
        /// The kernel's error; part of the message, therefore not a `source`.
        error: io::Error,
    },
    /// A topology can't be built or read.
    #[error(transparent)]
    Topology(#[from] TopologyError),
    /// A query by netlink was refused.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    /// The suites contradict each other.
    #[error(transparent)]
    Suite(#[from] SuiteError),
    /// `SO_TIMESTAMPNS`, which the kernel needs time to switch on, was refused (`socket(7)`).
    #[error("SO_TIMESTAMPNS: {0}")]
    Stamping(io::Error),
    /// `BPF_*_GET_NEXT_ID` was refused.
    #[error("cannot list {what}: {error}")]
    List {
        /// Programs, maps or links.
        what: &'static str,
        /// The kernel's error; part of the message, therefore not a `source`.
        error: BpfError,
    },
    /// A directory can't be read.
    #[error("cannot read {}: {error}", .path.display())]
    Directory {
        /// `/sys/fs/bpf` or `/sys/class/net`, or a directory below.
        path: PathBuf,
        /// The kernel's error.
        error: io::Error,
    },
    /// Something outlives the case that made it.
    #[error("{}", with_reason(.left, .stalled.as_deref()))]
    Leaks {
        /// One entry per object: `program 7`, `pin /sys/fs/bpf/p0`.
        left: Vec<String>,
        /// Why the kernel's clean-up was not waited for any longer, if it had not ended.
        stalled: Option<Box<HarnessError>>,
    },
    /// The devices that show how far the kernel's clean-up is can't be made.
    #[error("cannot create a pair of devices to wait for the kernel's clean-up: {0}")]
    Fence(NetlinkError),
    /// The kernel's clean-up made no progress before the deadline.
    #[error("the kernel's clean-up of network namespaces makes no progress")]
    Stalled,
    /// The host names a cell that no suite has.
    #[error("the agent has no cell {0}")]
    UnknownCell(CellId),
    /// The host names a topology that no suite has.
    #[error("the agent has no topology {0}")]
    UnknownTopology(String),
    /// The host names a fault that no suite has.
    #[error("the agent has no mutant `{0}`")]
    UnknownMutant(String),
    /// A case ended where it should have been stopped.
    #[error("{cell} {reason}")]
    NotStopped {
        /// The cell that `lab shell --case` names.
        cell: CellId,
        /// How it ended, or why it can't be stopped.
        reason: String,
    },
    /// No thread for a case.
    #[error("a thread for the case: {0}")]
    Thread(io::Error),
    /// The thread that runs a case for `lab shell` panicked.
    #[error("the case's runner panicked")]
    Panicked,
    /// A setup can't be measured.
    #[error("{setup}: {reason}")]
    Measure {
        /// The setup, as `lab bench` names it.
        setup: String,
        /// What failed, or what the kernel lacks.
        reason: String,
    },
}

fn with_reason(left: &[String], stalled: Option<&HarnessError>) -> String {
    match stalled {
        Some(error) => format!("{} ({error})", left.join(", ")),
        None => left.join(", "),
    }
}

/// Errors that contain the kernel's errno.
pub trait AsErrno {
    /// The errno, if the kernel returned one.
    fn errno(&self) -> Option<Errno>;
}

impl AsErrno for Errno {
    fn errno(&self) -> Option<Errno> {
        Some(*self)
    }
}

impl AsErrno for std::io::Error {
    fn errno(&self) -> Option<Errno> {
        self.raw_os_error().map(Errno::from_raw)
    }
}
