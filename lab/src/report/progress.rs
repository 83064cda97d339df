//! A run while it runs: bars on a terminal, plain lines elsewhere.

use super::{Reporter, record::RunRecord};
use crate::{
    error::Error,
    event::{Event, Stamped},
    text,
};
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use lab_protocol::Outcome;
use std::{collections::BTreeMap, io::Write, time::Duration};

/// Characters of a line.
const WIDTH: usize = 200;

/// The line that an event is worth, if any. `verbose` tells passed and skipped cells too.
fn line(event: &Event, record: &RunRecord, verbose: bool) -> Option<String> {
    Some(match event {
        Event::RunStarted { run } => {
            let cells: usize = run.plan.kernels.iter().map(|kernel| kernel.cells.len()).sum();
            format!("run {}: {cells} cells on {} kernels, {}", run.id, run.plan.kernels.len(), run.accelerator.name)
        }
        Event::GuestStarted { kernel, guest } => format!("{kernel}: booting guest {guest}"),
        Event::Booted { kernel, release, boot_ms, .. } => {
            format!("{kernel}: {} up after {:.1} s", text::line(release, 80), *boot_ms as f64 / 1e3)
        }
        Event::CellFinished { kernel, verdict, .. } => {
            let quiet = matches!(verdict.outcome, Outcome::Passed | Outcome::Skipped { .. });
            if quiet && !verbose || matches!(verdict.outcome, Outcome::NotRun { .. }) {
                return None;
            }
            let word = verdict.outcome.word();
            let cell = text::line(verdict.report.cell.as_str(), WIDTH);
            let message = text::line(&verdict.outcome.message(), WIDTH);
            let separator = if message.is_empty() { "" } else { ": " };
            format!("{kernel}: {word} {cell}{separator}{message}")
        }
        Event::GuestLost { kernel, guest, kind, message, .. } => {
            format!("{kernel}: guest {guest} lost ({kind}): {}", text::line(message, WIDTH))
        }
        Event::Note { kernel, text: note } => format!("{kernel}: {}", text::line(note, WIDTH)),
        Event::KernelFinished { kernel, wall_ms, .. } => {
            let cells = record.kernels.get(kernel).map_or(0, |happened| happened.verdicts.len());
            format!("{kernel}: {cells} cells done in {:.1} s", *wall_ms as f64 / 1e3)
        }
        Event::KernelStarted { .. } | Event::Probed { .. } | Event::CellStarted { .. } | Event::RunFinished { .. } => {
            return None;
        }
    })
}

/// Plain lines, one per event that matters: for CI logs, where every cell is worth a line.
#[derive(Debug)]
pub struct Lines<W> {
    out: W,
}

impl<W: Write> Lines<W> {
    /// Lines into `out`.
    pub const fn new(out: W) -> Self {
        Self { out }
    }
}

impl<W: Write> Reporter for Lines<W> {
    fn event(&mut self, stamped: &Stamped, record: &RunRecord) -> Result<(), Error> {
        if let Some(line) = line(&stamped.event, record, true) {
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
    bars: BTreeMap<String, ProgressBar>,
}

impl Bars {
    /// Bars on standard error.
    pub fn new() -> Self {
        Self { screen: MultiProgress::with_draw_target(ProgressDrawTarget::stderr()), bars: BTreeMap::new() }
    }

    fn add(&mut self, record: &RunRecord) {
        let style = ProgressStyle::with_template("{prefix:>12} [{elapsed_precise}] {wide_bar} {pos}/{len} {msg:40}")
            .unwrap_or_else(|_| ProgressStyle::default_bar());
        for (kernel, _) in record.planned() {
            let bar = self.screen.add(ProgressBar::new(kernel.cells.len() as u64).with_style(style.clone()));
            bar.set_prefix(kernel.facts.id.clone());
            bar.set_message("waiting");
            bar.enable_steady_tick(Duration::from_millis(250));
            self.bars.insert(kernel.facts.id.clone(), bar);
        }
    }
}

impl Default for Bars {
    fn default() -> Self {
        Self::new()
    }
}

impl Reporter for Bars {
    fn event(&mut self, stamped: &Stamped, record: &RunRecord) -> Result<(), Error> {
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
            Event::KernelFinished { kernel, .. } => bar(kernel, &|bar| bar.finish_with_message("done")),
            Event::RunFinished { .. } => drop(self.screen.clear()),
            Event::KernelStarted { .. } | Event::Probed { .. } | Event::GuestLost { .. } | Event::Note { .. } => {}
        }
        let told = matches!(stamped.event, Event::CellFinished { .. } | Event::GuestLost { .. } | Event::Note { .. });
        if let Some(line) = line(&stamped.event, record, false).filter(|_| told) {
            let _ = self.screen.println(line);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{judge::Verdict, testing::passed};

    #[test]
    fn a_guest_cannot_write_to_the_terminal() {
        let verdict = Box::new(Verdict {
            outcome: Outcome::NotRun { message: String::new() },
            ..Verdict::bare(passed("A01-x", Vec::new()).cell, Outcome::Passed)
        });
        let events = [
            Event::Note { kernel: "6.12".to_owned(), text: "agent: \x1b[2J\nforged: passed".to_owned() },
            Event::CellFinished { kernel: "6.12".to_owned(), guest: 0, verdict },
        ];
        let mut out = Vec::new();
        let mut lines = Lines::new(&mut out);
        for event in events {
            lines.event(&Stamped { at_ms: 0, event }, &RunRecord::default()).unwrap();
        }
        assert_eq!(String::from_utf8(out).unwrap(), "6.12: agent: \\u{1b}[2J\\nforged: passed\n");
    }
}
