//! Faults of guests and agents, injected by scripts.

use crate::{
    fake::{Scenario, behave, once},
    fault::{Expected, Fault, How},
};
use lab::testing::agent::good;
use lab_protocol::{
    AgentMessage, CellId, CellReport, ErrorKind, FailureKind, Outcome, PROTOCOL_VERSION,
    attachment::{Attachment, AttachmentKind},
    frame::{self, MAGIC},
};
use std::{fs, time::Duration};

const ALL_PASS: &[&str] = &["A01 passed", "B02 passed", "C03 passed"];
const NONE_RUN: &[&str] = &["A01 not-run", "B02 not-run", "C03 not-run"];

/// Creates a row.
fn fault(
    name: &'static str,
    injected: &'static str,
    (exit, cells, told): (i32, &'static [&'static str], &'static [&'static str]),
    scenario: fn() -> Scenario,
) -> Fault {
    Fault { name, injected, expected: Expected { exit, cells, told }, how: How::Fake(scenario) }
}

/// The rows of the table.
pub fn faults() -> Vec<Fault> {
    let mut all = boots();
    all.extend(deaths());
    all.extend(hangs());
    all.extend(words());
    all.extend(hosts());
    all
}

fn boots() -> Vec<Fault> {
    vec![
        fault("none", "nothing: the control", (0, ALL_PASS, &[]), || once(behave)),
        fault(
            "boot-silent",
            "a kernel that never starts its agent",
            (
                3,
                NONE_RUN,
                &["3 guests in a row were lost without a verdict; the last one: no Hello within 2.0s of launch"],
            ),
            || Scenario::of(|mut script| script.hang()).choosing("boot=2s"),
        ),
        fault(
            "boot-no-machine",
            "a virtual machine that ends before its agent's port exists",
            (3, NONE_RUN, &["ended before its agent's port existed"]),
            || Scenario::of(|_| {}).never_listening(),
        ),
        fault(
            "boot-panic",
            "a kernel that panics while it boots",
            (3, NONE_RUN, &["Kernel panic - not syncing: VFS"]),
            || Scenario::of(|script| script.agent.console("[    0.9] Kernel panic - not syncing: VFS: no root\n")),
        ),
        fault(
            "agent-other-protocol",
            "an agent of another version",
            (3, NONE_RUN, &["the agent uses protocol"]),
            || {
                Scenario::of(|mut script| {
                    script.hello(PROTOCOL_VERSION + 1);
                    script.hang();
                })
            },
        ),
        fault(
            "agent-gives-up",
            "an agent that can't continue and reports that",
            (3, NONE_RUN, &["the agent gave up: no port"]),
            || {
                Scenario::of(|mut script| {
                    script.boot();
                    script.say(&AgentMessage::Fatal { message: "no port".to_owned() });
                    script.hang();
                })
            },
        ),
        fault(
            "guests-die-at-once",
            "guests that die as soon as they have received their cells",
            (3, NONE_RUN, &["3 guests in a row were lost without a verdict"]),
            || {
                Scenario::of(|mut script| {
                    script.boot();
                })
            },
        ),
        fault(
            "image-missing",
            "an image that can't be built",
            (3, &[], &["no guest was started: image for 6.12: "]),
            || {
                Scenario::of(|_| {}).after(|cache| {
                    let images = cache.join("images");
                    fs::remove_file(&images).expect("a link");
                    fs::write(&images, "in the way").expect("a file");
                })
            },
        ),
    ]
}

fn deaths() -> Vec<Fault> {
    vec![
        fault(
            "kernel-panic",
            "a panic in the second cell",
            (1, &["A01 passed", "B02 errored: panic: BUG: kernel NULL pointer dereference", "C03 passed"], &[]),
            || {
                once(|script, cells| {
                    script.pass(&cells[0]);
                    script.start(&cells[1]);
                    script.agent.console(
                        "[    3.1] BUG: kernel NULL pointer dereference, address: 0\n[    3.2] Kernel panic - not syncing: x\n",
                    );
                })
            },
        ),
        fault(
            "kernel-warn",
            "a WARN in a cell that passes",
            (1, &["A01 passed", "B02 failed: splat: WARNING: ", "C03 passed"], &[]),
            || {
                once(|script, cells| {
                    script.pass(&cells[0]);
                    script.start(&cells[1]);
                    script.agent.console("[    3.1] WARNING: CPU: 0 PID: 7 at net/core/dev.c:1 f+0x1/0x2\n");
                    script.finish(good(&cells[1]));
                    behave(script, &cells[2..]);
                })
            },
        ),
        fault(
            "guest-vanishes",
            "a machine that ends during a cell, without a message",
            (3, &["A01 errored: guest-lost", "B02 passed", "C03 passed"], &[]),
            || once(|script, cells| script.start(&cells[0])),
        ),
        fault(
            "guest-dies-between-cells",
            "a machine that ends between two cells",
            (3, ALL_PASS, &["the guest ended unexpectedly"]),
            || once(|script, cells| script.pass(&cells[0])),
        ),
        fault(
            "guests-die-in-every-cell",
            "a kernel that dies in each of forty cells",
            (
                3,
                &[
                    "T00 errored: guest-lost",
                    "T11 errored: guest-lost",
                    "T12 not-run: 12 guests were lost",
                    "T39 not-run",
                ],
                &[],
            ),
            || {
                Scenario::of(|mut script| {
                    let cells = script.boot();
                    script.start(&cells[0]);
                })
                .cells(40)
            },
        ),
        fault(
            "guest-restarts",
            "a guest that reboots during a run",
            (3, &["A01 errored: agent: a second Hello", "B02 passed", "C03 passed"], &[]),
            || {
                once(|script, cells| {
                    script.start(&cells[0]);
                    script.hello(PROTOCOL_VERSION);
                    script.hang();
                })
            },
        ),
    ]
}

