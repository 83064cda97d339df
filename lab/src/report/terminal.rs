//! The end of a run on the terminal: which attach type was used on which kernel, what failed and how to run it again.

use super::{
    directory::console,
    html, junit,
    record::{Counts, RunRecord, used},
};
use crate::{judge::Verdict, plan::PlannedCell, text};
use comfy_table::{CellAlignment, Table, presets};
use console::Style;
use lab_protocol::{AttachType, Outcome};
use std::{collections::BTreeMap, fmt::Write, path::Path};

/// Failures that are told in full; the rest is in junit.xml.
const MAX_TOLD: usize = 40;
/// Consoles of a kernel that are named one by one.
const MAX_CONSOLES: u32 = 4;
/// Characters of a reason.
const MAX_REASON: usize = 400;

/// Whether to colour. `console` alone knows nothing of `NO_COLOR`'s empty value and of files.
pub fn colours(is_terminal: bool, no_color: Option<&std::ffi::OsStr>, ci: bool) -> bool {
    is_terminal && no_color.is_none_or(std::ffi::OsStr::is_empty) && !ci
}

/// The attach type that a cell counts under: what the plan demands and the judge has checked; for a cell that is about
/// something else the one that the kernel reported; otherwise none.
fn column(cell: &PlannedCell, verdict: &Verdict) -> Option<AttachType> {
    cell.required.or_else(|| match used(verdict)[..] {
        [only] => Some(only),
        _ => None,
    })
}

/// Everything that is told when a run has ended; `directory` is where its reports are.
pub fn summary(record: &RunRecord, directory: &Path, colour: bool) -> String {
    let mut out = String::new();
    let style = Palette::new(colour);
    let _ = writeln!(out, "{}\n", table(record));
    let _ = writeln!(out, "{}", legend(record));
    failures(record, directory, &style, &mut out);
    paths(record, directory, &mut out);
    let counts = record.counts();
    let lost = record.lost_shards();
    for problem in &lost {
        let _ = writeln!(out, "{} {}\n", style.bad.apply_to("SHARD"), text::line(problem, MAX_REASON));
    }
    let bad = counts.failed + counts.errored + counts.not_run + record.dead_cases().len() + lost.len() > 0;
    let line = format!(
        "{} passed, {} failed, {} skipped, {} errored, {} not run",
        counts.passed, counts.failed, counts.skipped, counts.errored, counts.not_run
    );
    let painted = if bad { style.bad.apply_to(line) } else { style.good.apply_to(line) };
    let _ = writeln!(out, "{painted}");
    out
}

struct Palette {
    good: Style,
    bad: Style,
    dim: Style,
}

impl Palette {
    fn new(colour: bool) -> Self {
        let style = || Style::new().force_styling(colour);
        Self { good: style().green().bold(), bad: style().red().bold(), dim: style().dim() }
    }
}

/// Kernel by attach type; the counts are passed/failed/skipped/errored, where a cell that never ran is an error.
fn table(record: &RunRecord) -> Table {
    let columns = [Some(AttachType::Tc), Some(AttachType::Tcx), Some(AttachType::Netkit), None];
    let mut counts: BTreeMap<(&str, Option<AttachType>), Counts> = BTreeMap::new();
    for (kernel, cell, verdict) in record.verdicts() {
        counts.entry((&kernel.facts.id, column(cell, &verdict))).or_default().add(&verdict.outcome);
    }
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED);
    table.set_header(
        ["kernel".to_owned(), "release".to_owned()]
            .into_iter()
            .chain(columns.map(|column| column.map_or_else(|| "-".to_owned(), |attach| attach.to_string()))),
    );
    for (kernel, happened) in record.planned() {
        let release = happened.and_then(|it| it.boot.as_ref()).map_or("did not boot", |boot| &*boot.release);
        let mut row = vec![kernel.facts.id.clone(), text::line(release, 60)];
        row.extend(columns.map(|column| {
            counts.get(&(&*kernel.facts.id, column)).map_or_else(String::new, |counts| {
                let errored = counts.errored + counts.not_run;
                format!("{}/{}/{}/{errored}", counts.passed, counts.failed, counts.skipped)
            })
        }));
        table.add_row(row);
    }
    table.column_iter_mut().skip(2).for_each(|column| column.set_cell_alignment(CellAlignment::Right));
    table
}

