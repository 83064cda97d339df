//! Makes a guest ready that is held for others ([`super::held`]).

use super::{
    common::{GuestFiles, Prepared, Serve},
    held::HoldOrder,
    kernel::Launch,
    left::left_behind,
    program::OpenStreams,
    session::{self, Errand, ProgramHost, SessionEnd, Task},
    setup::SetupVisit,
    timing::Timing,
};
use crate::world::{Options, World, WorldError};
use lab_base::interrupt::Interrupt;
use lab_protocol::{CellInfo, CellJob, Work};
use lab_record::{event::ImageInfo, plan::Plan};
use lab_vm::Guest;
use std::{path::Path, sync::Arc};

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
