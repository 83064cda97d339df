//! The host's verdict on a cell, with everything that decides whether it counts.

use crate::{excuse::Excuse, splat::Splat};
use lab_guard::{Id, Inside};
use lab_protocol::{AttachType, CellId, CellReport, Check, Outcome};
use serde::{Deserialize, Serialize};

/// The host's verdict on a cell. `C` is how its checks are held, as in [`CellReport`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Verdict<C = Check> {
    /// The guest's report; its outcome is the guest's own.
    pub report: CellReport<C>,
    /// The outcome that counts.
    pub outcome: Outcome,
    /// Observations that do not fail the cell.
    pub warnings: Vec<String>,
    /// Console lines around a crash.
    pub evidence: Option<String>,
    /// Files of the cell, as paths relative to the run's directory.
    #[serde(default)]
    pub files: Vec<Inside>,
    /// Splats while the cell ran.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub splats: Vec<Splat>,
    /// The matching entry of `known.toml`: why a failure does not count, or why a cell that passed was expected to
    /// fail.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub known: Option<Excuse>,
    /// Earlier attempts, each in a separate guest, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub earlier: Vec<Attempt>,
    /// The run that gave the verdict, if this one took it over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reused: Option<Id>,
}

/// An attempt at a cell that did not pass.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Attempt {
    /// Number of its guest.
    pub guest: u32,
    /// How it ended.
    pub outcome: Outcome,
    /// Wall time in the guest, microseconds.
    pub duration_us: u64,
    /// Failed checks, and the console around a crash.
    pub evidence: Option<String>,
    /// Splats while it ran.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub splats: Vec<Splat>,
    /// Files of the attempt, as paths relative to the run's directory.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<Inside>,
}

impl Attempt {
    /// Converts a verdict to an attempt.
    pub fn of(guest: u32, verdict: Verdict) -> Self {
        let failed = verdict.report.checks.iter().filter(|check| !check.ok);
        let failed: Vec<String> = failed.map(|check| format!("FAIL {}: {}", check.name, check.seen)).collect();
        let evidence = verdict.evidence.or((!failed.is_empty()).then(|| failed.join("\n")));
        let Verdict { report, outcome, splats, files, .. } = verdict;
        Self { guest, outcome, duration_us: report.duration_us, evidence, splats, files }
    }
}

/// How a verdict is counted: every cell has exactly one standing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Standing {
    /// Passed at the first attempt.
    Passed,
    /// Passed when repeated in a fresh guest.
    Flaky,
    /// Failed as expected by `known.toml`.
    Known,
    /// Failed.
    Failed,
    /// The kernel lacks a capability.
    Skipped,
    /// Ended without a verdict on the kernel.
    Errored,
    /// Not started.
    NotRun,
}

impl Standing {
    /// The word in tables and counters.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Flaky => "flaky",
            Self::Known => "known",
            Self::Failed => "failed",
            Self::Skipped => "skipped",
            Self::Errored => "errored",
            Self::NotRun => "not-run",
        }
    }

    /// Whether it needs attention.
    pub const fn is_bad(self) -> bool {
        matches!(self, Self::Failed | Self::Errored | Self::NotRun)
    }
}

impl<C> Verdict<C> {
    /// The verdict without its checks, and the checks.
    pub fn split(self) -> (Verdict, Vec<C>) {
        let Self { report, outcome, warnings, evidence, files, splats, known, earlier, reused } = self;
        let (report, checks) = report.split();
        (Verdict { report, outcome, warnings, evidence, files, splats, known, earlier, reused }, checks)
    }
}

impl Verdict {
    /// A verdict on a guest's report, without splats, excuses or attempts.
    pub const fn on(report: CellReport, outcome: Outcome) -> Self {
        Self {
            report,
            outcome,
            warnings: Vec::new(),
            evidence: None,
            files: Vec::new(),
            splats: Vec::new(),
            known: None,
            earlier: Vec::new(),
            reused: None,
        }
    }

    /// A verdict without a report from a guest.
    pub fn bare(cell: CellId, outcome: Outcome) -> Self {
        Self::on(CellReport::bare(cell, outcome.clone()), outcome)
    }

    /// How the verdict is counted.
    pub fn standing(&self) -> Standing {
        match &self.outcome {
            Outcome::Passed if !self.earlier.is_empty() => Standing::Flaky,
            Outcome::Passed => Standing::Passed,
            Outcome::Skipped { .. } | Outcome::SkippedItself { .. } => Standing::Skipped,
            Outcome::NotRun { .. } => Standing::NotRun,
            Outcome::Failed { .. } | Outcome::Errored { .. } if self.known.is_some() => Standing::Known,
            Outcome::Failed { .. } => Standing::Failed,
            Outcome::Errored { .. } => Standing::Errored,
        }
    }

