//! Splats of many runs, merged by fingerprint.

use crate::{
    error::ReportError,
    results::Stored,
    splats::{SplatSummary, splats},
};
use lab_base::text;
use lab_record::log;
use serde::Serialize;
use std::fmt::Write;

/// Maximum characters of a title.
const WIDTH: usize = 120;

/// A splat in all runs that were read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Recurring {
    /// The splat as in the newest run; `times`, `kernels` and `cells` cover all runs.
    #[serde(flatten)]
    pub splat: SplatSummary,
    /// Runs in which it occurred, oldest first.
    pub runs: Vec<String>,
}

/// Splats of runs, which are given oldest first; splats of the newest runs come first. A run that can't be read is
/// reported to `say` and skipped.
///
/// # Errors
/// None of the runs can be read.
pub fn recurring(runs: &[Stored], say: &dyn Fn(&str)) -> Result<Vec<Recurring>, ReportError> {
    let mut found: Vec<Recurring> = Vec::new();
    let (mut read, mut last_error) = (0, None);
    for run in runs {
        match log::read(&run.directory) {
            Ok(record) => {
                read += 1;
                let id = record.info.as_ref().map_or_else(String::new, |info| info.id.to_string());
                for splat in splats(&record) {
                    let known = found.iter().position(|it| it.splat.fingerprint == splat.fingerprint);
                    // Removed and appended, so that the newest occurrence determines the order.
                    let earlier = known.map(|at| found.remove(at));
                    found.push(joined(earlier, splat, &id));
                }
            }
            Err(error) => {
                say(&format!("left out: {error}"));
                last_error = Some(error);
            }
        }
    }
    if let Some(error) = last_error.filter(|_| read == 0) {
        return Err(error.into());
    }
    found.reverse();
    Ok(found)
}

fn joined(earlier: Option<Recurring>, mut newest: SplatSummary, run: &str) -> Recurring {
    let (before, mut runs) = earlier.map_or_else(Default::default, |it| (Some(it.splat), it.runs));
    if let Some(before) = before {
        newest.times += before.times;
        newest.kernels = union(before.kernels, newest.kernels);
        newest.cells = union(before.cells, newest.cells);
    }
    runs.push(run.to_owned());
    Recurring { splat: newest, runs }
}

/// Appends new items; the first occurrence stays first.
fn union<T: PartialEq>(mut known: Vec<T>, new: Vec<T>) -> Vec<T> {
    for it in new {
        if !known.contains(&it) {
            known.push(it);
        }
    }
    known
}

/// Formats the splats for a terminal.
pub fn render(found: &[Recurring]) -> String {
    let mut out = String::new();
    for Recurring { splat, runs } in found {
        let excused = if splat.allowed.is_some() { ", allowed" } else { "" };
        let _ = writeln!(out, "{}  {}", splat.fingerprint, text::line(&splat.title, WIDTH));
        let _ = writeln!(out, "  {}{excused}", text::line(&splat.sightings(), WIDTH));
        let (first, last) = (runs.first().map_or("", |it| it), runs.last().map_or("", |it| it));
        let _ = match runs.len() {
            1 => writeln!(out, "  in one run: {first}"),
            count => writeln!(out, "  in {count} runs, {first} to {last}"),
        };
    }
    if found.is_empty() {
        out.push_str("no splats in these runs\n");
    }
    out
}
