//! Guests that another process holds ready: what a run asks for and what it offers, and how a guest is made ready.
//!
//! The process that holds guests (`crate::serve`) restores one, has it run the cells of the last run on its kernel, or `true` where
//! that ran a command, and stops it. What is saved is the time in which an emulator translates code that runs for the first time.

use super::{
    common::{GuestFiles, Prepared, Serve},
    kernel::{Launch, left_behind},
    program::OpenStreams,
    session::{self, Errand, ProgramHost, SessionEnd, Task},
    setup::SetupVisit,
    timing::Timing,
};
use crate::world::{KernelFiles, Options, World, WorldError};
use lab_base::interrupt::Interrupt;
use lab_protocol::{CellInfo, CellJob, KernelVersion, Raw, Work};
use lab_record::{event::ImageInfo, plan::Plan};
use lab_vm::{Guest, GuestSpec};
use serde::{Deserialize, Serialize};
use std::{path::Path, sync::Arc};

/// Maximum number of cells that a guest runs before it is held: it is to be ready when the next run begins.
pub const MOST_CELLS: usize = 4;
/// What a guest for commands runs. It ends at once, and changes nothing.
const PROGRAM: &str = "/bin/true";

/// Has guests that are ready to run.
pub trait Holder: Sync {
    /// A guest that was restored from the snapshot of this key and waits to be resumed, if there is one.
    fn take(&self, key: &str, spec: &GuestSpec) -> Option<Box<dyn Guest>>;

    /// Asks for guests like those that a run has used.
    fn offer(&self, order: HoldOrder);
}

/// What a guest has to be to be of use to a run like an earlier one.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct HoldOrder {
    /// Key of the snapshot that it is restored from.
    pub key: String,
    /// Its specification; name and console are set for each guest.
    pub spec: GuestSpec,
    /// The version that its kernel must report.
    pub version: KernelVersion,
    /// Factor for all deadlines.
    pub time_scale: f32,
    /// What it runs first.
    pub jobs: Vec<CellJob>,
    /// The kernel's own files, for a guest whose commands see files of the host.
    pub files: Option<KernelFiles>,
}

/// Why a guest is not ready.
#[derive(Debug, thiserror::Error)]
pub enum HoldError {
    /// This host's files can't be served.
    #[error(transparent)]
    World(#[from] WorldError),
    /// The guest was lost, or what it ran first did not pass.
    #[error("{0}")]
    Guest(String),
}

/// The cells of a run, as a guest runs them before it is held. Of a command nothing but its place is taken over: whatever it does, it
/// does only when somebody asks for it.
pub fn rehearsal(jobs: impl Iterator<Item = CellJob>) -> Vec<CellJob> {
    let own = |job: CellJob| match job.work {
        Work::Case => job,
        Work::Program(mut program) => {
            program.argv = vec![Raw::from(PROGRAM.as_bytes())];
            (program.env, program.cwd) = (Vec::new(), Raw::from(b"/".as_slice()));
            (program.terminal, program.timeout_ms, program.core_bytes) = (None, None, 0);
            (program.user, program.input) = (None, false);
            program.sysctl.clear();
            CellJob { work: Work::Program(program), ..job }
        }
    };
    jobs.take(MOST_CELLS).map(own).collect()
}

/// Has a guest that was just restored run what the order says, and settle. It waits to be resumed then, as one that is restored
/// from a snapshot, and nobody is connected to it. `cache` is where files for guests are kept.
///
/// # Errors
/// Why the guest is of no use.
pub fn rehearse(
    guest: &mut dyn Guest,
    order: &HoldOrder,
    cache: &Path,
    interrupt: &Interrupt,
) -> Result<(), HoldError> {
    let mut jobs = order.jobs.clone();
    let files = match &order.files {
        Some(kernel) => {
            let world = World::new(Options { cwd: "/".into(), ..Options::default() }, cache)?;
            for job in &mut jobs {
                if let Work::Program(program) = &mut job.work {
                    program.world = Some(world.spec().clone());
                }
            }
            Some(GuestFiles { world: Arc::new(world), kernel: kernel.clone() })
        }
        None => None,
    };
    let prepared = Prepared {
        spec: order.spec.clone(),
        image: ImageInfo { key: String::new(), cached: true, missing: Vec::new(), content: None },
        objects: Vec::new(),
        agent: None,
        files,
        scans_memory: false,
    };
    let timing = Timing::default().scaled(order.time_scale);
    let launch = Launch::new(1, order.spec.clone(), timing, &prepared);
    // Those of the boot, which its console begins with.
    launch.splats();
    let serve = |guest: &mut dyn Guest| launch.serve("held", guest);
    let serve: &Serve<'_> = &serve;
    let visitor = SetupVisit::new("what it ran first", jobs, || launch.hang_up());
    let task = Task {
        files: launch.has_files().then_some(serve),
        plan: &Plan::new(Vec::new(), Vec::new(), false),
        version: order.version,
        errand: Errand::Visit { visitor: &visitor, restored: true, stays: true },
        timing,
        rescale: &|_| order.time_scale,
        mutant: None,
        programs: &Nobody,
        objects: &[],
        agent: None,
        interrupt,
    };
    let end = session::drive(guest, task, &mut |_| ());
    launch.hang_up();
    launch.served(false);
    match end {
        SessionEnd::Done(_) => {
            visitor.result(launch.directory()).map_err(|problem| HoldError::Guest(problem.to_string()))?
        }
        SessionEnd::Interrupted(_) => return Err(HoldError::Guest(interrupt.why().to_owned())),
        SessionEnd::Lost(lost) => return Err(HoldError::Guest(lost.message)),
    }
    let left = visitor.report().and_then(|report| left_behind(&report, &launch.splats()));
    left.map_or(Ok(()), |left| Err(HoldError::Guest(format!("what it ran first {left}"))))
}

/// The visitor has the output of what runs.
struct Nobody;

impl ProgramHost for Nobody {
    fn job(&self, info: &CellInfo) -> CellJob {
        CellJob { cell: info.id.clone(), work: info.work.clone(), requires: Vec::new() }
    }

    fn open(&self, _info: &CellInfo) -> Option<OpenStreams<'_>> {
        None
    }
}