    /// The attach types that the kernel reported for a cell, in order, without duplicates.
    pub fn used(&self) -> Vec<AttachType> {
        let report = &self.report;
        let own = report.attach.iter().filter_map(|record| record.used);
        let seen = report.witness.iter().flat_map(|account| &account.rows).filter(|row| row.attached > 0);
        let mut used: Vec<AttachType> = own.chain(seen.filter_map(|row| row.place.attach)).collect();
        used.sort_unstable();
        used.dedup();
        used
    }

    /// Whether the verdict has no splats, no excuse and no earlier attempts, and is this run's own.
    pub const fn is_plain(&self) -> bool {
        self.splats.is_empty() && self.known.is_none() && self.earlier.is_empty() && self.reused.is_none()
    }

    /// Whether the cell passed although `known.toml` expects it to fail.
    pub fn is_unexpected_pass(&self) -> bool {
        self.known.is_some() && self.outcome == Outcome::Passed
    }

    /// Whether outcome and splats are those of an earlier attempt, which no later attempt can revoke.
    pub fn repeats_an_attempt(&self) -> bool {
        !self.splats.is_empty() && self.earlier.iter().any(|attempt| attempt.splats == self.splats)
    }

    /// Splats, excuses and earlier attempts, one line each.
    pub fn remarks(&self) -> Vec<String> {
        let splats = self.splats.iter().map(|splat| {
            let allowed = splat.allowed.as_ref().map_or_else(String::new, |it| format!("; allowed {}", it.line()));
            format!("{}{allowed}", splat.line())
        });
        let known = self.known.iter().map(|known| match self.is_unexpected_pass() {
            true => format!("passes, but known.toml expects it to fail {}: remove the entry", known.line()),
            false => format!("known {}", known.line()),
        });
        let earlier = self.earlier.iter().zip(1..).map(|(attempt, number)| {
            format!(
                "attempt {number} (guest {}) {}: {}",
                attempt.guest,
                attempt.outcome.word(),
                attempt.outcome.message()
            )
        });
        let reused = self.reused.iter().map(|run| format!("taken over from run {run}; nothing has changed since"));
        self.warnings.iter().cloned().chain(splats).chain(known).chain(earlier).chain(reused).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{attached, passed};
    use lab_protocol::{
        AttachRequest, DeviceKind,
        witness::{Account, AttachPlace, AttachRow, AttachWay},
    };
    use std::collections::BTreeMap;

    #[test]
    fn a_type_that_was_only_refused_or_detached_is_not_used() {
        let row = |attach, counts: [u64; 3]| AttachRow {
            place: AttachPlace {
                attach,
                hook: String::new(),
                device: "eth0".to_owned(),
                kind: "veth".to_owned(),
                namespace: "w0".to_owned(),
            },
            way: AttachWay::Link,
            program: "tc_main".to_owned(),
            tag: String::new(),
            ids: vec![7],
            process: "loader".to_owned(),
            pid: 77,
            first_ms: 0,
            attached: counts[0],
            refused: BTreeMap::from([("EINVAL".to_owned(), counts[1])]),
            detached: counts[2],
            replaced: 0,
            runs: None,
            detail: String::new(),
        };
        let used = |own, rows| {
            let mut report = passed("X01-exec[veth]", own);
            report.witness = Some(Box::new(Account { rows, ..Account::default() }));
            Verdict::on(report, Outcome::Passed).used()
        };
        let refused = row(Some(AttachType::Netkit), [0, 3, 0]);
        // It was there before the program came.
        let detached = row(Some(AttachType::Tc), [0, 0, 1]);
        let tcx = row(Some(AttachType::Tcx), [2, 1, 2]);
        let other = row(None, [1, 0, 0]);
        assert_eq!(used(Vec::new(), vec![refused.clone(), detached.clone()]), []);
        let rows = vec![refused, tcx.clone(), detached, other, tcx];
        assert_eq!(used(Vec::new(), rows.clone()), [AttachType::Tcx]);
        let own = attached(AttachRequest::Netkit, DeviceKind::NetkitL3, AttachType::Netkit);
        assert_eq!(used(vec![own], rows), [AttachType::Tcx, AttachType::Netkit]);
    }
}
