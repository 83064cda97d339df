//! KTAP version 1 (Documentation/dev-tools/ktap.rst): a test per kernel and a subtest per cell, for tools that read the
//! output of kselftest and KUnit.

use lab_base::text;
use lab_protocol::{ErrorKind, Outcome};
use lab_record::{
    excuse::Expired,
    rows,
    run::RunRecord,
    verdict::{Standing, Verdict},
};
use std::fmt::Write;

/// Maximum characters of a line.
const WIDTH: usize = 400;
/// Maximum lines of a cell that did not pass.
const LINES: usize = 60;

/// Texts by which kunit.py detects the end of a kernel log and stops reading, each with its replacement.
const ENDS: [(&str, &str); 3] = [
    ("List of all partitions:", "list of all partitions:"),
    ("Kernel panic - not syncing: VFS:", "kernel panic - not syncing: VFS:"),
    ("reboot: System halted", "reboot: system halted"),
];

/// A test line: its name, its result, and the text after the hash sign.
struct Line {
    ok: bool,
    name: String,
    data: String,
}

impl Line {
    fn write(&self, number: usize, indent: &str, out: &mut String) {
        let word = if self.ok { "ok" } else { "not ok" };
        let _ = write!(out, "{indent}{word} {number} {}", self.name);
        if !self.data.is_empty() {
            // kunit.py takes the last hash sign as the start of the directive.
            let _ = write!(out, " # {}", quoted(&self.data).replace('#', "_"));
        }
        out.push('\n');
    }
}

/// Formats the run as KTAP.
pub fn render(record: &RunRecord) -> String {
    let dead = record.dead_cases();
    let expired: Vec<&Expired> = record.info.iter().flat_map(|info| &info.expired).collect();
    let groups = record.planned().count() + usize::from(!dead.is_empty()) + usize::from(!expired.is_empty());
    let mut out = format!("KTAP version 1\n1..{groups}\n");
    for (number, (kernel, happened)) in (1..).zip(record.planned()) {
        let _ = writeln!(out, "  KTAP version 1\n  1..{}", rows::around(kernel).count());
        for line in happened.iter().flat_map(|it| it.losses.iter().chain(&it.notes)) {
            diagnostic(line, &mut out);
        }
        let mut ok = true;
        for (number, cell) in (1..).zip(rows::around(kernel)) {
            let verdict = record.verdict(happened, cell);
            let line = cell_line(cell.id.as_str(), &verdict);
            if !line.ok {
                told(&verdict, &mut out);
                let repro = record.repro(&kernel.facts.id, &cell.id);
                diagnostic(&repro, &mut out);
            }
            ok &= line.ok;
            line.write(number, "  ", &mut out);
        }
        let release = happened.and_then(|it| it.boot.as_ref()).map_or("did not boot", |boot| &*boot.release);
        let data = format!("kernel.release={}", text::line(release, WIDTH));
        Line { ok, name: name(&kernel.facts.id), data }.write(number, "", &mut out);
    }
    let dead = dead.iter().map(|case| (name(case), "no kernel of the matrix can run this case".to_owned()));
    let expired = expired.iter().map(|entry| (name(&format!("{}:{}", entry.file, entry.line)), entry.message()));
    let mut number = record.planned().count();
    for (group, lines) in [("matrix", dead.collect::<Vec<_>>()), ("lists", expired.collect())] {
        if !lines.is_empty() {
            number += 1;
            failures(group, number, lines, &mut out);
        }
    }
    out
}

/// A group for failures of the run outside of cells.
fn failures(group: &str, number: usize, lines: Vec<(String, String)>, out: &mut String) {
    let _ = writeln!(out, "  KTAP version 1\n  1..{}", lines.len());
    for (number, (name, data)) in (1..).zip(lines) {
        Line { ok: false, name, data }.write(number, "  ", out);
    }
    Line { ok: false, name: group.to_owned(), data: String::new() }.write(number, "", out);
}

/// Removes hash signs from a description: text after a hash sign would be read as a directive.
fn name(text: &str) -> String {
    text::line(text, WIDTH).replace('#', "_")
}

fn cell_line(id: &str, verdict: &Verdict) -> Line {
    let used: Vec<&str> = verdict.used().iter().map(|used| used.name()).collect();
    let attach = if used.is_empty() { String::new() } else { format!("attach.used={}", used.join("+")) };
    let message = text::line(&verdict.outcome.message(), WIDTH);
    let (ok, data) = match &verdict.outcome {
        // Neither a pass nor a failure that needs attention.
        _ if verdict.standing() == Standing::Known => (true, format!("SKIP known: {message}")),
        Outcome::Passed if !verdict.earlier.is_empty() => {
            (true, format!("flaky, {} attempts {attach}", verdict.earlier.len() + 1).trim().to_owned())
        }
        Outcome::Passed => (true, attach),
        Outcome::Skipped { .. } | Outcome::SkippedItself { .. } => (true, format!("SKIP {message}")),
        // A word in capitals after the hash sign would be read as a directive; the kind comes first and is lower case.
        Outcome::Failed { .. } => (false, format!("{message} {attach}").trim().to_owned()),
        Outcome::Errored { kind: ErrorKind::Hang, .. } => (false, format!("TIMEOUT {message}")),
        Outcome::Errored { .. } => (false, format!("ERROR {message}")),
        Outcome::NotRun { .. } => (false, format!("ERROR not run: {message}")),
    };
    Line { ok, name: name(id), data }
}

/// Diagnostic lines, which the format expects before the result line.
fn told(verdict: &Verdict, out: &mut String) {
    let checks = verdict.report.checks.iter().map(|check| {
        let mark = if check.ok { "ok  " } else { "FAIL" };
        format!("{mark} {}: {}", check.name, check.seen)
    });
    let evidence = verdict.evidence.iter().flat_map(|evidence| evidence.lines().map(str::to_owned));
    let lines = checks.chain(verdict.remarks()).chain(evidence);
    for line in lines.take(LINES) {
        diagnostic(&line, out);
    }
}

/// The bar prevents guest text from being read as `# Subtest:`.
fn diagnostic(line: &str, out: &mut String) {
    let _ = writeln!(out, "  # | {}", quoted(&text::line(line, WIDTH)));
}

fn quoted(text: &str) -> String {
    ENDS.iter().fold(text.to_owned(), |text, (end, harmless)| text.replace(end, harmless))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::record;

    #[test]
    fn a_test_per_kernel_and_a_subtest_per_cell() {
        insta::assert_snapshot!(render(&record()));
    }

    #[test]
    fn kernel_text_is_neither_a_directive_nor_an_end() {
        let outcome = Outcome::Failed {
            kind: lab_protocol::FailureKind::Check,
            message: "lost # SKIP reboot: System halted".to_owned(),
        };
        let verdict = Verdict::bare(lab_protocol::CellId("A01-x#1[tc]".into()), outcome);
        let mut out = String::new();
        cell_line("A01-x#1[tc]", &verdict).write(1, "", &mut out);
        assert_eq!(out, "not ok 1 A01-x_1[tc] # check: lost _ SKIP reboot: system halted\n");
    }
}
