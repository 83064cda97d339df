//! The HTML report in a real browser: clicked, filtered, driven by keys, and looked at in three widths.

mod support;

use lab::{
    report::record::{RunRecord, used},
    synthetic,
};
use serde_json::{Value, json};
use std::{env, fs, path::PathBuf};
use support::{agrees, hostile_run, report, tools, write};

/// Where pictures of the pages go; by default none are taken.
const PICTURES: &str = "NETKIT_LAB_PICTURES";

/// Debian's Chromium, which `make setup-tests` installs.
fn chromium() -> PathBuf {
    which::which("chromium").expect("no chromium in PATH: run `make setup-tests`")
}

/// What the page must show of a run.
fn expectation(record: &RunRecord) -> Value {
    let plan = &record.info.as_ref().unwrap().plan;
    let row = |id: &lab_protocol::CellId| plan.cells.iter().position(|cell| cell.id == *id).unwrap();
    let kernel = |id: &str| plan.kernels.iter().position(|kernel| kernel.facts.id == id).unwrap();
    let cells = record.verdicts().map(|(planned, cell, verdict)| {
        let info = plan.info(&cell.id).unwrap();
        let attach: Vec<&str> = used(&verdict).iter().map(|used| used.name()).collect();
        json!({
            "kernel": kernel(&planned.facts.id),
            "row": row(&cell.id),
            "id": cell.id,
            "area": info.area,
            "requested": info.attach.map(|attach| attach.name()),
            "attach": attach.join("+"),
            "standing": verdict.standing().word(),
        })
    });
    let mut areas: Vec<&str> = plan.cells.iter().map(|cell| &*cell.area).collect();
    areas.dedup();
    let (bad_kernel, bad, _) = record.verdicts().nth(1).unwrap();
    json!({
        "cells": cells.collect::<Vec<_>>(),
        "kernels": plan.kernels.iter().map(|kernel| &*kernel.facts.id).collect::<Vec<_>>(),
        "areas": areas,
        "rows": plan.cells.len(),
        "first": 0,
        "capabilities": lab_protocol::Capability::ALL.len(),
        "evidence": {
            "kernel": kernel(&bad_kernel.facts.id),
            "row": row(&bad.id),
            "id": bad.id,
            "repro": record.repro(&bad_kernel.facts.id, &bad.id),
            "words": ["]]> <a & \"b\"> --> {{x}}", "failed", "Checks", "Noticed"],
            "links": ["./6.12/cells/x/w0.pcap", format!("./{}/console.log", bad_kernel.facts.id)],
        },
    })
}

#[test]
fn the_report_is_clicked_filtered_and_looked_at() {
    let (tools, chromium) = (tools(), chromium());
    let home = tempfile::tempdir().unwrap();
    let [small, large] = ["small", "large"].map(|name| home.path().join(name));
    let events = hostile_run();
    let mut record = RunRecord::default();
    events.iter().for_each(|stamped| record.apply(stamped));
    // 28 kernels by 720 cells, as many as a nightly of the whole ladder has.
    let plan = synthetic::plan(28, 720);
    let many: Vec<_> = synthetic::events(synthetic::run_info("20261120T120000Z-000001", plan)).collect();
    for (directory, events) in [(&small, &events), (&large, &many)] {
        fs::create_dir(directory).unwrap();
        write(directory, events);
        report(directory, &[]);
    }
    let expect = home.path().join("expect.json");
    fs::write(&expect, expectation(&record).to_string()).unwrap();
    let mut arguments =
        vec![tools.node_modules(), chromium, expect, small.join("report.html"), large.join("report.html")];
    arguments.extend(env::var_os(PICTURES).map(PathBuf::from));
    agrees(&tools.node(), "browser/report.mjs", &arguments);
}