fn hangs() -> Vec<Fault> {
    vec![
        fault(
            "guest-silent",
            "a guest that stops during a cell: no heartbeat",
            (
                1,
                &[
                    "A01 passed",
                    "B02 errored: hang: no heartbeat for 3.0s; its processor is in fake_spin",
                    "C03 passed",
                ],
                &[],
            ),
            || {
                once(|script, cells| {
                    script.pass(&cells[0]);
                    script.start(&cells[1]);
                    script.hang();
                })
                .choosing("silence=3s")
            },
        ),
        fault(
            "cell-endless",
            "a cell that never ends while heartbeats continue",
            (
                1,
                &["A01 errored: hang: A01-first[auto,nk-l3] ran for more than 300.0ms", "B02 passed", "C03 passed"],
                &[],
            ),
            || {
                once(|script, cells| {
                    script.start(&cells[0]);
                    for uptime_ms in 0..100 {
                        script.say(&AgentMessage::Heartbeat { uptime_ms, cell: Some(cells[0].clone()) });
                        let _ = script.agent.channel().recv(&mut [0; 8], Duration::from_millis(5));
                    }
                    script.hang();
                })
                .choosing("cell=300ms")
            },
        ),
        fault(
            "cell-given-up",
            "a cell that its own agent aborts",
            (1, &["A01 errored: hang: still running; its processor is in fake_spin", "B02 passed", "C03 passed"], &[]),
            || {
                once(|script, cells| {
                    script.start(&cells[0]);
                    let hang = Outcome::Errored { kind: ErrorKind::Hang, message: "still running".to_owned() };
                    script.finish(CellReport::bare(cells[0].clone(), hang));
                    script.say(&AgentMessage::Fatal { message: "stuck".to_owned() });
                    script.hang();
                })
            },
        ),
        fault("guest-idle", "an agent that starts no cell", (1, ALL_PASS, &["no cell started within 3.0s"]), || {
            once(|script, _| script.hang()).choosing("idle=3s")
        }),
        fault(
            "guest-overdue",
            "a guest that takes longer than its deadline",
            (1, &["A01 passed", "B02 errored: hang: the guest ran for more than 10.0s", "C03 passed"], &[]),
            || {
                once(|script, cells| {
                    script.pass(&cells[0]);
                    script.start(&cells[1]);
                    script.hang();
                })
                .choosing("guest=10s")
            },
        ),
        fault(
            "run-overdue",
            "a run that takes longer than its deadline",
            (
                3,
                &["A01 passed", "B02 errored: interrupted: the run took longer", "C03 not-run: the run took longer"],
                &[],
            ),
            || {
                once(|script, cells| {
                    script.pass(&cells[0]);
                    script.start(&cells[1]);
                    script.hang();
                })
                .choosing("run=25s")
            },
        ),
    ]
}

