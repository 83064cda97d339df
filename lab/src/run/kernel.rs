//! All guests of one kernel, until every planned cell has exactly one verdict.

use super::{
    autopsy::Autopsy,
    console::Tail,
    evidence,
    isolation::{self, Shared},
    order::{self, Estimate},
    queue::{Isolate, Queue},
    room::Room,
    session::{self, End, Errand, Lost, Task, Word},
    splat::Watch,
    timing::Timing,
    warm::Warmth,
};
use crate::{
    event::{Event, ImageInfo, Start},
    interrupt::Interrupt,
    judge::{self, Verdict},
    plan::{Plan, PlannedKernel},
    report::directory,
    vm::{Guest, GuestSpec, Launcher, snapshot::Store},
};
use lab_protocol::{CellId, ErrorKind, Outcome};
use std::{
    cell::{Cell, RefCell},
    path::Path,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// Guests in a row that may die without bringing a verdict.
const MAX_STALLED: u32 = 3;
/// Guests of a kernel that may die, whatever they bring: a kernel that dies in every tenth cell is worth no evening.
const MAX_LOSSES: u32 = 12;

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
    /// Ctrl-C.
    pub interrupt: &'a Interrupt,
    /// Takes the events.
    pub emit: &'a (dyn Fn(Event) + Sync),
}

/// One kernel's run. Any number of threads may work on it, each with a guest at a time.
pub struct KernelRun<'a> {
    common: Common<'a>,
    kernel: &'a PlannedKernel,
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
    /// Which cells share a guest now: the two rounds of [`Isolate::Both`] differ.
    isolate: Isolate,
    /// Verdicts of the first of two rounds.
    shared: Option<Shared>,
    guests: u32,
    losses: u32,
    stalled: u32,
    peak_memory_kib: Option<u64>,
    /// Why the cells that are left don't run.
    stopped: Option<String>,
}

/// A guest that is about to start.
pub(super) struct Launch {
    pub number: u32,
    pub spec: GuestSpec,
    /// Whether its agent said hello.
    greeted: Cell<bool>,
    /// Cells that it took and has not brought a verdict for.
    taken: RefCell<Vec<CellId>>,
    pieces: Cell<usize>,
    verdicts: Cell<usize>,
    console: RefCell<Watch>,
    /// The verdict on a cell that its agent gave up, until the guest was questioned.
    pub hung: RefCell<Option<Verdict>>,
    /// Where it was questioned before it was killed.
    pub autopsy: RefCell<Option<Autopsy>>,
}

impl Launch {
    /// The kernel's directory in the run's.
    pub fn directory(&self) -> &Path {
        self.spec.console.parent().unwrap_or(Path::new("."))
    }
}

impl Launch {
    /// Whether the guest's agent said hello.
    pub(super) const fn greeted(&self) -> bool {
        self.greeted.get()
    }
}

impl<'a> KernelRun<'a> {
    /// Nothing has run yet.
    pub fn new(common: Common<'a>, kernel: &'a PlannedKernel) -> Self {
        // A guest alone takes them all, in any order.
        let cells = match common.split {
            true => order::cells(common.plan, kernel, common.isolate, common.estimate),
            false => kernel.cells.iter().collect(),
        };
        let progress = Progress {
            queue: Queue::new(common.plan, cells.into_iter().map(|cell| cell.id.clone())),
            isolate: if common.isolate == Isolate::Both { Isolate::Kernel } else { common.isolate },
            shared: (common.isolate == Isolate::Both).then(Shared::default),
            guests: 0,
            losses: 0,
            stalled: 0,
            peak_memory_kib: None,
            stopped: None,
        };
        Self { common, kernel, warmth: Warmth::default(), progress: Mutex::new(progress) }
    }

    /// Cells that no guest has taken.
    pub fn waiting(&self) -> usize {
        let progress = self.progress();
        if progress.stopped.is_some() { 0 } else { progress.queue.waiting() }
    }

    /// Tells that the kernel's turn has come; `problem` where it can't boot.
    pub fn begin(&self, prepared: &Result<Prepared, String>) {
        match prepared {
            Ok(prepared) => (self.emit)(Event::KernelStarted { kernel: self.id(), image: prepared.image.clone() }),
            Err(problem) => {
                self.note(problem.clone());
                self.stop(problem);
            }
        }
    }

