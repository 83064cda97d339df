//! Runs all guests of one kernel, until every planned cell has exactly one verdict.

mod attempts;
mod children;
mod claim;
mod cores;
mod hear;
mod held;
mod launch;
mod losses;
mod programs;
mod reuse;

use claim::CellClaim;
pub(super) use launch::Launch;
#[cfg(test)]
pub(super) use losses::MAX_LOSSES;

use super::{
    common::{Common, PrepareError, Prepared, Serve},
    isolation::Shared,
    judge::{Attempts, SeenAttempt},
    order,
    program::suite::ReportedChildren,
    queue::{Isolate, Queue},
    session::{self, Errand, Lost, SessionEnd, Task},
    warm::Warmth,
};
use lab_base::{interrupt::RunStop, lock::lock};
use lab_guard::Id;
use lab_protocol::{CapabilityReport, CellId, ErrorKind, Outcome};
use lab_record::{
    event::{Event, ImageInfo, Start},
    plan::{Expectation, PlannedCell, PlannedKernel},
    verdict::Verdict,
};
use lab_report::results::directory;
use lab_vm::{Guest, Snapshot};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, MutexGuard, OnceLock},
    time::Instant,
};

/// The run of one kernel. Any number of threads may work on it, each with one guest at a time.
pub struct KernelRun<'a> {
    common: Common<'a>,
    kernel: &'a PlannedKernel,
    /// The same for a kernel with `believe = "probes"`, once its probes have finished.
    learned: OnceLock<PlannedKernel>,
    pub(super) warmth: Warmth,
    progress: Mutex<Progress<'a>>,
}

impl<'a> std::ops::Deref for KernelRun<'a> {
    type Target = Common<'a>;

    fn deref(&self) -> &Common<'a> {
        &self.common
    }
}

struct Progress<'a> {
    queue: Queue<'a>,
    /// Guests that were started for a cell each and have not taken it yet.
    claims: usize,
    /// Which cells share a guest now: the two rounds of [`Isolate::Both`] differ.
    isolate: Isolate,
    /// Verdicts of the first of two rounds.
    shared: Option<Shared>,
    guests: u32,
    losses: u32,
    stalled: u32,
    peak_memory_kib: Option<u64>,
    /// Fingerprints of splats during boot.
    boot_splats: BTreeSet<String>,
    /// Attempts at cells that are to be repeated.
    attempts: BTreeMap<CellId, Attempts>,
    /// Verdicts of an earlier run on cells that run nevertheless.
    checked: BTreeMap<CellId, Verdict>,
    /// What the suites of cells reported, by attempt.
    children: BTreeMap<CellId, ReportedChildren>,
    /// Whether the run gave up on the kernel because too many guests were lost.
    gave_up: bool,
    /// Why the remaining cells don't run.
    stopped: Option<String>,
}

impl<'a> KernelRun<'a> {
    /// Creates the run of a kernel.
    pub fn new(common: Common<'a>, kernel: &'a PlannedKernel) -> Self {
        // With a single guest, the order is that of the plan.
        let cells = match common.split {
            true => order::cells(common.plan, kernel, common.isolate, common.estimate),
            false => kernel.cells.iter().collect(),
        };
        let progress = Progress {
            queue: Queue::new(common.plan, cells.into_iter().filter(is_run).map(|cell| cell.id.clone())),
            claims: 0,
            isolate: if common.isolate == Isolate::Both { Isolate::Kernel } else { common.isolate },
            shared: (common.isolate == Isolate::Both).then(Shared::default),
            guests: 0,
            losses: 0,
            stalled: 0,
            peak_memory_kib: None,
            boot_splats: BTreeSet::new(),
            attempts: BTreeMap::new(),
            checked: BTreeMap::new(),
            children: BTreeMap::new(),
            gave_up: false,
            stopped: None,
        };
        Self { common, kernel, learned: OnceLock::new(), warmth: Warmth::default(), progress: Mutex::new(progress) }
    }

    /// What is expected of the kernel: by the plan, or by its probes if `kernels.toml` says to believe them.
    fn planned(&self) -> &PlannedKernel {
        self.learned.get().unwrap_or(self.kernel)
    }

    /// Records the probe results, which are the same in every guest of a kernel.
    fn learn(&self, probes: &[CapabilityReport]) {
        self.learned.get_or_init(|| {
            let mut kernel = self.kernel.clone();
            kernel.learn(&self.plan.cells, probes);
            kernel
        });
    }

    /// Number of cells that no guest has taken.
    fn waiting(&self) -> usize {
        let progress = self.progress();
        if progress.stopped.is_some() { 0 } else { progress.queue.waiting() }
    }

    /// Reports the start of the kernel; `problem` is set if it can't boot.
    pub fn begin(&self, prepared: &Result<Prepared, PrepareError>) {
        match prepared {
            Ok(prepared) => {
                let content = self.content_of(prepared);
                let image = ImageInfo { content: content.clone(), ..prepared.image.clone() };
                (self.emit)(Event::KernelStarted { kernel: self.id(), image });
                self.take_over(content.as_deref());
            }
            Err(problem) => {
                let problem = problem.to_string();
                self.note(problem.clone());
                self.stop(&problem);
            }
        }
        for cell in &self.kernel.cells {
            if let Expectation::HostSkip { why } = &cell.expectation {
                let outcome = Outcome::SkippedItself { message: why.clone() };
                self.finish(0, Verdict::bare(cell.id.clone(), outcome));
            }
        }
    }

