//! Shared by the tests that pass reports to other programs.

use lab::setup::{TestTools, Tools};
use lab_protocol::{CellId, Check, ErrorKind, FailureKind, Outcome};
use lab_record::{
    event::{Event, Stamped},
    synthetic,
    verdict::Verdict,
};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

const TESTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests");
/// Text that hostile guests may print.
pub const HOSTILE: &str =
    "\x1b[31mred\x1b[0m \0 ]]> <a & \"b\"> --> {{x}} \u{FFFE}\u{FFFF}\u{202E}ähm 🦀\r\n# SKIP not me";
/// Size of the longest log, bytes.
const LOG: usize = 5 << 20;

/// The tools that `make setup-tests` installs. The tests need them, so their absence is a failure.
pub fn tools() -> TestTools {
    let cache = lab_base::paths::cache_dir().unwrap();
    Tools::in_cache(&cache).test_tools().expect("the readers of the reports are not installed: run `make setup-tests`")
}

/// A run on three kernels in which a few cells have hostile content.
pub fn hostile_run() -> Vec<Stamped> {
    let mut plan = synthetic::plan(3, 60);
    let names: Vec<CellId> = (0..)
        .zip(&plan.cells)
        .map(|(at, info)| match at {
            0 => CellId(format!("X00-<script>alert('x')</script>&\"]]> #1 {HOSTILE}[tc,veth]").into()),
            1 => CellId("X01-$(reboot) `reboot` %00 ../../../etc/passwd 'quoted'[tcx]".into()),
            _ => info.id.clone(),
        })
        .collect();
    for (info, name) in plan.cells.iter_mut().zip(&names) {
        info.id = name.clone();
    }
    for kernel in &mut plan.kernels {
        kernel.cells.iter_mut().zip(&names).for_each(|(cell, name)| cell.id = name.clone());
    }
    plan.cells[2].title = HOSTILE.to_owned();
    let mut events: Vec<Stamped> = synthetic::events(synthetic::run_info("20261120T120000Z-abcdef", plan)).collect();
    let spoil = |verdict: &mut Verdict| {
        let at = names.iter().position(|name| *name == verdict.report.cell);
        match at {
            Some(1) => {
                verdict.outcome = Outcome::Failed { kind: FailureKind::Check, message: HOSTILE.repeat(100) };
                verdict.report.checks.push(Check { name: HOSTILE.into(), ok: false, seen: HOSTILE.into() });
                verdict.warnings.push(HOSTILE.to_owned());
                verdict.files.push(lab_guard::Inside::new("6.12/cells/x/w0.pcap").unwrap());
            }
            Some(2) => {
                verdict.outcome = Outcome::Errored { kind: ErrorKind::Panic, message: format!("Oops: {HOSTILE}") };
                verdict.evidence = Some(HOSTILE.repeat(LOG / HOSTILE.len() + 1));
                verdict.report.log = vec!["x".repeat(LOG)];
            }
            Some(3) => {
                verdict.outcome = Outcome::Errored { kind: ErrorKind::Hang, message: "silent for 30 s".to_owned() };
            }
            _ => {}
        }
    };
    for stamped in &mut events {
        if let Event::CellFinished { verdict, .. } = &mut stamped.event {
            spoil(verdict);
        }
    }
    events
}

/// Writes a run's events to a directory.
pub fn write(directory: &Path, events: &[Stamped]) {
    let lines: String = events.iter().map(|stamped| serde_json::to_string(stamped).unwrap() + "\n").collect();
    fs::write(directory.join("events.jsonl"), lines).unwrap();
}

/// `lab report` on a run that failed.
pub fn report(directory: &Path, arguments: &[&str]) -> Vec<u8> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lab"));
    let output = command.arg("report").arg(directory).args(arguments).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// Runs a reader, which prints what it accepts, or in one line the first difference.
#[track_caller]
pub fn agrees(program: &Path, script: &str, arguments: &[PathBuf]) {
    let output = Command::new(program).arg(Path::new(TESTS).join(script)).args(arguments).output().unwrap();
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{told}{}", String::from_utf8_lossy(&output.stderr));
    println!("{told}");
}