fn words() -> Vec<Fault> {
    vec![
        fault(
            "port-garbage",
            "bytes that are not a message, before and between messages",
            (0, ALL_PASS, &["bytes outside any frame"]),
            || {
                Scenario::of(|mut script| {
                    let _ = script.agent.channel().send(b"\x1b[2JSeaBIOS\0\xF5NK");
                    let cells = script.boot();
                    script.pass(&cells[0]);
                    let _ = script.agent.channel().send(&[0x5a; 3000]);
                    behave(&mut script, &cells[1..]);
                })
            },
        ),
        fault(
            "port-half-a-message",
            "a machine that ends in the middle of a report",
            (
                3,
                &["A01 errored: guest-lost: the guest ended unexpectedly", "B02 passed", "C03 passed"],
                &["bytes into a message"],
            ),
            || {
                once(|script, cells| {
                    script.start(&cells[0]);
                    let report = Box::new(good(&cells[0]));
                    let bytes = frame::encode(&AgentMessage::CellFinished { report }).unwrap();
                    let _ = script.agent.channel().send(&bytes[..bytes.len() / 2]);
                })
            },
        ),
        fault(
            "port-damaged-report",
            "a report with one bit flipped",
            (3, &["A01 errored: agent", "B02 passed", "C03 passed"], &["frame with an incorrect checksum"]),
            || {
                once(|script, cells| {
                    script.start(&cells[0]);
                    let report = Box::new(good(&cells[0]));
                    let mut bytes = frame::encode(&AgentMessage::CellFinished { report }).unwrap();
                    *bytes.last_mut().unwrap() ^= 1;
                    let _ = script.agent.channel().send(&bytes);
                    script.start(&cells[1]);
                    script.hang();
                })
            },
        ),
        fault(
            "port-oversized",
            "a message that claims four gigabytes",
            (0, ALL_PASS, &["the limit is 4194304"]),
            || {
                once(|script, cells| {
                    let _ = script.agent.channel().send(&[&MAGIC[..], &[0xff; 8]].concat());
                    behave(script, cells);
                })
            },
        ),
        fault(
            "port-closed",
            "a port that closes while the machine runs on",
            (3, ALL_PASS, &["the guest ended unexpectedly"]),
            || once(|_, _| {}),
        ),
        fault(
            "report-twice",
            "two reports of one cell, the second one with a worse outcome",
            (0, ALL_PASS, &["which is not running (failed)"]),
            || {
                once(|script, cells| {
                    script.pass(&cells[0]);
                    let outcome = Outcome::Failed { kind: FailureKind::Check, message: "late".to_owned() };
                    script.finish(CellReport { outcome, ..good(&cells[0]) });
                    behave(script, &cells[1..]);
                })
            },
        ),
        fault(
            "report-unasked",
            "a report of a cell that was not requested",
            (0, ALL_PASS, &["which the host did not request"]),
            || {
                once(|script, cells| {
                    script.pass(&CellId("Z99-unknown\x1b[2J".into()));
                    behave(script, cells);
                })
            },
        ),
        fault(
            "report-unbegun",
            "a report of a cell that has not started",
            (0, ALL_PASS, &["ignored a report of"]),
            || {
                once(|script, cells| {
                    script.finish(good(&cells[2]));
                    behave(script, cells);
                })
            },
        ),
        fault(
            "done-early",
            "an agent that says it is done although cells are missing",
            (3, ALL_PASS, &["cells have no report"]),
            || {
                once(|script, cells| {
                    script.pass(&cells[0]);
                    script.done(3);
                    script.hang();
                })
            },
        ),
        fault(
            "attach-type-lie",
            "a report that names another attach type than the plan requires",
            (1, &["A01 passed", "B02 failed: attach-mismatch", "C03 passed"], &[]),
            || {
                once(|script, cells| {
                    script.pass(&cells[0]);
                    script.start(&cells[1]);
                    let mut report = good(&cells[1]);
                    report.attach.clone_from(&good(&cells[2]).attach);
                    script.finish(report);
                    behave(script, &cells[2..]);
                })
            },
        ),
        fault(
            "report-hostile",
            "escapes, markup and paths in every text of a report, and a flood of them",
            (1, &["A01 failed: check: ", "B02 passed", "C03 passed"], &[r"\u{1b}]0;owned"]),
            || {
                once(|script, cells| {
                    let words = "\x1b]0;owned\x07</testcase>]]><script>alert(1)</script>\u{202e}\0";
                    script.say(&AgentMessage::Log { text: words.to_owned() });
                    // As much as the budget of lines allows.
                    (0..500).for_each(|_| script.say(&AgentMessage::Log { text: words.repeat(20) }));
                    script.start(&cells[0]);
                    let outcome = Outcome::Failed { kind: FailureKind::Check, message: words.to_owned() };
                    let mut report = CellReport { outcome, ..good(&cells[0]) };
                    report.log = vec![words.repeat(20); 100];
                    let place = |name: &str| Attachment {
                        name: name.to_owned(),
                        kind: AttachmentKind::Text,
                        bytes: words.as_bytes().to_vec(),
                    };
                    report.attachments = ["../../../owned", "/etc/owned", "..", words].map(place).to_vec();
                    script.finish(report);
                    behave(script, &cells[1..]);
                })
            },
        ),
    ]
}

fn hosts() -> Vec<Fault> {
    vec![
        fault(
            "disk-full-events",
            "a full disk under events.jsonl",
            (3, &[], &["can't write", "No space left on device"]),
            || once(behave).on_disk("8k"),
        ),
        fault(
            "snapshot-impossible",
            "a guest of which no snapshot can be made",
            (0, ALL_PASS, &["guests boot, because there is no snapshot"]),
            || {
                Scenario::of(|mut script| {
                    let cells = script.boot();
                    behave(&mut script, &cells);
                })
                .never_freezing()
            },
        ),
        fault(
            "snapshot-mute",
            "a snapshot whose restored guests never answer",
            (0, ALL_PASS, &["the snapshot was removed: a guest restored from it did not answer"]),
            || {
                Scenario::of(|mut script| {
                    if script.agent.restored() {
                        return;
                    }
                    let cells = script.boot();
                    behave(&mut script, &cells);
                })
                .warm()
            },
        ),
    ]
}
