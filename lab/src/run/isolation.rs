//! Runs the same cells twice: in a shared guest, and each in a pristine guest.

use lab_protocol::{CellId, ErrorKind, FailureKind, Outcome};
use lab_record::verdict::Verdict;
use std::collections::{BTreeMap, BTreeSet};

/// Verdicts of the first round.
#[derive(Debug, Default)]
pub struct Shared(BTreeMap<CellId, Verdict>);

impl Shared {
    /// Stores a verdict until its cell has run again.
    pub fn keep(&mut self, verdict: Verdict) {
        self.0.insert(verdict.report.cell.clone(), verdict);
    }

    /// Removes and returns a verdict.
    pub fn take(&mut self, cell: &CellId) -> Option<Verdict> {
        self.0.remove(cell)
    }

    /// The cells with a stored verdict.
    pub fn cells(&self) -> BTreeSet<CellId> {
        self.0.keys().cloned().collect()
    }

    /// Verdicts of cells that did not run again.
    pub fn left(self) -> Vec<Verdict> {
        self.0.into_values().collect()
    }
}

/// Combines the verdicts of both rounds: a cell with different outcomes fails.
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

/// Whether an outcome is about the cell, not about the host or the user.
const fn counts(outcome: &Outcome) -> bool {
    match outcome {
        Outcome::Passed | Outcome::Failed { .. } | Outcome::Skipped { .. } => true,
        Outcome::Errored { kind, .. } => matches!(kind, ErrorKind::Panic | ErrorKind::Hang | ErrorKind::Agent),
        Outcome::NotRun { .. } => false,
    }
}
