//! Results of `lab bench`, as ratios of paired measurements: absolute times of one machine do not apply to another.

use serde::Serialize;
use std::{fmt::Write, time::Duration};

/// Targets, as ratios to stock vng on the machine on which the lab is developed (TCG, 2 processors).
const TARGETS: [(&str, f64); 6] = [
    ("cold_boot_ratio", 0.28),
    ("warm_restore_ratio", 0.04),
    ("matrix_warm_ratio", 1.0),
    ("matrix_cold_ratio", f64::INFINITY),
    ("peak_memory_ratio", 0.5),
    ("cold_peak_memory_ratio", f64::INFINITY),
];
/// Target for repeated runs of one case: seconds, and the number of runs.
const RERUN_TARGET: (f64, u32) = (15.0, 20);

/// Median and range.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Spread {
    pub median: f64,
    pub min: f64,
    pub max: f64,
}

impl Spread {
    /// Computes the spread; `None` if there are no values.
    pub fn of(mut values: Vec<f64>) -> Option<Self> {
        values.sort_by(f64::total_cmp);
        let (min, max) = (*values.first()?, *values.last()?);
        let (low, high) = (values[(values.len() - 1) / 2], values[values.len() / 2]);
        Some(Self { median: f64::midpoint(low, high), min, max })
    }
}

/// One round on one kernel: three boots, one after another.
#[derive(Debug, Clone, Serialize)]
pub struct BootRound {
    pub kernel: String,
    /// Time of `vng --exec true`, seconds.
    pub stock_s: f64,
    /// Time from our boot to the first case, seconds.
    pub cold_s: f64,
    /// Time from a restore to the first case, seconds.
    pub warm_s: f64,
    /// Peak memory of the stock guest, KiB.
    pub stock_kib: Option<u64>,
    /// Peak memory of a booted guest, KiB.
    pub cold_kib: Option<u64>,
    /// Peak memory of a restored guest, KiB.
    pub warm_kib: Option<u64>,
}

/// Repeated runs of one case on one kernel, each a whole `lab run`.
#[derive(Debug, Clone, Serialize)]
pub struct Rerun {
    pub kernel: String,
    pub cell: String,
    /// Number of runs.
    pub count: u32,
    /// Total time, seconds.
    pub total_s: f64,
    /// Time of a single run, seconds.
    pub each_s: Option<Spread>,
}

/// The whole suite on all kernels, with booted and with restored guests.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct MatrixRound {
    /// All guests booted, seconds.
    pub cold_s: f64,
    /// All guests restored, seconds.
    pub warm_s: f64,
}

/// Content of `results/bench.json`.
#[derive(Debug, Clone, Serialize)]
pub struct Bench {
    /// `kvm` or `tcg`.
    pub accelerator: String,
    pub qemu: String,
    /// Cold boot to first case, divided by the stock boot.
    pub cold_boot_ratio: Option<Spread>,
    /// Restore to first case, divided by the stock boot.
    pub warm_restore_ratio: Option<Spread>,
    /// The whole suite with restored guests, divided by the sum of the stock boots of its kernels.
    pub matrix_warm_ratio: Option<Spread>,
    /// The same with booted guests.
    pub matrix_cold_ratio: Option<Spread>,
    /// Peak memory of a restored guest, divided by that of a stock guest.
    pub peak_memory_ratio: Option<Spread>,
    /// Peak memory of a booted guest, divided by that of a stock guest.
    pub cold_peak_memory_ratio: Option<Spread>,
    /// Repeated runs of one case.
    pub rerun: Option<Rerun>,
    /// The measurements behind the ratios.
    pub rounds: Vec<BootRound>,
    /// The whole suite.
    pub matrix: Vec<MatrixRound>,
}

impl Bench {
    /// Computes the ratios.
    pub fn new(
        accelerator: String,
        qemu: String,
        rounds: Vec<BootRound>,
        matrix: Vec<MatrixRound>,
        rerun: Option<Rerun>,
    ) -> Self {
        let over = |value: fn(&BootRound) -> f64| Spread::of(rounds.iter().map(|it| value(it) / it.stock_s).collect());
        let memory = |kib: fn(&BootRound) -> Option<u64>| {
            let ratio = |it: &BootRound| Some(kib(it)? as f64 / it.stock_kib? as f64);
            Spread::of(rounds.iter().filter_map(ratio).collect())
        };
        let mut kernels: Vec<&str> = rounds.iter().map(|round| &*round.kernel).collect();
        kernels.sort_unstable();
        kernels.dedup();
        let stock = |kernel: &&str| {
            let mine = rounds.iter().filter(|round| round.kernel == **kernel).map(|round| round.stock_s);
            Spread::of(mine.collect()).map_or(0.0, |spread| spread.median)
        };
        let one_by_one: f64 = kernels.iter().map(stock).sum();
        let whole =
            |value: fn(&MatrixRound) -> f64| Spread::of(matrix.iter().map(|it| value(it) / one_by_one).collect());
        Self {
            accelerator,
            qemu,
            cold_boot_ratio: over(|round| round.cold_s),
            warm_restore_ratio: over(|round| round.warm_s),
            matrix_warm_ratio: whole(|round| round.warm_s),
            matrix_cold_ratio: whole(|round| round.cold_s),
            peak_memory_ratio: memory(|round| round.warm_kib),
            cold_peak_memory_ratio: memory(|round| round.cold_kib),
            rerun,
            rounds,
            matrix,
        }
    }

