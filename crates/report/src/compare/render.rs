//! Formats a comparison.

use super::{ChangeKind, Comparison};
use clap::ValueEnum;
use lab_base::text;
use std::fmt::Write;

/// Maximum number of changes of a kind in text formats; JSON has all.
const MOST: usize = 50;
/// Maximum characters of a state.
const WIDTH: usize = 160;

/// Output format of a comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum CompareFormat {
    /// For a terminal.
    Text,
    /// For a job summary.
    Markdown,
    /// For programs.
    Json,
}

/// Writes a comparison.
pub fn render(comparison: &Comparison, format: CompareFormat) -> String {
    match format {
        CompareFormat::Text => listed(comparison, ["", ""], |change| {
            let [before, after] = [&change.before, &change.after].map(|it| text::line(it, WIDTH));
            format!(
                "  {} {}\n    before: {before}\n    after:  {after}\n",
                change.kernel,
                text::line(&change.cell, WIDTH)
            )
        }),
        CompareFormat::Markdown => listed(comparison, ["## ", "### "], |change| {
            let [cell, before, after] = [&change.cell, &change.before, &change.after].map(|it| code(it));
            format!("- {} {cell}: {before} → {after}\n", change.kernel)
        }),
        // A comparison is plain data: names and strings.
        CompareFormat::Json => serde_json::to_string_pretty(comparison).unwrap_or_default() + "\n",
    }
}

fn listed(comparison: &Comparison, [title, heading]: [&str; 2], row: impl Fn(&super::CellChange) -> String) -> String {
    let mut out = format!("{title}{} compared with {}\n\n", comparison.after, comparison.before);
    for new in &comparison.new_kernels {
        let mark = if title.is_empty() { "" } else { "- " };
        let _ = writeln!(out, "{mark}{new}");
    }
    if !comparison.new_kernels.is_empty() {
        out.push('\n');
    }
    for kind in ChangeKind::ALL {
        let of_kind: Vec<_> = comparison.changes.iter().filter(|change| change.kind == kind).collect();
        if of_kind.is_empty() {
            continue;
        }
        let _ = writeln!(out, "{heading}{}: {}", kind.words(), of_kind.len());
        of_kind.iter().take(MOST).for_each(|change| out.push_str(&row(change)));
        if of_kind.len() > MOST {
            let _ = writeln!(out, "  … and {} more", of_kind.len() - MOST);
        }
        out.push('\n');
    }
    let cells = |count| text::count(count, "cell");
    if !comparison.not_selected.is_empty() {
        let kernels = comparison.not_selected.iter().map(|(kernel, count)| format!("{kernel}: {}", cells(*count)));
        let kernels: Vec<String> = kernels.collect();
        let _ = writeln!(out, "not selected in the later run: {}\n", kernels.join(", "));
    }
    let verb = if comparison.unchanged == 1 { "is unchanged" } else { "are unchanged" };
    let _ = writeln!(out, "{} {verb}", cells(comparison.unchanged));
    out
}

/// Formats Markdown code; backticks are replaced, because they would end it.
fn code(words: &str) -> String {
    format!("`{}`", text::line(words, WIDTH).replace('`', "'"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::{CellChange, NewKernel, Predecessor};

    fn sample() -> Comparison {
        let change = |kind, cell: &str, before: &str, after: &str| CellChange {
            kind,
            kernel: "6.17".into(),
            cell: cell.into(),
            before: before.into(),
            after: after.into(),
            may_fail: false,
        };
        Comparison {
            version: 1,
            before: "20261119T020000Z-aaaaaa".into(),
            after: "20261120T020000Z-bbbbbb".into(),
            changes: vec![
                change(
                    ChangeKind::AttachChanged,
                    "D10-auto[auto,nk-l3]",
                    "passed by netkit in 90 ms",
                    "passed by tcx in 80 ms",
                ),
                change(
                    ChangeKind::Fixed,
                    "R03-x`y\u{1b}[2J",
                    "failed in 10 ms: check: lost",
                    "passed by netkit in 9 ms",
                ),
            ],
            new_kernels: vec![
                NewKernel {
                    kernel: "6.17".into(),
                    version: "6.17.13".into(),
                    predecessor: Some(Predecessor { kernel: "6.17".into(), version: "6.17.12".into() }),
                    differences: 1,
                    run_now: 0,
                },
                NewKernel {
                    kernel: "7.3.1".into(),
                    version: "7.3.1".into(),
                    predecessor: Some(Predecessor { kernel: "7.2.12".into(), version: "7.2.12".into() }),
                    differences: 0,
                    run_now: 12,
                },
                NewKernel {
                    kernel: "5.10".into(),
                    version: "5.10.262".into(),
                    predecessor: None,
                    differences: 0,
                    run_now: 0,
                },
            ],
            unchanged: 344,
            not_selected: [("6.1".to_owned(), 775), ("6.12".to_owned(), 1)].into(),
        }
    }

    #[test]
    fn text_for_a_terminal() {
        insta::assert_snapshot!(render(&sample(), CompareFormat::Text), @r"
        20261120T020000Z-bbbbbb compared with 20261119T020000Z-aaaaaa

        new kernel 6.17 (6.17.13): 1 difference from its predecessor 6.17 (6.17.12)
        new kernel 7.3.1: 0 differences from its predecessor 7.2.12; it runs 12 cells more
        new kernel 5.10 (5.10.262): no older one to compare it with

        attach type changed: 1
          6.17 D10-auto[auto,nk-l3]
            before: passed by netkit in 90 ms
            after:  passed by tcx in 80 ms

        fixed: 1
          6.17 R03-x`y\u{1b}[2J
            before: failed in 10 ms: check: lost
            after:  passed by netkit in 9 ms

        not selected in the later run: 6.1: 775 cells, 6.12: 1 cell

        344 cells are unchanged
        ");
    }

    #[test]
    fn markdown_for_a_job_summary() {
        insta::assert_snapshot!(render(&sample(), CompareFormat::Markdown), @r"
        ## 20261120T020000Z-bbbbbb compared with 20261119T020000Z-aaaaaa

        - new kernel 6.17 (6.17.13): 1 difference from its predecessor 6.17 (6.17.12)
        - new kernel 7.3.1: 0 differences from its predecessor 7.2.12; it runs 12 cells more
        - new kernel 5.10 (5.10.262): no older one to compare it with

        ### attach type changed: 1
        - 6.17 `D10-auto[auto,nk-l3]`: `passed by netkit in 90 ms` → `passed by tcx in 80 ms`

        ### fixed: 1
        - 6.17 `R03-x'y\u{1b}[2J`: `failed in 10 ms: check: lost` → `passed by netkit in 9 ms`

        not selected in the later run: 6.1: 775 cells, 6.12: 1 cell

        344 cells are unchanged
        ");
    }
}
