//! Shows a run in progress: bars on a terminal, plain lines elsewhere.

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use lab_base::{file::FileError, text};
use lab_protocol::Outcome;
use lab_record::{
    event::{Event, Stamped, Start},
    guest::KernelRecord,
    reporter::Reporter,
    run::RunRecord,
    verdict::{Standing, Verdict},
};
use std::{collections::BTreeMap, io::Write, time::Duration};

/// Maximum characters of a line.
const WIDTH: usize = 200;

/// Number of verdicts between two lines about a kernel's progress.
const STEP: usize = 50;

/// Maximum number of guests of a kernel whose start is shown: with a guest per case there are hundreds.
const TOLD_GUESTS: u32 = 3;

/// Which events have a line.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Detail {
    /// Only failures.
    Failures,
    /// Failures and progress.
    #[default]
    Usual,
    /// Also every cell that ends.
    Cells,
}

impl Detail {
    /// The line for an event, if it has one.
    fn line(self, event: &Event, record: &RunRecord) -> Option<String> {
        match (self, event) {
            (Self::Cells, Event::CellFinished { kernel, verdict, .. })
                if matches!(verdict.standing(), Standing::Passed | Standing::Skipped) =>
            {
                Some(verdict_line(kernel, verdict))
            }
            (Self::Failures, event) if !tells_a_failure(event) => None,
            _ => line(event, record),
        }
    }
}

fn tells_a_failure(event: &Event) -> bool {
    matches!(
        event,
        Event::CellFinished { .. }
            | Event::CellRetried { .. }
            | Event::Splat { .. }
            | Event::GuestEnded { .. }
            | Event::GuestLost { .. }
    )
}

/// How a cell ended.
fn verdict_line(kernel: &str, verdict: &Verdict) -> String {
    let word = if verdict.is_unexpected_pass() { "unexpected pass" } else { verdict.standing().word() };
    let cell = text::line(verdict.report.cell.as_str(), WIDTH);
    let message = text::line(&verdict.outcome.message(), WIDTH);
    let separator = if message.is_empty() { "" } else { ": " };
    format!("{kernel}: {word} {cell}{separator}{message}")
}

/// The line for an event, if it has one.
fn line(event: &Event, record: &RunRecord) -> Option<String> {
    Some(match event {
        Event::RunStarted { run } => {
            let cells: usize = run.plan.kernels.iter().map(|kernel| kernel.cells.len()).sum();
            let [cells, kernels] =
                [(cells, "cell"), (run.plan.kernels.len(), "kernel")].map(|(count, what)| text::count(count, what));
            let about = run.expected_ms.map_or_else(String::new, |ms| format!(", about {}", span(ms)));
            format!("run {}: {cells} on {kernels}, {}{about}", run.id, run.accelerator.name)
        }
        Event::GuestStarted { kernel, guest, start } => match start {
            Start::Boot => format!("{kernel}: booting guest {guest}"),
            Start::Snapshot => format!("{kernel}: booting guest {guest} for a snapshot"),
            // Restoring is too fast to be worth a line.
            Start::Restore | Start::Held => return None,
        },
        Event::Booted { guest, .. } if *guest > TOLD_GUESTS => return None,
        Event::Booted { kernel, release, boot_ms, .. } => {
            format!("{kernel}: {} booted in {:.1} s", text::line(release, 80), *boot_ms as f64 / 1e3)
        }
        Event::CellFinished { kernel, verdict, .. } => {
            let standing = verdict.standing();
            if matches!(standing, Standing::Passed | Standing::Skipped | Standing::NotRun)
                && !verdict.is_unexpected_pass()
            {
                return None;
            }
            verdict_line(kernel, verdict)
        }
        Event::CellAdopted { .. } => return None,
        Event::CellRetried { kernel, verdict, .. } => {
            let cell = text::line(verdict.report.cell.as_str(), WIDTH);
            let message = text::line(&verdict.outcome.message(), WIDTH);
            format!("{kernel}: {} {cell}: {message}; it will run again in a fresh guest", verdict.outcome.word())
        }
        Event::Splat { kernel, guest, moment, splat } => {
            let allowed = if splat.allowed.is_some() { " (allowed)" } else { "" };
            let title = text::line(&splat.title, WIDTH);
            format!("{kernel}: guest {guest}: splat {}{allowed}: {} {title}", moment.words(), splat.fingerprint)
        }
        Event::GuestEnded { problems, .. } if problems.is_empty() => return None,
        Event::GuestEnded { kernel, guest, problems, .. } => {
            format!("{kernel}: guest {guest} did not end cleanly: {}", text::line(&problems.join("; "), WIDTH))
        }
        Event::GuestLost { kernel, guest, kind, message, .. } => {
            format!("{kernel}: guest {guest} lost ({kind}): {}", text::line(message, WIDTH))
        }
        Event::Note { kernel, text: note } => format!("{kernel}: {}", text::line(note, WIDTH)),
        Event::Slow { kernel, finding } => format!("{kernel}: slow: {}", text::line(&finding.line(), WIDTH)),
        Event::KernelFinished { kernel, wall_ms, .. } => {
            let happened = record.kernels.get(kernel);
            // Cells that never ran also have a verdict, but do not count as done.
            let done = |happened: &KernelRecord| {
                happened.verdicts.values().filter(|verdict| verdict.standing() != Standing::NotRun).count()
            };
            let (cells, all) = happened.map_or((0, 0), |happened| (done(happened), happened.verdicts.len()));
            let cells = if cells == all {
                text::count(cells, "cell")
            } else {
                format!("{cells} of {}", text::count(all, "cell"))
            };
            let skips = happened.map_or_else(String::new, |happened| skips(record, happened));
            format!("{kernel}: {cells} done in {:.1} s{skips}", *wall_ms as f64 / 1e3)
        }
        Event::Topologies { .. }
        | Event::KernelStarted { .. }
        | Event::Probed { .. }
        | Event::CellStarted { .. }
        | Event::RunFinished { .. } => {
            return None;
        }
    })
}

