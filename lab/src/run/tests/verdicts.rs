//! How the host judges the end of a cell.

use super::*;

#[test]
fn everything_passes_in_one_guest() {
    let outcomes = run(|mut script| {
        let cells = script.boot();
        cells.iter().for_each(|cell| script.pass(cell));
        script.end(cells.len());
    });
    assert_eq!(outcomes.lines(), ["A01 passed", "B02 passed", "C03 passed"]);
    assert_eq!((outcomes.exit(), outcomes.boots), (0, 1));
    assert!(matches!(outcomes.events.first(), Some(Event::RunStarted { .. })));
    assert!(matches!(outcomes.events.last(), Some(Event::RunFinished { exit: Exit::Passed, .. })));
}

#[test]
fn kernels_run_in_parallel_and_each_is_judged_by_its_own_version() {
    let outcomes = run_on(&[("6.1", "6.1.170"), ("6.12", "6.12.43")], timing(), Interrupt::default(), |mut script| {
        let cells = script.boot();
        cells.iter().for_each(|cell| script.pass(cell));
        script.end(cells.len());
    });
    assert_eq!(
        outcomes.lines(),
        [
            "A01 failed: attach-mismatch: eth0 (nk-l3): the plan requires tc, kernel reports netkit/peer",
            "B02 passed",
            "C03 passed",
            "A01 passed",
            "B02 passed",
            "C03 passed",
        ]
    );
    assert_eq!(outcomes.exit(), 1);
}

#[test]
fn a_failed_check_and_a_mismatch_fail_the_run() {
    let outcomes = run(|mut script| {
        let cells = script.boot();
        script.start(&cells[0]);
        let mut report = good(&cells[0]);
        report.outcome = Outcome::Failed { kind: FailureKind::Check, message: "0 of 5 arrived".to_owned() };
        report.checks.push(Check { name: "arrives".to_owned(), ok: false, seen: "0 of 5".to_owned() });
        script.finish(report);
        script.start(&cells[1]);
        let wrong = attached(AttachRequest::Tcx, DeviceKind::Veth, AttachType::Tc);
        script.finish(CellReport { attach: vec![wrong], ..good(&cells[1]) });
        script.pass(&cells[2]);
        script.end(3);
    });
    assert_eq!(
        outcomes.lines(),
        [
            "A01 failed: check: 0 of 5 arrived",
            "B02 failed: attach-mismatch: eth0 (veth): the plan requires tcx, kernel reports clsact/ingress",
            "C03 passed",
        ]
    );
    assert_eq!(outcomes.exit(), 1);
}

fn skipping(capability: Capability) -> Outcomes {
    let cells = [A, B, C].map(|id| CellInfo { requires: vec![capability], ..cell(id) }).to_vec();
    let launcher = FakeLauncher::new(move |agent| {
        let mut script = Script { agent };
        let cells = script.boot();
        for cell in &cells {
            script.start(cell);
            let reason = SkipReason { capability, detail: "EINVAL".to_owned(), lifted_by: capability.since().mainline };
            script.finish(CellReport::bare(cell.clone(), Outcome::Skipped { reason }));
        }
        script.end(cells.len());
    });
    run_with(&[("6.12", "6.12.43")], &launcher, Choice { cells, ..Choice::default() })
}

#[test]
fn a_skip_is_accepted_below_the_version_and_a_failure_above() {
    let old = skipping(Capability::NetkitSingle);
    assert_eq!(old.lines()[0], "A01 skipped: no netkit-single: EINVAL (lifted by kernel 7.1)");
    assert_eq!(old.exit(), 1, "no kernel of the matrix can run the cells");
    let new = skipping(Capability::Netkit);
    assert!(new.lines()[0].starts_with("A01 failed: missing-capability: no netkit on kernel 6.12.43"));
    assert_eq!(new.exit(), 1);
}

#[test]
fn a_warning_that_the_kernel_survives_fails_its_cell_and_no_other() {
    let outcomes = run(|mut script| {
        let cells = script.boot();
        for cell in &cells {
            script.start(cell);
            if cell.as_str() == B {
                script
                    .agent
                    .console("[    3.1] WARNING: CPU: 0 PID: 7 at net/core/dev.c:1 f+0x1/0x2\n[    3.1] Call Trace:\n");
            }
            script.finish(good(cell));
        }
        script.end(cells.len());
    });
    assert_eq!(
        outcomes.lines(),
        ["A01 passed", "B02 failed: splat: WARNING: CPU: 0 PID: 7 at net/core/dev.c:1 f+0x1/0x2", "C03 passed"]
    );
    assert_eq!((outcomes.exit(), outcomes.boots), (1, 1));
}
