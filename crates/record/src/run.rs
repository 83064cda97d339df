//! The record of a run, accumulated from its events: every report is made from it.

use super::{
    kept::{CellPositions, CheckText, Kept, ReportedVerdict, Texts, Verdicts},
    rows,
};
use crate::{
    event::{Event, RunInfo, Stamped},
    exit::Exit,
    guest::{Boot, GuestEnd, GuestRecord, KernelRecord},
    plan::{PlannedCell, PlannedKernel},
    provenance::{Call, quoted},
    shard::{MergedShard, ShardTime, shard_times},
    slow::Slow,
    verdict::{Attempt, Standing, Verdict},
};
use lab_guard::Id;
use lab_protocol::{CellId, CellInfo, ErrorKind, Outcome, Raw, drawing::TopologyInfo};
use std::{borrow::Cow, collections::BTreeMap, sync::Arc};

/// The word by which a run of `lab check` says what it was, before those that repeat it. Words without one are of `lab exec`, and
/// begin with an option.
pub const CHECK: &str = "check";
/// That of `lab kselftest`.
pub const KSELFTEST: &str = "kselftest";

/// The state of a run after the events so far.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RunRecord {
    /// Start, milliseconds since the epoch.
    pub started_ms: u64,
    /// Information from the first event.
    pub info: Option<RunInfo>,
    /// The topologies of the suite.
    pub topologies: Vec<TopologyInfo>,
    /// Kernels by id.
    pub kernels: BTreeMap<Id, KernelRecord>,
    /// Exit and wall time, once the run has finished.
    pub finished: Option<(Exit, u64)>,
    /// Interned texts of the checks.
    texts: Texts,
    /// Positions of the plan's cells.
    places: Arc<CellPositions>,
}

/// Number of cells by standing; each cell counts once.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Counts {
    /// Passed at the first attempt.
    pub passed: usize,
    /// Passed when repeated.
    pub flaky: usize,
    /// Failed as expected by `known.toml`.
    pub known: usize,
    /// Failed.
    pub failed: usize,
    /// Skipped.
    pub skipped: usize,
    /// Ended without a verdict on the kernel.
    pub errored: usize,
    /// Not started.
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

    /// All counts as text; rare standings only if they occur.
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

    /// The number of all cells.
    pub const fn total(&self) -> usize {
        self.passed + self.flaky + self.known + self.failed + self.skipped + self.errored + self.not_run
    }
}

impl RunRecord {
    /// Applies one event.
    pub fn apply(&mut self, stamped: &Stamped) {
        self.take(stamped.clone());
    }

    /// Applies one event, taking ownership of its content.
    pub fn take(&mut self, Stamped { at_ms, event }: Stamped) {
        match event {
            Event::RunStarted { run } => {
                self.started_ms = at_ms;
                self.places = Arc::new(CellPositions::of(&run.plan.cells));
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
            Event::CellAdopted { kernel, parent, info } => {
                if let Some(run) = self.info.as_mut() {
                    run.plan.adopt(&kernel, &parent, *info);
                }
            }
            // This is the cell's verdict until the cell is repeated, or if it never is.
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
            Event::Slow { kernel, finding } => {
                let record = self.kernel(&kernel);
                record.notes.push(format!("slow: {}", finding.line()));
                record.slow.push(finding);
            }
            Event::RunFinished { exit, wall_ms } => self.finished = Some((exit, wall_ms)),
        }
    }

    /// Applies one event of a batch. The checks of its verdict are in the batch.
    pub fn take_line<'a>(&mut self, stamped: Stamped, checks: impl Iterator<Item = CheckText<'a>>) {
        match stamped.event {
            Event::CellFinished { kernel, verdict, .. } => {
                let cell = verdict.report.cell.clone();
                let kept = Kept::with(verdict, checks, &mut self.texts);
                self.keep(&kernel, &cell, kept);
            }
            _ => self.take(stamped),
        }
    }

    fn judged(&mut self, kernel: &Id, verdict: Box<Verdict>) {
        let cell = verdict.report.cell.clone();
        let kept = Kept::new(verdict, &mut self.texts);
        self.keep(kernel, &cell, kept);
    }

    fn keep(&mut self, kernel: &Id, cell: &CellId, kept: Kept) {
        let record = self.kernel(kernel);
        record.running = None;
        record.verdicts.insert(cell, kept);
    }

    fn kernel(&mut self, id: &Id) -> &mut KernelRecord {
        let fresh = || KernelRecord { verdicts: Verdicts::of(Arc::clone(&self.places)), ..KernelRecord::default() };
        self.kernels.entry(id.clone()).or_insert_with(fresh)
    }

    /// The plan's kernels, each with its record.
    pub fn planned(&self) -> impl Iterator<Item = (&PlannedKernel, Option<&KernelRecord>)> {
        let kernels = self.info.iter().flat_map(|info| &info.plan.kernels);
        kernels.map(|kernel| (kernel, self.kernels.get(&kernel.facts.id)))
    }

