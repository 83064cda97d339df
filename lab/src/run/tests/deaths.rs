//! Guests that crash, stop answering or never boot.

use super::*;

#[test]
fn a_kernel_that_never_boots_is_tried_a_few_times() {
    let quick = Timing { boot: Duration::from_millis(30), ..timing() };
    let outcomes = run_on(&[("6.12", "6.12.43")], quick, Interrupt::default(), |mut script| script.hang());
    assert_eq!(
        outcomes.lines()[0],
        "A01 not-run: 3 guests in a row were lost without a verdict; the last one: no Hello within 30.0ms of launch; \
         its processor is in fake_spin+0x1/0x2"
    );
    assert_eq!((outcomes.exit(), outcomes.boots), (3, 3));
}

#[test]
fn a_panic_only_affects_its_cell_and_the_others_run_in_a_fresh_guest() {
    let outcomes = run(|mut script| {
        let cells = script.boot();
        for cell in &cells {
            if cell.as_str() == B {
                script.start(cell);
                script.agent.console("[    3.1] BUG: kernel NULL pointer dereference\n[    3.2] Kernel panic - x\n");
                return;
            }
            script.pass(cell);
        }
        script.end(cells.len());
    });
    assert_eq!(
        outcomes.lines(),
        [
            "A01 passed",
            "B02 errored: panic: BUG: kernel NULL pointer dereference (the guest ended unexpectedly (exit code 0))",
            "C03 passed",
        ]
    );
    assert_eq!((outcomes.exit(), outcomes.boots), (1, 2));
    let verdict = outcomes.verdict(B);
    assert!(verdict.evidence.as_deref().unwrap().contains("Kernel panic - x"));
}

#[test]
fn a_silent_guest_is_a_hang() {
    let quick = Timing { silence: Duration::from_millis(50), ..timing() };
    let outcomes = run_on(&[("6.12", "6.12.43")], quick, Interrupt::default(), |mut script| {
        let cells = script.boot();
        if script.agent.boot() == 0 {
            script.pass(&cells[0]);
            script.start(&cells[1]);
            script.hang();
        }
        cells.iter().for_each(|cell| script.pass(cell));
        script.end(cells.len());
    });
    let place = "its processor is in fake_spin+0x1/0x2";
    assert_eq!(
        outcomes.lines(),
        ["A01 passed", &*format!("B02 errored: hang: no heartbeat for 50.0ms; {place}"), "C03 passed"]
    );
    assert_eq!(outcomes.exit(), 1);
    let verdict = outcomes.verdict(B);
    let names = ["guest-1-registers.txt", "guest-1-tasks.txt"];
    let files: Vec<&str> = verdict.files.iter().map(|file| &**file).collect();
    assert_eq!(files, names.map(|name| format!("6.12/cells/B02-second-tcx-veth/{name}")));
    let read = |file: &str| fs::read_to_string(outcomes.directory().join(file)).unwrap();
    assert!(read(&verdict.files[0]).contains("RIP=") && read(&verdict.files[1]).contains("task:fake"));
    let evidence = verdict.evidence.as_deref().unwrap();
    assert!(
        evidence.contains(&format!("begin {B}")) && !evidence.contains("task:fake"),
        "its last console lines: {evidence}"
    );
}

#[test]
fn heartbeats_do_not_extend_a_cells_deadline() {
    let quick = Timing { cell_grace: Duration::ZERO, ..timing() };
    let outcomes = run_on(&[("6.12", "6.12.43")], quick, Interrupt::default(), |mut script| {
        let cells = script.boot();
        if script.agent.boot() == 0 {
            script.start(&cells[0]);
            for uptime_ms in 0..100 {
                script.say(&AgentMessage::Heartbeat { uptime_ms, cell: Some(cells[0].clone()) });
                let _ = script.agent.channel().recv(&mut [0; 8], Duration::from_millis(5));
            }
            script.hang();
        }
        cells.iter().for_each(|cell| script.pass(cell));
        script.end(cells.len());
    });
    assert_eq!(
        outcomes.lines(),
        [
            format!("A01 errored: hang: {A} ran for more than 100.0ms; its processor is in fake_spin+0x1/0x2"),
            "B02 passed".into(),
            "C03 passed".into()
        ]
    );
}

