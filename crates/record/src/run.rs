//! A run as its events tell it: what every report is made from.

use super::{
    kept::{Kept, Places, Texts, Told, Verdicts},
    rows,
};
use crate::{
    event::{Event, RunInfo, Stamped},
    exit::Exit,
    guest::{Boot, GuestEnd, GuestRecord, KernelRecord},
    plan::{PlannedCell, PlannedKernel},
    shard::MergedShard,
    verdict::{Attempt, Standing, Verdict},
};
use lab_base::text;
use lab_protocol::{AttachType, CellId, CellInfo, ErrorKind, Outcome, drawing::TopologyInfo};
use std::{borrow::Cow, collections::BTreeMap, sync::Arc};

/// Everything that happened so far.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RunRecord {
    /// Start, milliseconds since the epoch.
    pub started_ms: u64,
    /// What was known at the start.
    pub info: Option<RunInfo>,
    /// What the topologies look like.
    pub topologies: Vec<TopologyInfo>,
    /// Kernels by id.
    pub kernels: BTreeMap<String, KernelRecord>,
    /// Exit and wall time, once the run has finished.
    pub finished: Option<(Exit, u64)>,
    /// The texts of all checks.
    texts: Texts,
    /// The plan's cells.
    places: Arc<Places>,
}

/// How many cells ended how; each counts once.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Counts {
    /// Passed at once.
    pub passed: usize,
    /// Passed when run again.
    pub flaky: usize,
    /// Failed as `known.toml` says.
    pub known: usize,
    /// Failed.
    pub failed: usize,
    /// Skipped.
    pub skipped: usize,
    /// Errored.
    pub errored: usize,
    /// Never started.
    pub not_run: usize,
}

impl Counts {
    /// Adds one verdict.
    pub fn add(&mut self, standing: Standing) {
        *match standing {
            Standing::Passed => &mut self.passed,
            Standing::Flaky => &mut self.flaky,
            Standing::Known => &mut self.known,
            Standing::Failed => &mut self.failed,
            Standing::Skipped => &mut self.skipped,
            Standing::Errored => &mut self.errored,
            Standing::NotRun => &mut self.not_run,
        } += 1;
    }

    /// All counts in words; what is rare only where there is some.
    pub fn line(&self) -> String {
        let some = |count: usize, word: &str| if count > 0 { format!(", {count} {word}") } else { String::new() };
        format!(
            "{} passed{}{}, {} failed, {} skipped, {} errored, {} not run",
            self.passed,
            some(self.flaky, "flaky"),
            some(self.known, "known"),
            self.failed,
            self.skipped,
            self.errored,
            self.not_run
        )
    }

    /// All of them.
    pub const fn total(&self) -> usize {
        self.passed + self.flaky + self.known + self.failed + self.skipped + self.errored + self.not_run
    }
}

impl RunRecord {
    /// Takes one event.
    pub fn apply(&mut self, stamped: &Stamped) {
        self.take(stamped.clone());
    }

    /// Takes one event, and what it holds with it.
    pub fn take(&mut self, Stamped { at_ms, event }: Stamped) {
        match event {
            Event::RunStarted { run } => {
                self.started_ms = at_ms;
                self.places = Arc::new(Places::of(&run.plan.cells));
                self.info = Some(*run);
            }
            Event::Topologies { library } => self.topologies = library,
            Event::KernelStarted { kernel, image } => {
                let record = self.kernel(&kernel);
                record.image = Some(image);
                record.started_ms = at_ms;
            }
            Event::GuestStarted { kernel, guest, start } => {
                let guest = self.kernel(&kernel).guests.entry(guest).or_default();
                *guest = GuestRecord { start, ..GuestRecord::default() };
            }
            Event::Booted { kernel, release, version, kernel_version, boot_ms, .. } => {
                let boot = Boot { release, version, kernel_version, boot_ms };
                self.kernel(&kernel).boot.get_or_insert(boot);
            }
            Event::Probed { kernel, guest, capabilities, .. } => {
                if let Some(crate::plan::Plan { kernels, cells, .. }) = self.info.as_mut().map(|info| &mut info.plan) {
                    let planned = kernels.iter_mut().find(|planned| planned.facts.id == kernel);
                    planned.into_iter().for_each(|planned| planned.learn(cells, &capabilities));
                }
                let record = self.kernel(&kernel);
                record.capabilities = capabilities;
                record.guests.entry(guest).or_default().came_up = true;
            }
            Event::CellStarted { kernel, guest, cell } => {
                let record = self.kernel(&kernel);
                record.running = Some(cell);
                record.guests.entry(guest).or_default().came_up = true;
            }
            Event::CellFinished { kernel, verdict, .. } => self.judged(&kernel, verdict),
            // Until it has run again, or if it never does, this is its verdict.
            Event::CellRetried { kernel, guest, verdict } => {
                let earlier = self.kernel(&kernel).attempts.entry(verdict.report.cell.clone()).or_default();
                let now = Verdict { earlier: earlier.clone(), ..(*verdict).clone() };
                earlier.push(Attempt::of(guest, *verdict));
                self.judged(&kernel, Box::new(now));
            }
            Event::Splat { kernel, guest, moment, splat } => {
                self.kernel(&kernel).splats.push((guest, moment, *splat));
            }
            Event::GuestEnded { kernel, guest, shutdown_ms, problems } => {
                let end = GuestEnd::Off { shutdown_ms, problems };
                self.kernel(&kernel).guests.entry(guest).or_default().end = Some(end);
            }
            Event::GuestLost { kernel, guest, kind, message, files, cell, .. } => {
                let record = self.kernel(&kernel);
                let files = if files.is_empty() { String::new() } else { format!(" ({})", files.join(", ")) };
                record.losses.push(format!("guest {guest}: {kind}: {message}{files}"));
                record.guests.entry(guest).or_default().end = Some(GuestEnd::Lost { kind, message, cell });
                record.running = None;
            }
            Event::Note { kernel, text } => self.kernel(&kernel).notes.push(text),
            Event::KernelFinished { kernel, peak_memory_kib, gave_up, wall_ms, .. } => {
                let record = self.kernel(&kernel);
                record.finished = Some((wall_ms, peak_memory_kib));
                record.gave_up = gave_up;
            }
            Event::RunFinished { exit, wall_ms } => self.finished = Some((exit, wall_ms)),
        }
    }

