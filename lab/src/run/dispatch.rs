//! Runs all kernels, several at a time. One thread owns the reporters.

use super::{
    held::GuestHolder,
    kernel::{KernelRun, millis},
    order::{self, Estimate},
    program::Streams,
    queue::Isolate,
    reuse::EarlierRun,
    room::Room,
    timing::Timing,
};
use crate::{
    error::Error,
    lists::Lists,
    run::common::{Common, PrepareError, Prepared, Retries},
};
use lab_base::{
    interrupt::{Interrupt, RunStop},
    lock::lock,
};
use lab_guard::Id;
use lab_protocol::drawing::TopologyInfo;
use lab_record::{
    event::{Event, RunInfo, Stamped},
    exit::Exit,
    plan::{Expectation, PlannedKernel},
    reporter::Reporter,
    run::RunRecord,
    slow::Slow,
};
use lab_vm::{GuestSpec, Launcher, snapshot::SnapshotStore};
use std::{
    sync::{
        Mutex, MutexGuard,
        mpsc::{self, RecvTimeoutError},
    },
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

/// Prepares a kernel to boot: its image is built on the thread that runs the kernel.
pub trait Prepare: Sync {
    /// # Errors
    /// Why the kernel can't boot; its cells don't run then.
    fn prepare(&self, kernel: &PlannedKernel) -> Result<Prepared, PrepareError>;
}

impl<F: Fn(&PlannedKernel) -> Result<Prepared, PrepareError> + Sync> Prepare for F {
    fn prepare(&self, kernel: &PlannedKernel) -> Result<Prepared, PrepareError> {
        self(kernel)
    }
}

/// Returns the cells of a run that took much longer than recorded.
pub type FindSlow<'a> = dyn Fn(&RunRecord) -> Vec<(Id, Slow)> + Sync + 'a;

/// A run that is ready to start.
pub struct Run<'a> {
    /// Information that is known before the run.
    pub info: RunInfo,
    /// Maximum number of parallel guests, at least 1.
    pub jobs: usize,
    /// Memory budget of the guests.
    pub room: Room,
    /// Deadlines, scaled for the accelerator.
    pub timing: Timing,
    /// Computes the time scale from a guest's time to Hello; it can only extend the deadlines.
    pub rescale: &'a (dyn Fn(Duration) -> f32 + Sync),
    /// Snapshots to restore guests from; `None` if every guest must boot.
    pub snapshots: Option<SnapshotStore>,
    /// Which cells share a guest.
    pub isolate: Isolate,
    /// Estimates a cell's time on a kernel, milliseconds.
    pub estimate: &'a Estimate<'a>,
    /// Finds kernels that are much slower than recorded, once all have finished.
    pub slow: &'a FindSlow<'a>,
    /// The suite's topologies.
    pub topologies: Vec<TopologyInfo>,
    /// Allowed splats and known failures.
    pub lists: Lists,
    /// How cells that do not pass are repeated.
    pub retries: Retries,
    /// Whether the first failure ends the run.
    pub fail_fast: bool,
    /// What verdicts depend on beside a kernel's own inputs, as a hash; `None` if a later run must not take them over.
    pub content: Option<String>,
    /// Verdicts to take over.
    pub earlier: Option<&'a EarlierRun>,
    /// Streams of programs that are cells.
    pub streams: Option<&'a Streams>,
    /// Where guests come from that are ready to run.
    pub holder: Option<&'a dyn GuestHolder>,
    pub launcher: &'a dyn Launcher,
    pub prepare: &'a dyn Prepare,
    /// Set by Ctrl-C.
    pub interrupt: Interrupt,
}

/// Minimum number of waiting cells for which another guest of a kernel is started, where cells share guests.
const HELPFUL: usize = 8;
/// Interval at which an idle thread looks for work.
const HELP_POLL: Duration = Duration::from_millis(20);

