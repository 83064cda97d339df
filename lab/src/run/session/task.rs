//! What is wanted from a guest, what it says, and how it ends.

use crate::run::{timing::Timing, visit::Visitor};
use crate::{interrupt::Interrupt, plan::Plan, vm::GuestExit};
use lab_protocol::{CapabilityReport, CellId, CellReport, ErrorKind, KernelVersion};
use std::time::Duration;

/// What is wanted from a guest.
#[derive(Clone, Copy)]
pub enum Errand<'a> {
    /// Runs cells, piece by piece until there are none.
    Run {
        /// The next piece.
        next: &'a dyn Fn() -> Vec<CellId>,
        /// Whether the guest was restored, and must be told.
        restored: bool,
    },
    /// Talks to somebody.
    Visit {
        /// To whom.
        visitor: &'a dyn Visitor,
        /// Whether the guest was restored, and must be told.
        restored: bool,
    },
    /// Comes to rest, to become a snapshot. The guest is still up afterwards.
    Settle,
}

/// What a guest gets to do.
#[derive(Clone, Copy)]
pub struct Task<'a> {
    /// The whole plan.
    pub plan: &'a Plan,
    /// The version that the kernel must turn out to be.
    pub version: KernelVersion,
    /// What for.
    pub errand: Errand<'a>,
    /// Deadlines.
    pub timing: Timing,
    /// What the time to hello says about the guest's speed.
    pub rescale: &'a (dyn Fn(Duration) -> f32 + Sync),
    /// The deliberate fault.
    pub mutant: Option<&'a str>,
    /// Ctrl-C.
    pub interrupt: &'a Interrupt,
}

impl Task<'_> {
    pub(super) const fn restored(&self) -> bool {
        matches!(self.errand, Errand::Run { restored: true, .. } | Errand::Visit { restored: true, .. })
    }

    /// Launch to hello.
    pub(super) const fn boot_limit(&self) -> Duration {
        if self.restored() { self.timing.restore } else { self.timing.boot }
    }
}

/// What a guest said that the rest of the run wants to know.
#[derive(Debug)]
pub enum Word {
    /// It is up.
    Hello {
        /// `uname -r`.
        release: String,
        /// `uname -v`.
        version: String,
        /// The real version.
        kernel: KernelVersion,
        /// Launch to hello.
        after: Duration,
    },
    /// Its probes.
    Probed {
        /// What the kernel can do.
        capabilities: Vec<CapabilityReport>,
        /// Loaded modules.
        modules: Vec<String>,
    },
    /// A cell began.
    Started(CellId),
    /// The running cell ended.
    Finished(Box<CellReport>),
    /// A line for the log.
    Note(String),
}

/// How a guest ended.
#[derive(Debug)]
pub enum End {
    /// Every cell of the task has been reported.
    Done,
    /// A signal, while this cell was running.
    Interrupted(Option<CellId>),
    /// Anything else.
    Lost(Lost),
}

/// A guest that did not get through.
#[derive(Debug, PartialEq, Eq)]
pub struct Lost {
    /// As far as the port tells; the console may know better.
    pub kind: ErrorKind,
    /// One line.
    pub message: String,
    /// The cell that was running.
    pub cell: Option<CellId>,
    /// Whether a fresh guest may do better.
    pub again: bool,
    /// How its process ended, where it ended by itself.
    pub exit: Option<GuestExit>,
}
