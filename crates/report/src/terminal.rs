//! The end of a run on the terminal: which attach type was used on which kernel, what failed and how to run it again.

use super::{complaints::complaints, html, junit};
use crate::results::directory::console;
use comfy_table::{CellAlignment, Table, presets};
use console::Style;
use lab_base::text;
use lab_protocol::{AttachType, Outcome};
use lab_record::{
    plan::PlannedCell,
    rows,
    run::{Counts, RunRecord, used},
    verdict::{Standing, Verdict},
};
use std::{collections::BTreeMap, fmt::Write, path::Path};

/// Failures that are told in full; the rest is in junit.xml.
const MAX_TOLD: usize = 40;
/// Consoles of a kernel that are named one by one.
const MAX_CONSOLES: usize = 4;
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
    excused(record, &style, &mut out);
    splats(record, &style, &mut out);
    paths(record, directory, &mut out);
    let counts = record.counts();
    let lost = record.lost_shards();
    for problem in &lost {
        let _ = writeln!(out, "{} {}\n", style.bad.apply_to("SHARD"), text::line(problem, MAX_REASON));
    }
    let expired = record.info.as_ref().map_or(0, |info| info.expired.len());
    let bad = counts.failed + counts.errored + counts.not_run + record.dead_cases().len() + lost.len() + expired > 0;
    let some = |count: usize, word: &str| if count > 0 { format!(", {count} {word}") } else { String::new() };
    let line = format!(
        "{} passed{}{}, {} failed, {} skipped, {} errored, {} not run",
        counts.passed,
        some(counts.flaky, "flaky"),
        some(counts.known, "known"),
        counts.failed,
        counts.skipped,
        counts.errored,
        counts.not_run
    );
    let painted = if bad { style.bad.apply_to(line) } else { style.good.apply_to(line) };
    let _ = writeln!(out, "{painted}");
    out
}

struct Palette {
    good: Style,
    bad: Style,
    warn: Style,
    dim: Style,
}

impl Palette {
    fn new(colour: bool) -> Self {
        let style = || Style::new().force_styling(colour);
        Self {
            good: style().green().bold(),
            bad: style().red().bold(),
            warn: style().yellow().bold(),
            dim: style().dim(),
        }
    }
}

/// A column of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Column {
    Attach(AttachType),
    Other,
    /// The rows that every kernel has.
    Guest,
}

impl Column {
    const ALL: [Self; 5] = [
        Self::Attach(AttachType::Tc),
        Self::Attach(AttachType::Tcx),
        Self::Attach(AttachType::Netkit),
        Self::Other,
        Self::Guest,
    ];

    fn of(cell: &PlannedCell, verdict: &Verdict) -> Self {
        if rows::is_row(&cell.id) { Self::Guest } else { column(cell, verdict).map_or(Self::Other, Self::Attach) }
    }

    fn title(self) -> &'static str {
        match self {
            Self::Attach(attach) => attach.name(),
            Self::Other => "-",
            Self::Guest => "guest",
        }
    }
}

/// Kernel by attach type; the counts are passed/failed/skipped/errored, where a cell that never ran is an error.
fn table(record: &RunRecord) -> Table {
    let columns = Column::ALL;
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED);
    table.set_header(
        ["kernel".to_owned(), "release".to_owned()].into_iter().chain(columns.map(|column| column.title().to_owned())),
    );
    for (kernel, happened) in record.planned() {
        let release = happened.and_then(|it| it.boot.as_ref()).map_or("did not boot", |boot| &*boot.release);
        let mut counts: BTreeMap<Column, Counts> = BTreeMap::new();
        for (cell, verdict) in record.verdicts_on(kernel, happened) {
            counts.entry(Column::of(cell, &verdict)).or_default().add(verdict.standing());
        }
        let mut row = vec![kernel.facts.id.clone(), text::line(release, 60)];
        row.extend(columns.map(|column| {
            counts.get(&column).map_or_else(String::new, |counts| {
                let (passed, skipped) = (counts.passed + counts.flaky, counts.skipped + counts.known);
                format!("{passed}/{}/{skipped}/{}", counts.failed, counts.errored + counts.not_run)
            })
        }));
        table.add_row(row);
    }
    table.column_iter_mut().skip(2).for_each(|column| column.set_cell_alignment(CellAlignment::Right));
    table
}

