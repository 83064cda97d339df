//! Agents that a script plays in a stand-in for QEMU, against the program as a user runs it.

use crate::{
    attack::{Attack, By, Wanted},
    fake::{self, Scenario, behave, once},
    stage::{Seen, Stage},
};
use lab::testing::agent::{Script, good};
use lab_protocol::{
    AgentMessage, CapabilityReport, CellId, CellReport, Check, FailureKind, Outcome,
    attachment::{Attachment, AttachmentKind},
    frame::{self, MAX_PAYLOAD},
};
use lab_vm::CONSOLE_LIMIT;
use std::{sync::Once, time::Duration};

const EVIL: &str = "\x1b]0;x\x07\x1b[2J\u{202e}\u{200b}\r\n::error::forged\n##[add-mask]forged\n]]>";
const BUDGET: &str = "A guest has a budget of messages and bytes, and exceeding it is a verdict of its own";
const OVER: &[&str] = &["over-budget", "the guest sent too much"];

/// An attack and who plays it.
struct Played {
    name: &'static str,
    what: &'static str,
    promise: &'static str,
    wanted: Wanted,
    scenario: fn() -> Scenario,
}

/// The scenario of an attack.
pub fn scenario(name: &str) -> Scenario {
    (played().into_iter().find(|it| it.name == name).expect("the parent names an attack of this table").scenario)()
}

