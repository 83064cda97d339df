//! Results of `lab bench suite`: the suite's time by kernel, case and cell.
//!
//! Times are measured in the guest, from a cell's start to its end, the leak check included. Compare them between runs on
//! one machine, where they show which case became slower; between machines they differ.

use crate::bench::boot::Spread;
use comfy_table::{CellAlignment, Table, presets};
use lab_base::text;
use lab_protocol::Outcome;
use lab_record::run::RunRecord;
use serde::Serialize;
use std::collections::BTreeMap;

/// Number of slowest cells in the table.
const SLOWEST: usize = 10;
/// Maximum characters of a cell's name in the table.
const NAME: usize = 60;

/// Content of `results/bench-suite.json`. Times are milliseconds.
#[derive(Debug, Clone, Serialize)]
pub struct BenchSuite {
    /// `kvm` or `tcg`.
    pub accelerator: String,
    pub qemu: String,
    /// Number of times that each kernel ran the whole suite.
    pub rounds: u32,
    pub kernels: Vec<KernelTime>,
    /// Time of each case over all kernels, slowest first.
    pub cases: Vec<CaseTime>,
    pub slowest: Vec<CellTime>,
}

/// Time of the suite on one kernel.
#[derive(Debug, Clone, Serialize)]
pub struct KernelTime {
    pub kernel: String,
    /// Number of cells that ran, without skipped ones.
    pub cells: usize,
    /// Wall time of the kernel's part of the run, the restore included.
    pub wall_ms: Spread,
    /// Sum over all cells.
    pub cells_ms: Spread,
}

/// Time of one case in all its variants.
#[derive(Debug, Clone, Serialize)]
pub struct CaseTime {
    /// Case id.
    pub case: String,
    /// Number of cells over all kernels.
    pub cells: usize,
    /// Time of all these cells in one round.
    pub total_ms: f64,
    /// Time of one cell.
    pub cell_ms: Spread,
}

#[derive(Debug, Clone, Serialize)]
pub struct CellTime {
    pub kernel: String,
    pub cell: String,
    pub ms: Spread,
}

/// Accumulates rounds.
#[derive(Debug, Default)]
pub struct Rounds {
    number: u32,
    cells: BTreeMap<(String, String), Vec<f64>>,
    walls: BTreeMap<String, Vec<f64>>,
    sums: BTreeMap<String, Vec<f64>>,
}

impl Rounds {
    /// Adds a run.
    pub fn add(&mut self, record: &RunRecord) {
        self.number += 1;
        let mut sums: BTreeMap<String, f64> = BTreeMap::new();
        for (kernel, cell, verdict) in record.verdicts() {
            if matches!(verdict.outcome, Outcome::Skipped { .. } | Outcome::NotRun { .. }) {
                continue;
            }
            let ms = verdict.report.duration_us as f64 / 1e3;
            *sums.entry(kernel.facts.id.to_string()).or_default() += ms;
            self.cells.entry((kernel.facts.id.to_string(), cell.id.to_string())).or_default().push(ms);
        }
        for (kernel, sum) in sums {
            self.sums.entry(kernel).or_default().push(sum);
        }
        for (kernel, record) in &record.kernels {
            if let Some((wall, _)) = record.finished {
                self.walls.entry(kernel.to_string()).or_default().push(wall as f64);
            }
        }
    }

    /// Computes the result.
    pub fn result(self, accelerator: String, qemu: String) -> BenchSuite {
        let kernels = self.sums.iter().filter_map(|(kernel, sums)| {
            let cells = self.cells.keys().filter(|(of, _)| of == kernel).count();
            let wall_ms = Spread::of(self.walls.get(kernel)?.clone())?;
            Some(KernelTime { kernel: kernel.clone(), cells, wall_ms, cells_ms: Spread::of(sums.clone())? })
        });
        let kernels = kernels.collect();
        let mut cases: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
        let mut slowest = Vec::new();
        for ((kernel, cell), times) in &self.cells {
            let Some(ms) = Spread::of(times.clone()) else { continue };
            cases.entry(cell.split('[').next().unwrap_or(cell)).or_default().push(ms.median);
            slowest.push(CellTime { kernel: kernel.clone(), cell: cell.clone(), ms });
        }
        let mut cases: Vec<CaseTime> = cases
            .into_iter()
            .filter_map(|(case, times)| {
                let (cells, total_ms) = (times.len(), times.iter().sum());
                Some(CaseTime { case: case.to_owned(), cells, total_ms, cell_ms: Spread::of(times)? })
            })
            .collect();
        cases.sort_by(|a, b| b.total_ms.total_cmp(&a.total_ms));
        slowest.sort_by(|a, b| b.ms.median.total_cmp(&a.ms.median));
        slowest.truncate(SLOWEST);
        BenchSuite { accelerator, qemu, rounds: self.number, kernels, cases, slowest }
    }
}

impl BenchSuite {
    /// Formats the result as Markdown.
    pub fn table(&self) -> String {
        let ms = |value: f64| format!("{value:.0}");
        let kernels = self.kernels.iter().map(|it| {
            let seconds = |spread: Spread| format!("{:.1}", spread.median / 1e3);
            vec![it.kernel.clone(), it.cells.to_string(), seconds(it.wall_ms), seconds(it.cells_ms)]
        });
        let cases = self.cases.iter().map(|it| {
            let name = text::line(&it.case, NAME);
            vec![name, it.cells.to_string(), ms(it.total_ms), ms(it.cell_ms.median), ms(it.cell_ms.max)]
        });
        let slowest = self.slowest.iter().map(|it| {
            vec![text::line(&it.cell, NAME), it.kernel.clone(), ms(it.ms.median), ms(it.ms.min), ms(it.ms.max)]
        });
        [
            table(&["kernel", "cells", "wall s", "cells s"], kernels),
            table(&["case", "cells", "all ms", "median ms", "most ms"], cases),
            table(&["slowest cells", "kernel", "median ms", "min ms", "max ms"], slowest),
        ]
        .join("\n\n")
    }
}

fn table(header: &[&str], rows: impl Iterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN).set_header(header).add_rows(rows);
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cases_are_summed_over_variants_and_kernels_and_sorted_by_time() {
        let mut rounds = Rounds { number: 2, ..Rounds::default() };
        for (kernel, cell, times) in [
            ("6.12", "A01-x[tc,veth]", [10.0, 30.0]),
            ("6.12", "A01-x[tc,nk-l2]", [40.0, 40.0]),
            ("6.17", "B02-y", [50.0, 70.0]),
        ] {
            rounds.cells.insert((kernel.to_owned(), cell.to_owned()), times.to_vec());
            rounds.sums.entry(kernel.to_owned()).or_default().extend(times);
            rounds.walls.entry(kernel.to_owned()).or_default().push(1_000.0);
        }
        let bench = rounds.result("tcg".to_owned(), "7.2.22".to_owned());
        let cases: Vec<_> = bench.cases.iter().map(|it| (&*it.case, it.cells, it.total_ms)).collect();
        assert_eq!(cases, [("A01-x", 2, 60.0), ("B02-y", 1, 60.0)]);
        assert_eq!(bench.slowest[0].cell, "B02-y");
        assert_eq!((bench.slowest[0].ms.median, bench.slowest.len()), (60.0, 3));
        assert_eq!(bench.kernels.iter().map(|it| it.cells).collect::<Vec<_>>(), [2, 1]);
        assert!(bench.table().contains("| 6.17   |"), "{}", bench.table());
    }
}
