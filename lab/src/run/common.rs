//! Parameters that the guests of all kernels share.

use super::{
    held::GuestHolder, order::Estimate, program::Streams, queue::Isolate, reuse::EarlierRun, room::Room, timing::Timing,
};
use crate::{
    lists::Lists,
    world::{KernelFiles, World, WorldError},
};
use lab_base::{arch::Architecture, held::HeldFile, interrupt::Interrupt};
use lab_guard::Id;
use lab_record::{
    event::{Event, ImageInfo},
    plan::Plan,
};
use lab_vm::{Guest, GuestSpec, Launcher, VmError, snapshot::SnapshotStore};
use std::{sync::Arc, time::Duration};

/// A kernel that is ready to boot.
#[derive(Debug, Clone)]
pub struct Prepared {
    /// Specification of the guests; name and console are set for each guest.
    pub spec: GuestSpec,
    pub image: ImageInfo,
    /// Objects that each of its guests is sent, in place of those in the image.
    pub objects: Vec<SentObject>,
    /// The agent that each of its guests is sent, in place of the one in the image.
    pub agent: Option<HeldFile>,
    /// GuestFiles for its guests, if there are any.
    pub files: Option<GuestFiles>,
    /// Whether its guests look for leaked memory when they end (CONFIG_DEBUG_KMEMLEAK), which takes a while.
    pub scans_memory: bool,
}

impl Prepared {
    /// Whether its guests are sent anything in place of what is in the image.
    pub fn is_exchanged(&self) -> bool {
        self.agent.is_some() || !self.objects.is_empty()
    }
}

/// An eBPF object that takes the place of the image's.
#[derive(Debug, Clone)]
pub struct SentObject {
    /// Its name in the image.
    pub name: String,
    pub file: HeldFile,
}

/// Why a guest has no files.
#[derive(Debug, thiserror::Error)]
pub enum FilesError {
    /// Its port for them can't be connected to.
    #[error(transparent)]
    Port(#[from] VmError),
    /// They can't be served.
    #[error(transparent)]
    World(#[from] WorldError),
}

/// Serves a guest's files on its ports.
pub type Serve<'a> = dyn Fn(&mut dyn Guest) -> Result<(), FilesError> + 'a;

/// GuestFiles for the guests of a kernel.
#[derive(Debug, Clone)]
pub struct GuestFiles {
    pub world: Arc<World>,
    pub kernel: KernelFiles,
}

/// Why a kernel can't boot.
#[derive(Debug, thiserror::Error)]
pub enum PrepareError {
    /// Its guest image can't be built.
    #[error("image for {kernel}: {error}")]
    Image {
        /// Id of the kernel.
        kernel: String,
        /// The error; part of the message, therefore not a `source`.
        error: lab_image::ImageError,
    },
    /// The directory for its consoles can't be made.
    #[error(transparent)]
    Directory(#[from] lab_base::file::FileError),
    /// The run ended before its turn.
    #[error("{0}")]
    Stopped(String),
    /// Nothing here emulates its architecture.
    #[error("{kernel} is for {architecture}, for which this command starts no guests")]
    Foreign { kernel: String, architecture: Architecture },
    /// The plan names a kernel that was not fetched.
    #[error("{0} was not fetched")]
    NotFetched(String),
}

/// Parameters that the runs of all kernels share.
#[derive(Clone, Copy)]
pub struct Common<'a> {
    pub plan: &'a Plan,
    pub launcher: &'a dyn Launcher,
    /// Snapshots to restore guests from; `None` if every guest must boot.
    pub snapshots: Option<&'a SnapshotStore>,
    /// Which cells share a guest.
    pub isolate: Isolate,
    /// Estimates a cell's time on a kernel, milliseconds.
    pub estimate: &'a Estimate<'a>,
    /// Memory budget of the guests.
    pub room: &'a Room,
    /// Whether several guests of a kernel may run its cells in parallel.
    pub split: bool,
    pub timing: Timing,
    /// Computes a guest's time scale from its time to Hello.
    pub rescale: &'a (dyn Fn(Duration) -> f32 + Sync),
    /// Name of the deliberate fault.
    pub mutant: Option<&'a str>,
    /// Allowed splats and known failures.
    pub lists: &'a Lists,
    /// How cells that do not pass are repeated.
    pub retries: Retries,
    /// What verdicts depend on beside a kernel's own inputs, as a hash; `None` if a later run must not take them over.
    pub content: Option<&'a str>,
    /// The id of the run, and verdicts that it takes over.
    pub earlier: Option<(&'a Id, &'a EarlierRun)>,
    /// Streams of programs that are cells.
    pub streams: Option<&'a Streams>,
    /// Where guests come from that are ready to run.
    pub holder: Option<&'a dyn GuestHolder>,
    /// Set by Ctrl-C.
    pub interrupt: &'a Interrupt,
    /// Receives the events.
    pub emit: &'a (dyn Fn(Event) + Sync),
}

/// How a cell counts that passes only when repeated.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum OnFlaky {
    /// It passes, and every report names it.
    #[default]
    Pass,
    /// It fails the run.
    Fail,
}

/// How often cells that do not pass are repeated.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Retries {
    /// Attempts after the first.
    pub count: u32,
    /// How a late pass counts.
    pub on_flaky: OnFlaky,
}