/// The rows. The stage's directory has the attack's name, since an act is told no other.
pub fn attacks() -> Vec<Attack> {
    macro_rules! acts {
        ($($name:literal),*) => {
            [$(($name, (|stage| start(stage, $name)) as fn(&Stage<'_>) -> Seen)),*]
        };
    }
    let acts = acts![
        "probes-without-end",
        "complaints-without-end",
        "heartbeats-without-end",
        "notes-without-end",
        "visits-without-end",
        "garbage-without-end",
        "reports-without-end",
        "console-without-end",
        "words-after-the-last",
        "reports-as-large-as-can-be",
        "names-climb",
        "drawing-runs",
        "words-steer",
        "verdicts-are-forged",
        "begins-for-others",
        "nested-frames",
        "one-starves-none"
    ];
    let act = |name: &str| acts.iter().find(|(known, _)| *known == name).expect("every scenario has an act").1;
    let row = |Played { name, what, promise, wanted, .. }: Played| Attack {
        name,
        by: By::Agent,
        what,
        promise,
        wanted,
        act: act(name),
    };
    played().into_iter().map(row).collect()
}

fn start(stage: &Stage<'_>, name: &str) -> Seen {
    static READY: Once = Once::new();
    READY.call_once(fake::ready);
    let command = scenario(name).command(name, stage.scratch, &stage.run());
    let mut command = stage.dressed(command);
    command.env("CI", "true");
    stage.finish(command, Duration::from_secs(100))
}

/// The first guest begins its first cell and says this until it is given up; the others behave.
fn endless(say: fn(u64) -> Vec<u8>) -> Scenario {
    once(move |script, cells| {
        script.start(&cells[0]);
        for number in 0.. {
            if script.agent.channel().send(&say(number)).is_err() {
                return;
            }
        }
    })
}

fn message(message: &AgentMessage) -> Vec<u8> {
    frame::encode(message).expect("it is small")
}

/// Every cell ends with this report; the guest then powers off.
fn reporting(make: fn(&CellId) -> CellReport) -> Scenario {
    once(move |script, cells| {
        for cell in cells {
            script.start(cell);
            script.finish(make(cell));
        }
        script.end(cells.len());
    })
}

fn failed(cell: &CellId, message: &str) -> CellReport {
    CellReport { outcome: Outcome::Failed { kind: FailureKind::Check, message: message.to_owned() }, ..good(cell) }
}

fn played() -> Vec<Played> {
    let over = || Wanted::exit(&[3], OVER);
    let endlessly = |name, what, scenario| Played { name, what, promise: BUDGET, wanted: over(), scenario };
    let mut all = vec![
        endlessly("probes-without-end", "`Probed` without end, each as large as can be", || {
            endless(|_| {
                let modules = vec!["m".repeat(4000); 900];
                message(&AgentMessage::Probed { capabilities: Vec::<CapabilityReport>::new(), modules })
            })
        }),
        endlessly("complaints-without-end", "a kernel log of unique warnings without end", || {
            endless(|number| {
                let line = |at: u64| {
                    let digits = format!("{:09}", number * 2000 + at);
                    let letters: String = digits.bytes().map(|digit| char::from(digit - b'0' + b'a')).collect();
                    format!("[    1.0] WARNING: CPU: 0 PID: 1 at net/x.c:1 {letters}+0x1/0x2\n")
                };
                message(&AgentMessage::KernelLog { text: (0..2000).map(line).collect() })
            })
        }),
        endlessly("heartbeats-without-end", "heartbeats without end", || {
            endless(|uptime_ms| message(&AgentMessage::Heartbeat { uptime_ms, cell: None }))
        }),
        endlessly("notes-without-end", "endless log lines", || {
            endless(|_| message(&AgentMessage::Log { text: EVIL.to_owned() }))
        }),
        endlessly("visits-without-end", "output of a program that nobody started", || {
            endless(|_| message(&AgentMessage::InputTaken { bytes: u32::MAX }))
        }),
        endlessly("garbage-without-end", "endless bytes outside of messages", || endless(|_| vec![0xf5; 64 << 10])),
        endlessly("reports-without-end", "reports of a cell that was not requested", || {
            endless(|_| {
                let log = vec!["x".repeat(4000); 500];
                let report = CellReport { log, ..CellReport::bare(CellId("Z99-x".into()), Outcome::Passed) };
                message(&AgentMessage::CellFinished { report: Box::new(report) })
            })
        }),
    ];
    all.push(Played {
        name: "console-without-end",
        what: "a console that grows without end",
        promise: "Every file that a guest can make grow has a limit",
        wanted: Wanted::exit(&[3], &["over-budget", "its console grew beyond 32 MiB"]),
        scenario: || {
            once(|script, cells| {
                script.start(&cells[0]);
                script.agent.console(&"hello\n".repeat((CONSOLE_LIMIT / 6 + 2) as usize));
                script.hang();
            })
        },
    });
    all.push(Played {
        name: "words-after-the-last",
        what: "words without end after the last cell",
        promise: BUDGET,
        wanted: Wanted::exit(&[1], &["the guest sent too much", "and it was killed"]),
        scenario: || {
            once(|script, cells| {
                cells.iter().for_each(|cell| script.pass(cell));
                script.done(cells.len());
                let log = message(&AgentMessage::Log { text: String::new() });
                while script.agent.channel().send(&log).is_ok() {}
            })
        },
    });
    all.extend(contents());
    all
}

fn contents() -> Vec<Played> {
    let quiet = |told| Wanted::exit(&[1], told).never(&["\n::error", "##[add-mask]"]);
    vec![
        Played {
            name: "reports-as-large-as-can-be",
            what: "every list, text and file of a report is as large as a frame takes",
            promise: "What a guest says is bounded",
            wanted: Wanted::exit(&[1], &[]),
            scenario: || {
                reporting(|cell| {
                    let mut report = failed(cell, &"m".repeat(100_000));
                    let check = Check { name: "n".repeat(5000), ok: false, seen: "s".repeat(5000) };
                    report.checks = vec![check; 100];
                    report.log = vec!["l".repeat(5000); 100];
                    report.metrics = (0..2000).map(|number| (format!("m{number}"), f64::MAX)).collect();
                    let file = Attachment { name: "f".repeat(500), kind: AttachmentKind::Pcap, bytes: vec![0; 60_000] };
                    report.attachments = vec![file; 20];
                    report
                })
            },
        },
        Played {
            name: "names-climb",
            what: "files are named as paths to elsewhere",
            promise: "No path of a guest is followed",
            wanted: quiet(&[]),
            scenario: || {
                reporting(|cell| {
                    let mut report = failed(cell, "x");
                    for name in ["../../../outside/key", "/etc/cron.d/x", "..", "a\0b", EVIL] {
                        let (name, bytes) = (name.to_owned(), b"planted".to_vec());
                        report.attachments.push(Attachment { name, kind: AttachmentKind::Text, bytes });
                    }
                    report
                })
            },
        },
        Played {
            name: "drawing-runs",
            what: "a drawing carries a script",
            promise: "What a guest left runs nothing in a browser",
            wanted: quiet(&[]),
            scenario: || {
                reporting(|cell| {
                    let mut report = failed(cell, "x");
                    let bytes = b"<svg xmlns='http://www.w3.org/2000/svg' onload='x()'/>".to_vec();
                    report.attachments.push(Attachment { name: "d".to_owned(), kind: AttachmentKind::Svg, bytes });
                    report
                })
            },
        },
        Played {
            name: "words-steer",
            what: "every text steers terminals, browsers and CI systems",
            promise: "Words of a guest steer no terminal and command no CI system",
            wanted: quiet(&[]),
            scenario: || {
                reporting(|cell| {
                    let mut report = failed(cell, EVIL);
                    report.checks = vec![Check { name: EVIL.to_owned(), ok: false, seen: EVIL.to_owned() }];
                    report.log = vec![EVIL.to_owned()];
                    report.metrics.insert(EVIL.to_owned(), 1.0);
                    report
                })
            },
        },
        Played {
            name: "verdicts-are-forged",
            what: "passes are reported for cells that never ran",
            promise: "A guest can't claim another cell's verdict",
            wanted: Wanted::exit(&[3], &["ignored a report of"]),
            scenario: || {
                Scenario::of(|mut script: Script<'_>| {
                    let cells = script.boot();
                    let say = |script: &mut Script<'_>, cell: &CellId| {
                        script.say(&AgentMessage::CellFinished { report: Box::new(good(cell)) });
                    };
                    cells.iter().for_each(|cell| say(&mut script, cell));
                    script.done(cells.len());
                    script.hang();
                })
            },
        },
        Played {
            name: "begins-for-others",
            what: "endless starts of cells that were not requested",
            promise: BUDGET,
            wanted: Wanted::exit(&[3], OVER),
            scenario: || {
                once(|script, _| {
                    let begin = message(&AgentMessage::CellStarted { cell: CellId(EVIL.into()) });
                    while script.agent.channel().send(&begin).is_ok() {}
                })
            },
        },
        Played {
            name: "nested-frames",
            what: "a frame of brackets, as deep as it is long",
            promise: "Bytes on the port can't crash or stall the lab",
            wanted: Wanted::exit(&[0], &["frame without a message"]),
            scenario: || {
                once(|script, cells| {
                    let payload = vec![b'['; MAX_PAYLOAD];
                    let mut frame = frame::MAGIC.to_vec();
                    frame.extend((payload.len() as u32).to_le_bytes());
                    frame.extend(crc32fast::hash(&payload).to_le_bytes());
                    frame.extend(payload);
                    let _ = script.agent.channel().send(&frame);
                    behave(script, cells);
                })
            },
        },
        Played {
            name: "one-starves-none",
            what: "one guest floods its host while its cells wait for another guest",
            promise: "A guest can't take another one's verdict away",
            wanted: Wanted::exit(&[3], &["over-budget"]),
            scenario: || {
                Scenario::of(|mut script: Script<'_>| {
                    let cells = script.boot();
                    if script.agent.boot() == 0 {
                        script.pass(&cells[0]);
                        let log = message(&AgentMessage::Log { text: "x".repeat(1000) });
                        while script.agent.channel().send(&log).is_ok() {}
                        return;
                    }
                    behave(&mut script, &cells);
                })
            },
        },
    ]
}
