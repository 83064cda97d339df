//! Checks of the messages from a guest.

use super::*;

#[test]
fn another_protocol_or_another_kernel_is_refused_at_once() {
    let protocol = run(|mut script| {
        script.hello(PROTOCOL_VERSION + 1);
        script.hang();
    });
    assert!(protocol.lines()[0].starts_with(&*format!(
        "A01 not-run: the agent uses protocol {}, this lab uses {PROTOCOL_VERSION}",
        PROTOCOL_VERSION + 1
    )));
    assert_eq!((protocol.exit(), protocol.boots), (3, 1));
    let kernel = run_on(&[("7.2", "7.2.13")], timing(), Interrupt::default(), |mut script| {
        script.hello(PROTOCOL_VERSION);
        script.hang();
    });
    assert_eq!(
        kernel.lines()[0],
        "A01 not-run: the plan is for kernel 7.2.13, but the guest booted 6.12.43 (6.12.43-cloud)"
    );
    assert_eq!(kernel.boots, 1);
}

#[test]
fn garbage_before_hello_is_skipped() {
    let outcomes = run(|mut script| {
        script.agent.channel().send(b"\x1b[2JSeaBIOS\0\xF5NK").unwrap();
        script.say(&AgentMessage::Heartbeat { uptime_ms: 1, cell: None });
        let cells = script.boot();
        cells.iter().for_each(|cell| script.pass(cell));
        script.end(cells.len());
    });
    assert_eq!(outcomes.exit(), 0, "{:?}", outcomes.lines());
    assert!(outcomes.notes().iter().any(|note| note.contains("bytes outside any frame")), "{:?}", outcomes.notes());
    assert!(outcomes.notes().iter().any(|note| note == "ignored a message before Hello"));
}

#[test]
fn only_the_running_cell_can_report_and_only_once() {
    let outcomes = run(|mut script| {
        let cells = script.boot();
        script.finish(good(&cells[1]));
        script.pass(&cells[0]);
        let mut second = good(&cells[0]);
        second.outcome = Outcome::Failed { kind: FailureKind::Check, message: "late".to_owned() };
        script.finish(second);
        script.pass(&CellId("Z99-unknown\x1b[2J".into()));
        script.pass(&cells[1]);
        script.pass(&cells[2]);
        script.end(cells.len());
    });
    assert_eq!(outcomes.lines(), ["A01 passed", "B02 passed", "C03 passed"]);
    assert_eq!(
        outcomes.notes(),
        [
            format!("ignored a report of {B}, which is not running (passed)"),
            format!("ignored a report of {A}, which is not running (failed)"),
            "ignored the start of Z99-unknown\\u{1b}[2J, which the host did not request".to_owned(),
            "ignored a report of Z99-unknown\\u{1b}[2J, which is not running (passed)".to_owned(),
        ]
    );
}

#[test]
fn done_with_unreported_cells_is_an_error() {
    let outcomes = run(|mut script| {
        let cells = script.boot();
        script.pass(&cells[0]);
        script.end(cells.len());
    });
    assert_eq!(outcomes.lines()[..2], ["A01 passed", "B02 passed"], "each fresh guest reports one");
    assert_eq!(
        outcomes.rows()[2],
        "teardown errored: agent: guest 1 was lost between cells: the agent sent Done, but 2 cells have no report"
    );
    assert_eq!((outcomes.exit(), outcomes.boots), (3, 3));
}
