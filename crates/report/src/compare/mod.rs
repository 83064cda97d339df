//! Compares two runs.
//!
//! A changed attach type is as important as a failure: the cell tested a different datapath, even if its checks passed.

mod kernels;
mod render;
mod same;

pub use kernels::{NewKernel, Predecessor};
pub use render::{CompareFormat, render};
pub use same::{Sameness, same};

use lab_protocol::{AttachType, CellId, Outcome};
use lab_record::{
    exit::Exit,
    kept::ReportedVerdict,
    rows,
    run::RunRecord,
    verdict::{Standing, Verdict},
};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// A cell counts as slower if its time grew by more than this factor …
const SLOWER: f64 = 2.0;
/// … and by this time, milliseconds: small differences may be caused by a busy host.
const SLOWER_MS: u64 = 500;

/// Kinds of changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ChangeKind {
    /// Fails, errors or did not run, but not in the first run.
    NewlyFailing,
    /// The kernel reports a different attach type.
    AttachChanged,
    /// Ran in the first run, with any outcome, and is skipped in the second.
    NoLongerRuns,
    /// In the first run's plan, and missing in the second's although its selection includes the cell.
    Gone,
    /// Bad in both runs.
    StillFailing,
    /// Bad in the first run, passes in the second.
    Fixed,
    /// Passes only when repeated, but not in the first run.
    Flaky,
    /// Fails as expected by `known.toml`, but not in the first run.
    KnownFailing,
    /// Passes in both runs, but takes much longer in the second.
    Slower,
    /// Only in the second run's plan, and not bad.
    Added,
}

impl ChangeKind {
    /// All kinds, the most important first.
    pub const ALL: [Self; 10] = [
        Self::NewlyFailing,
        Self::AttachChanged,
        Self::NoLongerRuns,
        Self::Gone,
        Self::StillFailing,
        Self::Fixed,
        Self::Flaky,
        Self::KnownFailing,
        Self::Slower,
        Self::Added,
    ];

    /// Heading of the kind.
    pub const fn words(self) -> &'static str {
        match self {
            Self::NewlyFailing => "newly failing",
            Self::AttachChanged => "attach type changed",
            Self::NoLongerRuns => "no longer runs",
            Self::Gone => "no longer in the plan",
            Self::StillFailing => "still failing",
            Self::Fixed => "fixed",
            Self::Flaky => "flaky",
            Self::KnownFailing => "failing as known",
            Self::Slower => "slower",
            Self::Added => "added",
        }
    }

    /// Whether the change needs attention.
    pub const fn is_loud(self) -> bool {
        matches!(self, Self::NewlyFailing | Self::AttachChanged | Self::NoLongerRuns | Self::Gone)
    }
}

/// A changed cell on one kernel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CellChange {
    pub kind: ChangeKind,
    pub kernel: String,
    pub cell: String,
    /// State in the first run, one line.
    pub before: String,
    /// State in the second run, one line.
    pub after: String,
    /// Whether failures of the kernel do not count.
    pub may_fail: bool,
}

/// All changes, the most important first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Comparison {
    /// Version of this structure as JSON.
    pub version: u32,
    /// Id of the first run.
    pub before: String,
    /// Id of the second run.
    pub after: String,
    pub changes: Vec<CellChange>,
    /// Kernels that the earlier run does not have, in this version.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub new_kernels: Vec<NewKernel>,
    /// Number of unchanged cells.
    pub unchanged: usize,
    /// Cells of the earlier run that the later run's selection does not include, by kernel.
    pub not_selected: BTreeMap<String, usize>,
}

impl Comparison {
    /// 1 if a change needs attention, or if a cell still fails unless `new_only` is set.
    pub fn exit(&self, new_only: bool) -> Exit {
        let bad = |change: &CellChange| {
            !change.may_fail && (change.kind.is_loud() || !new_only && change.kind == ChangeKind::StillFailing)
        };
        if self.changes.iter().any(bad) { Exit::Failed } else { Exit::Passed }
    }
}

