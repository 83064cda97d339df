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

#[cfg(test)]
mod tests {
    use super::*;
    use lab_record::testing::cell;

    fn verdict(outcome: Outcome) -> Verdict {
        Verdict::bare(cell("A01-x[tc,veth]").id, outcome)
    }

    #[test]
    fn a_crash_a_hang_and_a_splat_decide_whatever_comes_after() {
        let message = "still running after 30.0 s".to_owned();
        let lasting = [
            Outcome::Errored { kind: ErrorKind::Panic, message: message.clone() },
            Outcome::Errored { kind: ErrorKind::Hang, message: message.clone() },
            Outcome::Failed { kind: FailureKind::Splat, message: message.clone() },
        ];
        for first in lasting {
            let combined = combine(vec![(1, verdict(first.clone()))], verdict(Outcome::Passed), OnFlaky::Pass);
            assert_eq!(combined.outcome.word(), first.word());
            let told = combined.outcome.message();
            assert!(told.ends_with(&format!("{message} (attempt 1 of 2; the last one passed)")), "{told}");
        }
        let first = Outcome::Failed { kind: FailureKind::Check, message: "1, expected 2".to_owned() };
        let earlier = vec![(1, verdict(first))];
        assert_eq!(combine(earlier.clone(), verdict(Outcome::Passed), OnFlaky::Pass).outcome, Outcome::Passed);
        let strict = combine(earlier, verdict(Outcome::Passed), OnFlaky::Fail).outcome;
        assert!(matches!(strict, Outcome::Failed { kind: FailureKind::Flaky, .. }), "{strict:?}");
    }
}
