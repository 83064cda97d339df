//! The reports in the hands of those who read them: other people's parsers, schemas and validators, all pinned.
//!
//! The run is made up, and hostile: names that look like markup, control characters, five megabytes of log.

use lab::{
    event::{Event, Stamped},
    judge::Verdict,
    report::record::{RunRecord, used},
    setup::{TestTools, Tools},
    synthetic,
    text::line,
};
use lab_protocol::{CellId, Check, ErrorKind, FailureKind, Outcome};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

const CONSUMERS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/consumers");
/// What kernels and hostile guests print.
const HOSTILE: &str = "\x1b[31mred\x1b[0m \0 ]]> <a & \"b\"> --> {{x}} \u{FFFE}\u{FFFF}\u{202E}ähm 🦀\r\n# SKIP not me";
/// Bytes of the longest log.
const LOG: usize = 5 << 20;

/// What `make setup-tests` installs. Without it nothing here could be shown, so its absence is a failure.
fn tools() -> TestTools {
    let cache = lab::paths::cache_dir().unwrap();
    Tools::in_cache(&cache).test_tools().expect("the readers of the reports are not installed: run `make setup-tests`")
}

/// A run on three kernels in which a few cells are as bad as can be.
fn hostile_run() -> Vec<Stamped> {
    let mut plan = synthetic::plan(3, 60);
    let names: Vec<CellId> = (0..)
        .zip(&plan.cells)
        .map(|(at, info)| match at {
            0 => CellId(format!("X00-<script>alert('x')</script>&\"]]> #1 {HOSTILE}[tc,veth]")),
            1 => CellId("X01-$(reboot) `reboot` %00 ../../../etc/passwd 'quoted'[tcx]".to_owned()),
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
                verdict.files.push("6.12/cells/x/w0.pcap".to_owned());
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

/// The run as every reader must see it.
fn expectation(record: &RunRecord) -> Value {
    let plan = &record.info.as_ref().unwrap().plan;
    let mut suites: BTreeMap<&str, BTreeMap<&str, usize>> = BTreeMap::new();
    let mut cases = Vec::new();
    for (kernel, cell, verdict) in record.verdicts() {
        let outcome = match verdict.outcome {
            Outcome::NotRun { .. } => "errored",
            ref other => other.word(),
        };
        let counts = suites.entry(&kernel.facts.id).or_default();
        for key in ["tests", "failures", "errors", "skipped"] {
            let counted = matches!(
                (key, outcome),
                ("tests", _) | ("failures", "failed") | ("errors", "errored") | ("skipped", "skipped")
            );
            *counts.entry(key).or_default() += usize::from(counted);
        }
        let attach: Vec<&str> = used(&verdict).iter().map(|used| used.name()).collect();
        cases.push(json!({
            "suite": kernel.facts.id,
            "name": line(cell.id.as_str(), 1000),
            "classname": format!("{}.{}", kernel.facts.id, plan.info(&cell.id).unwrap().area),
            "outcome": outcome,
            "message": line(&verdict.outcome.message(), 1000),
            "attach": attach.join("+"),
            "required": cell.required.map_or("", |required| required.name()),
            "repro": line(&record.repro(&kernel.facts.id, &cell.id), 1000),
        }));
    }
    json!({ "suites": suites, "cases": cases })
}

/// A directory with the run, its reports in every format, and the expectation.
struct Desk {
    directory: tempfile::TempDir,
}

impl Desk {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let events = hostile_run();
        let lines = events.iter().map(|stamped| serde_json::to_string(stamped).unwrap() + "\n").collect::<String>();
        fs::write(directory.path().join("events.jsonl"), lines).unwrap();
        let mut record = RunRecord::default();
        events.iter().for_each(|stamped| record.apply(stamped));
        fs::write(directory.path().join("expect.json"), expectation(&record).to_string()).unwrap();
        let desk = Self { directory };
        desk.lab(&[]);
        desk
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// `lab report` on the run, which failed.
    fn lab(&self, arguments: &[&str]) -> Vec<u8> {
        let output = Command::new(env!("CARGO_BIN_EXE_lab"))
            .arg("report")
            .arg(self.directory.path())
            .args(arguments)
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(1), "{}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    }

    /// The run in a format, as a file.
    fn formatted(&self, format: &str) -> PathBuf {
        let path = self.path(format);
        fs::write(&path, self.lab(&["--format", format])).unwrap();
        path
    }
}

/// Runs a reader, which says what it agrees in, or in one line what it does not.
#[track_caller]
fn agrees(program: &Path, script: &str, arguments: &[PathBuf]) {
    let output = Command::new(program).arg(Path::new(CONSUMERS).join(script)).args(arguments).output().unwrap();
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{told}{}", String::from_utf8_lossy(&output.stderr));
    println!("{told}");
}

#[test]
fn junit_is_read_alike_by_everyone_and_holds_to_jenkins_schema() {
    let (tools, desk) = (tools(), Desk::new());
    let common = desk.path("junit.xml");
    assert_eq!(fs::read(&common).unwrap(), desk.lab(&["--format", "junit"]));
    let schema = Path::new(CONSUMERS).join("junit-10.xsd");
    let arguments = [desk.path("expect.json"), common.clone(), desk.formatted("jenkins"), schema];
    agrees(&tools.python(), "junit.py", &arguments);
    agrees(&tools.node(), "junit.mjs", &[tools.node_modules(), desk.path("expect.json"), common]);
}

#[test]
fn ktap_and_kcidb_are_what_kernel_ci_reads() {
    let (tools, desk) = (tools(), Desk::new());
    let arguments = [desk.path("expect.json"), desk.formatted("ktap"), desk.formatted("kcidb")];
    agrees(&tools.python(), "kernelci.py", &arguments);
}