    /// A cell's verdict. A cell without a verdict counts as not run, so that a missing verdict never looks like a pass.
    pub fn told<'a>(&'a self, kernel: Option<&'a KernelRecord>, cell: &'a PlannedCell) -> ReportedVerdict<'a> {
        self.told_near(kernel, cell, &mut 0)
    }

    /// As [`Self::told`] for a cell that may be at position `near` of the plan; `near` becomes the next position.
    pub fn told_near<'a>(
        &'a self,
        kernel: Option<&'a KernelRecord>,
        cell: &'a PlannedCell,
        near: &mut usize,
    ) -> ReportedVerdict<'a> {
        if let Some(row) = rows::verdict(kernel, &cell.id) {
            return ReportedVerdict::other(row, &self.texts);
        }
        match kernel.and_then(|kernel| kernel.verdicts.next(&cell.id, near)) {
            Some(kept) => ReportedVerdict::kept(kept, &cell.id, &self.texts),
            None => ReportedVerdict::other(never_ran(kernel, cell), &self.texts),
        }
    }

    /// As [`Self::told`], with the verdict's checks.
    pub fn verdict<'a>(&'a self, kernel: Option<&'a KernelRecord>, cell: &'a PlannedCell) -> Cow<'a, Verdict> {
        self.told(kernel, cell).whole()
    }

    /// The verdicts that a kernel has so far, in plan order.
    pub fn given<'a>(&'a self, happened: &'a KernelRecord) -> impl Iterator<Item = ReportedVerdict<'a>> {
        happened.verdicts.by_cell().map(|(cell, kept)| ReportedVerdict::kept(kept, cell, &self.texts))
    }

    /// The verdict that a cell has so far.
    pub fn given_to<'a>(&'a self, happened: &'a KernelRecord, cell: &'a CellId) -> Option<ReportedVerdict<'a>> {
        let kept = happened.verdicts.get(cell)?;
        Some(ReportedVerdict::kept(kept, cell, &self.texts))
    }

    /// Every planned cell of a kernel with its verdict, including the kernel's [`rows`].
    pub fn verdicts_on<'a>(
        &'a self,
        kernel: &'a PlannedKernel,
        happened: Option<&'a KernelRecord>,
    ) -> impl Iterator<Item = (&'a PlannedCell, ReportedVerdict<'a>)> {
        let mut near = 0;
        rows::around(kernel).map(move |cell| (cell, self.told_near(happened, cell, &mut near)))
    }

    /// As [`Self::verdicts_on`], for all kernels in turn.
    pub fn verdicts(&self) -> impl Iterator<Item = (&PlannedKernel, &PlannedCell, ReportedVerdict<'_>)> {
        self.planned().flat_map(|(kernel, happened)| {
            self.verdicts_on(kernel, happened).map(move |(cell, verdict)| (kernel, cell, verdict))
        })
    }

    /// The listing of the rows and of the plan's cells.
    pub fn listing(&self) -> impl Iterator<Item = &CellInfo> {
        rows::infos().iter().chain(self.info.iter().flat_map(|info| &info.plan.cells))
    }

    /// Number of cells of a kernel by standing.
    pub fn counts_on(&self, kernel: &PlannedKernel, happened: Option<&KernelRecord>) -> Counts {
        let mut counts = Counts::default();
        self.verdicts_on(kernel, happened).for_each(|(_, verdict)| counts.add(verdict.standing()));
        counts
    }

    /// Number of cells of all kernels by standing.
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

    /// Kernels with cells that took much longer than recorded, with what was found.
    pub fn slow(&self) -> impl Iterator<Item = (&PlannedKernel, &Slow)> {
        self.planned().flat_map(|(kernel, happened)| {
            happened.into_iter().flat_map(|happened| &happened.slow).map(move |finding| (kernel, finding))
        })
    }

    /// Whether that fails the run.
    pub fn slow_fails(&self) -> bool {
        let wanted = self.info.as_ref().is_some_and(|info| info.slow_fails);
        wanted && self.slow().any(|(kernel, _)| !kernel.facts.may_fail)
    }

    /// Incomplete shards, one line each.
    pub fn lost_shards(&self) -> Vec<String> {
        self.info.iter().flat_map(|info| &info.merged).filter_map(MergedShard::problem).collect()
    }

    /// Times of the shards that the run was merged from, beside what was expected of them.
    pub fn shard_times(&self) -> Vec<ShardTime> {
        self.info.as_ref().map(|info| shard_times(&info.merged)).unwrap_or_default()
    }

    /// The exit status that follows from the verdicts. A panic or hang in a cell is a failure of the kernel; every other
    /// missing verdict is an infrastructure failure. If the run gave up on a kernel because too many guests crashed, these
    /// crashes are no verdicts. Kernels marked `may_fail` are reported but don't count.
    pub fn exit(&self) -> Exit {
        let expired = self.info.as_ref().is_some_and(|info| !info.expired.is_empty());
        let fails = !self.dead_cases().is_empty() || expired || self.slow_fails();
        let mut exit = if fails { Exit::Failed } else { Exit::Passed };
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

    /// The run's exit status. A killed run has none of its own, and a recorded pass is ignored if the verdicts contradict
    /// it: a line of its events may be missing.
    pub fn outcome(&self) -> Exit {
        match self.finished {
            Some((exit, _)) if exit != Exit::Passed => exit,
            _ => self.exit(),
        }
    }

    /// The command that runs a cell again; for a row, the command that runs the run's own cells on its kernel again. It calls
    /// the lab as it was called.
    pub fn repro(&self, kernel: &str, cell: &CellId) -> String {
        let call = self.call();
        if let Some(words) = self.info.as_ref().map(|info| &info.exec).filter(|words| !words.is_empty()) {
            let words: Vec<String> = words.iter().map(Raw::shown).collect();
            let (command, words) = match words.split_first() {
                Some((first, rest)) if [CHECK, KSELFTEST].contains(&&**first) => (&**first, rest),
                _ => ("exec", &*words),
            };
            let fixed = ["--kernel", kernel].into_iter().chain(words.iter().map(|word| &**word));
            return format!("{} {}", Call::begin(call, command), quoted(fixed));
        }
        let mut command = Call::begin(call, "run");
        let named = call.map(|call| &*call.kernel).filter(|words| !words.is_empty());
        let mut words = named.map_or_else(|| vec!["--kernel".to_owned(), kernel.to_owned()], <[String]>::to_vec);
        if rows::is_row(cell) {
            words.extend(call.into_iter().flat_map(|call| call.selection.clone()));
        } else {
            words.extend(["--case".to_owned(), cell.as_str().to_owned()]);
        }
        command += &format!(" {}", quoted(words.iter().map(|word| &**word)));
        if let Some(info) = &self.info {
            if info.canary {
                command += " --canary";
            }
            if let Some(mutant) = &info.mutant {
                command += &format!(" --mutant {}", quoted([&**mutant]));
            }
        }
        command
    }

    /// The command for a shell in a guest in which the cell is stopped before its first packet. `None` for a row, a canary,
    /// a mutant or a command, which `lab shell` does not support.
    pub fn enter(&self, kernel: &str, cell: &CellId) -> Option<String> {
        let spoiled =
            self.info.as_ref().is_some_and(|info| info.canary || info.mutant.is_some() || !info.exec.is_empty());
        // A shell enters kernels of kernels.toml only.
        let listed = self.call().is_none_or(|call| call.kernel.is_empty());
        (!spoiled && listed && !rows::is_row(cell))
            .then(|| format!("{} {}", Call::begin(self.call(), "shell"), quoted([kernel, "--case", cell.as_str()])))
    }

    fn call(&self) -> Option<&Call> {
        self.info.as_ref()?.provenance.call.as_ref().filter(|call| call.is_plain())
    }
}