/// Compares two runs cell by cell.
pub fn compare(before: &RunRecord, after: &RunRecord) -> Comparison {
    let id = |record: &RunRecord| record.info.as_ref().map_or_else(String::new, |info| info.id.to_string());
    let (mut old, new) = (by_cell(before), by_cell(after));
    let pairings = kernels::new_ones(before, after);
    // What the kernel's id stands for in the other run, where that has another one.
    let mut instead = BTreeMap::new();
    for of in &pairings {
        if let Some((record, kernel)) = of.old
            && kernel.facts.id != of.new.id
        {
            let happened = record.kernels.get(&kernel.facts.id);
            let verdicts = record.verdicts_on(kernel, happened);
            old.extend(verdicts.map(|(cell, verdict)| ((&*of.new.id, cell.id.as_str()), verdict)));
            instead.insert(&*of.new.id, format!("{}: ", kernel.facts.id));
        }
    }
    let kernels = before.planned().chain(after.planned());
    let may_fail: BTreeSet<String> =
        kernels.filter(|(kernel, _)| kernel.facts.may_fail).map(|(kernel, _)| kernel.facts.id.to_string()).collect();
    let mut new_kernels: Vec<NewKernel> = pairings.iter().map(kernels::Pairing::told).collect();
    let mut changes = Vec::new();
    let mut unchanged = 0;
    for ((kernel, cell), now) in &new {
        let change = |kind, before: String| CellChange {
            kind,
            kernel: (*kernel).to_owned(),
            cell: (*cell).to_owned(),
            before,
            after: told(now),
            may_fail: may_fail.contains(*kernel),
        };
        match old.get(&(*kernel, *cell)) {
            None if is_bad(now) => changes.push(change(ChangeKind::NewlyFailing, "not in the plan".to_owned())),
            None => changes.push(change(ChangeKind::Added, "not in the plan".to_owned())),
            Some(was) => {
                // A kernel boots again whenever it, the agent or QEMU is another one, and is restored otherwise.
                let is_row = || rows::is_row(&CellId((*cell).into()));
                let kind = kind(was, now).filter(|kind| *kind != ChangeKind::Slower || !is_row());
                if let Some(new_kernel) = new_kernels.iter_mut().find(|new| new.kernel == *kernel) {
                    new_kernel.count(kind, was, now);
                }
                let on = instead.get(*kernel).map_or("", String::as_str);
                match kind {
                    Some(kind) => changes.push(change(kind, format!("{on}{}", told(was)))),
                    None => unchanged += 1,
                }
            }
        }
    }
    let mut not_selected = BTreeMap::new();
    for ((kernel, cell), was) in old.iter().filter(|(key, _)| !new.contains_key(*key)) {
        // The predecessor has its own line, if its cells are gone.
        if instead.contains_key(*kernel) {
            continue;
        }
        let suite_cell = (!rows::is_row(&CellId((*cell).into()))).then_some(*cell);
        if !after.info.as_ref().is_some_and(|info| info.plan.has_lost(kernel, suite_cell)) {
            *not_selected.entry((*kernel).to_owned()).or_default() += 1;
            continue;
        }
        changes.push(CellChange {
            kind: ChangeKind::Gone,
            kernel: (*kernel).to_owned(),
            cell: (*cell).to_owned(),
            before: told(was),
            after: "not in the plan".to_owned(),
            may_fail: may_fail.contains(*kernel),
        });
    }
    changes.sort_by(|a, b| (a.kind, &a.kernel, &a.cell).cmp(&(b.kind, &b.kernel, &b.cell)));
    Comparison { version: 1, before: id(before), after: id(after), changes, new_kernels, unchanged, not_selected }
}

fn by_cell(record: &RunRecord) -> BTreeMap<(&str, &str), ReportedVerdict<'_>> {
    record.verdicts().map(|(kernel, cell, verdict)| ((&*kernel.facts.id, cell.id.as_str()), verdict)).collect()
}