impl Run<'_> {
    /// Runs the plan, passes the events to the reporters, and returns the record.
    ///
    /// # Errors
    /// The first error of a reporter; the guests are stopped then.
    pub fn go(self, reporters: &mut [&mut dyn Reporter]) -> Result<RunRecord, Error> {
        let begin = Instant::now();
        let run = Self { interrupt: self.interrupt.for_one_run(), ..self };
        run.conduct(begin, reporters)
    }

    fn conduct(&self, begin: Instant, reporters: &mut [&mut dyn Reporter]) -> Result<RunRecord, Error> {
        let mut desk = Desk { record: RunRecord::default(), reporters, run: self, failed: None };
        desk.take(Event::RunStarted { run: Box::new(self.info.clone()) });
        if !self.topologies.is_empty() {
            desk.take(Event::Topologies { library: self.topologies.clone() });
        }
        let (sender, receiver) = mpsc::channel();
        thread::scope(|scope| {
            scope.spawn(|| self.work(sender));
            let limit = self.timing.run(&self.info.plan);
            loop {
                match receiver.recv_timeout(limit.saturating_sub(begin.elapsed())) {
                    Ok(event) => desk.take(event),
                    Err(RecvTimeoutError::Disconnected) => break,
                    Err(RecvTimeoutError::Timeout) => {
                        self.interrupt.stop(RunStop::Deadline);
                        receiver.iter().for_each(|event| desk.take(event));
                        break;
                    }
                }
            }
        });
        for (kernel, finding) in (self.slow)(&desk.record) {
            desk.take(Event::Slow { kernel, finding });
        }
        // Cells that the run's deadline left without a start are `not-run`, which has its own exit code.
        let interrupted = if desk.failed.is_none() { self.interrupt.signal() } else { None };
        let exit = interrupted.map_or_else(|| desk.record.exit(), Exit::Interrupted);
        desk.take(Event::RunFinished { exit, wall_ms: millis(begin) });
        match desk.failed {
            Some(error) => Err(error),
            None => Ok(desk.record),
        }
    }

    /// Runs all kernels; all senders are dropped when it returns.
    fn work(&self, sender: mpsc::Sender<Event>) {
        // The receiver exists until all senders are dropped, so sending can't fail.
        let emit = move |event| drop(sender.send(event));
        let split = self.jobs > 1 && self.snapshots.is_some() && self.isolate != Isolate::Both;
        let common = Common {
            plan: &self.info.plan,
            launcher: self.launcher,
            snapshots: self.snapshots.as_ref(),
            isolate: self.isolate,
            estimate: self.estimate,
            room: &self.room,
            split,
            timing: self.timing,
            rescale: self.rescale,
            mutant: self.info.mutant.as_deref(),
            lists: &self.lists,
            retries: self.retries,
            content: self.content.as_deref(),
            earlier: self.earlier.map(|earlier| (&self.info.id, earlier)),
            streams: self.streams,
            holder: self.holder,
            interrupt: &self.interrupt,
            emit: &emit,
        };
        // A cell with a guest of its own costs nobody a restore that it would not have had.
        let helpful = if self.isolate == Isolate::Case { 0 } else { HELPFUL };
        let kernels = order::kernels(&self.info.plan, self.estimate).into_iter();
        let kernels = kernels.map(|kernel| Entry::new(kernel, KernelRun::new(common, kernel), helpful));
        let kernels: Vec<Entry<'_>> = kernels.collect();
        let useful = if split { self.jobs } else { self.jobs.clamp(1, kernels.len().max(1)) };
        let at_once = self.at_once(useful);
        thread::scope(|scope| {
            for _ in 0..useful.max(1) {
                scope.spawn(|| {
                    kernels.iter().for_each(|entry| self.lead(entry, at_once));
                    // A thread without a kernel to start helps with a kernel that can use another guest.
                    while split && kernels.iter().any(Entry::may_want_help) {
                        kernels.iter().for_each(Entry::help);
                        thread::sleep(HELP_POLL);
                    }
                });
            }
        });
    }

    /// Guests that this many threads have at the same time: a guest runs at least one cell.
    fn at_once(&self, threads: usize) -> usize {
        let runs =
            |kernel: &PlannedKernel| kernel.cells.iter().filter(|cell| cell.expectation == Expectation::Run).count();
        threads.min(self.info.plan.kernels.iter().map(runs).sum()).max(1)
    }

    /// Starts a kernel that no thread has started, and works on it.
    fn lead(&self, entry: &Entry<'_>, at_once: usize) {
        let mut stage = entry.stage();
        if !matches!(*stage, Stage::Waiting) {
            return;
        }
        let begin = Instant::now();
        *stage = Stage::Preparing;
        drop(stage);
        let prepared = match self.interrupt.is_over() {
            true => Err(PrepareError::Stopped(self.interrupt.why().to_owned())),
            false => self.prepare.prepare(entry.kernel),
        };
        let prepared = prepared.map(|it| Prepared { spec: GuestSpec { at_once, ..it.spec }, ..it });
        entry.run.begin(&prepared);
        let prepared = prepared.ok();
        *entry.stage() = Stage::Running { begin, prepared: prepared.clone().map(Box::new), threads: 1 };
        if let Some(prepared) = prepared {
            entry.run.work(&prepared);
        }
        entry.leave();
    }
}

