//! Kernels that only the later run has. Each is compared with its predecessor, so that a night with a new kernel says what that
//! kernel changed, not that a thousand cells were added.

use super::ChangeKind;
use lab_base::text;
use lab_record::{
    plan::{KernelFacts, PlannedKernel},
    run::RunRecord,
    verdict::{Standing, Verdict},
};
use serde::Serialize;
use std::fmt;

/// A kernel, or a version of a kernel, that the earlier run does not have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NewKernel {
    /// Its id.
    pub kernel: String,
    /// Its version.
    pub version: String,
    /// What it was compared with; `None` if neither run has an older kernel of its kind.
    pub predecessor: Option<Predecessor>,
    /// Number of cells that end differently than on the predecessor. Those that fail on both do not count.
    pub differences: usize,
    /// Number of cells that the predecessor skips, and that run and do not fail on the new kernel.
    pub run_now: usize,
}

impl NewKernel {
    pub(super) fn count(&mut self, kind: Option<ChangeKind>, was: &Verdict, now: &Verdict) {
        let skipped = |verdict: &Verdict| verdict.standing() == Standing::Skipped;
        match kind {
            None if skipped(was) && !skipped(now) => self.run_now += 1,
            None | Some(ChangeKind::StillFailing | ChangeKind::Slower) => {}
            Some(_) => self.differences += 1,
        }
    }
}

impl fmt::Display for NewKernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = |kernel: &str, version: &str| match kernel == version {
            true => kernel.to_owned(),
            false => format!("{kernel} ({version})"),
        };
        write!(f, "new kernel {}: ", name(&self.kernel, &self.version))?;
        let Some(old) = &self.predecessor else { return f.write_str("no older one to compare it with") };
        let differences = text::count(self.differences, "difference");
        write!(f, "{differences} from its predecessor {}", name(&old.kernel, &old.version))?;
        match self.run_now {
            0 => Ok(()),
            more => write!(f, "; it runs {} more", text::count(more, "cell")),
        }
    }
}

/// The kernel that a new one was compared with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Predecessor {
    /// Its id.
    pub kernel: String,
    /// Its version.
    pub version: String,
}

/// A new kernel, and the run and the plan of what it is compared with.
pub(super) struct Pairing<'a> {
    pub new: &'a KernelFacts,
    pub old: Option<(&'a RunRecord, &'a PlannedKernel)>,
}

impl Pairing<'_> {
    pub(super) fn told(&self) -> NewKernel {
        let predecessor = self
            .old
            .map(|(_, old)| Predecessor { kernel: old.facts.id.to_string(), version: old.facts.version.to_string() });
        NewKernel {
            kernel: self.new.id.to_string(),
            version: self.new.version.to_string(),
            predecessor,
            differences: 0,
            run_now: 0,
        }
    }
}

/// The kernels of the later run that the earlier one does not have in this version.
pub(super) fn new_ones<'a>(before: &'a RunRecord, after: &'a RunRecord) -> Vec<Pairing<'a>> {
    let of = |record: &'a RunRecord| record.planned().map(move |(kernel, _)| (record, kernel));
    let new = of(after).filter_map(|(_, kernel)| {
        let new = &kernel.facts;
        match of(before).find(|(_, old)| old.facts.id == new.id) {
            Some((_, old)) if old.facts.version == new.version => None,
            Some(same_id) => Some(Pairing { new, old: Some(same_id) }),
            // The later run's own first: it had the same cells, and the same lab.
            None => Some(Pairing { new, old: predecessor(new, of(after)).or_else(|| predecessor(new, of(before))) }),
        }
    });
    new.collect()
}

/// The newest of the older kernels, among those of the same kind.
fn predecessor<'a>(
    new: &KernelFacts,
    kernels: impl Iterator<Item = (&'a RunRecord, &'a PlannedKernel)>,
) -> Option<(&'a RunRecord, &'a PlannedKernel)> {
    let older = kernels.filter(|(_, old)| kind(&old.facts) == kind(new) && old.facts.version < new.version);
    older.max_by_key(|(_, old)| old.facts.version)
}

/// What makes two kernels comparable: the architecture, and the variant behind the `+` of their ids.
fn kind(facts: &KernelFacts) -> (&'static str, Option<&str>) {
    (facts.architecture.name(), facts.id.split_once('+').map(|(_, variant)| variant))
}

#[cfg(test)]
mod tests {
    use crate::compare::{
        ChangeKind, Comparison, compare,
        tests::{A, B, bad, good},
    };
    use lab_protocol::{AttachType, Capability, CellId, Outcome, SkipReason};
    use lab_record::{
        event::{Accelerator, Event, RunInfo, Stamped, Start, Versions},
        exit::Exit,
        plan::Plan,
        run::RunRecord,
        testing::{cell, facts, id},
        verdict::Verdict,
    };

    /// A run of two cells on kernels: id, version, verdicts.
    fn run(name: &str, kernels: Vec<(&str, &str, [Verdict; 2])>) -> RunRecord {
        let of = kernels.iter().map(|(id, version, _)| facts(id, version)).collect();
        let plan = Plan { every_cell: true, ..Plan::new(of, vec![cell(A), cell(B)], true) };
        let accelerator = Accelerator { name: "tcg".into(), reason: String::new(), time_scale: 10.0 };
        let info = RunInfo::new(id(name), Versions::default(), accelerator, plan);
        let mut record = RunRecord::default();
        let mut apply = |event| record.apply(&Stamped { at_ms: 0, event });
        apply(Event::RunStarted { run: Box::new(info) });
        for (kernel, _, verdicts) in kernels {
            let kernel = id(kernel);
            apply(Event::GuestStarted { kernel: kernel.clone(), guest: 1, start: Start::Boot });
            apply(Event::Probed { kernel: kernel.clone(), guest: 1, capabilities: Vec::new(), modules: Vec::new() });
            for verdict in verdicts {
                apply(Event::CellFinished { kernel: kernel.clone(), guest: 1, verdict: Box::new(verdict) });
            }
            apply(Event::GuestEnded { kernel, guest: 1, shutdown_ms: 10, problems: Vec::new() });
        }
        record
    }