/// The line for an event of a guest without cells: progress and failures.
pub fn of_visit(event: &Event) -> Option<String> {
    match event {
        Event::GuestLost { evidence, .. } => {
            let said = line(event, &RunRecord::default())?;
            Some(format!("{said}\n{}", text::block(evidence, 8 << 10)))
        }
        Event::GuestStarted { .. } | Event::Note { .. } => line(event, &RunRecord::default()),
        _ => None,
    }
}

/// Skipped cells by capability: the same reason may apply to hundreds of cells.
fn skips(record: &RunRecord, happened: &KernelRecord) -> String {
    let mut counts = BTreeMap::new();
    for verdict in record.given(happened).filter(|verdict| verdict.standing() == Standing::Skipped) {
        if let Outcome::Skipped { reason } = &verdict.outcome {
            *counts.entry((reason.capability, reason.lifted_by)).or_insert(0) += 1;
        }
    }
    let words =
        |((capability, version), count)| format!("{count} skipped without {capability} (kernel {version} has it)");
    let told: Vec<String> = counts.into_iter().map(words).collect();
    if told.is_empty() { String::new() } else { format!("; {}", told.join(", ")) }
}

/// A rough time in words.
fn span(ms: u64) -> String {
    match ms.div_ceil(1000) {
        seconds @ 0..100 => format!("{seconds} s"),
        seconds => format!("{} min", seconds.div_ceil(60)),
    }
}

/// The progress of a kernel, at every [`STEP`]th verdict, with the time that the rest takes at the speed so far.
fn milestone(event: &Event, record: &RunRecord, running_ms: Option<u64>) -> Option<String> {
    let Event::CellFinished { kernel, .. } = event else { return None };
    let verdicts = &record.kernels.get(kernel)?.verdicts;
    if verdicts.values().any(|verdict| verdict.standing() == Standing::NotRun) {
        return None;
    }
    let done = verdicts.len();
    let planned = record.planned().find(|(it, _)| it.facts.id == *kernel)?.0.cells.len();
    let left = running_ms.map_or_else(String::new, |ms| {
        format!(", about {} left", span(ms.saturating_mul((planned.saturating_sub(done)) as u64) / done.max(1) as u64))
    });
    (done % STEP == 0 && done < planned).then(|| format!("{kernel}: {done} of {planned} cells{left}"))
}

/// Plain lines for CI logs: failures and progress.
#[derive(Debug)]
pub struct PlainLines<W> {
    out: W,
    detail: Detail,
    /// When each kernel's first cell began, milliseconds since the epoch.
    began: BTreeMap<String, u64>,
}

impl<W: Write> PlainLines<W> {
    /// Writes lines to `out`.
    pub const fn new(out: W, detail: Detail) -> Self {
        Self { out, detail, began: BTreeMap::new() }
    }
}

impl<W: Write> Reporter for PlainLines<W> {
    fn event(&mut self, stamped: &Stamped, record: &RunRecord) -> Result<(), FileError> {
        let running_ms = match &stamped.event {
            Event::CellStarted { kernel, .. } | Event::CellFinished { kernel, .. } => {
                let began = *self.began.entry(kernel.to_string()).or_insert(stamped.at_ms);
                Some(stamped.at_ms.saturating_sub(began)).filter(|ms| *ms > 0)
            }
            _ => None,
        };
        let milestone =
            if self.detail == Detail::Failures { None } else { milestone(&stamped.event, record, running_ms) };
        for line in [self.detail.line(&stamped.event, record), milestone].into_iter().flatten() {
            // A closed pipe must not end a run whose reports are files.
            let _ = writeln!(self.out, "{line}");
        }
        Ok(())
    }
}

