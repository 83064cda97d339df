//! All guests of one kernel, until every planned cell has exactly one verdict.

use super::{
    console::Tail,
    session::{self, End, Lost, Task, Word},
    splat::Watch,
    timing::Timing,
};
use crate::{
    event::{Event, ImageInfo},
    interrupt::Interrupt,
    judge::{self, Verdict},
    plan::{Plan, PlannedKernel},
    report::directory,
    vm::{GuestSpec, Launcher},
};
use lab_protocol::{CellId, ErrorKind, Outcome};
use std::time::{Duration, Instant};

/// Guests in a row that may die without bringing a verdict.
const MAX_STALLED: u32 = 3;
/// Guests per kernel, whatever they bring: a kernel that dies in every tenth cell is worth no evening.
const MAX_GUESTS: u32 = 12;

/// A kernel that is ready to boot.
#[derive(Debug, Clone)]
pub struct Prepared {
    /// The guest to boot; its name and console are set per guest.
    pub spec: GuestSpec,
    /// The image.
    pub image: ImageInfo,
}

/// What one kernel's run needs.
pub struct KernelRun<'a> {
    /// The whole plan.
    pub plan: &'a Plan,
    /// This kernel's part.
    pub kernel: &'a PlannedKernel,
    /// Boots guests.
    pub launcher: &'a dyn Launcher,
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

struct Progress {
    pending: Vec<CellId>,
    guests: u32,
    peak_memory_kib: Option<u64>,
}

