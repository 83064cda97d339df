//! `boot`, `splat` and `teardown`: events of a guest outside of its cells.

use super::*;

#[test]
fn a_guest_without_problems_passes_all_three() {
    let outcomes = run(|mut script| {
        let cells = script.boot();
        cells.iter().for_each(|cell| script.pass(cell));
        script.end(cells.len());
    });
    assert_eq!(outcomes.rows(), ["boot passed", "splat passed", "teardown passed"]);
    assert_eq!((outcomes.record.counts().passed, outcomes.exit()), (6, 0));
}

#[test]
fn a_guest_that_does_not_boot_fails_the_boot_row_even_if_the_next_one_boots() {
    let quick = Timing { boot: Duration::from_millis(500), ..timing() };
    let outcomes = run_on(&[("6.12", "6.12.43")], quick, Interrupt::default(), |mut script| {
        if script.agent.boot() == 0 {
            script.hang();
            return;
        }
        let cells = script.boot();
        cells.iter().for_each(|cell| script.pass(cell));
        script.end(cells.len());
    });
    assert_eq!(outcomes.lines(), ["A01 passed", "B02 passed", "C03 passed"]);
    let why = "boot errored: boot: 1 of 2 guests did not boot; the first, guest 1: no Hello within 500.0ms of launch";
    assert!(outcomes.rows()[0].starts_with(why), "{:?}", outcomes.rows());
    assert_eq!(outcomes.rows()[1..], ["splat passed", "teardown passed"]);
    assert_eq!(outcomes.exit(), 3, "that boot has no verdict");
}

#[test]
fn a_kernel_whose_guests_are_all_lost_has_not_booted() {
    let dead = run(|script| script.agent.console("[    0.0] Linux version 6.12\n"));
    assert!(dead.record.kernels["6.12"].never_booted());
    let once = run(|mut script| {
        let dies = script.agent.boot() > 0;
        let cells = script.boot();
        if !dies {
            cells.iter().for_each(|cell| script.pass(cell));
            script.end(cells.len());
        }
    });
    assert!(!once.record.kernels["6.12"].never_booted());
}

#[test]
fn a_panic_at_boot_is_the_kernels_failure() {
    let outcomes = run(|script| {
        script.agent.console("[    0.5] Kernel panic - not syncing: No working init found.\n");
    });
    assert!(
        outcomes.rows()[0]
            .starts_with("boot errored: panic: 3 of 3 guests did not boot; the first, guest 1: Kernel panic")
    );
    assert!(outcomes.rows()[1].starts_with("splat failed: splat: Kernel panic - not syncing: No working init found."));
    assert_eq!(outcomes.rows()[2], "teardown not-run: no guest booted");
}

#[test]
fn leaked_resources_fail_the_teardown() {
    let outcomes = run(|mut script| {
        let cells = script.boot();
        cells.iter().for_each(|cell| script.pass(cell));
        script.done(cells.len());
        script.agent.channel().recv(&mut [0; 4096], Duration::from_secs(5)).unwrap();
        let left = vec!["map 7".to_owned(), "program 9\x1b[2J".to_owned()];
        script.say(&AgentMessage::Farewell { left });
    });
    assert_eq!(outcomes.rows()[2], "teardown failed: teardown: guest 1: left behind: map 7, program 9\\u{1b}[2J");
    assert_eq!((outcomes.lines()[2].as_str(), outcomes.exit()), ("C03 passed", 1));
}

#[test]
fn a_guest_that_does_not_power_off_is_killed_and_reported() {
    let quick = Timing { shutdown: Duration::from_millis(50), ..timing() };
    let outcomes = run_on(&[("6.12", "6.12.43")], quick, Interrupt::default(), |mut script| {
        let cells = script.boot();
        cells.iter().for_each(|cell| script.pass(cell));
        script.end(cells.len());
        script.hang();
    });
    assert!(outcomes.rows()[2].starts_with("teardown failed: teardown: guest 1: it did not power off within "));
    assert_eq!(outcomes.exit(), 1);
}

#[test]
fn an_agent_that_ends_without_a_final_message_is_reported() {
    let outcomes = run(|mut script| {
        let cells = script.boot();
        cells.iter().for_each(|cell| script.pass(cell));
        script.done(cells.len());
    });
    assert_eq!(outcomes.rows()[2], "teardown failed: teardown: guest 1: its agent ended without a final message");
}

#[test]
fn processes_that_still_run_after_their_guest_are_counted() {
    let launcher = FakeLauncher::new(|agent| {
        let mut script = Script { agent };
        let cells = script.boot();
        cells.iter().for_each(|cell| script.pass(cell));
        script.end(cells.len());
    });
    let outcomes = run_with(&[("6.12", "6.12.43")], &launcher.surviving(2), Choice::default());
    assert_eq!(outcomes.rows()[2], "teardown failed: teardown: guest 1: 2 of its processes still ran after its end");
}

#[test]
fn a_guest_lost_between_cells_fails_the_teardown() {
    let outcomes = run(|mut script| {
        let cells = script.boot();
        let first = script.agent.boot() == 0;
        let pass = if first { &cells[..1] } else { &cells[..] };
        pass.iter().for_each(|cell| script.pass(cell));
        if !first {
            script.end(cells.len());
        }
    });
    assert_eq!(outcomes.lines(), ["A01 passed", "B02 passed", "C03 passed"]);
    assert_eq!(
        outcomes.rows()[2],
        "teardown errored: guest-lost: guest 1 was lost between cells: the guest ended unexpectedly (exit code 0)"
    );
    assert_eq!(outcomes.exit(), 3);
}

#[test]
fn a_splat_after_the_last_cell_is_found() {
    let outcomes = run(|mut script| {
        let cells = script.boot();
        cells.iter().for_each(|cell| script.pass(cell));
        script.done(cells.len());
        let text = "WARNING: CPU: 0 PID: 7 at kernel/exit.c:1 f+0x1/0x2\n".to_owned();
        script.say(&AgentMessage::KernelLog { text });
        script.more();
    });
    assert!(outcomes.rows()[1].ends_with("(after the last cell, guest 1)"), "{:?}", outcomes.rows());
}

#[test]
fn a_kernel_that_crashes_in_every_cell_ends_after_a_maximum_of_guests() {
    let cells: Vec<_> = (0..20).map(|number| cell(&format!("C{number:02}-x[tc,veth]"))).collect();
    let launcher = FakeLauncher::new(|agent| {
        let mut script = Script { agent };
        let cells = script.boot();
        script.start(&cells[0]);
        script.agent.console("[    3.2] Kernel panic - not syncing: x\n");
    });
    let outcomes = run_with(&[("6.12", "6.12.43")], &launcher, Choice { cells, ..Choice::default() });
    let counts = outcomes.record.counts();
    assert_eq!((outcomes.boots, counts.errored), (MAX_LOSSES, MAX_LOSSES as usize));
    assert_eq!(counts.not_run, 20 - MAX_LOSSES as usize);
    assert!(outcomes.lines()[19].starts_with("C19 not-run: 12 guests were lost; the last one: Kernel panic"));
    assert_eq!(outcomes.exit(), 3);
}
