//! The same cell in a guest that it shares with others, and in a pristine one.

use lab_protocol::{ErrorKind, FailureKind, Outcome};
use lab_record::verdict::Verdict;

/// The verdict of both rounds: a cell that ends differently fails.
pub(super) fn compare(shared: Option<Verdict>, pristine: Verdict) -> Verdict {
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
