//! Guests that send or write without end.

use super::*;
use crate::run::splat::MOST_KINDS;
use lab_protocol::{ErrorKind, frame};
use lab_vm::CONSOLE_LIMIT;

/// A run whose first guest sends this until the host gives it up; later guests work correctly.
fn endless(say: impl Fn(u64) -> Vec<u8> + Send + Sync + 'static) -> Outcomes {
    run(move |mut script| {
        let cells = script.boot();
        if script.agent.boot() == 0 {
            script.start(&cells[0]);
            for number in 0.. {
                if script.agent.channel().send(&say(number)).is_err() {
                    return;
                }
            }
        }
        cells.iter().for_each(|cell| script.pass(cell));
        script.end(cells.len());
    })
}

fn message(message: &AgentMessage) -> Vec<u8> {
    frame::encode(message).unwrap()
}

/// The first cell's verdict names the budget; the others pass in the next guest.
#[track_caller]
fn contained(outcomes: &Outcomes, what: &str) {
    let lines = outcomes.lines();
    assert!(lines[0].starts_with("A01 errored: over-budget: the guest sent too much: more than "), "{lines:?}");
    assert!(lines[0].contains(what), "{lines:?}");
    assert_eq!(lines[1..], ["B02 passed", "C03 passed"]);
    assert_eq!((outcomes.boots, outcomes.exit()), (2, 3));
    assert!(outcomes.events.len() < 1000, "{}", outcomes.events.len());
}

#[test]
fn a_guest_that_never_stops_probing_exceeds_its_budget() {
    contained(
        &endless(|_| message(&AgentMessage::Probed { capabilities: Vec::new(), modules: vec!["m".repeat(4000); 400] })),
        "(probes)",
    );
}

#[test]
fn every_kind_of_message_is_limited() {
    contained(&endless(|uptime_ms| message(&AgentMessage::Heartbeat { uptime_ms, cell: None })), "(heartbeats)");
    contained(&endless(|_| message(&AgentMessage::Log { text: "x".to_owned() })), "(log lines)");
    contained(&endless(|_| message(&AgentMessage::Settled)), "(greetings)");
    contained(&endless(|_| message(&AgentMessage::InputTaken { bytes: 1 })), "(output of a program)");
    contained(&endless(|_| vec![0xf5; 64 << 10]), "(bytes outside of messages)");
    let unasked = |number: u64| AgentMessage::CellStarted { cell: CellId(format!("X{number}").into()) };
    // A second start within a cell already ends the guest.
    assert!(endless(move |number| message(&unasked(number))).lines()[0].starts_with("A01 errored: agent"));
}

#[test]
fn endless_splats_are_limited_and_reported() {
    let warning = |number: u64| {
        let letters: String = format!("{number:06}").bytes().map(|digit| char::from(digit - b'0' + b'a')).collect();
        format!("[    1.0] WARNING: CPU: 0 PID: 1 at net/x.c:{number} {letters}+0x1/0x2\n")
    };
    let text = move |number: u64| (0..2000).map(|at| warning(number * 2000 + at)).collect::<String>();
    let outcomes = endless(move |number| message(&AgentMessage::KernelLog { text: text(number) }));
    contained(&outcomes, "(kernel log)");
    let splats = &outcomes.verdict(A).splats;
    assert_eq!(splats.len(), MOST_KINDS + 1);
    let rest = splats.last().unwrap();
    assert!(rest.title.starts_with("more than 64 different splats at once") && rest.times > 1000, "{rest:?}");
    assert_eq!(rest.allowed, None);
}

#[test]
fn a_console_without_end_ends_its_guest() {
    let outcomes = run(|mut script| {
        let cells = script.boot();
        if script.agent.boot() == 0 {
            script.start(&cells[0]);
            script.agent.console(&"hello\n".repeat((CONSOLE_LIMIT / 6 + 2) as usize));
            return script.hang();
        }
        cells.iter().for_each(|cell| script.pass(cell));
        script.end(cells.len());
    });
    assert_eq!(
        outcomes.lines(),
        ["A01 errored: over-budget: its console grew beyond 32 MiB", "B02 passed", "C03 passed"]
    );
}

#[test]
fn a_guest_that_sends_too_much_after_its_last_cell_is_reported() {
    let outcomes = run(|mut script| {
        let cells = script.boot();
        cells.iter().for_each(|cell| script.pass(cell));
        script.done(cells.len());
        let log = message(&AgentMessage::Log { text: String::new() });
        while script.agent.channel().send(&log).is_ok() {}
    });
    assert_eq!(outcomes.lines(), ["A01 passed", "B02 passed", "C03 passed"]);
    let rows = outcomes.rows().join("\n");
    assert!(rows.contains("teardown failed") && rows.contains("(log lines), and it was killed"), "{rows}");
    assert!(outcomes.events.iter().all(|event| !matches!(event, Event::GuestLost { kind: ErrorKind::Hang, .. })));
}