    fn judged(&mut self, kernel: &str, verdict: Box<Verdict>) {
        let kept = Kept::new(verdict, &mut self.texts);
        let record = self.kernel(kernel);
        record.running = None;
        let cell = kept.report.cell.clone();
        record.verdicts.insert(&cell, kept);
    }

    fn kernel(&mut self, id: &str) -> &mut KernelRecord {
        let fresh = || KernelRecord { verdicts: Verdicts::of(Arc::clone(&self.places)), ..KernelRecord::default() };
        self.kernels.entry(id.to_owned()).or_insert_with(fresh)
    }

    /// The plan's kernels, each with what happened on it.
    pub fn planned(&self) -> impl Iterator<Item = (&PlannedKernel, Option<&KernelRecord>)> {
        let kernels = self.info.iter().flat_map(|info| &info.plan.kernels);
        kernels.map(|kernel| (kernel, self.kernels.get(&kernel.facts.id)))
    }

    /// A cell's verdict; a cell that has none is one that never ran, so that no gap looks like a pass.
    pub fn told<'a>(&'a self, kernel: Option<&'a KernelRecord>, cell: &PlannedCell) -> Told<'a> {
        self.next(kernel, cell, &mut 0)
    }

    /// The same of a cell that may be at the place `near` of the plan, which becomes the one after it.
    fn next<'a>(&'a self, kernel: Option<&'a KernelRecord>, cell: &PlannedCell, near: &mut usize) -> Told<'a> {
        if let Some(row) = rows::verdict(kernel, &cell.id) {
            return Told::other(row, &self.texts);
        }
        match kernel.and_then(|kernel| kernel.verdicts.next(&cell.id, near)) {
            Some(kept) => Told::kept(kept, &self.texts),
            None => Told::other(never_ran(kernel, cell), &self.texts),
        }
    }

    /// The same, as a verdict with its checks.
    pub fn verdict<'a>(&'a self, kernel: Option<&'a KernelRecord>, cell: &PlannedCell) -> Cow<'a, Verdict> {
        self.told(kernel, cell).whole()
    }

