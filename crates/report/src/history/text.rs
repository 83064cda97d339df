//! Formats a cell's history for a terminal: a row with a character per run, and a line for every change.

use super::{History, Point, Series};
use lab_base::text;
use lab_record::verdict::Standing;
use std::fmt::Write;

/// Maximum characters of a reason.
const WIDTH: usize = 160;

/// The character of a standing, one column wide.
const fn sign(standing: Standing) -> char {
    match standing {
        Standing::Passed => '✓',
        Standing::Flaky => '≈',
        Standing::Known => '•',
        Standing::Failed => '✗',
        Standing::Skipped => '–',
        Standing::Errored => '!',
        Standing::NotRun => '?',
    }
}

fn attach(point: &Point) -> String {
    let names: Vec<&str> = point.attach.iter().map(|attach| attach.name()).collect();
    names.join("+")
}

/// Formats the history.
pub fn render(history: &History) -> String {
    let mut out = String::new();
    let (Some(first), Some(last)) = (history.runs.first(), history.runs.last()) else {
        return "no runs\n".to_owned();
    };
    let _ = writeln!(out, "{} runs, {} to {}", history.runs.len(), first.id, last.id);
    let mut cell = "";
    for series in sorted(history) {
        if series.cell != cell {
            cell = &series.cell;
            let _ = writeln!(out, "\n{}", text::line(cell, WIDTH));
        }
        one(history, series, &mut out);
    }
    out.push_str("\n✓ passed, ≈ flaky, • known, ✗ failed, – skipped, ! errored, ? not run, · not in the plan\n");
    out
}

/// Sorted by cell, then by kernel, because users usually ask for a case.
fn sorted(history: &History) -> Vec<&Series> {
    let mut all: Vec<&Series> = history.series.iter().collect();
    all.sort_by(|a, b| (&a.cell, &a.kernel).cmp(&(&b.cell, &b.kernel)));
    all
}

fn one(history: &History, series: &Series, out: &mut String) {
    let strip: String = series.points.iter().map(|it| it.as_ref().map_or('·', |point| sign(point.standing))).collect();
    let last = series.known().last().map(|(_, point)| attach(point)).unwrap_or_default();
    let time = series.median_ms().map_or_else(String::new, |ms| format!("  median {ms} ms"));
    let _ = writeln!(out, "  {:8} {strip}  {last}{time}", series.kernel);
    let mut before: Option<&Point> = None;
    for (at, point) in series.known() {
        let changed = before.is_none_or(|it| it.standing != point.standing || it.attach != point.attach);
        // The first result gets a line only if it was bad.
        if changed && (before.is_some() || point.standing.is_bad()) {
            let by = if point.attach.is_empty() { String::new() } else { format!(" by {}", attach(point)) };
            let why = if point.message.is_empty() { String::new() } else { format!(": {}", point.message) };
            let why = text::line(&why, WIDTH);
            let _ = writeln!(out, "           {} {}{by}{why}", history.runs[at].id, point.standing.word());
        }
        before = Some(point);
    }
}
