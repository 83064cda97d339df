//! What is wanted from a guest, what it says, and how it ends.

use crate::run::{timing::Timing, visitor::Visitor};
use lab_base::interrupt::Interrupt;
use lab_protocol::{CapabilityReport, CellId, CellReport, ErrorKind, KernelVersion};
use lab_record::{guest_exit::GuestExit, plan::Plan};
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
    pub(super) fn boot_limit(&self) -> Duration {
        if self.restored() { self.timing.restore() } else { self.timing.boot }
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
    /// Splats of the kernel log since the last ones.
    KernelLog(String),
    /// A line for the log.
    Note(String),
}

/// How a guest ended.
#[derive(Debug)]
pub enum End {
    /// The errand is done: the guest is still up after settling, and was told to power off after its cells.
    Done(Option<Farewell>),
    /// A signal, while this cell was running.
    Interrupted(Option<CellId>),
    /// Anything else.
    Lost(Lost),
}

/// How a guest took the word to power off.
#[derive(Debug, Default)]
pub struct Farewell {
    /// From the word to the end of its machine.
    pub after: Duration,
    /// Whether its machine ended by itself.
    pub off: bool,
    /// What it said was left; none where it did not say.
    pub left: Option<Vec<String>>,
    /// Whether the user could not wait for it.
    pub cut_short: bool,
}

impl Farewell {
    /// What went wrong, one line each.
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        match &self.left {
            Some(left) if left.is_empty() => {}
            Some(left) => problems.push(format!("left behind: {}", left.join(", "))),
            None if self.cut_short => {}
            None => problems.push("its agent ended without a last word".to_owned()),
        }
        if !self.off && !self.cut_short {
            problems.push(format!("it did not power off within {:.1?} and was killed", self.after));
        }
        problems
    }
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
