//! What the guests of all kernels are run with.

use super::{order::Estimate, queue::Isolate, room::Room, timing::Timing};
use crate::lists::Lists;
use lab_base::interrupt::Interrupt;
use lab_record::{
    event::{Event, ImageInfo},
    plan::Plan,
};
use lab_vm::{GuestSpec, Launcher, snapshot::Store};
use std::time::Duration;

/// A kernel that is ready to boot.
#[derive(Debug, Clone)]
pub struct Prepared {
    /// The guest to boot; its name and console are set per guest.
    pub spec: GuestSpec,
    /// The image.
    pub image: ImageInfo,
}

/// What the runs of all kernels share.
#[derive(Clone, Copy)]
pub struct Common<'a> {
    /// The whole plan.
    pub plan: &'a Plan,
    /// Boots guests.
    pub launcher: &'a dyn Launcher,
    /// Snapshots to restore guests from; `None` where every guest is to boot.
    pub snapshots: Option<&'a Store>,
    /// Which cells share a guest.
    pub isolate: Isolate,
    /// What a cell should take on a kernel, milliseconds.
    pub estimate: &'a Estimate<'a>,
    /// Memory for guests.
    pub room: &'a Room,
    /// Whether several guests of a kernel may share its cells.
    pub split: bool,
    /// Deadlines.
    pub timing: Timing,
    /// What the time to hello says about a guest's speed.
    pub rescale: &'a (dyn Fn(Duration) -> f32 + Sync),
    /// The deliberate fault.
    pub mutant: Option<&'a str>,
    /// What does not count as a failure.
    pub lists: &'a Lists,
    /// What happens to a cell that does not pass.
    pub retries: Retries,
    /// Ctrl-C.
    pub interrupt: &'a Interrupt,
    /// Takes the events.
    pub emit: &'a (dyn Fn(Event) + Sync),
}

/// Whether a cell that passes only when it is run again counts as passed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum OnFlaky {
    /// It does, and is named in every report.
    #[default]
    Pass,
    /// It fails the run.
    Fail,
}

/// How often a cell that does not pass is run again.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Retries {
    /// Attempts after the first.
    pub count: u32,
    /// What a late pass is worth.
    pub on_flaky: OnFlaky,
}
