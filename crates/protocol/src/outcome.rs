//! Verdicts.
//!
//! `failed` is a verdict on the kernel or the case. `errored` is the absence of one: the guest died, the host
//! faulted, the agent broke.

use crate::{
    attach::AttachRecord, attachment::Attachment, capability::Capability, cell::CellId, version::KernelVersion,
    work::ProgramEnd,
};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, fmt};

/// How a cell ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "kebab-case")]
pub enum Outcome {
    /// Every check held.
    Passed,
    /// A check did not hold.
    Failed {
        /// What sort of check.
        kind: FailureKind,
        /// One line for people.
        message: String,
    },
    /// The kernel lacks something that the cell needs.
    Skipped {
        /// Why, and what lifts it.
        reason: SkipReason,
    },
    /// No verdict.
    Errored {
        /// Where it broke.
        kind: ErrorKind,
        /// One line for people.
        message: String,
    },
    /// Planned, and never started.
    NotRun {
        /// Why.
        message: String,
    },
}

impl Outcome {
    /// The word used in tables and counters.
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Failed { .. } => "failed",
            Self::Skipped { .. } => "skipped",
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
            Self::NotRun { message } => message.clone(),
        }
    }
}

/// Sorts of failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FailureKind {
    /// An assertion of the case.
    Check,
    /// The kernel used another attach type than the plan demands.
    AttachMismatch,
    /// A probe found something missing on a kernel that must have it.
    MissingCapability,
    /// The case left namespaces, links, programs, maps or pins behind.
    Leak,
    /// A call failed that no check expected to fail.
    Unexpected,
    /// Clean-up failed.
    Cleanup,
    /// A splat (WARN, BUG, oops) while the cell ran.
    Splat,
    /// The cell passed only when it was run again.
    Flaky,
    /// The guest did not end as it should: it left something behind, or did not power off.
    Teardown,
    /// A program exited with another code than 0, or a signal ended it.
    Exit,
    /// A program was ended at its timeout.
    Timeout,
    /// The cell ends one way in a guest that it shares with others and another way in a pristine one.
    Isolation,
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
        })
    }
}

/// Sorts of error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ErrorKind {
    /// The guest never said hello.
    Boot,
    /// The guest's kernel panicked.
    Panic,
    /// The guest went silent, or the cell passed its deadline.
    Hang,
    /// The guest or QEMU ended before its time.
    GuestLost,
    /// The agent broke the protocol, or panicked.
    Agent,
    /// A program could not be started: it is not there, or can't be executed.
    NotStarted,
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
            Self::Host => "host",
            Self::Interrupted => "interrupted",
            Self::OverBudget => "over-budget",
        })
    }
}

/// Why a cell was skipped, and what lifts the skip.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SkipReason {
    /// What the kernel lacks.
    pub capability: Capability,
    /// What the probe found.
    pub detail: String,
    /// The kernel version that has it.
    pub lifted_by: KernelVersion,
}

impl fmt::Display for SkipReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no {}: {} (lifted by kernel {})", self.capability, self.detail, self.lifted_by)
    }
}

/// One assertion that was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// What was asserted.
    pub name: String,
    /// Whether it held.
    pub ok: bool,
    /// What was seen.
    pub seen: String,
}

/// Everything that a finished cell leaves.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CellReport {
    /// The cell.
    pub cell: CellId,
    /// How it ended, as the guest saw it; the host judges once more.
    pub outcome: Outcome,
    /// Attachments as the kernel reported them.
    pub attach: Vec<AttachRecord>,
    /// The assertions, in order.
    pub checks: Vec<Check>,
    /// Wall time in the guest, microseconds.
    pub duration_us: u64,
    /// Lines that the case logged.
    pub log: Vec<String>,
    /// Numbers worth keeping: `udp.sent`, `udp.lost`, …
    pub metrics: BTreeMap<String, f64>,
    /// How its program ended, where it is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub program: Option<ProgramEnd>,
    /// Files of a failed cell.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub attachments: Vec<Attachment>,
}

impl CellReport {
    /// A report for a cell that never got as far as reporting itself.
    pub fn bare(cell: CellId, outcome: Outcome) -> Self {
        Self {
            cell,
            outcome,
            attach: Vec::new(),
            checks: Vec::new(),
            duration_us: 0,
            log: Vec::new(),
            metrics: BTreeMap::new(),
            program: None,
            attachments: Vec::new(),
        }
    }
}