fn legend(record: &RunRecord) -> String {
    let mut out = "passed/failed/skipped/errored per attach type; `-`: no attach type, or several devices\n".to_owned();
    if let Some(info) = &record.info {
        let accelerator = &info.accelerator;
        let _ = writeln!(out, "{}: {}", accelerator.name, text::line(&accelerator.reason, MAX_REASON));
        if let Some(shard) = &info.shard {
            let _ = writeln!(out, "shard {}: `lab merge` puts it together with the others", shard.part);
        }
        if let Some(mutant) = &info.mutant {
            let _ = writeln!(out, "mutant {}: this run is meant to fail", text::line(mutant, MAX_REASON));
        }
    }
    out
}

fn failures(record: &RunRecord, directory: &Path, style: &Palette, out: &mut String) {
    for case in record.dead_cases() {
        let _ = writeln!(
            out,
            "{} {}: no kernel of the full matrix can run it; add a kernel to kernels.toml or drop the case\n",
            style.bad.apply_to("DEAD CASE"),
            text::line(&case, MAX_REASON)
        );
    }
    let bad = record
        .verdicts()
        .filter(|(_, _, verdict)| matches!(verdict.outcome, Outcome::Failed { .. } | Outcome::Errored { .. }));
    let mut told = 0;
    for (kernel, cell, verdict) in bad {
        told += 1;
        if told > MAX_TOLD {
            continue;
        }
        let id = &kernel.facts.id;
        let word = verdict.outcome.word().to_uppercase();
        let _ = writeln!(out, "{} {id} {}", style.bad.apply_to(word), text::line(cell.id.as_str(), MAX_REASON));
        let _ = writeln!(out, "  {}", text::line(&verdict.outcome.message(), MAX_REASON));
        for warning in verdict.warnings.iter().take(3) {
            let _ = writeln!(out, "  {}", text::line(warning, MAX_REASON));
        }
        if let Some(home) = verdict.files.first().and_then(|file| Path::new(file).parent()) {
            let _ = writeln!(out, "  evidence: {}", directory.join(home).display());
        }
        let _ = writeln!(out, "  {}\n", style.dim.apply_to(record.repro(id, &cell.id)));
    }
    if told > MAX_TOLD {
        let _ = writeln!(out, "… and {} more, see junit.xml\n", told - MAX_TOLD);
    }
    not_run(record, style, out);
}

/// One line per kernel: the cells of a kernel that did not boot all have the same story.
fn not_run(record: &RunRecord, style: &Palette, out: &mut String) {
    let mut stories: BTreeMap<(&str, String), usize> = BTreeMap::new();
    for (kernel, _, verdict) in record.verdicts() {
        if let Outcome::NotRun { message } = &verdict.outcome {
            *stories.entry((&kernel.facts.id, message.clone())).or_default() += 1;
        }
    }
    for ((kernel, message), count) in stories {
        let _ = writeln!(out, "{} {kernel}: {count} cells", style.bad.apply_to("NOT RUN"));
        let _ = writeln!(out, "  {}\n", text::line(&message, MAX_REASON));
    }
}

fn paths(record: &RunRecord, directory: &Path, out: &mut String) {
    for file in [junit::FILE, html::FILE] {
        let _ = writeln!(out, "{}", directory.join(file).display());
    }
    for (kernel, happened) in record.planned() {
        let guests = happened.map_or(0, |happened| happened.guests);
        if guests > MAX_CONSOLES {
            let _ = writeln!(out, "{}", directory.join(&kernel.facts.id).display());
            continue;
        }
        for guest in 1..=guests {
            let _ = writeln!(out, "{}", directory.join(&kernel.facts.id).join(console(guest)).display());
        }
    }
}