/// One bar per kernel; failures scroll above.
#[derive(Debug)]
pub struct Bars {
    screen: MultiProgress,
    detail: Detail,
    bars: BTreeMap<String, ProgressBar>,
}

impl Bars {
    /// Bars on standard error.
    pub fn new(detail: Detail) -> Self {
        Self { screen: MultiProgress::with_draw_target(ProgressDrawTarget::stderr()), detail, bars: BTreeMap::new() }
    }

    fn add(&mut self, record: &RunRecord) {
        let style = ProgressStyle::with_template(
            "{prefix:>12} [{elapsed_precise}] {wide_bar} {pos}/{len} {eta:>4} left {msg:40}",
        )
        .unwrap_or_else(|_| ProgressStyle::default_bar());
        for (kernel, _) in record.planned() {
            let bar = self.screen.add(ProgressBar::new(kernel.cells.len() as u64).with_style(style.clone()));
            bar.set_prefix(kernel.facts.id.to_string());
            bar.set_message("waiting");
            bar.enable_steady_tick(Duration::from_millis(250));
            self.bars.insert(kernel.facts.id.to_string(), bar);
        }
    }
}

impl Default for Bars {
    fn default() -> Self {
        Self::new(Detail::default())
    }
}

impl Reporter for Bars {
    fn event(&mut self, stamped: &Stamped, record: &RunRecord) -> Result<(), FileError> {
        let bar = |kernel: &str, act: &dyn Fn(&ProgressBar)| {
            if let Some(bar) = self.bars.get(kernel) {
                act(bar);
            }
        };
        match &stamped.event {
            Event::RunStarted { .. } => self.add(record),
            Event::GuestStarted { kernel, .. } => bar(kernel, &|bar| bar.set_message("booting")),
            Event::Booted { kernel, .. } => bar(kernel, &|bar| bar.set_message("probing")),
            Event::CellStarted { kernel, cell, .. } => {
                bar(kernel, &|bar| bar.set_message(text::line(cell.as_str(), 40)))
            }
            Event::CellFinished { kernel, .. } => bar(kernel, &|bar| bar.inc(1)),
            Event::CellAdopted { kernel, .. } => bar(kernel, &|bar| bar.inc_length(1)),
            Event::KernelFinished { kernel, .. } => bar(kernel, &|bar| bar.finish_with_message("done")),
            Event::RunFinished { .. } => drop(self.screen.clear()),
            Event::Topologies { .. }
            | Event::CellRetried { .. }
            | Event::Slow { .. }
            | Event::Splat { .. }
            | Event::GuestEnded { .. }
            | Event::KernelStarted { .. }
            | Event::Probed { .. }
            | Event::GuestLost { .. }
            | Event::Note { .. } => {}
        }
        let told = tells_a_failure(&stamped.event) || matches!(stamped.event, Event::Note { .. });
        if let Some(line) = self.detail.line(&stamped.event, record).filter(|_| told) {
            let _ = self.screen.println(line);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lab_protocol::{Capability, CellId, SkipReason};
    use lab_record::{
        testing::{id, passed},
        verdict::Verdict,
    };

    #[test]
    fn skips_are_summarised_by_reason() {
        let (record, mut happened) = (RunRecord::default(), KernelRecord::default());
        for name in ["A01-x[netkit]", "A02-x[netkit]", "A03-x[tcx]"] {
            let capability = if name.contains("tcx") { Capability::Tcx } else { Capability::Netkit };
            let lifted_by = capability.since().mainline;
            let outcome = Outcome::Skipped { reason: SkipReason { capability, detail: String::new(), lifted_by } };
            happened.verdicts.insert(&CellId(name.into()), Verdict::bare(CellId(name.into()), outcome).into());
        }
        assert_eq!(
            skips(&record, &happened),
            "; 1 skipped without tcx (kernel 6.6 has it), 2 skipped without netkit (kernel 6.7 has it)"
        );
    }

    #[test]
    fn a_time_is_rough() {
        assert_eq!([span(1), span(99_000), span(130_000)], ["1 s", "99 s", "3 min"]);
    }

    #[test]
    fn a_guest_cannot_write_to_the_terminal() {
        let verdict = Box::new(Verdict {
            outcome: Outcome::NotRun { message: String::new() },
            ..Verdict::bare(passed("A01-x", Vec::new()).cell, Outcome::Passed)
        });
        let events = [
            Event::Note { kernel: id("6.12"), text: "agent: \x1b[2J\nforged: passed".to_owned() },
            Event::CellFinished { kernel: id("6.12"), guest: 0, verdict },
        ];
        let mut out = Vec::new();
        let mut lines = PlainLines::new(&mut out, Detail::Usual);
        for event in events {
            lines.event(&Stamped { at_ms: 0, event }, &RunRecord::default()).unwrap();
        }
        assert_eq!(String::from_utf8(out).unwrap(), "6.12: agent: \\u{1b}[2J\\nforged: passed\n");
    }
}
