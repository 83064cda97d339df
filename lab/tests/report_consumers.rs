//! Tests the reports with pinned third-party parsers, schemas and validators.
//!
//! The run is synthetic and hostile: names that look like markup, control characters, five megabytes of log.

mod support;

use lab_base::text::line;
use lab_protocol::Outcome;
use lab_record::run::RunRecord;
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};
use support::{agrees, hostile_run, report, tools, write};

const CONSUMERS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/consumers");

/// The content that every reader must see.
fn expectation(record: &RunRecord) -> Value {
    let listed: BTreeMap<_, _> = record.listing().map(|info| (&info.id, info)).collect();
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
        let attach: Vec<&str> = verdict.used().iter().map(|used| used.name()).collect();
        cases.push(json!({
            "suite": kernel.facts.id,
            "name": line(cell.id.as_str(), 1000),
            "classname": format!("{}.{}", kernel.facts.id, listed[&cell.id].area),
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
        write(directory.path(), &events);
        let mut record = RunRecord::default();
        events.iter().for_each(|stamped| record.apply(stamped));
        fs::write(directory.path().join("expect.json"), expectation(&record).to_string()).unwrap();
        let desk = Self { directory };
        report(desk.directory.path(), &[]);
        desk
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The run in a format, as a file.
    fn formatted(&self, format: &str) -> PathBuf {
        let path = self.path(format);
        fs::write(&path, report(self.directory.path(), &["--format", format])).unwrap();
        path
    }
}

#[test]
fn all_parsers_read_junit_equally_and_jenkins_schema_is_satisfied() {
    let (tools, desk) = (tools(), Desk::new());
    let common = desk.path("junit.xml");
    assert_eq!(fs::read(&common).unwrap(), report(desk.directory.path(), &["--format", "junit"]));
    let schema = Path::new(CONSUMERS).join("junit-10.xsd");
    let arguments = [desk.path("expect.json"), common.clone(), desk.formatted("jenkins"), schema];
    agrees(&tools.python(), "consumers/junit.py", &arguments);
    agrees(&tools.node(), "consumers/junit.mjs", &[tools.node_modules(), desk.path("expect.json"), common]);
}

#[test]
fn kernel_ci_tools_accept_ktap_and_kcidb() {
    let (tools, desk) = (tools(), Desk::new());
    let arguments = [desk.path("expect.json"), desk.formatted("ktap"), desk.formatted("kcidb")];
    agrees(&tools.python(), "consumers/kernelci.py", &arguments);
}
