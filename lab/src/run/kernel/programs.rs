//! Cells whose work is a program, in one guest of a kernel.

use super::{KernelRun, Launch};
use crate::run::{program::OpenStreams, session::ProgramHost};
use lab_protocol::{CellId, CellInfo, CellJob};

/// What a session asks about programs.
struct Of<'r, 'a> {
    run: &'r KernelRun<'a>,
    launch: &'r Launch,
}

impl ProgramHost for Of<'_, '_> {
    fn job(&self, info: &CellInfo) -> CellJob {
        match self.run.streams {
            Some(streams) => streams.job(&self.run.id(), info, self.launch.timing.scale),
            None => CellJob { cell: info.id.clone(), work: info.work.clone(), requires: Vec::new() },
        }
    }

    fn open(&self, info: &CellInfo) -> Option<OpenStreams<'_>> {
        let streams = self.run.streams.filter(|_| !info.work.is_case())?;
        let owner = self.run.owner(&info.id);
        let whose = (&self.run.id(), &*owner);
        Some(OpenStreams::open(
            streams,
            self.run.interrupt,
            self.launch.directory(),
            whose,
            info,
            self.launch.timing.scale,
            self.launch.stream_memory(),
        ))
    }
}

impl<'a> KernelRun<'a> {
    /// ProgramHost in one of its guests.
    pub(super) fn programs<'r>(&'r self, launch: &'r Launch) -> impl ProgramHost + use<'r, 'a> {
        Of { run: self, launch }
    }

    /// Whom files of a cell belong to: every attempt has its own.
    pub(super) fn owner(&self, cell: &CellId) -> String {
        match self.attempts(cell) {
            0 => cell.to_string(),
            earlier => format!("{cell}-attempt-{}", earlier + 1),
        }
    }
}