/// A kernel of the run, with its state.
struct Entry<'a> {
    kernel: &'a PlannedKernel,
    run: KernelRun<'a>,
    /// Waiting cells beyond which another guest helps.
    helpful: usize,
    stage: Mutex<Stage>,
}

enum Stage {
    Waiting,
    Preparing,
    Running { begin: Instant, prepared: Option<Box<Prepared>>, threads: usize },
    Through,
}

impl<'a> Entry<'a> {
    fn new(kernel: &'a PlannedKernel, run: KernelRun<'a>, helpful: usize) -> Self {
        Self { kernel, run, helpful, stage: Mutex::new(Stage::Waiting) }
    }

    fn stage(&self) -> MutexGuard<'_, Stage> {
        lock(&self.stage)
    }

    /// Whether another guest has work now or may have it later.
    fn may_want_help(&self) -> bool {
        match &*self.stage() {
            Stage::Waiting | Stage::Preparing => true,
            Stage::Running { prepared, .. } => prepared.is_some() && self.run.unclaimed() > self.helpful,
            Stage::Through => false,
        }
    }

    /// Joins a running kernel that has cells left for another guest.
    fn help(&self) {
        let prepared = match &mut *self.stage() {
            Stage::Running { prepared: Some(prepared), threads, .. } if self.run.unclaimed() > self.helpful => {
                *threads += 1;
                prepared.clone()
            }
            _ => return,
        };
        self.run.work(&prepared);
        self.leave();
    }

    /// The last thread that leaves ends the kernel.
    fn leave(&self) {
        let mut stage = self.stage();
        if let Stage::Running { begin, threads, .. } = &mut *stage {
            *threads -= 1;
            if *threads == 0 {
                let begin = *begin;
                *stage = Stage::Through;
                drop(stage);
                self.run.end(begin);
            }
        }
    }
}

/// Receives the events: adds time stamps, updates the record, and calls the reporters.
struct Desk<'a, 'b> {
    record: RunRecord,
    reporters: &'a mut [&'b mut dyn Reporter],
    run: &'a Run<'a>,
    failed: Option<Error>,
}

impl Desk<'_, '_> {
    fn take(&mut self, event: Event) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let stamped = Stamped { at_ms: u64::try_from(now.as_millis()).unwrap_or(u64::MAX), event };
        self.record.apply(&stamped);
        if self.run.fail_fast && self.is_failure(&stamped.event) {
            self.run.interrupt.stop(RunStop::Failure);
        }
        for reporter in self.reporters.iter_mut() {
            if let Err(error) = reporter.event(&stamped, &self.record)
                && self.failed.is_none()
            {
                self.failed = Some(error.into());
                self.run.interrupt.stop(RunStop::Reports);
            }
        }
    }

    /// Whether an event makes the run fail, whatever comes after it.
    fn is_failure(&self, event: &Event) -> bool {
        let (kernel, bad) = match event {
            Event::CellFinished { kernel, verdict, .. } => (kernel, verdict.standing().is_bad()),
            Event::Splat { kernel, splat, .. } => (kernel, splat.allowed.is_none()),
            _ => return false,
        };
        let counts = |kernel: &PlannedKernel| !kernel.facts.may_fail;
        bad && self.run.info.plan.kernels.iter().any(|it| it.facts.id == *kernel && counts(it))
    }
}
