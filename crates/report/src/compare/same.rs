//! Checks that two runs have the same results in every cell, as required of merged shards.

use super::by_cell;
use lab_protocol::{AttachType, Outcome};
use lab_record::{exit::Exit, kept::ReportedVerdict, run::RunRecord};
use std::{collections::BTreeSet, fmt};

/// Maximum number of differences in the output.
const MAX_TOLD: usize = 20;

/// Result of the comparison.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sameness {
    /// Number of cells in both runs together.
    pub cells: usize,
    /// Number of cells with the same outcome, kind of failure and attach types in both runs.
    pub equal: usize,
    /// Number of cells that are missing in one run or did not run.
    pub missing: usize,
    /// One line per different cell.
    pub differences: Vec<String>,
}

/// Compares outcomes, kinds of failures, and attach types; times and ids always differ between runs.
pub fn same(one: &RunRecord, other: &RunRecord) -> Sameness {
    let (one, other) = (by_cell(one), by_cell(other));
    let mut found = Sameness::default();
    for key in one.keys().chain(other.keys()).collect::<BTreeSet<_>>() {
        found.cells += 1;
        let ran = |verdict: &lab_record::verdict::Verdict| !matches!(verdict.outcome, Outcome::NotRun { .. });
        let pair = (one.get(key).filter(|it| ran(it)), other.get(key).filter(|it| ran(it)));
        let told = |verdict: Option<&ReportedVerdict<'_>>| match verdict {
            None => "missing".to_owned(),
            Some(verdict) => {
                let kind = match &verdict.outcome {
                    Outcome::Failed { kind, .. } => format!("({kind})"),
                    Outcome::Errored { kind, .. } => format!("({kind})"),
                    Outcome::Passed
                    | Outcome::Skipped { .. }
                    | Outcome::SkippedItself { .. }
                    | Outcome::NotRun { .. } => String::new(),
                };
                let attach: Vec<&str> = verdict.used().into_iter().map(AttachType::name).collect();
                format!("{}{kind} {}", verdict.outcome.word(), attach.join("+")).trim_end().to_owned()
            }
        };
        let (left, right) = (told(pair.0), told(pair.1));
        if pair.0.is_none() || pair.1.is_none() {
            found.missing += 1;
        } else if left == right {
            found.equal += 1;
            continue;
        }
        found.differences.push(format!("{} {}: {left}, {right}", key.0, key.1));
    }
    found
}

impl Sameness {
    /// 0 if every cell is in both runs with the same result.
    pub fn exit(&self) -> Exit {
        if self.equal == self.cells { Exit::Passed } else { Exit::Failed }
    }
}

impl fmt::Display for Sameness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for difference in self.differences.iter().take(MAX_TOLD) {
            writeln!(f, "{}", lab_base::text::line(difference, 400))?;
        }
        if let more @ 1.. = self.differences.len().saturating_sub(MAX_TOLD) {
            writeln!(f, "… and {more} more")?;
        }
        writeln!(f, "{} cells, {} equal, {} missing", self.cells, self.equal, self.missing)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::tests::{A, B, bad, good, run};
    use lab_protocol::FailureKind;
    use lab_record::verdict::Verdict;

    #[test]
    fn only_outcomes_and_attach_types_count() {
        let one = run("one", &[A, B], vec![good(A, AttachType::Tcx), good(B, AttachType::Netkit)]);
        let mut slow = good(A, AttachType::Tcx);
        slow.report.duration_us = 9_000_000;
        let again = same(&one, &run("two", &[A, B], vec![slow, good(B, AttachType::Netkit)]));
        assert_eq!((again.to_string(), again.exit()), ("5 cells, 5 equal, 0 missing\n".to_owned(), Exit::Passed));
        let other = same(&one, &run("two", &[A, B], vec![bad(A), good(B, AttachType::Tcx)]));
        assert_eq!(
            other.to_string(),
            "6.12 A01-x[auto,veth]: passed tcx, failed(check) tcx\n\
             6.12 B02-y[auto,nk-l3]: passed netkit, passed tcx\n\
             5 cells, 3 equal, 0 missing\n"
        );
        assert_eq!(other.exit(), Exit::Failed);
        let leak = Outcome::Failed { kind: FailureKind::Leak, message: "map 7".to_owned() };
        let leaking = run("three", &[A, B], vec![Verdict { outcome: leak, ..bad(A) }, good(B, AttachType::Tcx)]);
        let found = same(&run("two", &[A, B], vec![bad(A), good(B, AttachType::Tcx)]), &leaking);
        assert_eq!(found.differences, ["6.12 A01-x[auto,veth]: failed(check) tcx, failed(leak) tcx"]);
    }

    #[test]
    fn a_cell_that_is_absent_or_did_not_run_is_missing() {
        let one = run("one", &[A, B], vec![good(A, AttachType::Tcx), good(B, AttachType::Netkit)]);
        for other in
            [run("two", &[A], vec![good(A, AttachType::Tcx)]), run("two", &[A, B], vec![good(A, AttachType::Tcx)])]
        {
            let found = same(&one, &other);
            assert_eq!((found.cells, found.equal, found.missing, found.exit()), (2 + 3, 1 + 3, 1, Exit::Failed));
        }
        let never = run("x", &[A], Vec::new());
        assert_eq!(same(&never, &never).exit(), Exit::Failed, "cells that did not run are not equal");
    }
}