#[test]
fn an_exit_during_a_cell_is_a_lost_guest() {
    let outcomes = run(|mut script| {
        let cells = script.boot();
        script.start(&cells[0]);
        script.agent.console("[    1.0] fine so far\n");
    });
    assert_eq!(outcomes.boots, 3, "each guest ends with a verdict for a cell, which counts as progress");
    assert_eq!(outcomes.lines()[0], "A01 errored: guest-lost: the guest ended unexpectedly (exit code 0)");
    assert_eq!(outcomes.exit(), 3);
}

#[test]
fn guests_that_end_at_once_are_only_booted_a_few_times() {
    let outcomes = run(|mut script| {
        script.boot();
    });
    assert_eq!(
        outcomes.lines()[2],
        "C03 not-run: 3 guests in a row were lost without a verdict; the last one: the guest ended unexpectedly (exit code 0)"
    );
    assert_eq!((outcomes.exit(), outcomes.boots), (3, 3));
}

#[test]
fn a_guest_has_its_own_deadline_even_if_all_cells_are_in_time() {
    let chosen = ["guest=80ms".parse().unwrap()];
    let quick = timing().choosing(crate::run::deadline::Chosen::of(&chosen));
    let outcomes = run_on(&[("6.12", "6.12.43")], quick, Interrupt::default(), |mut script| {
        let cells = script.boot();
        if script.agent.boot() == 0 {
            script.pass(&cells[0]);
            script.start(&cells[1]);
            script.hang();
        }
        cells.iter().for_each(|cell| script.pass(cell));
        script.end(cells.len());
    });
    assert_eq!(outcomes.lines()[0], "A01 passed");
    assert!(outcomes.lines()[1].starts_with("B02 errored: hang: the guest ran for more than 80.0ms; "));
}

#[test]
fn a_run_that_takes_too_long_ends_with_a_verdict_for_every_cell() {
    let chosen = ["run=60ms".parse().unwrap()];
    let quick = timing().choosing(crate::run::deadline::Chosen::of(&chosen));
    let outcomes = run_on(&[("6.12", "6.12.43")], quick, Interrupt::default(), |mut script| {
        let cells = script.boot();
        script.pass(&cells[0]);
        script.start(&cells[1]);
        script.hang();
    });
    assert_eq!(
        outcomes.lines(),
        [
            "A01 passed",
            "B02 errored: interrupted: the run took longer than its deadline",
            "C03 not-run: the run took longer than its deadline"
        ]
    );
    assert_eq!((outcomes.exit(), outcomes.boots), (3, 1));
}

#[test]
fn a_cell_that_its_agent_gives_up_has_the_same_evidence() {
    let outcomes = run(|mut script| {
        let cells = script.boot();
        if script.agent.boot() == 0 {
            script.start(&cells[0]);
            let hang = Outcome::Errored {
                kind: lab_protocol::ErrorKind::Hang,
                message: "still running after 1.0 s".to_owned(),
            };
            script.finish(CellReport::bare(cells[0].clone(), hang));
            script.say(&AgentMessage::Fatal { message: "stuck".to_owned() });
            script.hang();
        }
        cells.iter().for_each(|cell| script.pass(cell));
        script.end(cells.len());
    });
    let hang = "A01 errored: hang: still running after 1.0 s; its processor is in fake_spin+0x1/0x2";
    assert_eq!(outcomes.lines(), [hang, "B02 passed", "C03 passed"]);
    let verdict = outcomes.verdict(A);
    assert_eq!(verdict.files.len(), 2, "{:?}", verdict.files);
    assert_eq!(outcomes.rows()[2], "teardown passed", "the guest was lost in a cell, not between two");
    assert_eq!(outcomes.exit(), 1, "a hang is a verdict");
}
