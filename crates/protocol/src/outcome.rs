//! Outcomes of cells.
//! `failed` is a result about the kernel or the case. `errored` means that there is no such result: the guest was lost,
//! or the host or the agent failed.

use crate::{
    attach::AttachRecord, attachment::Attachment, capability::Capability, cell::CellId, version::KernelVersion,
    witness::Account, work::ProgramEnd,
};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, fmt};

/// How a cell ended.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "kebab-case")]
pub enum Outcome {
    /// All checks passed.
    Passed,
    /// A check failed.
    Failed {
        /// Kind of failure.
        kind: FailureKind,
        /// One line that describes it.
        message: String,
    },
    /// The kernel lacks something that the cell needs.
    Skipped {
        /// The missing capability, and the version that has it.
        reason: SkipReason,
    },
    /// The program skipped itself, by its own suite's rules. Only the host says so, of a program whose output it reads.
    SkippedItself {
        /// One line that says why; may be empty.
        message: String,
    },
    /// The cell has no result.
    Errored {
        /// Kind of error.
        kind: ErrorKind,
        /// One line that describes it.
        message: String,
    },
    /// Planned, but never started.
    NotRun {
        /// Why.
        message: String,
    },
}

impl Outcome {
    /// The name in tables and counters.
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Failed { .. } => "failed",
            Self::Skipped { .. } | Self::SkippedItself { .. } => "skipped",
            Self::Errored { .. } => "errored",
            Self::NotRun { .. } => "not-run",
        }
    }

    /// One line that says why; empty for `passed`.
    pub fn message(&self) -> String {
        match self {
            Self::Passed => String::new(),
            Self::Failed { kind, message } => format!("{kind}: {message}"),
            Self::Skipped { reason } => reason.to_string(),
            Self::Errored { kind, message } => format!("{kind}: {message}"),
            Self::NotRun { message } | Self::SkippedItself { message } => message.clone(),
        }
    }
}

/// Kinds of failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FailureKind {
    /// An assertion of the case.
    Check,
    /// The kernel used another attach type than the plan requires.
    AttachMismatch,
    /// A probe found a capability missing on a kernel that must have it.
    MissingCapability,
    /// The case left namespaces, links, programs, maps or pins behind.
    Leak,
    /// A call failed unexpectedly.
    Unexpected,
    /// Clean-up failed.
    Cleanup,
    /// A splat (WARN, BUG, oops) while the cell ran.
    Splat,
    /// The cell passed only when it was run again.
    Flaky,
    /// The guest did not end correctly: it leaked objects, or did not power off.
    Teardown,
    /// A program exited with another code than 0, or a signal ended it.
    Exit,
    /// A program was ended at its timeout.
    Timeout,
    /// The cell ends one way in a guest that it shares with others and another way in a pristine one.
    Isolation,
    /// The cell ends in another way than in an earlier run, although nothing that its verdict depends on has changed.
    Reuse,
}

impl fmt::Display for FailureKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Check => "check",
            Self::AttachMismatch => "attach-mismatch",
            Self::MissingCapability => "missing-capability",
            Self::Leak => "leak",
            Self::Unexpected => "unexpected-error",
            Self::Cleanup => "cleanup",
            Self::Splat => "splat",
            Self::Flaky => "flaky",
            Self::Teardown => "teardown",
            Self::Exit => "exit",
            Self::Timeout => "timeout",
            Self::Isolation => "isolation",
            Self::Reuse => "reuse",
        })
    }
}

/// Kinds of error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ErrorKind {
    /// The guest never sent Hello.
    Boot,
    /// The guest's kernel panicked.
    Panic,
    /// The guest stopped sending messages, or the cell exceeded its deadline.
    Hang,
    /// The guest or QEMU ended unexpectedly.
    GuestLost,
    /// The agent broke the protocol, or panicked.
    Agent,
    /// A program could not be started: it is not there, or can't be executed.
    NotStarted,
    /// A test of a suite was planned, or began, and never reported.
    NoResult,
    /// The host could not do its part: no QEMU, no image, no space.
    Host,
    /// The run was interrupted.
    Interrupted,
    /// The guest exceeded a limit for messages or files.
    OverBudget,
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Boot => "boot",
            Self::Panic => "panic",
            Self::Hang => "hang",
            Self::GuestLost => "guest-lost",
            Self::Agent => "agent",
            Self::NotStarted => "not-started",
            Self::NoResult => "no-result",
            Self::Host => "host",
            Self::Interrupted => "interrupted",
            Self::OverBudget => "over-budget",
        })
    }
}

/// Why a cell was skipped, and the kernel version with which it runs.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SkipReason {
    /// The missing capability.
    pub capability: Capability,
    /// The result of the probe.
    pub detail: String,
    /// The kernel version that has it.
    pub lifted_by: KernelVersion,
}

impl fmt::Display for SkipReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no {}: {} (lifted by kernel {})", self.capability, self.detail, self.lifted_by)
    }
}

/// A check of a case.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// What must be true.
    pub name: String,
    /// Whether it was true.
    pub ok: bool,
    /// The observed value.
    pub seen: String,
}

/// The report of a finished cell. `C` is how its checks are held: a reader of many reports does not copy their texts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CellReport<C = Check> {
    /// The cell.
    pub cell: CellId,
    /// The guest's outcome; the host computes the verdict from it.
    pub outcome: Outcome,
    /// Attachments as reported by the kernel.
    pub attach: Vec<AttachRecord>,
    /// The assertions, in order.
    pub checks: Vec<C>,
    /// Wall time in the guest, microseconds.
    pub duration_us: u64,
    /// How much of it the guest's processor waited for one of the host, microseconds: measured by the host, and 0 in the guest's
    /// own report.
    #[serde(default, skip_serializing_if = "is_none")]
    pub waited_us: u64,
    /// Lines that the case logged.
    pub log: Vec<String>,
    /// Metrics: `udp.sent`, `udp.lost`, …
    pub metrics: BTreeMap<String, f64>,
    /// How its program ended, where it is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub program: Option<ProgramEnd>,
    /// The witness's account, where it watched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub witness: Option<Box<Account>>,
    /// Files of a failed cell.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub attachments: Vec<Attachment>,
}

/// Whether nothing was measured: such a number is not written.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
const fn is_none(number: &u64) -> bool {
    *number == 0
}

impl<C> CellReport<C> {
    /// The report without its checks, and the checks.
    pub fn split(self) -> (CellReport, Vec<C>) {
        let Self { cell, outcome, attach, checks, duration_us, waited_us, log, metrics, program, witness, attachments } =
            self;
        let report = CellReport {
            attach,
            duration_us,
            waited_us,
            log,
            metrics,
            program,
            witness,
            attachments,
            ..CellReport::bare(cell, outcome)
        };
        (report, checks)
    }
}

impl CellReport {
    /// The time that the cell took without what the guest waited for the host, microseconds.
    pub const fn own_us(&self) -> u64 {
        self.duration_us.saturating_sub(self.waited_us)
    }

    /// Creates the report of a cell that could not report itself.
    pub fn bare(cell: CellId, outcome: Outcome) -> Self {
        Self {
            cell,
            outcome,
            attach: Vec::new(),
            checks: Vec::new(),
            duration_us: 0,
            waited_us: 0,
            log: Vec::new(),
            metrics: BTreeMap::new(),
            program: None,
            witness: None,
            attachments: Vec::new(),
        }
    }
}