fn never_ran(kernel: Option<&KernelRecord>, cell: &PlannedCell) -> Verdict {
    let message = match kernel.and_then(|kernel| kernel.running.as_ref()) {
        Some(running) if *running == cell.id => "the run ended while the cell was running",
        _ => "the run ended before the cell",
    };
    Verdict::bare(cell.id.clone(), Outcome::NotRun { message: message.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        event::Event,
        plan::Plan,
        synthetic,
        testing::{cell, facts, id},
    };
    use lab_protocol::FailureKind;

    #[test]
    fn a_recorded_pass_is_not_believed_where_a_verdict_contradicts_it() {
        let of = |outcome: Outcome, recorded: Option<Exit>| {
            let mut record = RunRecord::default();
            let plan = Plan::new(vec![facts("6.12", "6.12.43")], vec![cell("A01-x[tc,veth]")], true);
            let cell = plan.kernels[0].cells[0].id.clone();
            let mut events = vec![
                Event::RunStarted { run: Box::new(synthetic::run_info("run", plan)) },
                Event::CellFinished { kernel: id("6.12"), guest: 1, verdict: Box::new(Verdict::bare(cell, outcome)) },
            ];
            events.extend(recorded.map(|exit| Event::RunFinished { exit, wall_ms: 1 }));
            for event in events {
                record.apply(&Stamped { at_ms: 1, event });
            }
            record.outcome()
        };
        let failed = Outcome::Failed { kind: FailureKind::Check, message: "1, expected 2".to_owned() };
        assert_eq!(of(failed.clone(), Some(Exit::Passed)), Exit::Failed);
        assert_eq!(of(failed.clone(), None), Exit::Failed);
        assert_eq!(of(failed, Some(Exit::Interrupted(2))), Exit::Interrupted(2));
    }
}
