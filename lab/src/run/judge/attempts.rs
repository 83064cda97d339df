//! Combines the attempts at a cell: a later pass does not cancel an earlier crash or splat.

use super::Attempts;
use crate::run::common::OnFlaky;
use lab_protocol::{ErrorKind, FailureKind, Outcome};
use lab_record::verdict::{Attempt, Verdict};

/// Whether another attempt could have another outcome: not if the kernel lacks a required capability or the user
/// stopped the cell.
pub const fn may_end_otherwise(verdict: &Verdict) -> bool {
    !matches!(
        verdict.outcome,
        Outcome::Failed { kind: FailureKind::MissingCapability, .. }
            | Outcome::Errored { kind: ErrorKind::Interrupted, .. }
    )
}

/// Whether an attempt decides the verdict regardless of later ones: the kernel crashed, hung or printed a splat.
fn lasting(verdict: &Verdict) -> Option<Outcome> {
    match &verdict.outcome {
        Outcome::Failed { kind: FailureKind::Splat, .. }
        | Outcome::Errored { kind: ErrorKind::Panic | ErrorKind::Hang, .. } => Some(verdict.outcome.clone()),
        _ => verdict
            .splats
            .iter()
            .find(|splat| splat.allowed.is_none())
            .map(|splat| Outcome::Failed { kind: FailureKind::Splat, message: splat.title.clone() }),
    }
}

/// The verdict of all attempts.
pub(super) fn combine(earlier: Attempts, mut last: Verdict, on_flaky: OnFlaky) -> Verdict {
    if earlier.is_empty() {
        return last;
    }
    let attempts = earlier.len() + 1;
    let crash = earlier.iter().zip(1..).find_map(|((_, verdict), number)| Some((number, verdict, lasting(verdict)?)));
    if let Some((number, verdict, outcome)) = crash
        && lasting(&last).is_none()
    {
        let after = format!(" (attempt {number} of {attempts}; the last one {})", last.outcome.word());
        last.outcome = match outcome {
            Outcome::Failed { kind, message } => Outcome::Failed { kind, message: message + &after },
            Outcome::Errored { kind, message } => Outcome::Errored { kind, message: message + &after },
            other => other,
        };
        last.evidence.clone_from(&verdict.evidence);
        last.splats.clone_from(&verdict.splats);
    } else if last.outcome == Outcome::Passed && on_flaky == OnFlaky::Fail {
        let first = earlier.first().map(|(_, verdict)| verdict.outcome.message()).unwrap_or_default();
        let message = format!("passed at attempt {attempts} only; the first one: {first}");
        last.outcome = Outcome::Failed { kind: FailureKind::Flaky, message };
    }
    last.earlier = earlier.into_iter().map(|(guest, verdict)| Attempt::of(guest, verdict)).collect();
    last
}
