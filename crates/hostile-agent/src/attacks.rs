//! The attacks on the host; the name of a cell selects one.

use crate::HostPort;
use lab_protocol::{
    AgentMessage, CellId, CellReport, Check, FailureKind, Outcome,
    attachment::{Attachment, AttachmentKind},
    frame::{self, MAGIC},
};
use std::{fs, io::Write, path::Path};

/// The attacks, in the order of their numbers.
pub const NAMES: [&str; 16] = [
    "nothing",
    "probes-without-end",
    "complaints-without-end",
    "heartbeats-without-end",
    "notes-without-end",
    "garbage-without-end",
    "console-without-end",
    "frame-of-four-gigabytes",
    "half-a-frame-and-silence",
    "verdicts-of-other-cells",
    "words-that-steer",
    "files-that-climb",
    "drawing-with-a-script",
    "power-off",
    "host-is-looked-for",
    "last-words-without-end",
];

/// Control sequences for terminals, browsers, CI systems and parsers.
const EVIL: &str =
    "\x1b]0;x\x07\x1b[2J\u{202e}\u{200b}\r\n::error::x\n##[add-mask]x\n]]><script>x</script>|`x` @all [a](b)\0";

/// Runs the attack that the cell names; returns the report if the agent survives it.
pub fn act(host: &mut HostPort, cell: &CellId, mut report: CellReport) -> Option<CellReport> {
    let name = cell.as_str().split_once('-').map_or("", |(_, name)| name);
    match name {
        "probes-without-end" => {
            let modules = vec!["m".repeat(4000); 400];
            loop {
                host.say(&AgentMessage::Probed { capabilities: Vec::new(), modules: modules.clone() })?;
            }
        }
        "complaints-without-end" => {
            for number in 0u64.. {
                let letters: String =
                    format!("{number:09}").bytes().map(|digit| char::from(digit - b'0' + b'a')).collect();
                let line = format!("[    1.0] WARNING: CPU: 0 PID: 1 at net/x.c:{number} {letters}+0x1/0x2\n");
                host.say(&AgentMessage::KernelLog { text: line })?;
            }
        }
        "heartbeats-without-end" => loop {
            host.say(&AgentMessage::Heartbeat { uptime_ms: u64::MAX, cell: None })?;
        },
        "notes-without-end" => loop {
            host.say(&AgentMessage::Log { text: EVIL.to_owned() })?;
        },
        "garbage-without-end" => loop {
            host.raw(&[0xf5; 32 << 10])?;
        },
        "console-without-end" => {
            let mut console = fs::OpenOptions::new().write(true).open("/dev/console").ok()?;
            let line = "x".repeat(4000) + "\n";
            loop {
                console.write_all(line.as_bytes()).ok()?;
            }
        }
        "frame-of-four-gigabytes" => {
            let mut frame = MAGIC.to_vec();
            frame.extend([0xff; 8]);
            host.raw(&frame)?;
        }
        "half-a-frame-and-silence" => {
            let frame = frame::encode(&AgentMessage::Log { text: "x".repeat(100_000) }).ok()?;
            host.raw(&frame[..50_000])?;
            loop {
                std::thread::park();
            }
        }
        "verdicts-of-other-cells" => {
            for (number, name) in NAMES.iter().enumerate().filter(|(number, _)| *number != 9) {
                let report = CellReport::bare(CellId(format!("X{number:02}-{name}").into()), Outcome::Passed);
                host.say(&AgentMessage::CellFinished { report: Box::new(report) })?;
            }
        }
        "words-that-steer" => {
            report.outcome = Outcome::Failed { kind: FailureKind::Check, message: EVIL.to_owned() };
            report.checks.push(Check { name: EVIL.to_owned(), ok: false, seen: EVIL.to_owned() });
            report.log = vec![EVIL.to_owned()];
            report.metrics.insert(EVIL.to_owned(), f64::MAX);
        }
        "files-that-climb" => {
            report.outcome = failed();
            for name in ["../../../../outside/key", "/etc/cron.d/x", "..", "a\0b", "\u{202e}x"] {
                let file = |kind| Attachment { name: name.to_owned(), kind, bytes: b"planted".to_vec() };
                report.attachments.extend([file(AttachmentKind::Text), file(AttachmentKind::Pcap)]);
            }
        }
        "drawing-with-a-script" => {
            report.outcome = failed();
            let bytes = b"<svg xmlns='http://www.w3.org/2000/svg'><script>parent.ran=1</script></svg>".to_vec();
            report.attachments.push(Attachment { name: "drawing".to_owned(), kind: AttachmentKind::Svg, bytes });
        }
        "power-off" => return None,
        "host-is-looked-for" => {
            for (what, seen) in looked_for() {
                report.checks.push(Check { name: what.to_owned(), ok: seen.is_empty(), seen });
            }
        }
        "last-words-without-end" => {
            let report = Box::new(report.clone());
            host.say(&AgentMessage::CellFinished { report })?;
            host.say(&AgentMessage::Done { ran: 1 })?;
            loop {
                host.say(&AgentMessage::Log { text: "one more".to_owned() })?;
            }
        }
        _ => {}
    }
    Some(report)
}

fn failed() -> Outcome {
    Outcome::Failed { kind: FailureKind::Check, message: "with files".to_owned() }
}

/// Resources of the host that a guest must not reach, each with the ones that were found.
fn looked_for() -> [(&'static str, String); 4] {
    let names = |directory: &str, foreign: &dyn Fn(&Path) -> bool| {
        let entries = fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path());
        let found: Vec<String> = entries.filter(|path| foreign(path)).map(|path| path.display().to_string()).collect();
        found.join(" ")
    };
    // Device 9 is a 9p export, 26 a file system, 19 a socket to the host, 1 a network card, 2 a disk (virtio 1.2, 5).
    let shared = |path: &Path| {
        let id = fs::read_to_string(path.join("device")).unwrap_or_default();
        ["0x0001", "0x0002", "0x0009", "0x0013", "0x001a"].contains(&id.trim())
    };
    [
        (
            "no device gives access to a directory, network or disk of the host",
            names("/sys/bus/virtio/devices", &shared),
        ),
        ("no second console", names("/sys/class/tty", &|path| path.file_name().is_some_and(|name| name == "hvc0"))),
        ("no network card", names("/sys/class/net", &|path| path.join("device").exists())),
        ("no disk", names("/sys/block", &|path| path.join("device").exists())),
    ]
}