    /// Every planned cell of a kernel with its verdict, between the rows that every kernel has ([`rows`]).
    pub fn verdicts_on<'a>(
        &'a self,
        kernel: &'a PlannedKernel,
        happened: Option<&'a KernelRecord>,
    ) -> impl Iterator<Item = (&'a PlannedCell, Told<'a>)> {
        let mut near = 0;
        rows::around(kernel).map(move |cell| (cell, self.next(happened, cell, &mut near)))
    }

    /// The same of all kernels, one after the other.
    pub fn verdicts(&self) -> impl Iterator<Item = (&PlannedKernel, &PlannedCell, Told<'_>)> {
        self.planned().flat_map(|(kernel, happened)| {
            self.verdicts_on(kernel, happened).map(move |(cell, verdict)| (kernel, cell, verdict))
        })
    }

    /// What is listed of the rows and of the plan's cells.
    pub fn listing(&self) -> impl Iterator<Item = &CellInfo> {
        rows::infos().iter().chain(self.info.iter().flat_map(|info| &info.plan.cells))
    }

    /// How many cells of a kernel ended how.
    pub fn counts_on(&self, kernel: &PlannedKernel, happened: Option<&KernelRecord>) -> Counts {
        let mut counts = Counts::default();
        self.verdicts_on(kernel, happened).for_each(|(_, verdict)| counts.add(verdict.standing()));
        counts
    }

    /// How many cells ended how, over all kernels.
    pub fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        self.verdicts().for_each(|(_, _, verdict)| counts.add(verdict.standing()));
        counts
    }

    /// Cases that no kernel of the full matrix can run.
    pub fn dead_cases(&self) -> Vec<String> {
        match &self.info {
            Some(info) if info.plan.full_matrix => info.plan.unrunnable_cases(),
            _ => Vec::new(),
        }
    }

    /// Shards that brought less than they should have, one line each.
    pub fn lost_shards(&self) -> Vec<String> {
        self.info.iter().flat_map(|info| &info.merged).filter_map(MergedShard::problem).collect()
    }

    /// What the verdicts add up to. A panic or hang in a cell is the kernel's failure; everything else without a
    /// verdict is infrastructure. Where guests died until no further one was started, the kernel's deaths are no verdicts.
    /// Kernels that may fail are told of, and don't count.
    pub fn exit(&self) -> Exit {
        let expired = self.info.as_ref().is_some_and(|info| !info.expired.is_empty());
        let mut exit = if self.dead_cases().is_empty() && !expired { Exit::Passed } else { Exit::Failed };
        let mut shards = self.info.iter().flat_map(|info| &info.merged);
        if exit == Exit::Passed && shards.any(|shard| !shard.may_fail && shard.problem().is_some()) {
            exit = Exit::Infra;
        }
        for (kernel, cell, verdict) in self.verdicts().filter(|(kernel, _, _)| !kernel.facts.may_fail) {
            let gave_up = || self.kernels.get(&kernel.facts.id).is_some_and(|record| record.gave_up);
            let crash = matches!(verdict.outcome, Outcome::Errored { kind: ErrorKind::Panic | ErrorKind::Hang, .. });
            match verdict.standing() {
                Standing::Failed if !rows::is_row(&cell.id) || !gave_up() => return Exit::Failed,
                Standing::Errored if crash && !gave_up() => return Exit::Failed,
                standing if standing.is_bad() && exit == Exit::Passed => exit = Exit::Infra,
                _ => {}
            }
        }
        exit
    }

    /// What the run exited with. A run that was killed has no exit of its own, and one that says it passed is not believed
    /// where its verdicts say otherwise: a line may be missing from its events.
    pub fn outcome(&self) -> Exit {
        match self.finished {
            Some((exit, _)) if exit != Exit::Passed => exit,
            _ => self.exit(),
        }
    }

    /// How to run one cell again; of a row, how to run its kernel again.
    pub fn repro(&self, kernel: &str, cell: &CellId) -> String {
        let mut command = format!("lab run --kernel {}", text::shell_quote(kernel));
        if !rows::is_row(cell) {
            command += &format!(" --case {}", text::shell_quote(cell.as_str()));
        }
        if let Some(info) = &self.info {
            if info.canary {
                command += " --canary";
            }
            if let Some(mutant) = &info.mutant {
                command += &format!(" --mutant {}", text::shell_quote(mutant));
            }
        }
        command
    }

    /// How to look at one cell by hand: a shell in a guest where the case stands before its first packet. `None` for a row,
    /// and for a canary or a mutant, which the shell does not build.
    pub fn enter(&self, kernel: &str, cell: &CellId) -> Option<String> {
        let spoiled = self.info.as_ref().is_some_and(|info| info.canary || info.mutant.is_some());
        let quote = text::shell_quote;
        (!spoiled && !rows::is_row(cell))
            .then(|| format!("lab shell {} --case {}", quote(kernel), quote(cell.as_str())))
    }
}

fn never_ran(kernel: Option<&KernelRecord>, cell: &PlannedCell) -> Verdict {
    let message = match kernel.and_then(|kernel| kernel.running.as_ref()) {
        Some(running) if *running == cell.id => "the run ended while the cell was running",
        _ => "the run ended before the cell",
    };
    Verdict::bare(cell.id.clone(), Outcome::NotRun { message: message.to_owned() })
}

/// The attach types that the kernel reported for a cell, oldest first, each once.
pub fn used(verdict: &Verdict) -> Vec<AttachType> {
    let mut used: Vec<AttachType> = verdict.report.attach.iter().filter_map(|record| record.used).collect();
    used.sort_unstable();
    used.dedup();
    used
}
