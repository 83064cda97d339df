//! Judges the splats that the kernel printed while a cell ran.

use crate::lists::Lists;
use lab_protocol::{FailureKind, Outcome};
use lab_record::{plan::KernelFacts, splat::Splat, verdict::Verdict};

/// Marks the splats that an entry of `splats.toml` allows.
pub(super) fn allowed(kernel: &KernelFacts, mut splats: Vec<Splat>, lists: &Lists) -> Vec<Splat> {
    splats.iter_mut().for_each(|splat| lists.allow(kernel, splat));
    splats
}

/// The first splat that is not allowed becomes the cell's evidence, and a failure if the cell passed or was skipped.
pub(crate) fn with_splats(verdict: &mut Verdict, splats: Vec<Splat>) {
    let Some(first) = splats.first() else { return };
    let culprit = splats.iter().find(|splat| splat.allowed.is_none());
    if let Some(culprit) = culprit
        && matches!(verdict.outcome, Outcome::Passed | Outcome::Skipped { .. } | Outcome::SkippedItself { .. })
    {
        verdict.outcome = Outcome::Failed { kind: FailureKind::Splat, message: culprit.title.clone() };
    }
    verdict.evidence.get_or_insert_with(|| culprit.unwrap_or(first).evidence.clone());
    verdict.splats = splats;
}