    /// Starts guests, at least one, until no cell waits.
    pub fn work(&self, prepared: &Prepared) {
        let mut first = self.kernel.cells.is_empty();
        let mut next = || match std::mem::take(&mut first) {
            true => Some(self.claim_of_boot()),
            false => self.claim().or_else(|| if self.second_round() { self.claim() } else { None }),
        };
        while let Some(claim) = next() {
            if self.interrupt.is_over() {
                self.stop(self.interrupt.why());
                return;
            }
            // Also needed for the guest that becomes the snapshot: it ends before the first guest is restored.
            let Some(_place) = self.room.enter(prepared.spec.memory_mib, self.interrupt, |why| self.note(why)) else {
                continue;
            };
            let snapshot = self.snapshot(prepared);
            // Another guest may have taken the rest while there was no memory, or while the snapshot was made.
            if self.interrupt.is_over() || (self.waiting() == 0 && !self.kernel.cells.is_empty()) {
                continue;
            }
            let launch = self.next_guest(prepared, snapshot.as_ref());
            let held = self.take_held(&launch, snapshot.as_ref());
            let is_held = held.is_some();
            let start = match &snapshot {
                Some(_) if is_held => Start::Held,
                Some(_) => Start::Restore,
                None => Start::Boot,
            };
            self.starts(&launch, start);
            let started = match (held, &snapshot) {
                (Some(guest), _) => Ok(guest),
                (None, Some(snapshot)) => self.launcher.restore(&launch.spec, snapshot),
                (None, None) => self.launcher.launch(&launch.spec),
            };
            let end = match started {
                Ok(mut guest) => {
                    let next = || self.take(&launch, &claim);
                    self.drive(&mut *guest, &launch, Errand::Run { next: &next, restored: snapshot.is_some() })
                }
                Err(error) => {
                    let again = snapshot.is_some();
                    SessionEnd::Lost(Lost {
                        kind: ErrorKind::Host,
                        message: error.to_string(),
                        cell: None,
                        again,
                        exit: None,
                    })
                }
            };
            self.answered(&launch, snapshot.as_ref());
            match (end, &snapshot) {
                (SessionEnd::Done(_), _) => self.progress().stalled = 0,
                (SessionEnd::Interrupted(running), _) => {
                    // The cell is as much without a verdict as those that had not begun.
                    let ended_itself = self.interrupt.stopped() == Some(RunStop::Failure);
                    if let Some(cell) = running.filter(|_| !ended_itself) {
                        let message = self.interrupt.why().to_owned();
                        self.verdict(&launch, SeenAttempt::errored(cell, ErrorKind::Interrupted, message));
                    }
                    self.stop(self.interrupt.why());
                }
                // It says nothing against the snapshot.
                (SessionEnd::Lost(lost), Some(_)) if !launch.greeted() && is_held => {
                    self.note(format!("a guest that was held did not answer; another is restored: {}", lost.message));
                }
                (SessionEnd::Lost(lost), Some(snapshot)) if !launch.greeted() => {
                    self.unanswered(&launch, &lost, snapshot)
                }
                (SessionEnd::Lost(lost), _) => {
                    self.distrust(prepared, &lost, snapshot.as_ref());
                    self.bury(&launch, lost);
                }
            }
            let mut progress = self.progress();
            let (again, back): (Vec<CellId>, Vec<CellId>) =
                launch.taken.take().into_iter().partition(|cell| progress.attempts.contains_key(cell));
            progress.queue.give_back(back);
            again.into_iter().for_each(|cell| progress.queue.again(cell));
        }
        self.offer(prepared);
    }

    /// Gives every remaining cell a verdict and reports the end of the kernel.
    pub fn end(&self, begin: Instant) {
        let mut progress = self.progress();
        let why = progress.stopped.take().unwrap_or_default();
        let left = progress.queue.drain();
        let shared = progress.shared.take().map(Shared::left).unwrap_or_default();
        let (guests, peak_memory_kib, gave_up) = (progress.guests, progress.peak_memory_kib, progress.gave_up);
        drop(progress);
        for cell in left {
            self.settle_early(cell, &why);
        }
        // The verdicts of the first round are used if there is no second one.
        shared.into_iter().for_each(|verdict| self.finish(0, verdict));
        let wall_ms = millis(begin);
        (self.emit)(Event::KernelFinished { kernel: self.id(), guests, peak_memory_kib, gave_up, wall_ms });
    }

