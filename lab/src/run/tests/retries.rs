//! Repeated cells, and known failures.

use super::*;
use crate::run::common::OnFlaky;

fn failing(cell: &CellId) -> CellReport {
    let outcome = Outcome::Failed { kind: FailureKind::Check, message: "lost".to_owned() };
    let checks = vec![Check { name: "udp arrives".to_owned(), ok: false, seen: "0 of 5".to_owned() }];
    CellReport { outcome, checks, ..good(cell) }
}

fn again(count: u32) -> Choice {
    Choice { retries: Retries { count, ..Retries::default() }, ..Choice::default() }
}

fn knowing(more: &str) -> Lists {
    let list = format!("[[known]]\ncase = \"B02-*\"\n{more}\nreason = \"being fixed\"\nexpires = \"2026-12-31\"\n");
    Lists::parse("", &list, "2026-11-20".parse().unwrap()).unwrap()
}

/// B fails in the first `times` guests that run it.
fn failing_at_first(times: u32) -> FakeLauncher {
    let left = std::sync::atomic::AtomicU32::new(times);
    FakeLauncher::new(move |agent| {
        let mut script = Script { agent };
        let cells = script.boot();
        for cell in &cells {
            script.start(cell);
            let bad = cell.as_str() == B
                && left.fetch_update(
                    std::sync::atomic::Ordering::SeqCst,
                    std::sync::atomic::Ordering::SeqCst,
                    |left| left.checked_sub(1),
                ) != Err(0);
            script.finish(if bad { failing(cell) } else { good(cell) });
        }
        script.end(cells.len());
    })
}

fn on(launcher: &FakeLauncher, choice: Choice) -> Outcomes {
    run_with(&[("6.12", "6.12.43")], launcher, choice)
}

#[test]
fn a_pass_at_the_second_attempt_is_flaky_and_in_a_fresh_guest() {
    let outcomes = on(&failing_at_first(1), again(2));
    assert_eq!(outcomes.lines(), ["A01 passed", "B02 flaky", "C03 passed"]);
    assert_eq!((outcomes.exit(), outcomes.boots), (0, 2));
    let counts = outcomes.record.counts();
    assert_eq!((counts.passed, counts.flaky), (5, 1));
    let earlier = &outcomes.verdict(B).earlier;
    assert_eq!((earlier.len(), earlier[0].guest, earlier[0].outcome.word()), (1, 1, "failed"));
    assert_eq!(earlier[0].evidence.as_deref(), Some("FAIL udp arrives: 0 of 5"));
    let retried = outcomes.events.iter().filter(|event| matches!(event, Event::CellRetried { .. })).count();
    assert_eq!(retried, 1);
}

#[test]
fn flaky_fails_if_it_is_configured_to() {
    let mut choice = again(2);
    choice.retries.on_flaky = OnFlaky::Fail;
    let outcomes = on(&failing_at_first(1), choice);
    assert_eq!(outcomes.lines()[1], "B02 failed: flaky: passed at attempt 2 only; the first one: check: lost");
    assert_eq!(outcomes.exit(), 1);
}

#[test]
fn a_cell_that_fails_at_every_attempt_fails() {
    let outcomes = on(&failing_at_first(9), again(2));
    assert_eq!(outcomes.lines()[1], "B02 failed: check: lost");
    assert_eq!((outcomes.verdict(B).earlier.len(), outcomes.boots, outcomes.exit()), (2, 3, 1));
}

#[test]
fn without_retries_nothing_runs_again() {
    let outcomes = on(&failing_at_first(1), Choice::default());
    assert_eq!((outcomes.lines()[1].as_str(), outcomes.boots), ("B02 failed: check: lost", 1));
}

fn once(spoil: impl Fn(&mut Script<'_>) -> bool + Send + Sync + 'static) -> FakeLauncher {
    FakeLauncher::new(move |agent| {
        let mut script = Script { agent };
        let cells = script.boot();
        for cell in &cells {
            script.start(cell);
            if cell.as_str() == B && script.agent.boot() == 0 && spoil(&mut script) {
                return;
            }
            script.finish(good(cell));
        }
        script.end(cells.len());
    })
}

#[test]
fn a_later_pass_does_not_cancel_a_panic() {
    let launcher = || {
        once(|script| {
            script.agent.console("[    3.2] Kernel panic - not syncing: x\n");
            true
        })
    };
    let outcomes = on(&launcher(), again(1));
    assert_eq!(
        outcomes.lines()[1],
        "B02 errored: panic: Kernel panic - not syncing: x (the guest ended unexpectedly (exit code 0)) (attempt 1 of \
         2; the last one passed)"
    );
    assert_eq!((outcomes.lines()[2].as_str(), outcomes.exit()), ("C03 passed", 1));
    assert!(outcomes.verdict(B).evidence.as_deref().unwrap().contains("Kernel panic"));
    let listed = on(&launcher(), Choice { lists: knowing(""), ..again(1) });
    assert_eq!(
        listed.lines()[1],
        outcomes.lines()[1],
        "the entry is about the pass, and not about the panic before it"
    );
    assert_eq!(listed.exit(), 1);
}

#[test]
fn a_later_pass_does_not_cancel_a_splat() {
    let launcher = once(|script| {
        script.agent.console("[    3.2] WARNING: CPU: 0 PID: 7 at a.c:1 f+0x1/0x2\n");
        false
    });
    let outcomes = on(&launcher, again(1));
    assert_eq!(
        outcomes.lines()[1],
        "B02 failed: splat: WARNING: CPU: 0 PID: 7 at a.c:1 f+0x1/0x2 (attempt 1 of 2; the last one passed)"
    );
    assert_eq!(lab_report::splats::splats(&outcomes.record)[0].times, 1, "it was seen once");
}

#[test]
fn a_cell_that_cannot_run_again_keeps_its_verdict() {
    let outcomes = on(
        &FakeLauncher::new(|agent| {
            let mut script = Script { agent };
            let cells = script.boot();
            if script.agent.boot() > 0 {
                return;
            }
            for cell in &cells {
                script.start(cell);
                script.finish(if cell.as_str() == B { failing(cell) } else { good(cell) });
            }
            script.end(cells.len());
        }),
        again(1),
    );
    assert_eq!(outcomes.lines(), ["A01 passed", "B02 failed: check: lost", "C03 passed"]);
    assert!(outcomes.verdict(B).warnings[0].starts_with("not run again: 3 guests in a row were lost"));
}

#[test]
fn a_known_failure_is_reported_without_failing_the_run_and_not_repeated() {
    let choice = Choice { lists: knowing("message = \"check: lost\""), ..again(2) };
    let outcomes = on(&failing_at_first(9), choice);
    assert_eq!(outcomes.lines(), ["A01 passed", "B02 known: check: lost", "C03 passed"]);
    assert_eq!((outcomes.boots, outcomes.record.counts().known, outcomes.exit()), (1, 1, 0));
    let other = Choice { lists: knowing("message = \"check: late\""), ..Choice::default() };
    assert_eq!(on(&failing_at_first(9), other).exit(), 1);
}

#[test]
fn a_pass_of_a_known_failure_is_marked() {
    let choice = Choice { lists: knowing(""), ..Choice::default() };
    let outcomes = on(&failing_at_first(0), choice);
    assert!(outcomes.verdict(B).is_unexpected_pass() && !outcomes.verdict(A).is_unexpected_pass());
    assert_eq!((outcomes.lines()[1].as_str(), outcomes.exit()), ("B02 passed", 0));
}
