//! Tasks of a guest, messages from it, and how it ends.

use crate::run::{
    common::{SentObject, Serve},
    program::{OpenStreams, suite::Child},
    timing::Timing,
    visitor::Visitor,
};
use lab_base::{held::HeldFile, interrupt::Interrupt};
use lab_guard::Inside;
use lab_protocol::{CapabilityReport, CellId, CellInfo, CellJob, CellReport, ErrorKind, KernelVersion};
use lab_record::{guest_exit::GuestExit, plan::Plan};
use std::time::Duration;

/// The purpose of a guest.
#[derive(Clone, Copy)]
pub enum Errand<'a> {
    /// Runs cells in pieces until there are none left.
    Run {
        /// Returns the next piece.
        next: &'a dyn Fn() -> Vec<CellId>,
        /// Whether the guest was restored and must be resumed.
        restored: bool,
    },
    /// Serves a shell or a measurement.
    Visit {
        visitor: &'a dyn Visitor,
        /// Whether the guest was restored and must be resumed.
        restored: bool,
        /// Whether the guest is to run on: it becomes a snapshot.
        stays: bool,
    },
    /// Prepares for a snapshot. The guest is still running afterwards.
    Settle,
}

/// The host's side of programs that are cells.
pub trait ProgramHost {
    /// The cell as the guest gets it.
    fn job(&self, info: &CellInfo) -> CellJob;
    /// Opens the streams of a cell that has begun; `None` where it is no program.
    fn open(&self, info: &CellInfo) -> Option<OpenStreams<'_>>;
}

/// Everything that a guest's session needs.
#[derive(Clone, Copy)]
pub struct Task<'a> {
    pub plan: &'a Plan,
    /// The version that the kernel must report.
    pub version: KernelVersion,
    /// The purpose of the guest.
    pub errand: Errand<'a>,
    pub timing: Timing,
    /// Computes the guest's time scale from its time to Hello.
    pub rescale: &'a (dyn Fn(Duration) -> f32 + Sync),
    /// Name of the deliberate fault.
    pub mutant: Option<&'a str>,
    /// The streams of cells that are programs.
    pub programs: &'a dyn ProgramHost,
    /// Objects in place of those in its image.
    pub objects: &'a [SentObject],
    /// The agent in place of the one in its image.
    pub agent: Option<&'a HeldFile>,
    /// Set by Ctrl-C.
    pub interrupt: &'a Interrupt,
    /// Serves the guest's files.
    pub files: Option<&'a Serve<'a>>,
}

impl Errand<'_> {
    /// Whether the guest runs on afterwards.
    pub(in crate::run) const fn stays(&self) -> bool {
        matches!(self, Self::Settle | Self::Visit { stays: true, .. })
    }
}

impl Task<'_> {
    pub(super) const fn restored(&self) -> bool {
        matches!(self.errand, Errand::Run { restored: true, .. } | Errand::Visit { restored: true, .. })
    }

    /// Maximum time from launch to Hello.
    pub(super) fn boot_limit(&self) -> Duration {
        if self.restored() { self.timing.restore() } else { self.timing.boot }
    }
}

/// Checked messages of a guest.
#[derive(Debug)]
pub enum GuestMessage {
    /// The agent is up.
    Hello {
        /// `uname -r`.
        release: String,
        /// `uname -v`.
        version: String,
        /// The upstream version behind the distribution's numbering.
        kernel: KernelVersion,
        /// Time from launch to Hello.
        after: Duration,
    },
    /// The probes are finished.
    Probed {
        /// Capabilities of the kernel.
        capabilities: Vec<CapabilityReport>,
        modules: Vec<String>,
    },
    /// A cell was started.
    Started(CellId),
    /// The running program's streams are closed: their files, as paths from the run's directory on.
    Closed(Vec<Inside>, Vec<Child>),
    /// The running cell ended.
    Finished(Box<CellReport>),
    /// New text of the kernel log.
    KernelLog(String),
    /// A line for the log.
    Note(String),
}

/// How a guest's session ended.
#[derive(Debug)]
pub enum SessionEnd {
    /// The task is done: the guest is still running after settling, or was told to power off after its cells.
    Done(Option<Farewell>),
    /// A signal was received while this cell was running.
    Interrupted(Option<CellId>),
    /// Any other end.
    Lost(Lost),
}

/// How a guest powered off.
#[derive(Debug, Default)]
pub struct Farewell {
    /// Time from the request to the end of its machine.
    pub after: Duration,
    /// Whether its machine ended by itself.
    pub off: bool,
    /// Resources that the guest reported as left behind; `None` if it did not report.
    pub left: Option<Vec<String>>,
    /// Whether an interrupt ended the wait.
    pub cut_short: bool,
    /// The limit that it exceeded.
    pub over: Option<String>,
}

impl Farewell {
    /// Problems, one line each.
    pub fn problems(&self) -> Vec<String> {
        if let Some(over) = &self.over {
            return vec![format!("{over}, and it was killed")];
        }
        let mut problems = Vec::new();
        match &self.left {
            Some(left) if left.is_empty() => {}
            Some(left) => problems.push(format!("left behind: {}", left.join(", "))),
            None if self.cut_short => {}
            None => problems.push("its agent ended without a final message".to_owned()),
        }
        if !self.off && !self.cut_short {
            problems.push(format!("it did not power off within {:.1?} and was killed", self.after));
        }
        problems
    }
}

/// A lost guest.
#[derive(Debug, PartialEq, Eq)]
pub struct Lost {
    /// Kind of the loss as seen on the port; the console may give a more precise one.
    pub kind: ErrorKind,
    /// Cause, one line.
    pub message: String,
    /// The cell that was running.
    pub cell: Option<CellId>,
    /// Whether a fresh guest may succeed.
    pub again: bool,
    /// How its process ended, if it ended by itself.
    pub exit: Option<GuestExit>,
}
