//! Formats a run for CI systems: a job summary in Markdown, and annotations in GitHub's log commands.

use super::{
    attached,
    stories::{Story, stories},
    totals::{self, Column},
};
use lab_base::text;
use lab_record::{run::RunRecord, verdict::Standing};
use std::{cmp::Reverse, fmt::Write};

/// Maximum number of failures: GitHub accepts a summary of 1 MiB.
const MAX_TOLD: usize = 200;
/// Maximum number of shards in the table of their times.
const MAX_SHARDS: usize = 40;
/// Maximum number of annotations: GitHub shows ten per step.
const MAX_ANNOTATIONS: usize = 10;
/// Maximum characters of a message.
const WIDTH: usize = 300;
/// Standings that need attention, in display order.
const BAD: [Standing; 3] = [Standing::Failed, Standing::Errored, Standing::NotRun];

/// Totals per kernel and attach type, and every failure, in Markdown.
pub fn markdown(record: &RunRecord) -> String {
    let mut out = String::new();
    let id = record.info.as_ref().map_or("a run without its first event", |info| &*info.id);
    let _ = writeln!(out, "## {}\n\n{}\n", text::line(id, WIDTH), record.counts().line());
    for (name, value) in record.info.iter().flat_map(|info| info.provenance.facts()) {
        let _ = writeln!(out, "- {name}: {}", code(&value));
    }
    out.push('\n');
    let titles = Column::ALL.map(Column::title).join(" | ");
    let _ = writeln!(out, "| kernel | release | {titles} |\n|---|---|--:|--:|--:|--:|--:|");
    for (kernel, release, columns) in totals::table(record) {
        let _ = writeln!(out, "| {kernel} | {} | {} |", code(&release), columns.join(" | "));
    }
    let _ = writeln!(out, "\n{}\n", totals::LEGEND);
    let attached = attached::across(record);
    if !attached.is_empty() {
        out.push_str("### Attached\n\n");
        attached.iter().for_each(|line| _ = writeln!(out, "- {}", code(line)));
        out.push('\n');
    }
    shards(record, &mut out);
    let without_cell: Vec<String> = outside(record);
    let stories = stories(record, &BAD);
    if without_cell.is_empty() && stories.is_empty() {
        out.push_str("No cell failed.\n");
        return out;
    }
    out.push_str("### Failures\n\n");
    for line in &without_cell {
        let _ = writeln!(out, "- {}", code(line));
    }
    for story in stories.iter().take(MAX_TOLD) {
        let (kernel, cell, _) = &story.first;
        let repro = record.repro(&kernel.facts.id, &cell.id);
        let also = story.also().map_or_else(String::new, |also| format!("; also {}", code(&also)));
        let _ = writeln!(
            out,
            "- {} {} {}: {}{also}; {}",
            story.standing.word(),
            kernel.facts.id,
            code(cell.id.as_str()),
            code(&story.message),
            code(&repro)
        );
    }
    if stories.len() > MAX_TOLD {
        let _ = writeln!(out, "- … and {} more, see junit.xml", stories.len() - MAX_TOLD);
    }
    out
}

/// What each shard took beside what was expected of it, the longest ones first.
fn shards(record: &RunRecord, out: &mut String) {
    let mut times = record.shard_times();
    times.sort_by_key(|time| Reverse(time.took_ms));
    let Some(longest) = times.first() else { return };
    let _ = writeln!(out, "### Shards\n\nThe longest of {} took {} s.\n", times.len(), longest.took_ms.div_ceil(1000));
    out.push_str("| shard | took | expected | |\n|---|--:|--:|---|\n");
    for time in times.iter().take(MAX_SHARDS) {
        let (took, expected) = (time.took_ms.div_ceil(1000), time.expected_ms.div_ceil(1000));
        let word = if time.straggles() { "straggler" } else { "" };
        let _ = writeln!(out, "| {} | {took} s | {expected} s | {word} |", time.part);
    }
    if times.len() > MAX_SHARDS {
        let _ = writeln!(out, "\n… and {} shorter ones", times.len() - MAX_SHARDS);
    }
    out.push('\n');
}

/// Failures of the run outside of cells.
fn outside(record: &RunRecord) -> Vec<String> {
    let expired = record.info.iter().flat_map(|info| &info.expired);
    let expired = expired.map(|entry| format!("{}:{}: {}", entry.file, entry.line, entry.message()));
    let dead = record.dead_cases().into_iter().map(|case| format!("{case}: no kernel of the full matrix can run it"));
    record.lost_shards().into_iter().chain(expired).chain(dead).collect()
}

/// `::error` lines, which GitHub shows beside the change; the last line has the number of omitted failures.
pub fn annotations(record: &RunRecord) -> String {
    let told: Vec<(String, String)> = outside(record)
        .into_iter()
        .map(|line| ("netkit-lab".to_owned(), line))
        .chain(stories(record, &BAD).iter().map(annotation))
        .collect();
    let shown = if told.len() > MAX_ANNOTATIONS { MAX_ANNOTATIONS - 1 } else { told.len() };
    let mut out = String::new();
    for (title, message) in &told[..shown] {
        let _ = writeln!(out, "::error title={}::{}", property(title), data(message));
    }
    if told.len() > shown {
        let more = text::count(told.len() - shown, "more failure");
        let _ = writeln!(out, "::error title=netkit-lab::{}", data(&format!("{more}: see the job summary")));
    }
    out
}

fn annotation(story: &Story<'_>) -> (String, String) {
    let (kernel, cell, _) = &story.first;
    let also = story.also().map_or_else(String::new, |also| format!("; also {also}"));
    let title = format!("{} {} {}", story.standing.word(), kernel.facts.id, cell.id);
    (title, format!("{}{also}", story.message))
}

/// Escapes the characters that would end a log command's message for GitHub's runner.
fn data(message: &str) -> String {
    text::line(message, WIDTH).replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A")
}

fn property(value: &str) -> String {
    data(value).replace(':', "%3A").replace(',', "%2C")
}

/// Formats Markdown code; backticks and vertical bars are replaced, because they would end the code or a table cell.
fn code(words: &str) -> String {
    format!("`{}`", text::line(words, WIDTH).replace('`', "'").replace('|', "¦"))
}