    /// Starts guests, at least one, until no cell waits.
    pub fn work(&self, prepared: &Prepared) {
        let mut first = self.kernel.cells.is_empty();
        while std::mem::take(&mut first) || self.waiting() > 0 || self.second_round() {
            if self.interrupt.signal().is_some() {
                self.stop(self.interrupt.why());
                return;
            }
            // Also for the guest that becomes the snapshot: it is gone before the first one is restored.
            let Some(_place) = self.room.enter(prepared.spec.memory_mib, self.interrupt, |why| self.note(why)) else {
                continue;
            };
            let snapshot = self.snapshot(prepared);
            // Another guest may have taken the rest while there was no memory, or while the snapshot was made.
            if self.interrupt.signal().is_some() || (self.waiting() == 0 && !self.kernel.cells.is_empty()) {
                continue;
            }
            let launch = self.next_guest(prepared, if snapshot.is_some() { Start::Restore } else { Start::Boot });
            let started = match &snapshot {
                Some(snapshot) => self.launcher.restore(&launch.spec, snapshot),
                None => self.launcher.launch(&launch.spec),
            };
            let end = match started {
                Ok(mut guest) => {
                    let next = || self.take(&launch);
                    self.drive(&mut *guest, &launch, Errand::Run { next: &next, restored: snapshot.is_some() })
                }
                Err(error) => {
                    let again = snapshot.is_some();
                    End::Lost(Lost { kind: ErrorKind::Host, message: error.to_string(), cell: None, again, exit: None })
                }
            };
            match (end, &snapshot) {
                (End::Done, _) => self.progress().stalled = 0,
                (End::Interrupted(running), _) => {
                    if let Some(cell) = running {
                        let message = self.interrupt.why().to_owned();
                        let outcome = Outcome::Errored { kind: ErrorKind::Interrupted, message };
                        self.verdict(&launch, Verdict::bare(cell, outcome));
                    }
                    self.stop(self.interrupt.why());
                }
                (End::Lost(lost), Some(snapshot)) if !launch.greeted() => self.unanswered(&lost, snapshot),
                (End::Lost(lost), _) => self.bury(&launch, lost),
            }
            self.progress().queue.give_back(launch.taken.take());
        }
    }

    /// Gives every cell that is left a verdict and tells that the kernel is through.
    pub fn end(&self, begin: Instant) {
        let mut progress = self.progress();
        let why = progress.stopped.take().unwrap_or_default();
        let left = progress.queue.drain();
        let shared = progress.shared.take().map(Shared::left).unwrap_or_default();
        let (guests, peak_memory_kib) = (progress.guests, progress.peak_memory_kib);
        drop(progress);
        for cell in left {
            self.finish(0, Verdict::bare(cell, Outcome::NotRun { message: why.clone() }));
        }
        // The first round's verdicts are better than none.
        shared.into_iter().for_each(|verdict| self.finish(0, verdict));
        (self.emit)(Event::KernelFinished { kernel: self.id(), guests, peak_memory_kib, wall_ms: millis(begin) });
    }

    /// After the first of two rounds, puts every cell that has a verdict back.
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

    fn take(&self, launch: &Launch) -> Vec<CellId> {
        let mut progress = self.progress();
        if progress.stopped.is_some() {
            return Vec::new();
        }
        let isolate = progress.isolate;
        let cells = progress.queue.take(isolate, self.split, launch.pieces.get());
        launch.pieces.set(launch.pieces.get() + 1);
        launch.taken.borrow_mut().extend(cells.iter().cloned());
        cells
    }

    /// Numbers a guest and tells of it.
    pub(super) fn next_guest(&self, prepared: &Prepared, start: Start) -> Launch {
        let number = {
            let mut progress = self.progress();
            progress.guests += 1;
            progress.guests
        };
        let mut spec = prepared.spec.clone();
        spec.name = format!("{}-{number}", spec.name);
        spec.console = spec.console.join(directory::console(number));
        (self.emit)(Event::GuestStarted { kernel: self.id(), guest: number, start });
        Launch {
            number,
            console: RefCell::new(Watch::new(&spec.console)),
            spec,
            greeted: Cell::new(false),
            taken: RefCell::default(),
            pieces: Cell::new(0),
            verdicts: Cell::new(0),
            hung: RefCell::default(),
            autopsy: RefCell::default(),
        }
    }

    /// Talks to a guest until its errand is done or it is lost. It is gone afterwards, unless it has settled.
    pub(super) fn drive(&self, guest: &mut dyn Guest, launch: &Launch, errand: Errand<'_>) -> End {
        let task = Task {
            plan: self.plan,
            version: self.kernel.facts.version,
            errand,
            timing: self.timing,
            rescale: self.rescale,
            mutant: self.mutant,
            interrupt: self.interrupt,
        };
        let mut end = session::drive(guest, task, &mut |word| self.hear(launch, word));
        self.examine(guest, launch, &mut end);
        let peak = guest.peak_memory_kib();
        if !matches!((errand, &end), (Errand::Settle, End::Done)) {
            guest.kill();
        }
        let mut progress = self.progress();
        progress.peak_memory_kib = progress.peak_memory_kib.max(peak);
        end
    }

