//! Formats a finding as Markdown.

use super::{BisectReport, percent};
use comfy_table::{Table, presets};
use std::fmt::Write;

pub(super) fn markdown(report: &BisectReport) -> String {
    let mut out = String::new();
    // Writing to a string can't fail.
    let _ = write(report, &mut out);
    out
}

fn write(report: &BisectReport, out: &mut String) -> std::fmt::Result {
    let finding = &report.finding;
    writeln!(out, "# {}\n", plain(&report.question))?;
    if let Some(promise) = &report.promise {
        writeln!(out, "> {}\n", plain(promise))?;
    }
    for line in report.last_lines().lines() {
        writeln!(out, "- {}", plain(line))?;
    }
    let (with, without) = finding.rates;
    writeln!(
        out,
        "- expected share of runs with the failure: {} with the culprit, {} without",
        percent(with),
        percent(without)
    )?;
    if let Some(revert) = report.revert() {
        writeln!(out, "- reverted: {}", plain(&revert))?;
    }
    report.notes.iter().try_for_each(|note| writeln!(out, "- note: {}", plain(note)))?;
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN).set_header(["step", report.unit, "shows it", "mark", "remark"]);
    for row in report.rows() {
        table.add_row([row.step.to_string(), plain(&row.name), row.fails, row.mark, plain(&row.remark)]);
    }
    writeln!(out, "\n## Steps\n\n{table}")?;
    if let Some(culprit) = &report.culprit {
        writeln!(out, "\n## Culprit\n")?;
        code(out, culprit)?;
    }
    if !report.failure.is_empty() {
        writeln!(out, "\n## What was seen\n")?;
        code(out, &report.failure.join("\n"))?;
    }
    writeln!(out, "\n## Reproduce\n")?;
    code(out, &report.reproduce.join("\n"))?;
    writeln!(out)?;
    report.environment.iter().try_for_each(|(what, words)| writeln!(out, "- {what}: {}", plain(words)))?;
    if let Some(log) = &report.log {
        writeln!(out, "\n## git bisect log\n")?;
        code(out, log)?;
    }
    report.regzbot.iter().try_for_each(|line| writeln!(out, "\n`{line}`"))
}

/// A code block whose fence is longer than any fence in the text.
fn code(out: &mut String, text: &str) -> std::fmt::Result {
    let mut fence = "```".to_owned();
    while text.contains(&fence) {
        fence.push('`');
    }
    writeln!(out, "{fence}\n{}\n{fence}", text.trim_end())
}

/// Escapes Markdown in texts from commits and consoles.
fn plain(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        if matches!(c, '|' | '*' | '_' | '`' | '<' | '\\' | '#') {
            out.push('\\');
        }
        out.push(c);
    }
    out
}
