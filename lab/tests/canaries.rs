//! Canaries on real guests: cells that must fail do so as expected, and a crash affects no other cell's verdict.

use serde_json::Value;
use std::{collections::BTreeMap, fs, path::Path, process::Command};

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

/// Case, outcome, and text that its message must contain.
const WANTED: [(&str, &str, &str); 29] = [
    ("Z01-must-pass", "passed", ""),
    ("Z25-must-see-no-host", "passed", ""),
    ("Z02-must-fail", "failed", "check: one and one: 2, expected 3"),
    ("Z03-must-skip", "skipped", "no netkit-single"),
    ("Z04-must-not-assert-nothing", "failed", "check: the case made no checks"),
    ("Z05-must-leak-a-map", "failed", "leak: map "),
    ("Z06-must-leak-a-pin[veth]", "failed", "leak: pin /sys/fs/bpf/canary"),
    ("Z07-must-leak-a-namespace", "failed", "leak: namespace net:["),
    ("Z08-must-fail-to-clean-up", "failed", "cleanup: the canary's clean-up: refuses"),
    ("Z09-must-not-hide-its-attachment[tc,veth]", "failed", "attach-mismatch: "),
    ("Z10-must-carry-traffic[tc,veth]", "failed", "the program never ran"),
    ("Z26-must-name-the-attach-type[tcx,veth]", "failed", "the plan requires tcx, kernel reports clsact/ingress"),
    ("Z27-must-name-tcx-on-netkit[netkit,nk-l3]", "failed", "the plan requires netkit, kernel reports tcx/ingress"),
    ("Z28-must-be-listed-by-the-kernel[tc,veth]", "failed", "the kernel does not list the program"),
    ("Z29-must-hear-a-late-packet[veth]", "failed", "1 delivered and 0 answered within"),
    ("Z11-must-panic-the-case", "errored", "agent: the case panicked: the canary's own panic"),
    ("Z12-must-warn", "failed", "splat: "),
    ("Z13-must-flood-the-log", "passed", ""),
    ("Z14-must-panic-the-kernel", "errored", "panic: "),
    ("Z15-must-go-on-after-the-panic", "passed", ""),
    ("Z16-must-hang", "errored", "hang: still running after"),
    ("Z17-must-go-on-after-the-hang", "passed", ""),
    ("Z18-must-kill-the-agent", "errored", "panic: "),
    ("Z19-must-oops", "errored", "panic: BUG: kernel NULL pointer dereference"),
    ("Z20-must-go-on-after-the-oops", "passed", ""),
    ("Z21-must-lock-up", "errored", ""),
    ("Z22-must-spin-in-the-kernel", "errored", "; its processor is in dummy_init_module+0x"),
    ("Z23-must-hang-the-agent", "errored", "hang: no heartbeat for 15.0s"),
    ("Z24-must-come-last", "passed", ""),
];
/// A task that spins in the kernel. Before lazy preemption (6.13) no other task runs, and the kernel's watchdog panics;
/// since then the agent still runs and gives the case up.
const LOCKED_UP: [(&str, &str); 3] = [
    ("6.1", "panic: Kernel panic - not syncing: softlockup: hung tasks"),
    ("6.12", "panic: Kernel panic - not syncing: softlockup: hung tasks"),
    ("6.17", "hang: still running after"),
];
/// Cells of hung guests, and the evidence that is collected before the guest is killed: an NMI if the kernel does not
/// answer.
const QUESTIONED: [(&str, &str); 3] = [
    ("Z16-must-hang", "sysrq: Show State"),
    ("Z22-must-spin-in-the-kernel", "RIP: 0010:dummy_init_module+0x"),
    ("Z23-must-hang-the-agent", "sysrq: Show State"),
];

/// Every cell's finished events: outcome and reason, by kernel and cell.
fn verdicts(events: &str) -> BTreeMap<(String, String), Vec<Value>> {
    let mut found: BTreeMap<_, Vec<Value>> = BTreeMap::new();
    for line in events.lines() {
        let event: Value = serde_json::from_str(line).expect("a line of events.jsonl is JSON");
        if event["event"] == "cell-finished" {
            let text = |value: &Value| value.as_str().expect("a name").to_owned();
            let key = (text(&event["kernel"]), text(&event["verdict"]["report"]["cell"]));
            found.entry(key).or_default().push(event["verdict"]["outcome"].clone());
        }
    }
    found
}

fn told(outcome: &Value) -> String {
    let text = |key: &str| outcome[key].as_str().unwrap_or_default().to_owned();
    match outcome["outcome"].as_str() {
        Some("skipped") => format!("no {}", outcome["reason"]["capability"].as_str().unwrap_or_default()),
        _ => format!("{}: {}", text("kind"), text("message")),
    }
}

#[test]
fn canaries_fail_as_expected_and_affect_no_other_cell() {
    let results = tempfile::tempdir().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_lab"))
        .args(["--project", ROOT, "run", "--canary", "--deadline", "silence=15s", "--out"])
        .arg(results.path())
        .output()
        .unwrap();
    let words = format!("{}\n{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(1), "{words}");
    let events = fs::read_to_string(results.path().join("latest/events.jsonl")).unwrap();
    let verdicts = verdicts(&events);
    assert_eq!(verdicts.len(), 3 * WANTED.len(), "every cell of every kernel, and no other\n{words}");
    for kernel in ["6.1", "6.12", "6.17"] {
        for (cell, outcome, message) in WANTED {
            let (outcome, message) = if kernel == "6.1" && cell.starts_with("Z26") {
                ("skipped", "no tcx")
            } else if kernel == "6.1" && cell.starts_with("Z27") {
                ("skipped", "no netkit")
            } else {
                (outcome, message)
            };
            let of_cell = &verdicts[&(kernel.to_owned(), cell.to_owned())];
            assert_eq!(of_cell.len(), 1, "{kernel} {cell}: one verdict, and only one");
            let seen = &of_cell[0];
            assert_eq!(seen["outcome"], outcome, "{kernel} {cell}: {seen}");
            assert!(told(seen).contains(message) || message.is_empty(), "{kernel} {cell}: {seen}");
        }
        questioned(&results.path().join("latest").join(kernel).join("cells"));
    }
    for (kernel, message) in LOCKED_UP {
        let seen = &verdicts[&(kernel.to_owned(), "Z21-must-lock-up".to_owned())][0];
        assert!(told(seen).starts_with(message), "{kernel}: {seen}");
    }
}

/// The evidence of hangs is written to files: registers, and the kernel's own output.
#[track_caller]
fn questioned(cells: &Path) {
    for (cell, words) in QUESTIONED {
        let mut told = (String::new(), String::new());
        for file in fs::read_dir(cells.join(cell)).unwrap() {
            let path = file.unwrap().path();
            let text = fs::read_to_string(&path).unwrap();
            if path.to_string_lossy().ends_with("-registers.txt") { told.0 = text } else { told.1 = text }
        }
        assert!(told.0.contains("RIP=") && told.0.contains("CR3="), "{}/{cell}: {}", cells.display(), told.0);
        assert!(told.1.contains(words), "{}/{cell}: {}", cells.display(), told.1);
    }
}
