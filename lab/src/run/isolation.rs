//! Two rounds of the same cells: in a guest that they share, and each in a pristine one.

use lab_protocol::{CellId, ErrorKind, FailureKind, Outcome};
use lab_record::verdict::Verdict;
use std::collections::{BTreeMap, BTreeSet};

/// The first round's verdicts.
#[derive(Debug, Default)]
pub struct Shared(BTreeMap<CellId, Verdict>);

impl Shared {
    /// Keeps one until its cell has run again.
    pub fn keep(&mut self, verdict: Verdict) {
        self.0.insert(verdict.report.cell.clone(), verdict);
    }

    /// Gives one out.
    pub fn take(&mut self, cell: &CellId) -> Option<Verdict> {
        self.0.remove(cell)
    }

    /// The cells that have one.
    pub fn cells(&self) -> BTreeSet<CellId> {
        self.0.keys().cloned().collect()
    }

    /// Those whose cells did not run again.
    pub fn left(self) -> Vec<Verdict> {
        self.0.into_values().collect()
    }
}

/// The verdict of both rounds: a cell that ends differently fails.
pub fn compare(shared: Option<Verdict>, pristine: Verdict) -> Verdict {
    let Some(shared) = shared else { return pristine };
    if shared.outcome.word() == pristine.outcome.word() || !counts(&pristine.outcome) {
        return pristine;
    }
    if !counts(&shared.outcome) {
        return shared;
    }
    let tell = |outcome: &Outcome| match outcome.message() {
        message if message.is_empty() => outcome.word().to_owned(),
        message => format!("{} ({message})", outcome.word()),
    };
    let message =
        format!("{} in a guest that it shared, {} in a pristine one", tell(&shared.outcome), tell(&pristine.outcome));
    Verdict { outcome: Outcome::Failed { kind: FailureKind::Isolation, message }, ..pristine }
}

/// Whether an outcome says something of the cell, and not of the host or the user.
const fn counts(outcome: &Outcome) -> bool {
    match outcome {
        Outcome::Passed | Outcome::Failed { .. } | Outcome::Skipped { .. } => true,
        Outcome::Errored { kind, .. } => matches!(kind, ErrorKind::Panic | ErrorKind::Hang | ErrorKind::Agent),
        Outcome::NotRun { .. } => false,
    }
}