fn legend(record: &RunRecord) -> String {
    let mut out =
        "passed/failed/skipped/errored per attach type; `-`: no attach type, or several devices; `guest`: boot, \
                   splat, teardown\n"
            .to_owned();
    let counts = record.counts();
    if counts.flaky + counts.known > 0 {
        out += "flaky cells are among the passed, known failures among the skipped\n";
    }
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
    let bad =
        record.verdicts().filter(|(_, _, verdict)| matches!(verdict.standing(), Standing::Failed | Standing::Errored));
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
        for remark in verdict.remarks().iter().take(3) {
            let _ = writeln!(out, "  {}", text::line(remark, MAX_REASON));
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

/// What fails nothing and is worth a look: flaky cells, known failures, passes that nobody expected; and the lists'
/// entries whose day has passed, which do fail.
fn excused(record: &RunRecord, style: &Palette, out: &mut String) {
    for entry in record.info.iter().flat_map(|info| &info.expired) {
        let place = format!("{}:{}", entry.file, entry.line);
        let _ =
            writeln!(out, "{} {place}: {}\n", style.bad.apply_to("EXPIRED"), text::line(&entry.message(), MAX_REASON));
    }
    let mut told = 0;
    for (kernel, cell, verdict) in record.verdicts().filter(|(_, _, verdict)| !verdict.is_plain()) {
        let word = match verdict.standing() {
            Standing::Flaky => "FLAKY",
            Standing::Known => "KNOWN",
            _ if verdict.is_unexpected_pass() => "UNEXPECTED PASS",
            _ => continue,
        };
        told += 1;
        if told > MAX_TOLD {
            continue;
        }
        let cell = text::line(cell.id.as_str(), MAX_REASON);
        let _ = writeln!(out, "{} {} {cell}", style.warn.apply_to(word), kernel.facts.id);
        let message = verdict.outcome.message();
        for line in (!message.is_empty()).then_some(message).into_iter().chain(verdict.remarks()).take(4) {
            let _ = writeln!(out, "  {}", text::line(&line, MAX_REASON));
        }
        out.push('\n');
    }
    if told > MAX_TOLD {
        let _ = writeln!(out, "… and {} more, see run.json\n", told - MAX_TOLD);
    }
}

/// What the kernels complained of, each once.
fn splats(record: &RunRecord, style: &Palette, out: &mut String) {
    let all = complaints(record);
    for complaint in all.iter().take(MAX_TOLD) {
        let paint = if complaint.allowed.is_some() { &style.dim } else { &style.bad };
        let title = text::line(&complaint.title, MAX_REASON);
        let _ = writeln!(out, "{} {} {title}", paint.apply_to("SPLAT"), complaint.fingerprint);
        let _ = writeln!(out, "  {}", text::line(&complaint.sightings(), MAX_REASON));
        if !complaint.suspects.is_empty() {
            let _ = writeln!(out, "  suspects: {}", text::line(&complaint.suspects.join(", "), MAX_REASON));
        }
        if let Some(allowed) = &complaint.allowed {
            let _ = writeln!(out, "  allowed {}", text::line(&allowed.line(), MAX_REASON));
        }
        out.push('\n');
    }
    if all.len() > MAX_TOLD {
        let _ = writeln!(out, "… and {} more, see run.json\n", all.len() - MAX_TOLD);
    }
}

/// One line per kernel: the cells of a kernel that did not boot all have the same story.
fn not_run(record: &RunRecord, style: &Palette, out: &mut String) {
    let mut stories: BTreeMap<(&str, String), usize> = BTreeMap::new();
    for (kernel, _, verdict) in record.verdicts().filter(|(_, _, verdict)| verdict.standing() == Standing::NotRun) {
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
        let guests = happened.into_iter().flat_map(|happened| happened.guests.keys().copied());
        let guests: Vec<u32> = guests.collect();
        if guests.len() > MAX_CONSOLES {
            let _ = writeln!(out, "{}", directory.join(&kernel.facts.id).display());
            continue;
        }
        for guest in guests {
            let _ = writeln!(out, "{}", directory.join(&kernel.facts.id).join(console(guest)).display());
        }
    }
}