    fn both() -> [Verdict; 2] {
        [good(A, AttachType::Tcx), good(B, AttachType::Netkit)]
    }

    fn told(comparison: &Comparison) -> Vec<String> {
        comparison.new_kernels.iter().map(ToString::to_string).collect()
    }

    fn changes(comparison: &Comparison) -> Vec<(ChangeKind, &str, &str)> {
        comparison.changes.iter().map(|change| (change.kind, &*change.kernel, &*change.before)).collect()
    }

    #[test]
    fn a_new_kernel_is_compared_with_the_newest_of_the_older_ones() {
        let before = run("one", vec![("6.12.90", "6.12.90", both()), ("6.12.95", "6.12.95", both())]);
        let kernels = vec![
            ("6.12.90", "6.12.90", both()),
            ("6.12.95", "6.12.95", both()),
            ("6.12.101", "6.12.101", [bad(A), good(B, AttachType::Tcx)]),
            ("6.17.8", "6.17.8", both()),
        ];
        let comparison = compare(&before, &run("two", kernels));
        assert_eq!(
            told(&comparison),
            [
                "new kernel 6.12.101: 2 differences from its predecessor 6.12.95",
                "new kernel 6.17.8: 2 differences from its predecessor 6.12.101"
            ]
        );
        let expected = [
            (ChangeKind::NewlyFailing, "6.12.101", "6.12.95: passed by tcx in 1 ms"),
            (ChangeKind::AttachChanged, "6.12.101", "6.12.95: passed by netkit in 1 ms"),
            (ChangeKind::AttachChanged, "6.17.8", "6.12.101: passed by tcx in 1 ms"),
            (ChangeKind::Fixed, "6.17.8", "6.12.101: failed by tcx in 1 ms: check: lost 3 of 3"),
        ];
        assert_eq!(changes(&comparison), expected);
        assert_eq!(comparison.exit(true), Exit::Failed);
    }

    /// Its failures are no difference, and no new failures of the night.
    #[test]
    fn a_new_kernel_that_fails_like_its_predecessor_does_not_differ() {
        let fails = || [bad(A), good(B, AttachType::Netkit)];
        let before = run("one", vec![("6.12.90", "6.12.90", fails())]);
        let kernels = vec![("6.12.90", "6.12.90", fails()), ("6.12.95", "6.12.95", fails())];
        let comparison = compare(&before, &run("two", kernels));
        assert_eq!(told(&comparison), ["new kernel 6.12.95: 0 differences from its predecessor 6.12.90"]);
        let still = changes(&comparison).into_iter().map(|(kind, kernel, _)| (kind, kernel));
        assert!(still.eq(["6.12.90", "6.12.95"].map(|kernel| (ChangeKind::StillFailing, kernel))));
        assert_eq!((comparison.exit(true), comparison.exit(false)), (Exit::Passed, Exit::Failed));
    }

    #[test]
    fn another_version_of_the_same_entry_is_new_too() {
        let before = run("one", vec![("6.12", "6.12.90", both())]);
        let after = run("two", vec![("6.12", "6.12.95", [bad(A), good(B, AttachType::Netkit)])]);
        let comparison = compare(&before, &after);
        assert_eq!(told(&comparison), ["new kernel 6.12 (6.12.95): 1 difference from its predecessor 6.12 (6.12.90)"]);
        assert_eq!(changes(&comparison), [(ChangeKind::NewlyFailing, "6.12", "passed by tcx in 1 ms")]);
        assert!(compare(&before, &before).new_kernels.is_empty());
    }

    #[test]
    fn a_cell_that_the_predecessor_skips_is_told_apart() {
        let reason = SkipReason {
            capability: Capability::Netkit,
            detail: "too old".into(),
            lifted_by: facts("x", "6.7").version,
        };
        let skipped = Verdict::bare(CellId(B.into()), Outcome::Skipped { reason });
        let older = || vec![("6.6.1", "6.6.1", [good(A, AttachType::Tcx), skipped.clone()])];
        let with = |newer| older().into_iter().chain([("6.7.1", "6.7.1", newer)]).collect();
        let comparison = compare(&run("one", older()), &run("two", with(both())));
        assert_eq!(
            told(&comparison),
            ["new kernel 6.7.1: 0 differences from its predecessor 6.6.1; it runs 1 cell more"]
        );
        assert_eq!(comparison.exit(false), Exit::Passed);
        // One that fails there is a difference.
        let fails = with([good(A, AttachType::Tcx), bad(B)]);
        let comparison = compare(&run("one", older()), &run("two", fails));
        assert_eq!(told(&comparison), ["new kernel 6.7.1: 1 difference from its predecessor 6.6.1"]);
    }

    #[test]
    fn variants_are_compared_with_variants() {
        let before = run("one", vec![("6.12", "6.12.90", both())]);
        let kernels = vec![("6.12", "6.12.90", both()), ("6.17+debug", "6.17.8", both())];
        let comparison = compare(&before, &run("two", kernels));
        assert_eq!(told(&comparison), ["new kernel 6.17+debug (6.17.8): no older one to compare it with"]);
        let added = comparison.changes.iter().filter(|change| change.kind == ChangeKind::Added).count();
        assert_eq!((added, comparison.changes.len()), (2 + 3, 2 + 3), "two cells, boot, splat and teardown");
    }
}