fn is_bad(verdict: &Verdict) -> bool {
    verdict.standing().is_bad()
}

fn kind(was: &Verdict, now: &Verdict) -> Option<ChangeKind> {
    let (old, new) = (was.used(), now.used());
    let slow = |verdict: &Verdict| verdict.report.duration_us / 1000;
    let ran = |verdict: &Verdict| !matches!(verdict.standing(), Standing::Skipped | Standing::NotRun);
    match (is_bad(was), is_bad(now)) {
        (false, true) => Some(ChangeKind::NewlyFailing),
        (true, true) => Some(ChangeKind::StillFailing),
        (_, false) if now.standing() == Standing::Skipped && ran(was) => Some(ChangeKind::NoLongerRuns),
        // Checked first: for a cell that passes, a different attach type is more important than flakiness. Cells that
        // failed before are excluded, since the attach type may have been the reason.
        (false, false) if now.outcome == Outcome::Passed && !old.is_empty() && !new.is_empty() && old != new => {
            Some(ChangeKind::AttachChanged)
        }
        (_, false) if now.standing() == Standing::Flaky && was.standing() != Standing::Flaky => Some(ChangeKind::Flaky),
        (_, false) if now.standing() == Standing::Known && was.standing() != Standing::Known => {
            Some(ChangeKind::KnownFailing)
        }
        (true, false) => Some(ChangeKind::Fixed),
        (false, false) if was.standing() == Standing::Known && now.outcome == Outcome::Passed => {
            Some(ChangeKind::Fixed)
        }
        (false, false) if slow(now) as f64 > slow(was) as f64 * SLOWER && slow(now) > slow(was) + SLOWER_MS => {
            Some(ChangeKind::Slower)
        }
        (false, false) => None,
    }
}

/// A verdict in one line: outcome, attach type, time, reason.
fn told(verdict: &Verdict) -> String {
    let attach: Vec<&str> = verdict.used().into_iter().map(AttachType::name).collect();
    let attach = if attach.is_empty() { String::new() } else { format!(" by {}", attach.join("+")) };
    let message = verdict.outcome.message();
    let reason = if message.is_empty() { String::new() } else { format!(": {message}") };
    format!("{}{attach} in {} ms{reason}", verdict.standing().word(), verdict.report.duration_us / 1000)
}

#[cfg(test)]
mod tests {
    use super::*;
    use lab_protocol::{AttachRequest, Capability, DeviceKind, ErrorKind, FailureKind, SkipReason};
    use lab_record::{
        event::{Accelerator, Event, RunInfo, Stamped, Start, Versions},
        excuse::Excuse,
        plan::Plan,
        testing::{attached, cell, facts, id, passed},
        verdict::Attempt,
    };

    pub const A: &str = "A01-x[auto,veth]";
    pub const B: &str = "B02-y[auto,nk-l3]";

    pub fn run(name: &str, cells: &[&str], verdicts: Vec<Verdict>) -> RunRecord {
        let plan = Plan::new(vec![facts("6.12", "6.12.117")], cells.iter().map(|id| cell(id)).collect(), true);
        let plan = Plan { every_cell: true, ..plan };
        let accelerator = Accelerator { name: "tcg".into(), reason: String::new(), time_scale: 10.0 };
        let info = RunInfo::new(id(name), Versions::default(), accelerator, plan);
        let mut record = RunRecord::default();
        record.apply(&Stamped { at_ms: 0, event: Event::RunStarted { run: Box::new(info) } });
        let kernel = || id("6.12");
        let begin = [
            Event::GuestStarted { kernel: kernel(), guest: 1, start: Start::Boot },
            Event::Probed { kernel: kernel(), guest: 1, capabilities: Vec::new(), modules: Vec::new() },
        ];
        let finished = |verdict| Event::CellFinished { kernel: kernel(), guest: 1, verdict: Box::new(verdict) };
        let end = Event::GuestEnded { kernel: kernel(), guest: 1, shutdown_ms: 10, problems: Vec::new() };
        for event in begin.into_iter().chain(verdicts.into_iter().map(finished)).chain([end]) {
            record.apply(&Stamped { at_ms: 1, event });
        }
        record
    }