impl KernelRun<'_> {
    /// Runs every cell, in as many guests as it takes and the bounds allow.
    pub fn run(&self, prepared: Result<Prepared, String>) {
        let begin = Instant::now();
        let mut progress = Progress {
            pending: self.kernel.cells.iter().map(|cell| cell.id.clone()).collect(),
            guests: 0,
            peak_memory_kib: None,
        };
        let end = match prepared {
            Ok(prepared) => {
                (self.emit)(Event::KernelStarted { kernel: self.id(), image: prepared.image.clone() });
                self.guests(&prepared, &mut progress)
            }
            Err(problem) => {
                self.note(problem.clone());
                Some(problem)
            }
        };
        if let Some(why) = end {
            for cell in std::mem::take(&mut progress.pending) {
                self.finish(0, Verdict::bare(cell, Outcome::NotRun { message: why.clone() }));
            }
        }
        (self.emit)(Event::KernelFinished {
            kernel: self.id(),
            guests: progress.guests,
            peak_memory_kib: progress.peak_memory_kib,
            wall_ms: millis(begin),
        });
    }

    /// Boots guests, at least one, until nothing is pending; otherwise says why the rest does not run.
    fn guests(&self, prepared: &Prepared, progress: &mut Progress) -> Option<String> {
        let mut stalled = 0;
        while progress.guests == 0 || !progress.pending.is_empty() {
            let before = progress.pending.len();
            let lost = match self.guest(prepared, progress) {
                End::Done => continue,
                End::Interrupted(running) => {
                    let message = "the run was interrupted".to_owned();
                    if let Some(cell) = running {
                        progress.pending.retain(|pending| *pending != cell);
                        let outcome = Outcome::Errored { kind: ErrorKind::Interrupted, message: message.clone() };
                        self.finish(progress.guests, Verdict::bare(cell, outcome));
                    }
                    return Some(message);
                }
                End::Lost(lost) => lost,
            };
            stalled = if progress.pending.len() < before { 0 } else { stalled + 1 };
            let guests = progress.guests;
            if progress.pending.is_empty() {
                break;
            } else if !lost.again {
                return Some(lost.message);
            } else if stalled == MAX_STALLED {
                return Some(format!(
                    "{stalled} guests in a row died without a verdict; the last one: {}",
                    lost.message
                ));
            } else if guests == MAX_GUESTS {
                return Some(format!("{guests} guests died; the last one: {}", lost.message));
            }
        }
        None
    }

    fn guest(&self, prepared: &Prepared, progress: &mut Progress) -> End {
        progress.guests += 1;
        let number = progress.guests;
        let mut spec = prepared.spec.clone();
        spec.name = format!("{}-{number}", spec.name);
        spec.console = spec.console.join(directory::console(number));
        (self.emit)(Event::GuestStarted { kernel: self.id(), guest: number });
        let mut guest = match self.launcher.launch(&spec) {
            Ok(guest) => guest,
            Err(error) => {
                let message = error.to_string();
                let lost = Lost { kind: ErrorKind::Host, message, cell: None, again: false, exit: None };
                return self.bury(number, lost, &Tail::default(), progress);
            }
        };
        let cells = progress.pending.clone();
        let task = Task {
            plan: self.plan,
            version: self.kernel.facts.version,
            cells: &cells,
            timing: self.timing,
            rescale: self.rescale,
            mutant: self.mutant,
            interrupt: self.interrupt,
        };
        let mut console = Watch::new(&spec.console);
        let end = session::drive(&mut *guest, task, &mut |word| self.hear(number, word, &mut console, progress));
        progress.peak_memory_kib = progress.peak_memory_kib.max(guest.peak_memory_kib());
        guest.kill();
        match end {
            End::Lost(lost) => self.bury(number, lost, &Tail::read(&spec.console), progress),
            other => other,
        }
    }

    fn hear(&self, guest: u32, word: Word, console: &mut Watch, progress: &mut Progress) {
        let kernel = self.id();
        match word {
            Word::Hello { release, version, kernel: kernel_version, after } => (self.emit)(Event::Booted {
                kernel,
                guest,
                release,
                version,
                kernel_version,
                boot_ms: u64::try_from(after.as_millis()).unwrap_or(u64::MAX),
            }),
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
                for splat in console.look() {
                    self.note(format!("before {cell}: {}", splat.title));
                }
                (self.emit)(Event::CellStarted { kernel, guest, cell });
            }
            Word::Finished(report) => {
                if let Some(info) = self.plan.info(&report.cell) {
                    progress.pending.retain(|cell| *cell != report.cell);
                    let mut verdict = judge::judge(self.kernel, info, *report);
                    verdict.complain(&console.look());
                    self.finish(guest, verdict);
                }
            }
            Word::Note(text) => self.note(text),
        }
    }

    /// Tells of a loss; the cell that was running, if any, gets it as its verdict and is not run again.
    fn bury(&self, guest: u32, mut lost: Lost, tail: &Tail, progress: &mut Progress) -> End {
        lost.kind = tail.classify(lost.kind);
        if let Some(words) = tail.last_words() {
            lost.message = format!("{words} ({})", lost.message);
        } else if let Some(words) = tail.complaint() {
            lost.message = format!("{}; the kernel had complained: {words}", lost.message);
        }
        (self.emit)(Event::GuestLost {
            kernel: self.id(),
            guest,
            kind: lost.kind,
            message: lost.message.clone(),
            evidence: tail.evidence(),
            exit: lost.exit.clone(),
        });
        if let Some(cell) = lost.cell.take() {
            progress.pending.retain(|pending| *pending != cell);
            let outcome = Outcome::Errored { kind: lost.kind, message: lost.message.clone() };
            self.finish(guest, Verdict { evidence: Some(tail.evidence()), ..Verdict::bare(cell, outcome) });
        }
        End::Lost(lost)
    }

    fn finish(&self, guest: u32, verdict: Verdict) {
        (self.emit)(Event::CellFinished { kernel: self.id(), guest, verdict: Box::new(verdict) });
    }

    fn note(&self, text: String) {
        (self.emit)(Event::Note { kernel: self.id(), text });
    }

    fn id(&self) -> String {
        self.kernel.facts.id.clone()
    }
}

/// Milliseconds since an instant.
pub(super) fn millis(begin: Instant) -> u64 {
    u64::try_from(begin.elapsed().as_millis()).unwrap_or(u64::MAX)
}
