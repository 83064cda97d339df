//! Compares the outcomes of a cell in a shared guest and in a fresh guest.

use lab_protocol::{ErrorKind, FailureKind, Outcome};
use lab_record::verdict::Verdict;

/// The verdict of both rounds: a cell with two different outcomes fails.
pub(super) fn compare(shared: Option<Verdict>, pristine: Verdict) -> Verdict {
    let Some(shared) = shared else { return pristine };
    if shared.outcome.word() == pristine.outcome.word() || !counts(&pristine.outcome) {
        return pristine;
    }
    if !counts(&shared.outcome) {
        return shared;
    }
    let message = format!("{} in a shared guest, {} in a fresh one", tell(&shared.outcome), tell(&pristine.outcome));
    Verdict { outcome: Outcome::Failed { kind: FailureKind::Isolation, message }, ..pristine }
}

/// An outcome with its message.
fn tell(outcome: &Outcome) -> String {
    match outcome.message() {
        message if message.is_empty() => outcome.word().to_owned(),
        message => format!("{} ({message})", outcome.word()),
    }
}

/// The verdict on a cell whose earlier verdict could have been taken over: it fails if it ends in another way.
pub(super) fn as_earlier(earlier: Option<Verdict>, now: Verdict) -> Verdict {
    let Some((earlier, run)) = earlier.and_then(|it| Some((it.outcome.clone(), it.reused?))) else { return now };
    if earlier.word() == now.outcome.word() || !counts(&now.outcome) {
        return now;
    }
    let message = format!(
        "{} in run {run} and {} now, with the same kernel, image, lists and lab: the cell is unsteady, or run with --reuse=none",
        tell(&earlier),
        tell(&now.outcome)
    );
    Verdict { outcome: Outcome::Failed { kind: FailureKind::Reuse, message }, ..now }
}

/// Whether an outcome is caused by the cell, not by the host or the user.
const fn counts(outcome: &Outcome) -> bool {
    match outcome {
        Outcome::Passed | Outcome::Failed { .. } | Outcome::Skipped { .. } | Outcome::SkippedItself { .. } => true,
        Outcome::Errored { kind, .. } => matches!(kind, ErrorKind::Panic | ErrorKind::Hang | ErrorKind::Agent),
        Outcome::NotRun { .. } => false,
    }
}
