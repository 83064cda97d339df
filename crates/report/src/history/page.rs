//! The trend page: one self-contained file about many runs, with changes and unreliable cells.

use super::{History, Point, Series};
use crate::html;
use lab_base::text;
use lab_protocol::AttachType;
use lab_record::verdict::Standing;
use serde::Serialize;
use std::{cmp::Reverse, collections::BTreeMap, io};

/// File name of the page.
pub const FILE: &str = "trend.html";
/// Maximum number of cells on the page; cells with recent changes come first.
const MOST_CELLS: usize = 400;
/// Maximum number of slower cells.
const MOST_SLOWER: usize = 20;
/// Minimum factor of a slower cell …
const SLOWER: f64 = 1.5;
/// … and minimum difference, milliseconds.
const SLOWER_MS: u64 = 200;
/// Maximum characters of a reason.
const WIDTH: usize = 300;

const PAGE: &str = include_str!("trend.html");
const SCRIPT: &str = include_str!("trend.js");

#[derive(Serialize)]
struct Page<'a> {
    runs: Vec<Run<'a>>,
    cells: usize,
    steady: usize,
    unsteady: Vec<Row<'a>>,
    slower: Vec<Slower<'a>>,
}

#[derive(Serialize)]
struct Run<'a> {
    id: &'a str,
    started_ms: u64,
    wall_ms: Option<u64>,
    exit: u8,
    standings: BTreeMap<&'static str, usize>,
    /// Number of cells whose standing or attach type differs from the run before.
    changed: usize,
}

#[derive(Serialize)]
struct Row<'a> {
    kernel: &'a str,
    cell: &'a str,
    /// One entry per run: standing and attach types, or nothing.
    points: Vec<Option<(&'static str, String)>>,
    message: String,
}

#[derive(Serialize)]
struct Slower<'a> {
    kernel: &'a str,
    cell: &'a str,
    before_ms: u64,
    now_ms: u64,
}

/// Writes the page.
///
/// # Errors
/// `out` can't be written.
pub fn render(history: &History, out: &mut dyn io::Write) -> io::Result<()> {
    let page = Page {
        runs: runs(history),
        cells: history.series.len(),
        steady: history.series.iter().filter(|series| is_dull(series)).count(),
        unsteady: unsteady(history),
        slower: slower(history),
    };
    html::fill(PAGE, SCRIPT, &page, out)
}

/// Whether all results are equal and none is bad.
fn is_dull(series: &Series) -> bool {
    series.is_steady() && !series.known().any(|(_, point)| point.standing.is_bad())
}

fn differs(a: &Point, b: &Point) -> bool {
    a.standing != b.standing || a.attach != b.attach
}

/// Indexes of the runs in which a cell differs from the last run that had it.
fn changes(series: &Series) -> Vec<usize> {
    let known: Vec<(usize, &Point)> = series.known().collect();
    known.windows(2).filter(|pair| differs(pair[0].1, pair[1].1)).map(|pair| pair[1].0).collect()
}

fn runs(history: &History) -> Vec<Run<'_>> {
    let mut changed = vec![0; history.runs.len()];
    history.series.iter().flat_map(changes).for_each(|at| changed[at] += 1);
    let brief = |(run, changed): (&'_ super::PastRun, usize)| {
        let standings = run.standings.iter().map(|(standing, count)| (standing.word(), *count)).collect();
        (run.started_ms, run.wall_ms, run.exit, standings, changed)
    };
    let all = history.runs.iter().zip(changed);
    all.map(|(run, changed)| {
        let (started_ms, wall_ms, exit, standings, changed) = brief((run, changed));
        Run { id: &run.id, started_ms, wall_ms, exit, standings, changed }
    })
    .collect()
}

/// Sorts cells: first those that are bad in the newest run, and within both groups by the latest change.
fn unsteady(history: &History) -> Vec<Row<'_>> {
    let mut rows: Vec<&Series> = history.series.iter().filter(|series| !is_dull(series)).collect();
    rows.sort_by_key(|series| {
        let newest = series.points.last().and_then(Option::as_ref);
        let bad = newest.is_some_and(|point| point.standing.is_bad());
        (!bad, Reverse(changes(series).last().copied()))
    });
    let row = |series: &'_ Series| -> (Vec<Option<(&'static str, String)>>, String) {
        let point = |point: &Point| {
            let names: Vec<&str> = point.attach.iter().copied().map(AttachType::name).collect();
            (point.standing.word(), names.join("+"))
        };
        let last = series.known().filter(|(_, point)| !point.message.is_empty()).last();
        let message = last.map_or_else(String::new, |(_, point)| text::line(&point.message, WIDTH));
        (series.points.iter().map(|it| it.as_ref().map(point)).collect(), message)
    };
    let listed = rows.into_iter().take(MOST_CELLS).map(|series| {
        let (points, message) = row(series);
        Row { kernel: &series.kernel, cell: &series.cell, points, message }
    });
    listed.collect()
}

/// Cells whose last time is far above the median of earlier runs.
fn slower(history: &History) -> Vec<Slower<'_>> {
    let mut found: Vec<Slower<'_>> = Vec::new();
    for series in &history.series {
        let mut times: Vec<u64> =
            series.known().filter(|(_, point)| point.standing == Standing::Passed).map(|(_, point)| point.ms).collect();
        let Some(now_ms) = times.pop() else { continue };
        times.sort_unstable();
        let Some(before_ms) = times.get(times.len() / 2).copied() else { continue };
        if now_ms as f64 > before_ms as f64 * SLOWER && now_ms > before_ms + SLOWER_MS {
            found.push(Slower { kernel: &series.kernel, cell: &series.cell, before_ms, now_ms });
        }
    }
    found.sort_by_key(|it| Reverse(it.now_ms - it.before_ms));
    found.truncate(MOST_SLOWER);
    found
}