    pub fn good(id: &str, used: AttachType) -> Verdict {
        let device = if id == B { DeviceKind::NetkitL3 } else { DeviceKind::Veth };
        let report = passed(id, vec![attached(AttachRequest::Auto, device, used)]);
        Verdict::on(report, Outcome::Passed)
    }

    pub fn bad(id: &str) -> Verdict {
        let outcome = Outcome::Failed { kind: FailureKind::Check, message: "lost 3 of 3".into() };
        Verdict { outcome, ..good(id, AttachType::Tcx) }
    }

    fn kinds(comparison: &Comparison) -> Vec<ChangeKind> {
        comparison.changes.iter().map(|change| change.kind).collect()
    }

    #[test]
    fn a_changed_attach_type_needs_attention_like_a_failure() {
        let before = run("one", &[A, B], vec![good(A, AttachType::Tcx), good(B, AttachType::Netkit)]);
        let after = run("two", &[A, B], vec![good(A, AttachType::Tcx), good(B, AttachType::Tcx)]);
        let comparison = compare(&before, &after);
        assert_eq!(kinds(&comparison), [ChangeKind::AttachChanged]);
        assert_eq!(comparison.unchanged, 1 + 3);
        assert_eq!(comparison.exit(true), Exit::Failed);
        assert_eq!(comparison.changes[0].before, "passed by netkit in 1 ms");
    }

    fn flaky(id: &str, used: AttachType) -> Verdict {
        Verdict { earlier: vec![Attempt::of(1, bad(id))], ..good(id, used) }
    }

    fn known(id: &str) -> Verdict {
        let excuse = Excuse { reason: "fixed in 6.13".into(), link: None, expires: Some("2027-01-31".into()) };
        Verdict { known: Some(excuse), ..bad(id) }
    }

    fn skipped(id: &str) -> Verdict {
        let reason = SkipReason {
            capability: Capability::Tcx,
            detail: "CONFIG_NET_XGRESS is off".into(),
            lifted_by: facts("6.12", "6.12.117").version,
        };
        Verdict::bare(CellId(id.into()), Outcome::Skipped { reason })
    }

    /// A cell in both runs: the kind of change, and the exit codes with and without `new_only`.
    #[test]
    fn every_pair_of_standings_has_one_kind_and_its_exit_codes() {
        use ChangeKind::{AttachChanged, Fixed, Flaky, KnownFailing, NewlyFailing, NoLongerRuns, StillFailing};
        use Standing as S;
        let verdict = |standing| match standing {
            S::Passed => good(A, AttachType::Tcx),
            S::Flaky => flaky(A, AttachType::Tcx),
            S::Known => known(A),
            S::Failed => bad(A),
            S::Skipped => skipped(A),
            S::Errored => {
                let outcome = Outcome::Errored { kind: ErrorKind::Panic, message: "Oops".into() };
                Verdict::bare(CellId(A.into()), outcome)
            }
            S::NotRun => Verdict::bare(CellId(A.into()), Outcome::NotRun { message: "interrupted".into() }),
        };
        let order = [S::Passed, S::Flaky, S::Known, S::Failed, S::Skipped, S::Errored, S::NotRun];
        let (new, still) = (Some(NewlyFailing), Some(StillFailing));
        // A row per first standing, a column per second standing.
        let wanted = [
            [None, Some(Flaky), Some(KnownFailing), new, Some(NoLongerRuns), new, new],
            [None, None, Some(KnownFailing), new, Some(NoLongerRuns), new, new],
            [Some(Fixed), Some(Flaky), None, new, Some(NoLongerRuns), new, new],
            [Some(Fixed), Some(Flaky), Some(KnownFailing), still, Some(NoLongerRuns), still, still],
            [None, Some(Flaky), Some(KnownFailing), new, None, new, new],
            [Some(Fixed), Some(Flaky), Some(KnownFailing), still, Some(NoLongerRuns), still, still],
            [Some(Fixed), Some(Flaky), Some(KnownFailing), still, Some(Fixed), still, still],
        ];
        for (was, row) in order.into_iter().zip(wanted) {
            for (now, kind) in order.into_iter().zip(row) {
                let pair = [was, now].map(|standing| run("x", &[A], vec![verdict(standing)]));
                let comparison = compare(&pair[0], &pair[1]);
                assert_eq!(kinds(&comparison), Vec::from_iter(kind), "{was:?} to {now:?}");
                let loud = matches!(kind, Some(NewlyFailing | NoLongerRuns));
                let code = |bad: bool| if bad { Exit::Failed } else { Exit::Passed };
                assert_eq!(comparison.exit(true), code(loud), "{was:?} to {now:?}");
                assert_eq!(comparison.exit(false), code(loud || kind == still), "{was:?} to {now:?}");
            }
        }
        for (was, now, kind) in [
            (good(A, AttachType::Netkit), flaky(A, AttachType::Tcx), AttachChanged),
            (flaky(A, AttachType::Netkit), good(A, AttachType::Tcx), AttachChanged),
            (bad(A), good(A, AttachType::Tc), Fixed),
        ] {
            assert_eq!(kinds(&compare(&run("x", &[A], vec![was]), &run("y", &[A], vec![now]))), [kind]);
        }
    }

