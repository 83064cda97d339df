//! The table of a command on several kernels.

use comfy_table::{ContentArrangement, Table, presets};
use lab_base::text;
use lab_record::{
    rows,
    run::RunRecord,
    verdict::{Standing, Verdict},
};
use lab_report::attached;
use std::{collections::BTreeMap, path::Path};

/// Columns of the table.
const WIDTH: u16 = 100;
/// Characters of a reason.
const REASON: usize = 120;

/// One line per kernel and stage: the verdict, the exit code, what was written, and where it is kept.
pub fn table(record: &RunRecord, directory: &Path) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic).set_width(WIDTH);
    table.set_header(["kernel", "", "verdict", "code", "s", "stdout", "stderr", ""]);
    for (kernel, cell, verdict) in record.verdicts().filter(|(_, cell, _)| !rows::is_row(&cell.id)) {
        let variant = cell.id.as_str().split_once('[').map_or("", |(_, variant)| variant.trim_end_matches(']'));
        let end = verdict.report.program.as_ref();
        let bytes = |count: Option<u64>| count.map_or_else(String::new, bytes);
        table.add_row([
            kernel.facts.id.to_string(),
            variant.to_owned(),
            verdict.standing().word().to_owned(),
            end.map_or_else(String::new, |end| end.how.code().to_string()),
            format!("{:.1}", verdict.report.duration_us as f64 / 1e6),
            bytes(end.map(|end| end.output)),
            bytes(end.map(|end| end.errors)),
            reason(&verdict),
        ]);
    }
    let mut out = format!("{table}\n\n");
    for (kernel, cell, row) in
        record.verdicts().filter(|(_, cell, row)| rows::is_row(&cell.id) && row.standing().is_bad())
    {
        out += &format!("{} {}: {}\n", kernel.facts.id, cell.id, text::line(&row.outcome.message(), REASON));
    }
    let attached = attached::across(record);
    if !attached.is_empty() {
        out += "attached, as the kernel has it:\n";
        attached.iter().for_each(|line| out += &format!("  {line}\n"));
        out.push('\n');
    }
    let mut counts: BTreeMap<Standing, usize> = BTreeMap::new();
    for (_, _, verdict) in record.verdicts().filter(|(_, cell, _)| !rows::is_row(&cell.id)) {
        *counts.entry(verdict.standing()).or_default() += 1;
    }
    let counts: Vec<String> = counts.iter().map(|(standing, count)| format!("{count} {}", standing.word())).collect();
    let place = directory.display();
    out += &format!("{place}: report.html, and each kernel's output below cells/\n{}\n", counts.join(", "));
    out
}

fn bytes(count: u64) -> String {
    match count {
        0..10_240 => format!("{count} B"),
        10_240..10_485_760 => format!("{} KiB", count >> 10),
        _ => format!("{} MiB", count >> 20),
    }
}

fn reason(verdict: &Verdict) -> String {
    let mut reason = text::line(&verdict.outcome.message(), REASON);
    if let Some(splat) = verdict.splats.first() {
        reason = format!("{reason} {}", splat.line());
    }
    reason.trim().to_owned()
}