    /// Formats a Markdown table.
    pub fn table(&self) -> String {
        let mut out = format!("{}, QEMU {}, {} rounds\n\n", self.accelerator, self.qemu, self.rounds.len());
        out.push_str("| ratio to stock vng | median | min | max | target |\n|---|---|---|---|---|\n");
        let values = [
            self.cold_boot_ratio,
            self.warm_restore_ratio,
            self.matrix_warm_ratio,
            self.matrix_cold_ratio,
            self.peak_memory_ratio,
            self.cold_peak_memory_ratio,
        ];
        for ((name, target), value) in TARGETS.into_iter().zip(values) {
            let Some(Spread { median, min, max }) = value else { continue };
            let target = if target.is_finite() { format!("{target}") } else { "-".to_owned() };
            let _ = writeln!(out, "| {name} | {median:.3} | {min:.3} | {max:.3} | {target} |");
        }
        out.push_str(
            "\n| kernel | stock s | cold s | warm s | stock MiB | cold MiB | warm MiB |\n|---|---|---|---|---|---|---|\n",
        );
        for round in &self.rounds {
            let mib = |kib: Option<u64>| kib.map_or_else(|| "-".to_owned(), |kib| (kib >> 10).to_string());
            let _ = writeln!(
                out,
                "| {} | {:.2} | {:.2} | {:.2} | {} | {} | {} |",
                round.kernel,
                round.stock_s,
                round.cold_s,
                round.warm_s,
                mib(round.stock_kib),
                mib(round.cold_kib),
                mib(round.warm_kib)
            );
        }
        for MatrixRound { cold_s, warm_s } in &self.matrix {
            let _ = writeln!(out, "\nThe whole suite on all of them: {cold_s:.0} s cold, {warm_s:.0} s warm.");
        }
        if let Some(Rerun { kernel, cell, count, total_s, each_s: Some(Spread { median, min, max }) }) = &self.rerun {
            let (target, of) = RERUN_TARGET;
            let _ = writeln!(
                out,
                "\n{count} times `lab run` of {cell} on {kernel}: {total_s:.1} s (target: {of} in {target} s); one takes \
                 {median:.2} s ({min:.2} to {max:.2})."
            );
        }
        out
    }
}

pub fn seconds(duration: Duration) -> f64 {
    duration.as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_compare_pairs_and_the_matrix_is_divided_by_the_sum_of_its_kernels() {
        let round = |kernel: &str, stock_s, cold_s, warm_s| BootRound {
            kernel: kernel.to_owned(),
            stock_s,
            cold_s,
            warm_s,
            stock_kib: Some(400),
            cold_kib: Some(300),
            warm_kib: Some(100),
        };
        let rounds = vec![round("a", 10.0, 2.0, 0.2), round("b", 20.0, 5.0, 1.0), round("a", 12.0, 3.0, 0.6)];
        let rerun = Rerun {
            kernel: "a".to_owned(),
            cell: "A01-x[tc,veth]".to_owned(),
            count: 20,
            total_s: 12.0,
            each_s: Spread::of(vec![0.5, 0.6, 0.7]),
        };
        let matrix = vec![MatrixRound { cold_s: 62.0, warm_s: 31.0 }];
        let bench = Bench::new("tcg".into(), "7.2".into(), rounds, matrix, Some(rerun));
        assert_eq!(bench.cold_boot_ratio, Some(Spread { median: 0.25, min: 0.2, max: 0.25 }));
        assert_eq!(bench.warm_restore_ratio.unwrap().max, 0.05);
        assert_eq!(bench.matrix_warm_ratio.unwrap().median, 1.0, "31 s over 11 s and 20 s");
        assert_eq!(bench.peak_memory_ratio.unwrap().median, 0.25);
        assert!(bench.table().contains("| cold_boot_ratio | 0.250 | 0.200 | 0.250 | 0.28 |"), "{}", bench.table());
        assert!(bench.table().contains("| cold_peak_memory_ratio | 0.750 | 0.750 | 0.750 | - |"), "{}", bench.table());
        let told =
            "20 times `lab run` of A01-x[tc,veth] on a: 12.0 s (target: 20 in 15 s); one takes 0.60 s (0.50 to 0.70).";
        assert!(bench.table().contains(told), "{}", bench.table());
        assert_eq!(Spread::of(Vec::new()), None);
    }
}