    #[test]
    fn old_failures_count_unless_only_new_ones_are_requested() {
        let before = run("one", &[A, B], vec![bad(A), bad(B)]);
        let after = run("two", &[A, B], vec![bad(A), good(B, AttachType::Netkit)]);
        let comparison = compare(&before, &after);
        assert_eq!(kinds(&comparison), [ChangeKind::StillFailing, ChangeKind::Fixed]);
        assert_eq!((comparison.exit(false), comparison.exit(true)), (Exit::Failed, Exit::Passed));
    }

    #[test]
    fn missing_cells_and_cells_that_did_not_run_are_changes() {
        let before = run("one", &[A, B], vec![good(A, AttachType::Tcx), good(B, AttachType::Netkit)]);
        let gone = compare(&before, &run("two", &[A], vec![good(A, AttachType::Tcx)]));
        assert_eq!((kinds(&gone), gone.exit(true)), (vec![ChangeKind::Gone], Exit::Failed));
        let unfinished = compare(&before, &run("two", &[A, B], vec![good(A, AttachType::Tcx)]));
        assert_eq!(kinds(&unfinished), [ChangeKind::NewlyFailing]);
        assert_eq!(unfinished.exit(true), Exit::Failed);
    }

    #[test]
    fn cells_outside_of_a_narrower_selection_are_not_missing() {
        let before = run("one", &[A, B], vec![good(A, AttachType::Tcx), good(B, AttachType::Netkit)]);
        let mut after = run("two", &[A], vec![good(A, AttachType::Tcx)]);
        if let Some(info) = &mut after.info {
            info.plan.every_cell = false;
        }
        let narrower = compare(&before, &after);
        assert_eq!((kinds(&narrower), narrower.exit(false)), (Vec::new(), Exit::Passed));
        assert_eq!(narrower.not_selected, BTreeMap::from([("6.12".to_owned(), 1)]));
    }

    #[test]
    fn only_much_slower_cells_are_slower() {
        let slow = |us| {
            let mut verdict = good(A, AttachType::Tcx);
            verdict.report.duration_us = us;
            run("x", &[A], vec![verdict])
        };
        assert_eq!(kinds(&compare(&slow(100_000), &slow(900_000))), [ChangeKind::Slower]);
        assert!(compare(&slow(10_000), &slow(100_000)).changes.is_empty(), "a busy host");
        assert!(compare(&slow(5_000_000), &slow(6_000_000)).changes.is_empty());
    }
}
