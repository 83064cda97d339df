//! Verdicts in a few bytes: a run of millions of cells has to fit in the memory of a CI runner, and most of its verdicts
//! differ in little more than numbers.

use super::{Said, Texts};
use crate::verdict::Verdict;
use lab_guard::Id;
use lab_protocol::{AttachRecord, CellId, CellReport, Outcome};
use serde::{Deserialize, Serialize};

/// What a verdict says beyond what its record holds once for all. The numbers are indexes in [`Texts`]. `C` is a list of checks.
#[derive(Serialize, Deserialize)]
struct Packed<C> {
    outcome: u32,
    duration_us: u64,
    waited_us: u64,
    reused: Option<u32>,
    /// Device and hook, program, link, run count.
    attach: Vec<(u32, u32, Option<u32>, Option<u64>)>,
    metrics: Vec<(u32, f64)>,
    checks: C,
}

/// Bytes of the buffer in which verdicts are packed. Larger ones get memory of their own.
const BUFFER: usize = 4 << 10;

/// Whether nothing would be lost: it has neither evidence nor remarks.
fn fits(verdict: &Verdict) -> bool {
    let Verdict { report, outcome, warnings, evidence, files, splats, known, earlier, reused: _ } = verdict;
    matches!(outcome, Outcome::Passed | Outcome::Skipped { .. })
        && report.outcome == *outcome
        && warnings.is_empty()
        && evidence.is_none()
        && files.is_empty()
        && splats.is_empty()
        && known.is_none()
        && earlier.is_empty()
        && report.log.is_empty()
        && report.program.is_none()
        && report.witness.is_none()
        && report.attachments.is_empty()
}

/// The bytes of a verdict whose checks are `checks`; `None` if it must be kept whole.
pub(super) fn pack(verdict: &Verdict, checks: &[Said], texts: &mut Texts) -> Option<Box<[u8]>> {
    if !fits(verdict) {
        return None;
    }
    let report = &verdict.report;
    let packed = Packed {
        outcome: texts.outcome(&verdict.outcome),
        duration_us: report.duration_us,
        waited_us: report.waited_us,
        reused: verdict.reused.as_ref().map(|run| texts.index(run)),
        attach: report.attach.iter().map(|it| (texts.place(it), it.prog_id, it.link_id, it.ran)).collect(),
        metrics: report.metrics.iter().map(|(name, value)| (texts.index(name), *value)).collect(),
        checks,
    };
    // To grow a buffer for each of millions of verdicts takes as long as to fill it.
    let mut buffer = [0; BUFFER];
    match postcard::to_slice(&packed, &mut buffer) {
        Ok(bytes) => Some((*bytes).into()),
        Err(_) => postcard::to_allocvec(&packed).ok().map(Vec::into_boxed_slice),
    }
}

/// How long the cell of a packed verdict took, microseconds.
pub(super) fn duration_us(bytes: &[u8]) -> Option<u64> {
    postcard::take_from_bytes::<(u32, u64)>(bytes).ok().map(|((_, duration_us), _)| duration_us)
}

/// The verdict of a cell, without its checks, and the checks.
pub(super) fn unpack(bytes: &[u8], cell: &CellId, texts: &Texts) -> Option<(Verdict, Vec<Said>)> {
    let packed: Packed<Vec<Said>> = postcard::from_bytes(bytes).ok()?;
    let outcome = texts.outcomes.get(packed.outcome as usize)?.clone();
    let attach = packed.attach.into_iter().map(|(place, prog_id, link_id, ran)| {
        Some(AttachRecord { prog_id, link_id, ran, ..texts.places.get(place as usize)?.clone() })
    });
    let metrics = packed.metrics.into_iter().map(|(name, value)| (texts.word(name).text.to_owned(), value));
    let reused = match packed.reused {
        Some(run) => Some(Id::new(texts.word(run).text).ok()?),
        None => None,
    };
    let report = CellReport {
        attach: attach.collect::<Option<_>>()?,
        metrics: metrics.collect(),
        duration_us: packed.duration_us,
        waited_us: packed.waited_us,
        ..CellReport::bare(cell.clone(), outcome.clone())
    };
    Some((Verdict { reused, ..Verdict::on(report, outcome) }, packed.checks))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{attached, passed};
    use lab_protocol::{AttachRequest, AttachType, DeviceKind, FailureKind};

    #[test]
    fn a_verdict_is_the_same_after_it_was_packed() {
        let mut texts = Texts::default();
        let record = attached(AttachRequest::Auto, DeviceKind::Veth, AttachType::Tcx);
        let mut report = passed("A01-x[auto,veth]", vec![record.clone(), AttachRecord { prog_id: 7, ..record }]);
        (report.duration_us, report.waited_us) = (u64::MAX, 3);
        report.metrics.insert("udp.lost".to_owned(), 0.5);
        let verdict = Verdict { reused: Some(Id::new("first").unwrap()), ..Verdict::on(report, Outcome::Passed) };
        let checks = [(1, true, 2), (3, false, 300)];
        let bytes = pack(&verdict, &checks, &mut texts).unwrap();
        assert!(bytes.len() < 60, "{} bytes", bytes.len());
        assert_eq!(duration_us(&bytes), Some(u64::MAX));
        assert_eq!(unpack(&bytes, &verdict.report.cell, &texts), Some((verdict.clone(), checks.to_vec())));
        assert!(unpack(&bytes[1..], &verdict.report.cell, &Texts::default()).is_none());

        let failed = Outcome::Failed { kind: FailureKind::Check, message: "lost".to_owned() };
        let mut logged = verdict.clone();
        logged.report.log.push("a line".to_owned());
        for whole in
            [Verdict { outcome: failed, ..verdict.clone() }, logged, Verdict { evidence: Some("x".into()), ..verdict }]
        {
            assert!(pack(&whole, &checks, &mut texts).is_none(), "{whole:?}");
        }
    }
}
