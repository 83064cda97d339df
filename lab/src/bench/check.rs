//! Results of `lab bench check`: what it costs to check many objects on the default matrix, and to predict them on every kernel.

use super::boot::Spread;
use serde::Serialize;
use std::fmt::Write;

/// The corpus on the default matrix, guests restored from snapshots, on two processors under TCG: seconds.
const CHECK_TARGET: f64 = 60.0;
/// The corpus predicted for every kernel of kernels.toml that is in the cache, on two processors: seconds.
const PREDICT_TARGET: f64 = 5.0;

/// One command, measured from its start to its exit, by another process each time.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct CheckRound {
    /// Seconds.
    pub took_s: f64,
    /// Processes that were ready to run when it began, beside this one: the load of the last minute.
    pub load: f64,
}

/// Content of `results/bench-check.json`.
#[derive(Debug, Clone, Serialize)]
pub struct CheckBench {
    /// `kvm` or `tcg`.
    pub accelerator: String,
    pub qemu: String,
    /// Processors of the host.
    pub processors: usize,
    /// How the measured program was built: `debug` or `release`.
    pub build: &'static str,
    /// Objects.
    pub objects: usize,
    /// Kernels of the check.
    pub kernels: Vec<String>,
    /// Kernels of the prediction, and those that it left out because the cache does not have them.
    pub predicted: usize,
    pub not_cached: usize,
    /// Seconds of a check.
    pub check_s: Option<Spread>,
    /// Seconds of a prediction.
    pub predict_s: Option<Spread>,
    /// The measurements.
    pub checks: Vec<CheckRound>,
    pub predictions: Vec<CheckRound>,
}

/// Median and range of the rounds.
pub fn spread(rounds: &[CheckRound]) -> Option<Spread> {
    Spread::of(rounds.iter().map(|round| round.took_s).collect())
}

impl CheckBench {
    /// Formats a Markdown table, targets beside the figures.
    pub fn table(&self) -> String {
        let Self { accelerator, qemu, processors, build, objects, .. } = self;
        let mut out = format!("{accelerator}, QEMU {qemu}, {processors} processors, {build} build\n\n");
        out.push_str("| what | median s | min | max | target | load |\n|---|---|---|---|---|---|\n");
        let checked = format!("`lab check`, {objects} objects on {}", self.kernels.join(", "));
        let left_out = match self.not_cached {
            0 => String::new(),
            count => format!(" ({count} are not in the cache)"),
        };
        let predicted = format!("`lab check --predict`, {objects} objects on {} kernels{left_out}", self.predicted);
        let rows = [
            (checked, self.check_s, CHECK_TARGET, &self.checks),
            (predicted, self.predict_s, PREDICT_TARGET, &self.predictions),
        ];
        for (what, value, target, rounds) in rows {
            let Some(Spread { median, min, max }) = value else { continue };
            let load = Spread::of(rounds.iter().map(|round| round.load).collect()).map_or(0.0, |load| load.median);
            let _ = writeln!(out, "| {what} | {median:.1} | {min:.1} | {max:.1} | {target} | {load:.1} |");
        }
        out
    }

    /// Whether the medians are within their targets.
    pub fn is_within(&self) -> bool {
        let within = |value: Option<Spread>, target| value.is_none_or(|it| it.median <= target);
        within(self.check_s, CHECK_TARGET) && within(self.predict_s, PREDICT_TARGET)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_targets_and_what_was_left_out() {
        let rounds =
            |all: &[f64]| all.iter().map(|took_s| CheckRound { took_s: *took_s, load: 1.0 }).collect::<Vec<_>>();
        let (checks, predictions) = (rounds(&[50.0, 70.0, 55.0]), rounds(&[4.0]));
        let bench = CheckBench {
            accelerator: "tcg".into(),
            qemu: "11.0".into(),
            processors: 2,
            build: "release",
            objects: 49,
            kernels: vec!["6.1".into(), "6.12".into()],
            predicted: 20,
            not_cached: 3,
            check_s: spread(&checks),
            predict_s: spread(&predictions),
            checks,
            predictions,
        };
        let table = bench.table();
        for line in [
            "| `lab check`, 49 objects on 6.1, 6.12 | 55.0 | 50.0 | 70.0 | 60 | 1.0 |",
            "| `lab check --predict`, 49 objects on 20 kernels (3 are not in the cache) | 4.0 | 4.0 | 4.0 | 5 | 1.0 |",
        ] {
            assert!(table.contains(line), "{line}\n{table}");
        }
        assert!(bench.is_within());
        assert!(!CheckBench { check_s: spread(&rounds(&[61.0])), ..bench }.is_within());
    }
}
