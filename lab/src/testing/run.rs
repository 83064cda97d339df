//! A run of the real run loop with guests without a virtual machine.

use crate::{
    error::Error,
    lists::Lists,
    pace::Pace,
    run::{
        common::{PrepareError, Prepared, Retries, SentObject},
        dispatch::Run,
        held::GuestHolder,
        program::Streams,
        queue::Isolate,
        reuse::EarlierRun,
        room::Room,
        timing::Timing,
    },
};
use lab_base::{held::HeldFile, interrupt::Interrupt};
use lab_guard::Id;
use lab_record::{
    event::{Accelerator, ImageInfo, RunInfo, Versions},
    plan::{Plan, PlannedKernel},
    reporter::Reporter,
    run::RunRecord,
};
use lab_report::results::directory;
use lab_vm::{
    Accel,
    fake::{FakeLauncher, specification},
    snapshot::SnapshotStore,
};
use std::{path::Path, time::Duration};

/// Parameters of the run.
pub struct FakeRun<'a> {
    /// Id of the run.
    pub id: Id,
    /// The plan.
    pub plan: Plan,
    /// Deadlines.
    pub timing: Timing,
    /// Computes a guest's time scale from its time to Hello.
    pub rescale: &'a (dyn Fn(Duration) -> f32 + Sync),
    /// The accelerator that the run assumes.
    pub accel: Accel,
    /// The interrupt flag of the run.
    pub interrupt: Interrupt,
    /// Launches the scripted guests.
    pub launcher: &'a FakeLauncher,
    /// Snapshots, if guests are to be restored.
    pub snapshots: Option<SnapshotStore>,
    /// Memory budget of the guests.
    pub room: Room,
    /// Which cells share a guest.
    pub isolate: Isolate,
    /// Allowed splats and known failures.
    pub lists: Lists,
    /// How cells that do not pass are repeated.
    pub retries: Retries,
    /// Verdicts to take over.
    pub earlier: Option<&'a EarlierRun>,
    /// Streams of programs that are cells.
    pub streams: Option<&'a Streams>,
    pub holder: Option<&'a dyn GuestHolder>,
    /// Earlier times of cells.
    pub pace: Option<&'a Pace>,
    /// Whether a kernel that is much slower than that fails the run.
    pub slow_fails: bool,
    /// Objects that guests are sent.
    pub objects: Vec<SentObject>,
    /// The agent that they are sent.
    pub agent: Option<HeldFile>,
    /// If set, no kernel has an image, for this reason.
    pub imageless: Option<&'a str>,
}

impl FakeRun<'_> {
    /// Runs the plan. Consoles are written below `directory`, one directory per kernel.
    ///
    /// # Errors
    /// As for [`Run::go`].
    pub fn go(self, directory: &Path, reporters: &mut [&mut dyn Reporter]) -> Result<RunRecord, Error> {
        let prepare = |kernel: &PlannedKernel| match self.imageless {
            Some(why) => Err(PrepareError::Stopped(why.to_owned())),
            None => {
                let mut spec = specification(directory.to_owned());
                spec.accel = self.accel;
                spec.name = kernel.facts.id.to_string();
                spec.console = directory::kernel(directory, &kernel.facts.id)?;
                Ok(Prepared {
                    spec,
                    image: ImageInfo { key: "k".to_owned(), cached: true, missing: Vec::new(), content: None },
                    objects: self.objects.clone(),
                    agent: self.agent.clone(),
                    files: None,
                    scans_memory: false,
                })
            }
        };
        let accelerator = Accelerator { name: "tcg".to_owned(), reason: "test".to_owned(), time_scale: 1.0 };
        let (expired, retries) = (self.lists.expired(&self.plan), self.retries.count);
        let info = RunInfo::new(self.id, Versions::default(), accelerator, self.plan);
        let run = Run {
            info: RunInfo { expired, retries, slow_fails: self.slow_fails, ..info },
            jobs: 2,
            room: self.room,
            timing: self.timing,
            snapshots: self.snapshots,
            isolate: self.isolate,
            lists: self.lists,
            retries: self.retries,
            fail_fast: false,
            content: Some("c".to_owned()),
            earlier: self.earlier,
            streams: self.streams,
            holder: self.holder,
            launcher: self.launcher,
            rescale: self.rescale,
            topologies: Vec::new(),
            estimate: &|_, _| 1,
            slow: &|record| self.pace.map(|pace| pace.find(record)).unwrap_or_default(),
            prepare: &prepare,
            interrupt: self.interrupt,
        };
        run.go(reporters)
    }
}