    fn hear(&self, launch: &Launch, word: Word) {
        let (kernel, guest) = (self.id(), launch.number);
        match word {
            Word::Hello { release, version, kernel: kernel_version, after } => {
                launch.greeted.set(true);
                (self.emit)(Event::Booted {
                    kernel,
                    guest,
                    release,
                    version,
                    kernel_version,
                    boot_ms: u64::try_from(after.as_millis()).unwrap_or(u64::MAX),
                });
            }
            Word::Probed { capabilities, modules } => {
                let warnings = judge::probe_warnings(&self.kernel.facts, &capabilities);
                (self.emit)(Event::Probed { kernel, guest, capabilities, modules });
                // Every guest of a kernel probes the same; saying it once is enough.
                if guest == 1 {
                    warnings.into_iter().for_each(|warning| self.note(warning));
                }
            }
            Word::Started(cell) => {
                // What the kernel said between cells belongs to the boot or to the clean-up of the one before.
                for splat in launch.console.borrow_mut().look_before(&format!("begin {cell}")).unwrap_or_default() {
                    self.note(format!("before {cell}: {}", splat.title));
                }
                (self.emit)(Event::CellStarted { kernel, guest, cell });
            }
            Word::Finished(mut report) => {
                if let Some(info) = self.plan.info(&report.cell) {
                    let files = evidence::keep(launch.directory(), &kernel, &mut report).unwrap_or_else(|error| {
                        self.note(format!("evidence of {}: {error}", report.cell));
                        Vec::new()
                    });
                    let mut verdict = Verdict { files, ..judge::judge(self.kernel, info, *report) };
                    let mut console = launch.console.borrow_mut();
                    let splats = console.look_before(&format!("end {}", verdict.report.cell));
                    verdict.complain(splats.unwrap_or_else(|| console.look()));
                    drop(console);
                    if matches!(verdict.outcome, Outcome::Errored { kind: ErrorKind::Hang, .. }) {
                        launch.hung.replace(Some(verdict));
                    } else {
                        self.verdict(launch, verdict);
                    }
                }
            }
            Word::Note(text) => self.note(text),
        }
    }

    /// Tells of a loss; the cell that was running, if any, gets it as its verdict and is not run again.
    pub(super) fn bury(&self, launch: &Launch, mut lost: Lost) {
        let Autopsy { tail, files } = launch
            .autopsy
            .take()
            .unwrap_or_else(|| Autopsy { tail: Tail::read(&launch.spec.console), files: Vec::new() });
        lost.kind = tail.classify(lost.kind);
        if let Some(words) = tail.last_words() {
            lost.message = format!("{words} ({})", lost.message);
        } else if let Some(words) = tail.complaint() {
            lost.message = format!("{}; the kernel had complained: {words}", lost.message);
        }
        (self.emit)(Event::GuestLost {
            kernel: self.id(),
            guest: launch.number,
            kind: lost.kind,
            message: lost.message.clone(),
            evidence: tail.evidence(),
            exit: lost.exit.clone(),
            files: files.clone(),
        });
        if let Some(cell) = lost.cell.take() {
            let outcome = Outcome::Errored { kind: lost.kind, message: lost.message.clone() };
            self.verdict(launch, Verdict { evidence: Some(tail.evidence()), files, ..Verdict::bare(cell, outcome) });
        }
        let (stalled, losses) = {
            let mut progress = self.progress();
            progress.losses += 1;
            progress.stalled = if launch.verdicts.get() > 0 { 0 } else { progress.stalled + 1 };
            (progress.stalled, progress.losses)
        };
        let message = lost.message;
        if !lost.again {
            self.stop(&message);
        } else if stalled >= MAX_STALLED {
            self.stop(&format!("{stalled} guests in a row died without a verdict; the last one: {message}"));
        } else if losses >= MAX_LOSSES {
            self.stop(&format!("{losses} guests died; the last one: {message}"));
        }
    }

    /// A cell of this guest has its verdict.
    pub(super) fn verdict(&self, launch: &Launch, verdict: Verdict) {
        launch.verdicts.set(launch.verdicts.get() + 1);
        launch.taken.borrow_mut().retain(|cell| *cell != verdict.report.cell);
        let verdict = {
            let mut progress = self.progress();
            let second = progress.isolate == Isolate::Case;
            match &mut progress.shared {
                Some(shared) if second => isolation::compare(shared.take(&verdict.report.cell), verdict),
                Some(shared) => return shared.keep(verdict),
                None => verdict,
            }
        };
        self.finish(launch.number, verdict);
    }

    fn finish(&self, guest: u32, verdict: Verdict) {
        (self.emit)(Event::CellFinished { kernel: self.id(), guest, verdict: Box::new(verdict) });
    }

    pub(super) fn note(&self, text: String) {
        (self.emit)(Event::Note { kernel: self.id(), text });
    }

    /// No further guest takes cells; the first reason counts.
    fn stop(&self, why: &str) {
        self.progress().stopped.get_or_insert_with(|| why.to_owned());
    }

    pub(super) fn id(&self) -> String {
        self.kernel.facts.id.clone()
    }

    fn progress(&self) -> MutexGuard<'_, Progress<'a>> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Milliseconds since an instant.
pub(super) fn millis(begin: Instant) -> u64 {
    u64::try_from(begin.elapsed().as_millis()).unwrap_or(u64::MAX)
}
