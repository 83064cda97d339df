//! The summary of a run on the terminal: attach types by kernel, failures, and commands to repeat them.

use super::{
    html, junit, splats,
    stories::stories,
    totals::{self, Column},
};
use crate::results::directory::console;
use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use console::Style;
use lab_base::text;
use lab_protocol::Outcome;
use lab_record::{run::RunRecord, verdict::Standing};
use std::{collections::BTreeMap, fmt::Write, path::Path};

/// Maximum number of failures; junit.xml has all.
const MAX_TOLD: usize = 40;
/// Maximum number of console names per kernel.
const MAX_CONSOLES: usize = 4;
/// Columns of the table and of the legend.
const WIDTH: u16 = 80;
/// Maximum characters of a reason.
const MAX_REASON: usize = 400;

/// The summary of a finished run; `directory` is the directory of its reports.
pub fn summary(record: &RunRecord, directory: &Path, colour: bool) -> String {
    let mut out = String::new();
    let style = Palette::new(colour);
    let _ = writeln!(out, "{}\n", table(record));
    let _ = writeln!(out, "{}", legend(record));
    failures(record, directory, &style, &mut out);
    excused(record, &style, &mut out);
    splats(record, &style, &mut out);
    slow(record, &style, &mut out);
    stragglers(record, &style, &mut out);
    paths(record, directory, &mut out);
    let counts = record.counts();
    let lost = record.lost_shards();
    for problem in &lost {
        let _ = writeln!(out, "{} {}\n", style.bad.apply_to("SHARD"), text::line(problem, MAX_REASON));
    }
    let expired = record.info.as_ref().map_or(0, |info| info.expired.len());
    let bad = counts.failed + counts.errored + counts.not_run + record.dead_cases().len() + lost.len() + expired > 0
        || record.slow_fails();
    let line = counts.line();
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

/// A table of kernels and attach types, no wider than a terminal: longer counts have several lines.
fn table(record: &RunRecord) -> Table {
    let mut table = Table::new();
    table
        .load_style(presets::UTF8_FULL_CONDENSED)
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_width(WIDTH);
    let titles = Column::ALL.map(|column| column.title().to_owned());
    table.set_header(["kernel".to_owned(), "release".to_owned()].into_iter().chain(titles));
    for (kernel, release, columns) in totals::table(record) {
        table.add_row([kernel, release].into_iter().chain(columns));
    }
    table.column_iter_mut().skip(2).for_each(|column| column.set_cell_alignment(CellAlignment::Right));
    table
}

/// Wraps text to the width of the table.
fn fold(words: &str) -> String {
    let mut lines: Vec<String> = Vec::new();
    for word in words.split(' ') {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= usize::from(WIDTH) => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines.join("\n")
}

fn legend(record: &RunRecord) -> String {
    let mut out = format!("{}\n", fold(totals::LEGEND));
    if let Some(info) = &record.info {
        let _ = writeln!(out, "{}", info.accelerator.brief());
        if let Some(commit) = info.provenance.commit_line() {
            let _ = writeln!(out, "commit {}", text::line(&commit, MAX_REASON));
        }
        let reused = record.verdicts().filter(|(_, _, verdict)| verdict.reused.is_some()).count();
        if reused > 0 {
            let verdicts = text::count(reused, "verdict");
            let _ = writeln!(out, "{verdicts} taken over from earlier runs (--reuse); nothing has changed for them");
        }
        if let Some(shard) = &info.shard {
            let _ = writeln!(out, "shard {}: `lab merge` combines it with the other shards", shard.part);
        }
        if let Some(mutant) = &info.mutant {
            let _ = writeln!(out, "mutant {}: this run is expected to fail", text::line(mutant, MAX_REASON));
        }
    }
    out
}

fn failures(record: &RunRecord, directory: &Path, style: &Palette, out: &mut String) {
    for case in record.dead_cases() {
        let _ = writeln!(
            out,
            "{} {}: no kernel of the full matrix can run it; add a kernel to kernels.toml or remove the case\n",
            style.bad.apply_to("DEAD CASE"),
            text::line(&case, MAX_REASON)
        );
    }
    let stories = stories(record, &[Standing::Failed, Standing::Errored]);
    for story in stories.iter().take(MAX_TOLD) {
        let (kernel, cell, verdict) = &story.first;
        let id = &kernel.facts.id;
        let word = story.standing.word().to_uppercase();
        let _ = writeln!(out, "{} {id} {}", style.bad.apply_to(word), text::line(cell.id.as_str(), MAX_REASON));
        let _ = writeln!(out, "  {}", text::line(&story.message, MAX_REASON));
        for remark in verdict.remarks().iter().take(3) {
            let _ = writeln!(out, "  {}", text::line(remark, MAX_REASON));
        }
        if let Some(also) = story.also() {
            let _ = writeln!(
                out,
                "  {} in total, also {}",
                text::count(story.others.len() + 1, "cell"),
                text::line(&also, MAX_REASON)
            );
        }
        if let Some(home) = verdict.files.first().and_then(|file| Path::new(&**file).parent()) {
            let _ = writeln!(out, "  evidence: {}", directory.join(home).display());
        }
        for command in std::iter::once(record.repro(id, &cell.id)).chain(record.enter(id, &cell.id)) {
            let _ = writeln!(out, "  {}", style.dim.apply_to(command));
        }
        out.push('\n');
    }
    if stories.len() > MAX_TOLD {
        let _ = writeln!(out, "… and {} more, see junit.xml\n", stories.len() - MAX_TOLD);
    }
    not_run(record, style, out);
}

/// Results that need attention but do not fail the run (flaky cells, known failures, unexpected passes), and
/// expired entries of the lists, which fail it.
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

/// Splats of the run, merged.
fn splats(record: &RunRecord, style: &Palette, out: &mut String) {
    let all = splats::splats(record);
    for splat in all.iter().take(MAX_TOLD) {
        let paint = if splat.allowed.is_some() { &style.dim } else { &style.bad };
        let title = text::line(&splat.title, MAX_REASON);
        let _ = writeln!(out, "{} {} {title}", paint.apply_to("SPLAT"), splat.fingerprint);
        let _ = writeln!(out, "  {}", text::line(&splat.sightings(), MAX_REASON));
        if !splat.suspects.is_empty() {
            let _ = writeln!(out, "  suspects: {}", text::line(&splat.suspects.join(", "), MAX_REASON));
        }
        if let Some(allowed) = &splat.allowed {
            let _ = writeln!(out, "  allowed {}", text::line(&allowed.line(), MAX_REASON));
        }
        out.push('\n');
    }
    if all.len() > MAX_TOLD {
        let _ = writeln!(out, "… and {} more, see run.json\n", all.len() - MAX_TOLD);
    }
}

/// Kernels that are slower than recorded, which fails a run only if that was asked for.
fn slow(record: &RunRecord, style: &Palette, out: &mut String) {
    let paint = if record.slow_fails() { &style.bad } else { &style.warn };
    for (kernel, finding) in record.slow().take(MAX_TOLD) {
        let id = &kernel.facts.id;
        let _ = writeln!(out, "{} {id} {}\n", paint.apply_to("SLOW"), text::line(&finding.line(), MAX_REASON));
    }
}

/// Shards that everybody waited for, which fails no run.
fn stragglers(record: &RunRecord, style: &Palette, out: &mut String) {
    for time in record.shard_times().iter().filter(|time| time.straggles()).take(MAX_TOLD) {
        let _ = writeln!(out, "{} {}\n", style.warn.apply_to("STRAGGLER"), time.line());
    }
}

/// One line per kernel: cells of a kernel that did not boot have the same reason.
fn not_run(record: &RunRecord, style: &Palette, out: &mut String) {
    let mut stories: BTreeMap<(&str, String), usize> = BTreeMap::new();
    for (kernel, _, verdict) in record.verdicts().filter(|(_, _, verdict)| verdict.standing() == Standing::NotRun) {
        if let Outcome::NotRun { message } = &verdict.outcome {
            *stories.entry((&kernel.facts.id, message.clone())).or_default() += 1;
        }
    }
    for ((kernel, message), count) in stories {
        let _ = writeln!(out, "{} {kernel}: {}", style.bad.apply_to("NOT RUN"), text::count(count, "cell"));
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
