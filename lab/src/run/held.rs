//! Guests that another process holds ready: what a run asks for and what it offers. How a guest is made ready is in
//! [`super::rehearse`].
//!
//! The process that holds guests (`crate::serve`) restores one, has it run the cells of the last run on its kernel, or `true` where
//! that ran a command, and stops it. What is saved is the time in which an emulator translates code that runs for the first time.

use crate::world::KernelFiles;
use lab_protocol::{CellJob, KernelVersion, Raw, Work};
use lab_vm::{Guest, GuestSpec};
use serde::{Deserialize, Serialize};

/// Maximum number of cells that a guest runs before it is held: it is to be ready when the next run begins.
pub const MOST_CELLS: usize = 4;
/// What a guest for commands runs. It ends at once, and changes nothing.
const PROGRAM: &str = "/bin/true";

/// Has guests that are ready to run.
pub trait GuestHolder: Sync {
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