    /// After the first of two rounds, queues all cells with a verdict again.
    fn second_round(&self) -> bool {
        let mut progress = self.progress();
        if progress.isolate == self.isolate || progress.stopped.is_some() || self.isolate != Isolate::Both {
            return false;
        }
        if progress.isolate == Isolate::Case {
            return false;
        }
        progress.isolate = Isolate::Case;
        let cells = progress.shared.as_ref().map(Shared::cells).unwrap_or_default();
        let order = self.kernel.cells.iter().map(|cell| cell.id.clone()).filter(|cell| cells.contains(cell));
        progress.queue.give_back(order.collect());
        progress.queue.waiting() > 0
    }

    fn take(&self, launch: &Launch, claim: &CellClaim<'_, '_>) -> Vec<CellId> {
        let mut progress = self.progress();
        claim.settle(&mut progress);
        if progress.stopped.is_some() {
            return Vec::new();
        }
        let isolate = progress.isolate;
        if let Some(why) = launch.dirty.borrow().as_deref() {
            if progress.queue.waiting() > 0 && isolate != Isolate::Case {
                drop(progress);
                self.note(format!("guest {} is not used again: {why}", launch.number));
            }
            return Vec::new();
        }
        let last = launch.last_cell();
        let cells = progress.queue.take(isolate, self.split, launch.pieces.get(), last.as_ref());
        launch.pieces.set(launch.pieces.get() + 1);
        launch.taken.borrow_mut().extend(cells.iter().cloned());
        cells
    }

    /// Reports the start of a guest.
    pub(super) fn starts(&self, launch: &Launch, start: Start) {
        (self.emit)(Event::GuestStarted { kernel: self.id(), guest: launch.number, start });
    }

    /// Numbers a guest.
    pub(super) fn next_guest(&self, prepared: &Prepared, snapshot: Option<&Snapshot>) -> Launch {
        let number = {
            let mut progress = self.progress();
            progress.guests += 1;
            progress.guests
        };
        let mut spec = prepared.spec.clone();
        spec.name = format!("{}-{number}", spec.name);
        spec.console = spec.console.join(directory::console(number));
        // A restored guest sends Hello fast even on a slow host; the duration of its boot is the measure.
        let boot = snapshot.and_then(|snapshot| snapshot.boot);
        let timing = boot.map_or(self.timing, |boot| self.timing.at_least((self.rescale)(boot)));
        let timing = if prepared.scans_memory { timing.scanning() } else { timing };
        Launch::new(number, spec, timing, prepared)
    }

    /// Drives a guest until its errand is done or it is lost. Kills it afterwards, unless it has settled for a snapshot.
    pub(super) fn drive(&self, guest: &mut dyn Guest, launch: &Launch, errand: Errand<'_>) -> SessionEnd {
        let serve = |guest: &mut dyn Guest| launch.serve(self.id().as_str(), guest);
        let serve: &Serve<'_> = &serve;
        // A guest that becomes a snapshot serves others, each with files of its own.
        let files = launch.has_files().then_some(serve).filter(|_| !matches!(errand, Errand::Settle));
        let task = Task {
            files,
            plan: self.plan,
            version: self.kernel.facts.version,
            errand,
            timing: launch.timing,
            rescale: self.rescale,
            mutant: self.mutant,
            programs: &self.programs(launch),
            objects: &launch.objects,
            agent: launch.agent.as_ref(),
            interrupt: self.interrupt,
        };
        let mut end = session::drive(guest, task, &mut |word| self.hear(launch, word));
        if matches!(end, SessionEnd::Lost(_)) {
            // Collected before the guest is queried: its answers are not splats.
            launch.last_words.replace(launch.splats());
        }
        self.examine(guest, launch, &mut end);
        let peak = guest.peak_memory_kib();
        match &mut end {
            // A settled guest is still needed.
            SessionEnd::Done(None) => launch.hang_up(),
            SessionEnd::Done(Some(farewell)) => {
                guest.kill();
                self.ended(launch, std::mem::take(farewell), guest.survivors());
            }
            SessionEnd::Interrupted(_) | SessionEnd::Lost(_) => guest.kill(),
        }
        launch.served(matches!(end, SessionEnd::Lost(_))).into_iter().for_each(|note| self.note(note));
        let mut progress = self.progress();
        progress.peak_memory_kib = progress.peak_memory_kib.max(peak);
        end
    }

    fn finish(&self, guest: u32, verdict: Verdict) {
        (self.emit)(Event::CellFinished { kernel: self.id(), guest, verdict: Box::new(verdict) });
    }

    pub(super) fn note(&self, text: String) {
        (self.emit)(Event::Note { kernel: self.id(), text });
    }

    /// Stops giving cells to guests; the first reason is kept.
    pub(super) fn stop(&self, why: &str) {
        self.progress().stopped.get_or_insert_with(|| why.to_owned());
    }

    pub(super) fn id(&self) -> Id {
        self.kernel.facts.id.clone()
    }

    fn progress(&self) -> MutexGuard<'_, Progress<'a>> {
        lock(&self.progress)
    }
}

/// Whether a guest gets it.
fn is_run(cell: &&PlannedCell) -> bool {
    !matches!(cell.expectation, Expectation::HostSkip { .. })
}

/// Milliseconds since `begin`.
pub(super) fn millis(begin: Instant) -> u64 {
    u64::try_from(begin.elapsed().as_millis()).unwrap_or(u64::MAX)
}
