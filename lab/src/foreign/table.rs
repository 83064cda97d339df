//! The table of a suite on several kernels, in which only the differences show.

use comfy_table::{ContentArrangement, Table, presets};
use lab_base::text::{self, count};
use lab_record::{
    rows,
    run::RunRecord,
    verdict::{Standing, Verdict},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    path::Path,
};

/// Columns of the table.
const WIDTH: u16 = 120;
/// Characters of a test's name and of a reason.
const NAME: usize = 70;
/// Characters of a reason.
const REASON: usize = 160;
/// Rows of the table.
const ROWS: usize = 100;

/// Tests that do not end the same on all kernels, with a column per kernel; then what fails on all of them, with its reason; then
/// counts.
pub fn differences(record: &RunRecord, directory: &Path) -> String {
    let kernels: Vec<&str> = record.planned().map(|(kernel, _)| &*kernel.facts.id).collect();
    let mut cells: BTreeMap<&str, BTreeMap<&str, Standing>> = BTreeMap::new();
    let mut order: Vec<&str> = Vec::new();
    let mut reasons: BTreeMap<&str, (String, BTreeSet<&str>)> = BTreeMap::new();
    let mut counts: BTreeMap<&str, BTreeMap<Standing, usize>> = BTreeMap::new();
    let mut skips: BTreeMap<String, BTreeSet<&str>> = BTreeMap::new();
    let mut guests = Vec::new();
    for (kernel, cell, verdict) in record.verdicts() {
        let (kernel, id, standing) = (&*kernel.facts.id, cell.id.as_str(), verdict.standing());
        if rows::is_row(&cell.id) {
            if standing.is_bad() {
                guests.push(format!("{kernel} {id}: {}", text::line(&verdict.outcome.message(), REASON)));
            }
            continue;
        }
        *counts.entry(kernel).or_default().entry(standing).or_default() += 1;
        let on = cells.entry(id).or_insert_with(|| {
            order.push(id);
            BTreeMap::new()
        });
        on.insert(kernel, standing);
        if standing.is_bad() || standing == Standing::Flaky {
            let told = reasons.entry(id).or_insert_with(|| (reason(&verdict), BTreeSet::new()));
            told.1.insert(kernel);
        }
        if standing == Standing::Skipped {
            skips.entry(text::line(&verdict.outcome.message(), REASON)).or_default().insert(id);
        }
    }
    let standing = |id: &str, kernel: &str| cells.get(id).and_then(|on| on.get(kernel).copied());
    let differs = |id: &&&str| kernels.windows(2).any(|pair| standing(id, pair[0]) != standing(id, pair[1]));
    let different: Vec<&&str> = order.iter().filter(differs).collect();
    let mut out = String::new();
    if kernels.len() > 1 && !different.is_empty() {
        let mut table = Table::new();
        table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic).set_width(WIDTH);
        table.set_header(std::iter::once("differs").chain(kernels.iter().copied()));
        for id in different.iter().take(ROWS) {
            let on = kernels.iter().map(|kernel| standing(id, kernel).map_or("-", Standing::word).to_owned());
            table.add_row(std::iter::once(text::line(id, NAME)).chain(on));
        }
        let _ = writeln!(out, "{table}\n");
        if different.len() > ROWS {
            let _ = writeln!(out, "and {} more\n", different.len() - ROWS);
        }
    }
    for id in order.iter().filter(|id| reasons.contains_key(*id)).take(ROWS) {
        let Some((reason, on)) = reasons.get(id) else { continue };
        let on: Vec<&str> = kernels.iter().copied().filter(|kernel| on.contains(kernel)).collect();
        let _ = writeln!(out, "{} ({}): {reason}", text::line(id, NAME), on.join(", "));
    }
    for (why, ids) in skips.iter().take(ROWS) {
        let why = if why.is_empty() { "no reason given" } else { why };
        let _ = writeln!(out, "skipped, {}: {why}", count(ids.len(), "test"));
    }
    guests.iter().for_each(|line| out += &format!("{line}\n"));
    if !out.is_empty() {
        out.push('\n');
    }
    let same = order.len() - if kernels.len() > 1 { different.len() } else { 0 };
    if kernels.len() > 1 {
        let _ = writeln!(out, "{} the same on all {} kernels, {} not", same, kernels.len(), different.len());
    }
    for kernel in &kernels {
        let words: Vec<String> = counts
            .get(kernel)
            .into_iter()
            .flatten()
            .map(|(standing, number)| format!("{number} {}", standing.word()))
            .collect();
        let _ = writeln!(out, "{kernel}: {}", words.join(", "));
    }
    let _ = writeln!(out, "{}: report.html, and each test's output below cells/", directory.display());
    out
}

fn reason(verdict: &Verdict) -> String {
    let mut reason = verdict.outcome.message();
    if let Some(first) = verdict.earlier.first() {
        reason = format!(
            "{} attempts; the first {}: {}",
            verdict.earlier.len() + 1,
            first.outcome.word(),
            first.outcome.message()
        );
    }
    if let Some(splat) = verdict.splats.first() {
        reason = format!("{reason} {}", splat.line());
    }
    text::line(reason.trim(), REASON)
}
