//! Number of cells by standing, kernel and attach type, for the tables on the terminal, in the job summary and on the
//! page.

use lab_protocol::AttachType;
use lab_record::{
    guest::KernelRecord,
    kept::ReportedVerdict,
    plan::{PlannedCell, PlannedKernel},
    rows,
    run::{Counts, RunRecord},
};
use std::collections::BTreeMap;

/// A column of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Column {
    /// Cells of this attach type.
    Attach(AttachType),
    /// Cells without an attach type, or with several devices.
    Other,
    /// The rows that every kernel has: boot, splat, teardown.
    Guest,
}

impl Column {
    /// All columns, from left to right.
    pub const ALL: [Self; 5] = [
        Self::Attach(AttachType::Tc),
        Self::Attach(AttachType::Tcx),
        Self::Attach(AttachType::Netkit),
        Self::Other,
        Self::Guest,
    ];

    /// The column in which a cell is counted: the required type, which the judge has checked; for a cell without a
    /// required type the attach type that the kernel reported; otherwise none.
    pub fn of(cell: &PlannedCell, verdict: &ReportedVerdict<'_>) -> Self {
        if rows::is_row(&cell.id) {
            return Self::Guest;
        }
        let only = || match verdict.used()[..] {
            [only] => Some(only),
            _ => None,
        };
        cell.required.or_else(only).map_or(Self::Other, Self::Attach)
    }

    /// The heading.
    pub const fn title(self) -> &'static str {
        match self {
            Self::Attach(attach) => attach.name(),
            Self::Other => "other",
            Self::Guest => "guest",
        }
    }
}

/// Explanation of the marks of [`marks`].
pub const LEGEND: &str = "✓ passed, ≈ flaky, • known failure, ✗ failed, – skipped, ! errored or not run; other: no attach \
                          type, or several devices; guest: boot, splat, teardown";

/// Counts with their marks, without those that are zero: `6✓ 1✗ 92–`.
pub fn marks(counts: &Counts) -> String {
    let all = [
        (counts.passed, '✓'),
        (counts.flaky, '≈'),
        (counts.known, '•'),
        (counts.failed, '✗'),
        (counts.skipped, '–'),
        (counts.errored + counts.not_run, '!'),
    ];
    let told = all.into_iter().filter(|(count, _)| *count > 0).map(|(count, mark)| format!("{count}{mark}"));
    told.collect::<Vec<_>>().join(" ")
}

/// One kernel's counts by column.
pub fn of_kernel(
    record: &RunRecord,
    kernel: &PlannedKernel,
    happened: Option<&KernelRecord>,
) -> BTreeMap<Column, Counts> {
    let mut counts: BTreeMap<Column, Counts> = BTreeMap::new();
    for (cell, verdict) in record.verdicts_on(kernel, happened) {
        counts.entry(Column::of(cell, &verdict)).or_default().add(verdict.standing());
    }
    counts
}

/// A kernel's row.
pub type Row = (String, String, [String; 5]);

/// A row per kernel: its id, its release or `did not boot`, and the marks of every column.
pub fn table(record: &RunRecord) -> Vec<Row> {
    let row = |(kernel, happened): (&PlannedKernel, Option<&KernelRecord>)| {
        let release = happened.and_then(|it| it.boot.as_ref()).map_or("did not boot", |boot| &*boot.release);
        let counts = of_kernel(record, kernel, happened);
        let columns = Column::ALL.map(|column| counts.get(&column).map_or_else(String::new, marks));
        (kernel.facts.id.to_string(), lab_base::text::line(release, 60), columns)
    };
    record.planned().map(row).collect()
}
