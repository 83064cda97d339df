//! Formats a finding as plain text with at most 100 columns, except for quoted text, for a mailing list.

use super::{BisectReport, percent};
use crate::bisect::posterior::Effect;
use std::fmt::Write;

pub(super) fn mail(report: &BisectReport) -> String {
    let mut out = String::new();
    // Writing to a string can't fail.
    let _ = write(report, &mut out);
    out
}

fn write(report: &BisectReport, out: &mut String) -> std::fmt::Result {
    let finding = &report.finding;
    let culprit = finding.suspects.first().filter(|_| finding.sure).map(|point| &report.names[*point]);
    let tag = match (report.failing, report.direction) {
        (false, _) => "[BISECTED] ",
        (true, Effect::Break) => "[REGRESSION] ",
        (true, Effect::Fix) => "[FIXED] ",
    };
    let since =
        culprit.map_or_else(|| "culprit not certain".to_owned(), |name| format!("{} {}", report.deed(), name.long));
    writeln!(out, "Subject: {tag}{}, {since}\n", report.question)?;
    writeln!(out, "Hello,\n")?;
    writeln!(out, "    {}", report.question)?;
    if let Some(promise) = &report.promise {
        writeln!(out, "    ({promise})")?;
    }
    match culprit {
        Some(name) => writeln!(
            out,
            "\n{} this {}, with {} confidence:\n",
            if report.direction == Effect::Break { "since" } else { "until" },
            report.unit,
            percent(finding.confidence)
        )
        .and_then(|()| indented(out, report.culprit.as_deref().unwrap_or(&name.long)))?,
        None => {
            let sure = if finding.confidence >= report.wanted { "It is" } else { "Not sure; it may be" };
            writeln!(out, "\n{sure} one of these {}s ({}):\n", report.unit, percent(finding.confidence))?;
            for point in &finding.suspects {
                writeln!(out, "    {}  {}", report.names[*point].short, report.names[*point].long)?;
            }
        }
    }
    if !report.failure.is_empty() {
        writeln!(out, "\nWhat was seen:\n")?;
        report.failure.iter().try_for_each(|text| indented(out, text))?;
    }
    writeln!(out, "\nSteps (runs with the failure, of runs with a result):\n")?;
    let rows = report.rows();
    let width = |of: fn(&super::StepRow) -> usize| rows.iter().map(of).max().unwrap_or_default();
    let (names, fails, marks) =
        (width(|row| row.name.len()), width(|row| row.fails.len()), width(|row| row.mark.len()));
    for row in &rows {
        let line = format!(
            "    {:2}  {:names$}  {:fails$}  {:marks$}  {}",
            row.step, row.name, row.fails, row.mark, row.remark
        );
        writeln!(out, "{}", line.trim_end())?;
    }
    let (with, without) = finding.rates;
    writeln!(
        out,
        "\nExpected share of runs with the failure: {} with the culprit, {} without.",
        percent(with),
        percent(without)
    )?;
    if let Some(revert) = report.revert() {
        writeln!(out, "Reverted: {revert}.")?;
    }
    report.notes.iter().try_for_each(|note| writeln!(out, "Note: {note}."))?;
    writeln!(out, "\nReproduce:\n")?;
    report.reproduce.iter().try_for_each(|line| writeln!(out, "    {line}"))?;
    writeln!(out)?;
    report.environment.iter().try_for_each(|(what, words)| writeln!(out, "{what}: {words}"))?;
    if let Some(log) = &report.log {
        writeln!(out, "\ngit bisect log:\n")?;
        indented(out, log)?;
    }
    if let Some(regzbot) = &report.regzbot {
        writeln!(out, "\n{regzbot}")?;
    }
    writeln!(out, "\n{}", report.last_lines())
}

fn indented(out: &mut String, text: &str) -> std::fmt::Result {
    text.lines().try_for_each(|line| writeln!(out, "{}", format!("    {line}").trim_end()))
}
