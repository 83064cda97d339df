//! Everything that happened on one kernel and in its guests.

use crate::{
    event::{ImageInfo, Moment, Start},
    kept::Verdicts,
    slow::Slow,
    splat::Splat,
    verdict::Attempt,
};
use lab_protocol::{CapabilityReport, CellId, ErrorKind, KernelVersion};
use std::collections::BTreeMap;

/// Everything that happened on one kernel.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct KernelRecord {
    /// Its image.
    pub image: Option<ImageInfo>,
    /// The first successful boot.
    pub boot: Option<Boot>,
    /// Guests that were launched, by number.
    pub guests: BTreeMap<u32, GuestRecord>,
    /// Results of the probes.
    pub capabilities: Vec<CapabilityReport>,
    /// Verdicts of its cells.
    pub verdicts: Verdicts,
    /// The cell that is running now.
    pub running: Option<CellId>,
    /// Splats while no cell was running: number of the guest, moment, splat.
    pub splats: Vec<(u32, Moment, Splat)>,
    /// Whether the run gave up on the kernel because too many guests crashed.
    pub gave_up: bool,
    /// Lost guests, one line each.
    pub losses: Vec<String>,
    /// Cells that took much longer than recorded.
    pub slow: Vec<Slow>,
    /// Notes.
    pub notes: Vec<String>,
    /// Attempts at cells that are to be repeated, oldest first.
    pub(crate) attempts: BTreeMap<CellId, Vec<Attempt>>,
    /// Wall time, milliseconds, and peak memory, KiB, once the kernel is finished.
    pub finished: Option<(u64, Option<u64>)>,
    /// Start of the kernel's part of the run, milliseconds since the epoch.
    pub started_ms: u64,
}

impl KernelRecord {
    /// Whether guests were lost and none of them sent Hello.
    pub fn never_booted(&self) -> bool {
        self.boot.is_none() && self.guests.values().any(|guest| matches!(guest.end, Some(GuestEnd::Lost { .. })))
    }
}

/// One guest from its start to its end.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct GuestRecord {
    /// How it was started.
    pub start: Start,
    /// Whether its agent has sent Hello and finished the probes.
    pub came_up: bool,
    /// How it ended; `None` while it runs, and for a guest that became a snapshot.
    pub end: Option<GuestEnd>,
}

/// How a guest ended.
#[derive(Debug, Clone, PartialEq)]
pub enum GuestEnd {
    /// It was told to power off.
    Off {
        /// Time until its machine ended, milliseconds.
        shutdown_ms: u64,
        /// Problems while powering off, one line each.
        problems: Vec<String>,
    },
    /// It crashed, stopped answering or broke the protocol.
    Lost {
        /// Kind of the loss.
        kind: ErrorKind,
        /// Cause, one line.
        message: String,
        /// The cell that was running.
        cell: Option<CellId>,
    },
}

/// What a guest reported about itself after its boot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Boot {
    /// `uname -r`.
    pub release: String,
    /// `uname -v`.
    pub version: String,
    /// The upstream version behind the distribution's numbering.
    pub kernel_version: KernelVersion,
    /// Time from launch to Hello, milliseconds.
    pub boot_ms: u64,
}
