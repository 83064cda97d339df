//! Kernel splats: which cell they belong to, and how they count.

use super::*;
use lab_record::{event::Moment, splat::SplatPlace};
use lab_report::splats::splats;

const WARN: &str = "WARNING: CPU: 0 PID: 7 at net/core/dev.c:1 f+0x1/0x2\n[    3.1] Call Trace:\n";
const LEAK: &str = "unregister_netdevice: waiting for p0 to become free. Usage count = 2\n";

fn stamped(text: &str) -> String {
    format!("[    3.1] {text}")
}

/// Every cell passes; `during` is printed while B runs, `after` between B and C.
fn run_saying(
    choice: Choice,
    during: impl Fn(&mut Script<'_>) + Send + Sync + 'static,
    after: impl Fn(&mut Script<'_>) + Send + Sync + 'static,
) -> Outcomes {
    let launcher = FakeLauncher::new(move |agent| {
        let mut script = Script { agent };
        let cells = script.boot();
        for cell in &cells {
            script.start(cell);
            if cell.as_str() == B {
                during(&mut script);
            }
            script.finish(good(cell));
            if cell.as_str() == B {
                after(&mut script);
            }
        }
        script.end(cells.len());
    });
    run_with(&[("6.12", "6.12.43")], &launcher, choice)
}

fn nothing(_: &mut Script<'_>) {}

fn allowing(text: &str, day: &str) -> Choice {
    let list = format!("[[splat]]\n{text}\nreason = \"being fixed\"\nexpires = \"2026-12-31\"\n");
    Choice { lists: Lists::parse(&list, "", day.parse().unwrap()).unwrap(), ..Choice::default() }
}

#[test]
fn a_splat_that_is_only_in_the_kernel_log_fails_its_cell() {
    let outcomes =
        run_saying(Choice::default(), |script| script.say(&AgentMessage::KernelLog { text: WARN.to_owned() }), nothing);
    assert_eq!(outcomes.lines()[1], "B02 failed: splat: WARNING: CPU: 0 PID: 7 at net/core/dev.c:1 f+0x1/0x2");
    assert_eq!(outcomes.verdict(B).splats[0].seen, SplatPlace::KernelLog);
    assert_eq!(outcomes.exit(), 1);
}

/// The agent writes no mark to an empty console, and the next cell may already have printed a splat when the host
/// handles a cell's end.
#[test]
fn a_splat_on_a_console_without_marks_waits_for_the_mark_after_it() {
    let launcher = FakeLauncher::new(move |agent| {
        let mut script = Script { agent };
        let cells = script.boot();
        for cell in &cells {
            let begun = AgentMessage::CellStarted { cell: cell.clone() };
            match cell.as_str() {
                A => {
                    script.say(&begun);
                    script.agent.console(&stamped(WARN));
                    script.say(&AgentMessage::CellFinished { report: Box::new(good(cell)) });
                }
                B => {
                    script.say(&begun);
                    script.finish(good(cell));
                }
                _ => script.pass(cell),
            }
        }
        script.end(cells.len());
    });
    let outcomes = run_with(&[("6.12", "6.12.43")], &launcher, Choice::default());
    let wrong = "B02 failed: splat: WARNING: CPU: 0 PID: 7 at net/core/dev.c:1 f+0x1/0x2";
    assert_eq!(outcomes.lines(), ["A01 passed", wrong, "C03 passed"]);
}

#[test]
fn a_splat_in_both_sources_counts_once() {
    let both = |script: &mut Script<'_>| {
        script.agent.console(&stamped(WARN));
        script.say(&AgentMessage::KernelLog { text: format!("{WARN} g+0x1/0x2\n") });
    };
    let outcomes = run_saying(Choice::default(), both, nothing);
    let splats = &outcomes.verdict(B).splats;
    assert_eq!(
        (splats.len(), splats[0].seen, splats[0].frames.as_slice()),
        (1, SplatPlace::Both, &["g".to_owned()][..])
    );
}

#[test]
fn a_late_splat_names_the_last_cells() {
    let outcomes = run_saying(Choice::default(), |script| script.agent.console(&stamped(LEAK)), nothing);
    let verdict = outcomes.verdict(B);
    let suspects: Vec<&str> = verdict.splats[0].suspects.iter().map(CellId::as_str).collect();
    assert_eq!(suspects, [B, A], "the running cell and the one before");
    let warn = run_saying(Choice::default(), |script| script.agent.console(&stamped(WARN)), nothing);
    assert!(warn.verdict(B).splats[0].suspects.is_empty(), "a WARN is not delayed");
}

#[test]
fn a_splat_between_cells_belongs_to_none_and_fails_the_run() {
    let outcomes = run_saying(Choice::default(), nothing, |script| script.agent.console(&stamped(LEAK)));
    assert_eq!(outcomes.lines(), ["A01 passed", "B02 passed", "C03 passed"]);
    assert_eq!(
        outcomes.rows(),
        [
            "boot passed",
            "splat failed: splat: unregister_netdevice: waiting for p0 to become free. Usage count = 2 (between cells, \
             guest 1)",
            "teardown passed",
        ]
    );
    let (_, moment, splat) = &outcomes.record.kernels["6.12"].splats[0];
    assert_eq!((*moment, splat.suspects.len()), (Moment::Between, 2));
    assert_eq!(outcomes.exit(), 1);
}

#[test]
fn a_boot_splat_is_reported_once_for_all_guests() {
    let launcher = FakeLauncher::new(|agent| {
        let mut script = Script { agent };
        script.agent.console(&stamped(WARN));
        let cells = script.boot();
        cells.iter().for_each(|cell| script.pass(cell));
        script.end(cells.len());
    });
    let choice = Choice { isolate: Isolate::Case, ..Choice::default() };
    let outcomes = run_with(&[("6.12", "6.12.43")], &launcher, choice);
    assert_eq!((outcomes.boots, outcomes.record.kernels["6.12"].splats.len()), (3, 1));
    assert!(outcomes.rows()[1].ends_with("(while it booted, guest 1)"), "{:?}", outcomes.rows());
}

#[test]
fn an_allowed_splat_is_reported_and_fails_nothing() {
    let warn = |script: &mut Script<'_>| script.agent.console(&stamped(WARN));
    let leak = |script: &mut Script<'_>| script.agent.console(&stamped(LEAK));
    let outcomes = run_saying(allowing("title = \"WARNING at net/core/dev.c f\"", "2026-11-20"), warn, nothing);
    assert_eq!((outcomes.lines()[1].as_str(), outcomes.exit()), ("B02 passed", 0));
    let told = splats(&outcomes.record);
    assert_eq!((told.len(), told[0].allowed.as_ref().unwrap().reason.as_str()), (1, "being fixed"));
    let both = run_saying(allowing("title = \"WARNING at net/core/dev.c f\"", "2026-11-20"), warn, leak);
    assert_eq!((both.lines()[1].as_str(), both.exit()), ("B02 passed", 1), "the other one is not allowed");
    let one_after_another = move |script: &mut Script<'_>| {
        warn(script);
        leak(script);
    };
    let same_cell =
        run_saying(allowing("title = \"WARNING at net/core/dev.c f\"", "2026-11-20"), one_after_another, nothing);
    assert_eq!(
        same_cell.lines()[1],
        "B02 failed: splat: unregister_netdevice: waiting for p0 to become free. Usage count = 2",
        "an allowed splat allows none after it"
    );
    assert_eq!(same_cell.exit(), 1);
}

#[test]
fn an_expired_entry_allows_nothing_and_fails_the_run() {
    let warn = |script: &mut Script<'_>| script.agent.console(&stamped(WARN));
    let late = allowing("title = \"WARNING at *\"", "2027-01-01");
    let outcomes = run_saying(late, warn, nothing);
    assert_eq!(outcomes.verdict(B).outcome.word(), "failed");
    let late = allowing("title = \"WARNING at *\"", "2027-01-01");
    let quiet = run_saying(late, nothing, nothing);
    assert_eq!((quiet.record.counts().failed, quiet.exit()), (0, 1));
}

#[test]
fn the_same_splat_on_two_kernels_is_one() {
    let launcher = FakeLauncher::new(|agent| {
        let mut script = Script { agent };
        let old = script.agent.spec().name.starts_with("6.1-");
        let cells = script.boot();
        for cell in &cells {
            script.start(cell);
            if cell.as_str() == C {
                let new = "WARNING: net/core/dev.c:9 at f+0x3/0x4, CPU#0: case/9\n";
                script.agent.console(&stamped(if old { WARN } else { new }));
            }
            script.finish(good(cell));
        }
        script.end(cells.len());
    });
    let outcomes = run_with(&[("6.1", "6.1.170"), ("6.12", "6.12.43")], &launcher, Choice::default());
    let told = splats(&outcomes.record);
    assert_eq!(told.len(), 1, "{told:#?}");
    assert_eq!(told[0].sightings(), format!("seen 2 times on 6.1, 6.12, first in 6.1 {C}"));
}

#[test]
fn a_panics_splat_belongs_to_the_running_cell() {
    let outcomes = run(|mut script| {
        let cells = script.boot();
        for cell in &cells {
            script.start(cell);
            if cell.as_str() == B {
                script.agent.console("[    3.1] Kernel panic - not syncing: x\n[    3.1]  f+0x1/0x2\n");
                return;
            }
            script.finish(good(cell));
        }
        script.end(cells.len());
    });
    let splats = &outcomes.verdict(B).splats;
    assert_eq!((splats.len(), splats[0].class.name()), (1, "panic"));
    assert_eq!(outcomes.rows(), ["boot passed", "splat passed", "teardown passed"], "the splat belongs to the cell");
}

/// The splat of 6.12 if the processor's XSAVE area has another size than its features add up to.
const XSAVE: &str = "[    0.1] XSAVE consistency problem: size 832 != kernel_size 576\n\
    [    0.1] ------------[ cut here ]------------\n\
    [    0.1] WARNING: CPU: 0 PID: 0 at arch/x86/kernel/fpu/xstate.c:620 paranoid_xstate_size_valid+0x1b0/0x1c0\n\
    [    0.1] Call Trace:\n\
    [    0.1]  fpu__init_system_xstate+0x3f1/0x9a0\n\
    [    0.1] ---[ end trace 0000000000000000 ]---\n";

/// The `splat` row of a run whose guests print this, at boot or while their second cell runs.
fn splat_row(accel: Accel, text: &'static str, at_boot: bool) -> (String, u8) {
    let launcher = FakeLauncher::new(move |agent| {
        let mut script = Script { agent };
        if at_boot {
            script.agent.console(text);
        }
        let cells = script.boot();
        for cell in &cells {
            script.start(cell);
            if !at_boot && cell.as_str() == B {
                script.agent.console(text);
            }
            script.finish(good(cell));
        }
        script.end(cells.len());
    });
    let outcomes = run_with(&[("6.12", "6.12.43")], &launcher, Choice { accel, ..Choice::default() });
    (outcomes.rows()[1].clone(), outcomes.exit())
}

#[test]
fn a_splat_about_the_hosts_processor_fails_nothing_under_kvm() {
    assert_eq!(splat_row(Accel::Kvm, XSAVE, true), ("splat passed".to_owned(), 0));
    let (row, exit) = splat_row(Accel::Tcg, XSAVE, true);
    assert!(row.starts_with("splat failed") && exit == 1, "an emulated processor is the same everywhere: {row}");
    const OTHER: &str = "[    0.1] WARNING: CPU: 0 PID: 1 at kernel/sched/core.c:1 f+0x1/0x2\n[    0.1] Call Trace:\n";
    assert!(splat_row(Accel::Kvm, OTHER, true).0.starts_with("splat failed"), "every other splat counts");
    assert_eq!(splat_row(Accel::Kvm, XSAVE, false).1, 1, "a cell during which it occurs fails");
}
