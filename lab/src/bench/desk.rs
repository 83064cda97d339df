//! Results of `lab bench desk`: what a person at the keyboard waits for, from Enter to the exit of `lab run` with one cell.

use super::boot::Spread;
use serde::Serialize;
use std::fmt::Write;

/// What was done before the cell was run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum DeskStep {
    /// Nothing.
    Unchanged,
    /// Nothing, and the lab does not look whether anything has to be built: as one that is installed.
    NoBuild,
    /// Nothing, while `lab serve` runs.
    Held,
    /// The same without a look whether anything has to be built.
    HeldNoBuild,
    /// An eBPF program was edited.
    EbpfEdited,
    /// A case was edited.
    CaseEdited,
}

impl DeskStep {
    /// In the order of the table.
    const ALL: [Self; 6] =
        [Self::Unchanged, Self::NoBuild, Self::Held, Self::HeldNoBuild, Self::EbpfEdited, Self::CaseEdited];

    /// For a person.
    pub const fn told(self) -> &'static str {
        match self {
            Self::Unchanged => "`lab run` of one cell, nothing changed",
            Self::NoBuild => "the same with `--no-build`, as an installed lab",
            Self::Held => "nothing changed, while `lab serve` runs",
            Self::HeldNoBuild => "the same with `--no-build`",
            Self::EbpfEdited => "an eBPF program edited, to the verdict",
            Self::CaseEdited => "a case edited, to the verdict",
        }
    }

    /// Target, seconds.
    const fn target(self) -> f64 {
        match self {
            Self::Unchanged | Self::Held => 0.35,
            Self::NoBuild | Self::HeldNoBuild => 0.5,
            Self::EbpfEdited => 2.5,
            Self::CaseEdited => 6.0,
        }
    }
}

/// One run of the cell.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct DeskRound {
    pub step: DeskStep,
    /// From the start of the program to its exit, seconds.
    pub seconds: f64,
}

/// A row of the table.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct DeskRow {
    pub step: DeskStep,
    pub seconds: Spread,
    /// The median divided by that of the stock boots; `None` without any.
    pub ratio: Option<f64>,
    /// Seconds.
    pub target: f64,
}

/// Content of `results/bench-desk.json`.
#[derive(Debug, Clone, Serialize)]
pub struct DeskBench {
    /// `kvm` or `tcg`.
    pub accelerator: String,
    pub qemu: String,
    /// Processors of the host.
    pub processors: usize,
    pub kernel: String,
    pub cell: String,
    /// Boots of `vng --exec true` with the same kernel, seconds.
    pub stock_s: Option<Spread>,
    pub rows: Vec<DeskRow>,
    /// The measurements behind the rows.
    pub rounds: Vec<DeskRound>,
}

/// The machine, and what was run on it.
#[derive(Debug, Clone)]
pub struct DeskSubject {
    pub accelerator: String,
    pub qemu: String,
    pub processors: usize,
    pub kernel: String,
    pub cell: String,
}

impl DeskBench {
    /// Computes the rows.
    pub fn new(subject: DeskSubject, stock: Vec<f64>, rounds: Vec<DeskRound>) -> Self {
        let DeskSubject { accelerator, qemu, processors, kernel, cell } = subject;
        let stock_s = Spread::of(stock);
        let row = |step: DeskStep| {
            let took = rounds.iter().filter(|round| round.step == step).map(|round| round.seconds);
            let seconds = Spread::of(took.collect())?;
            let ratio = stock_s.map(|stock| seconds.median / stock.median);
            Some(DeskRow { step, seconds, ratio, target: step.target() })
        };
        let rows = DeskStep::ALL.into_iter().filter_map(row).collect();
        Self { accelerator, qemu, processors, kernel, cell, stock_s, rows, rounds }
    }

    /// Formats a Markdown table, targets beside the figures.
    pub fn table(&self) -> String {
        let Self { accelerator, qemu, processors, kernel, cell, .. } = self;
        let mut out = format!("{accelerator}, QEMU {qemu}, {processors} processors; {cell} on {kernel}\n\n");
        out.push_str("| from Enter to exit | runs | median s | min | max | target s | of `vng --exec true` |\n");
        out.push_str("|---|---|---|---|---|---|---|\n");
        for DeskRow { step, seconds: Spread { median, min, max }, ratio, target } in &self.rows {
            let runs = self.rounds.iter().filter(|round| round.step == *step).count();
            let ratio = ratio.map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.3}"));
            let _ =
                writeln!(out, "| {} | {runs} | {median:.2} | {min:.2} | {max:.2} | {target} | {ratio} |", step.told());
        }
        if let Some(Spread { median, min, max }) = self.stock_s {
            let _ = writeln!(out, "| `vng --exec true` | | {median:.2} | {min:.2} | {max:.2} | - | 1 |");
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_step_has_its_median_its_target_and_its_share_of_a_stock_boot() {
        let subject = DeskSubject {
            accelerator: "tcg".into(),
            qemu: "11.1".into(),
            processors: 2,
            kernel: "6.17".into(),
            cell: "A01-x".into(),
        };
        let round = |step, seconds| DeskRound { step, seconds };
        let rounds = vec![
            round(DeskStep::CaseEdited, 5.0),
            round(DeskStep::Unchanged, 0.5),
            round(DeskStep::Unchanged, 0.3),
            round(DeskStep::Unchanged, 0.4),
        ];
        let table = DeskBench::new(subject.clone(), vec![8.0, 12.0], rounds.clone()).table();
        for line in [
            "tcg, QEMU 11.1, 2 processors; A01-x on 6.17",
            "| `lab run` of one cell, nothing changed | 3 | 0.40 | 0.30 | 0.50 | 0.35 | 0.040 |",
            "| a case edited, to the verdict | 1 | 5.00 | 5.00 | 5.00 | 6 | 0.500 |",
            "| `vng --exec true` | | 10.00 | 8.00 | 12.00 | - | 1 |",
        ] {
            assert!(table.lines().any(|it| it == line), "{line}\n{table}");
        }
        assert!(!table.contains("eBPF") && !table.contains("--no-build"), "what was not measured has no row: {table}");
        let alone = DeskBench::new(subject, Vec::new(), rounds).table();
        assert!(alone.contains("| 6 | - |") && !alone.contains("vng --exec true` |  "), "{alone}");
    }
}
