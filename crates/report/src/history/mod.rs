//! Results of the same cells in many runs: outcome, attach type and time.

mod page;
pub mod splats;
mod text;

pub use page::{FILE, render as page};
pub use text::render as text;

use crate::{error::ReportError, results::Stored};
use lab_base::selection::{self, NoMatch};
use lab_protocol::{AttachType, CellId};
use lab_record::{exit::Exit, log, run::RunRecord, verdict::Standing};
use serde::Serialize;
use std::collections::BTreeMap;

/// A run of the history.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PastRun {
    pub id: String,
    /// Start, milliseconds since the epoch.
    pub started_ms: u64,
    /// Wall time, milliseconds; `None` if the run did not end.
    pub wall_ms: Option<u64>,
    /// Exit code, as recorded or as computed from the verdicts.
    pub exit: u8,
    /// Number of cells by standing.
    pub standings: BTreeMap<Standing, usize>,
}

/// A cell's result in one run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Point {
    /// How the cell counts.
    pub standing: Standing,
    /// The attach types that the kernel reported.
    pub attach: Vec<AttachType>,
    /// Time in the guest, milliseconds.
    pub ms: u64,
    /// Why it did not pass.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub message: String,
}

/// A cell on one kernel in all runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Series {
    pub kernel: String,
    pub cell: String,
    /// One point per run, oldest first; `None` if the run's plan does not have the cell.
    pub points: Vec<Option<Point>>,
}

/// Runs, oldest first, and their cells.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct History {
    pub runs: Vec<PastRun>,
    /// The cells by kernel and id.
    pub series: Vec<Series>,
}

/// Data to detect partial runs: whether a run has every cell, and the largest number of cells of a run.
#[derive(Debug, Default)]
struct Scale {
    whole: bool,
    cells: usize,
}

impl Scale {
    fn of(runs: &[Stored]) -> Self {
        let plans = runs.iter().filter_map(|run| log::head(&run.directory).ok()).map(|info| info.plan);
        plans.fold(Self::default(), |scale, plan| Self {
            whole: scale.whole || plan.every_cell,
            cells: scale.cells.max(plan.cells.len()),
        })
    }

    /// Why a run is not regular; such runs are left out.
    fn objection(&self, record: &RunRecord) -> Option<&'static str> {
        let info = record.info.as_ref()?;
        // If all runs have the same selection of cells, they are regular.
        let part = !info.plan.every_cell && (self.whole || info.plan.cells.len() * 2 < self.cells);
        if info.mutant.is_some() {
            Some("has a deliberate fault")
        } else if info.canary {
            Some("has canaries, which must fail")
        } else if info.shard.is_some() {
            Some("is one shard of a run")
        } else if matches!(record.finished, Some((Exit::Interrupted(_), _))) {
            Some("was interrupted")
        } else if part {
            Some("has only a part of the cells")
        } else {
            None
        }
    }
}

/// Points of a cell by the number of the run.
type Found = BTreeMap<(String, String), Vec<(usize, Point)>>;

impl History {
    /// Reads runs in turn, and keeps the selected cells. A run that can't be read, for example one of an older version
    /// of `lab`, is reported to `say` and skipped.
    ///
    /// # Errors
    /// None of the runs can be read.
    pub fn read(
        runs: &[Stored],
        wanted: impl Fn(&str, &CellId) -> bool,
        every: bool,
        say: &dyn Fn(&str),
    ) -> Result<Self, ReportError> {
        let mut history = Self::default();
        let mut found = Found::new();
        let mut last_error = None;
        let scale = if every { Scale::default() } else { Scale::of(runs) };
        let mut left_out = 0;
        for run in runs {
            match log::read(&run.directory) {
                Ok(record) => match scale.objection(&record).filter(|_| !every) {
                    None => history.take(&record, &mut found, &wanted),
                    Some(why) => {
                        left_out += 1;
                        say(&format!("left out: {} {why}; --every-run includes it", run.id));
                    }
                },
                Err(error) => {
                    say(&format!("left out: {error}"));
                    last_error = Some(error);
                }
            }
        }
        if let Some(error) = last_error.filter(|_| history.runs.is_empty() && left_out == 0) {
            return Err(error.into());
        }
        let count = history.runs.len();
        history.series = found
            .into_iter()
            .map(|((kernel, cell), known)| {
                let mut points = vec![None; count];
                known.into_iter().for_each(|(at, point)| points[at] = Some(point));
                Series { kernel, cell, points }
            })
            .collect();
        Ok(history)
    }

    fn take(&mut self, record: &RunRecord, found: &mut Found, wanted: &impl Fn(&str, &CellId) -> bool) {
        let at = self.runs.len();
        let mut standings: BTreeMap<Standing, usize> = BTreeMap::new();
        for (kernel, cell, verdict) in record.verdicts() {
            let standing = verdict.standing();
            *standings.entry(standing).or_default() += 1;
            if wanted(&kernel.facts.id, &cell.id) {
                let point = Point {
                    standing,
                    attach: verdict.used(),
                    ms: verdict.report.duration_us / 1000,
                    message: verdict.outcome.message(),
                };
                found.entry((kernel.facts.id.to_string(), cell.id.to_string())).or_default().push((at, point));
            }
        }
        self.runs.push(PastRun {
            id: record.info.as_ref().map_or_else(String::new, |info| info.id.to_string()),
            started_ms: record.started_ms,
            wall_ms: record.finished.map(|(_, wall_ms)| wall_ms),
            exit: record.outcome().code(),
            standings,
        });
    }

    /// Keeps the cells that match a pattern by case, id or catalogue number.
    ///
    /// # Errors
    /// A pattern matches no cell; the error suggests similar names.
    pub fn narrow(self, patterns: &[String]) -> Result<Self, NoMatch> {
        let names = |series: &Series| {
            let id = CellId(series.cell.clone().into());
            [id.case().to_owned(), series.cell.clone(), id.case().split('-').next().unwrap_or_default().to_owned()]
        };
        let named: Vec<(_, &Series)> = self.series.iter().map(|series| (names(series), series)).collect();
        let chosen = selection::select("case", &named, patterns, |(names, _)| names.iter().map(|it| &**it).collect())?;
        let series = chosen.into_iter().map(|(_, series)| (*series).clone()).collect();
        Ok(Self { runs: self.runs, series })
    }
}

impl Series {
    /// The existing points, each with the index of its run.
    pub fn known(&self) -> impl Iterator<Item = (usize, &Point)> {
        self.points.iter().enumerate().filter_map(|(at, point)| Some((at, point.as_ref()?)))
    }

    /// Whether all results are equal in standing and attach type.
    pub fn is_steady(&self) -> bool {
        let mut known = self.known().map(|(_, point)| (point.standing, &point.attach));
        known.next().is_none_or(|first| known.all(|it| it == first))
    }

    /// Median time of the runs in which the cell passed, milliseconds.
    pub fn median_ms(&self) -> Option<u64> {
        let passed = self.known().filter(|(_, point)| point.standing == Standing::Passed);
        let mut times: Vec<u64> = passed.map(|(_, point)| point.ms).collect();
        times.sort_unstable();
        times.get(times.len() / 2).copied()
    }
}

#[cfg(test)]
mod tests;
