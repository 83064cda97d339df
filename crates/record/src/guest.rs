//! What happened on one kernel, and to its guests.

use crate::{
    event::{ImageInfo, Moment, Start},
    kept::Verdicts,
    splat::Splat,
    verdict::Attempt,
};
use lab_protocol::{CapabilityReport, CellId, ErrorKind, KernelVersion};
use std::collections::BTreeMap;

/// What happened on one kernel.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct KernelRecord {
    /// Its image.
    pub image: Option<ImageInfo>,
    /// The first boot that worked.
    pub boot: Option<Boot>,
    /// Guests that were launched, by number.
    pub guests: BTreeMap<u32, GuestRecord>,
    /// Its probes.
    pub capabilities: Vec<CapabilityReport>,
    /// Verdicts.
    pub verdicts: Verdicts,
    /// The cell that is running now.
    pub running: Option<CellId>,
    /// Splats while no cell was running: number of the guest, when, and what.
    pub splats: Vec<(u32, Moment, Splat)>,
    /// Whether guests died until no further one was started.
    pub gave_up: bool,
    /// Losses, one line each.
    pub losses: Vec<String>,
    /// Notes.
    pub notes: Vec<String>,
    /// Attempts at cells that were to run again, oldest first.
    pub(crate) attempts: BTreeMap<CellId, Vec<Attempt>>,
    /// Wall time and peak memory, once it is through.
    pub finished: Option<(u64, Option<u64>)>,
    /// When its turn came, milliseconds since the epoch.
    pub started_ms: u64,
}

impl KernelRecord {
    /// Whether guests were lost and none of them has ever said hello.
    pub fn never_booted(&self) -> bool {
        self.boot.is_none() && self.guests.values().any(|guest| matches!(guest.end, Some(GuestEnd::Lost { .. })))
    }
}

/// A guest's life.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct GuestRecord {
    /// How it came to be.
    pub start: Start,
    /// Whether its agent said hello and its probes are through.
    pub came_up: bool,
    /// How it ended; none while it lives, and of one that became a snapshot.
    pub end: Option<GuestEnd>,
}

/// How a guest ended.
#[derive(Debug, Clone, PartialEq)]
pub enum GuestEnd {
    /// It was told to power off.
    Off {
        /// How long that took, milliseconds.
        shutdown_ms: u64,
        /// What went wrong.
        problems: Vec<String>,
    },
    /// It died, went silent or broke the protocol.
    Lost {
        /// What sort of loss.
        kind: ErrorKind,
        /// One line.
        message: String,
        /// The cell that it cost.
        cell: Option<CellId>,
    },
}

/// What a guest said of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Boot {
    /// `uname -r`.
    pub release: String,
    /// `uname -v`.
    pub version: String,
    /// The real version.
    pub kernel_version: KernelVersion,
    /// Launch to hello, milliseconds.
    pub boot_ms: u64,
}
