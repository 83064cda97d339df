//! Tests the HTML report in a real browser: clicks, filters, keyboard, and three widths.

mod support;

use lab_protocol::{AttachType, FailureKind, Outcome};
use lab_record::{
    event::{Event, Stamped},
    run::RunRecord,
    synthetic,
    verdict::Standing,
};
use serde_json::{Value, json};
use std::{
    collections::BTreeSet,
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};
use support::{agrees, hostile_run, report, tools, write};

/// Directory for screenshots; by default none are taken.
const PICTURES: &str = "NETKIT_LAB_PICTURES";

/// Chromium of the distribution, which `make setup-tests` installs.
fn chromium() -> PathBuf {
    lab_base::programs::find("chromium").expect("no chromium in PATH: run `make setup-tests`")
}

/// The expected content of the page for a run.
fn expectation(record: &RunRecord) -> Value {
    let plan = &record.info.as_ref().unwrap().plan;
    let row = |id: &lab_protocol::CellId| record.listing().position(|cell| cell.id == *id).unwrap();
    let kernel = |id: &str| plan.kernels.iter().position(|kernel| kernel.facts.id == id).unwrap();
    let cells = record.verdicts().map(|(planned, cell, verdict)| {
        let info = record.listing().find(|info| info.id == cell.id).unwrap();
        let attach: Vec<&str> = verdict.used().iter().map(|used| used.name()).collect();
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
    let mut areas: Vec<&str> = record.listing().map(|cell| &*cell.area).collect();
    areas.dedup();
    let (bad_kernel, bad, _) = record.verdicts().nth(2).unwrap();
    json!({
        "cells": cells.collect::<Vec<_>>(),
        "kernels": plan.kernels.iter().map(|kernel| &*kernel.facts.id).collect::<Vec<_>>(),
        "areas": areas,
        "rows": record.listing().count(),
        "first": 0,
        "capabilities": lab_protocol::Capability::ALL.len(),
        "evidence": {
            "kernel": kernel(&bad_kernel.facts.id),
            "row": row(&bad.id),
            "id": bad.id,
            // The page quotes in its own way; the shell reads the same word.
            "repro": format!("lab run --kernel {} --case '{}'", bad_kernel.facts.id, bad.id.as_str().replace('\'', "'\\''")),
            "words": ["]]> <a & \"b\"> --> {{x}}", "failed", "Checks", "Noticed"],
            "links": ["./6.12/cells/x/w0.pcap", format!("./{}/console.log", bad_kernel.facts.id)],
        },
    })
}

#[test]
fn the_report_works_in_a_browser() {
    let (tools, chromium) = (tools(), chromium());
    let home = tempfile::tempdir().unwrap();
    let [small, large] = ["small", "large"].map(|name| home.path().join(name));
    let events = hostile_run();
    let mut record = RunRecord::default();
    events.iter().for_each(|stamped| record.apply(stamped));
    // 28 kernels and 720 cells, as in a nightly run of the whole ladder.
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

/// 56,000 cells, which are more than one page has, and a text with a script in one of them.
#[test]
fn the_report_of_a_large_run_loads_what_is_looked_at() {
    const EVIL: &str = "</script><script>globalThis.ran = true</script>\"); globalThis.ran = true; (\"";
    let (tools, chromium) = (tools(), chromium());
    let home = tempfile::tempdir().unwrap();
    let [whole, alone] = ["whole", "alone"].map(|name| home.path().join(name));
    let plan = synthetic::plan(28, 2000);
    let mut events: Vec<_> = synthetic::events(synthetic::run_info("20261120T120000Z-000002", plan)).collect();
    let mut evil = None;
    for stamped in &mut events {
        if let Event::CellFinished { kernel, verdict, .. } = &mut stamped.event
            && kernel == "6.12"
            && let Some(check) = verdict.report.checks.first_mut()
        {
            EVIL.clone_into(&mut check.seen);
            evil = Some(json!({ "kernel": kernel, "id": verdict.report.cell, "words": EVIL }));
            break;
        }
    }
    let mut record = RunRecord::default();
    events.iter().for_each(|stamped| record.apply(stamped));
    fs::create_dir(&whole).unwrap();
    fs::create_dir(&alone).unwrap();
    write(&whole, &events);
    report(&whole, &[]);
    fs::copy(whole.join("report.html"), alone.join("report.html")).unwrap();
    let kernels: Vec<&str> = record.planned().map(|(kernel, _)| kernel.facts.id.as_str()).collect();
    let failed: Vec<_> = record
        .verdicts()
        .filter(|(_, _, verdict)| verdict.standing() == Standing::Failed)
        .map(|(kernel, cell, _)| (kernel.facts.id.as_str(), &cell.id))
        .collect();
    let rows: BTreeSet<_> = failed.iter().map(|(_, cell)| cell).collect();
    let (last, info) = record.listing().enumerate().last().unwrap();
    let expectation = json!({
        "cells": record.verdicts().count(),
        "rows": record.listing().count(),
        "kernels": kernels.len(),
        "failed": { "cells": failed.len(), "rows": rows.len() },
        "one": { "kernel": kernels[3], "failed": failed.iter().filter(|(kernel, _)| *kernel == kernels[3]).count() },
        "last": { "row": last, "id": info.id },
        "before": kernels[kernels.len() - 2],
        "evil": evil,
    });
    let expect = home.path().join("expect.json");
    fs::write(&expect, expectation.to_string()).unwrap();
    let page = |directory: &Path| directory.join("report.html");
    let mut arguments = vec![tools.node_modules(), chromium, expect, page(&whole), page(&alone)];
    arguments.extend(env::var_os(PICTURES).map(PathBuf::from));
    agrees(&tools.node(), "browser/huge.mjs", &arguments);
}

/// A cell whose guest left a file of every kind, each with a script in it.
#[test]
fn files_of_a_guest_run_no_script_in_a_browser() {
    const SCRIPT: &str = "<script>globalThis.ran = true; parent.ran = true</script>";
    let (tools, chromium) = (tools(), chromium());
    let home = tempfile::tempdir().unwrap();
    let cells = home.path().join("6.12/cells/x");
    fs::create_dir_all(&cells).unwrap();
    let files = [("drawing.svg", "image"), ("notes.txt", "text"), ("packets.pcap", "saved"), ("page.html", "saved")];
    for (name, _) in files {
        let text = format!(
            r#"<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9" onload="parent.ran = true">{SCRIPT}</svg>"#
        );
        fs::write(cells.join(name), text).unwrap();
    }
    let mut events = hostile_run();
    let mut at = None;
    for stamped in &mut events {
        if let Event::CellFinished { kernel, verdict, .. } = &mut stamped.event
            && kernel == "6.12"
            && verdict.standing().is_bad()
        {
            let inside = |(name, _): (&str, &str)| lab_guard::Inside::new(&format!("6.12/cells/x/{name}")).unwrap();
            verdict.files = files.map(inside).to_vec();
            at = Some(verdict.report.cell.clone());
            break;
        }
    }
    let mut record = RunRecord::default();
    events.iter().for_each(|stamped| record.apply(stamped));
    write(home.path(), &events);
    report(home.path(), &[]);
    let plan = &record.info.as_ref().unwrap().plan;
    let expect = home.path().join("expect.json");
    let listed = files.map(|(name, kind)| json!({ "path": format!("6.12/cells/x/{name}"), "kind": kind }));
    let expectation = json!({
        "kernel": plan.kernels.iter().position(|kernel| kernel.facts.id == "6.12").unwrap(),
        "row": record.listing().position(|cell| Some(&cell.id) == at.as_ref()).unwrap(),
        "files": listed,
    });
    fs::write(&expect, expectation.to_string()).unwrap();
    let arguments = [tools.node_modules(), chromium, expect, home.path().join("report.html")];
    agrees(&tools.node(), "browser/attachments.mjs", &arguments);
}

/// Twelve runs on two kernels. From the eighth on a cell uses tcx instead of netkit, and in the fourth a cell failed.
fn nights(results: &Path) -> Value {
    let plan = synthetic::plan(4, 90);
    let (kernel, cell) = ("6.12", &plan.cells[2].id);
    assert!(cell.as_str().contains("[netkit,"), "{cell}");
    let mut strip = Vec::new();
    for night in 1..=12 {
        let id = format!("202611{night:02}T020000Z-abcdef");
        let directory = results.join(&id);
        fs::create_dir(&directory).unwrap();
        let mut events: Vec<Stamped> = synthetic::events(synthetic::run_info(&id, plan.clone())).collect();
        for stamped in &mut events {
            if let Event::CellFinished { kernel: on, verdict, .. } = &mut stamped.event
                && on == kernel
                && verdict.report.cell == *cell
            {
                let used = if night < 8 { AttachType::Netkit } else { AttachType::Tcx };
                verdict.report.attach.iter_mut().for_each(|it| it.used = Some(used));
                if night == 4 {
                    verdict.outcome = Outcome::Failed { kind: FailureKind::Check, message: "lost 3 of 3".to_owned() };
                }
                strip.push(format!("{} {used}", if night == 4 { "✗" } else { "✓" }));
            }
        }
        write(&directory, &events);
    }
    // Cells that fail in every run are listed too.
    let mut record = RunRecord::default();
    synthetic::events(synthetic::run_info("x", plan.clone())).for_each(|stamped| record.apply(&stamped));
    let bad = record.verdicts().filter(|(_, _, verdict)| verdict.standing().is_bad()).count();
    json!({
        "runs": 12, "night": 3, "told": "1 cells changed", "unsteady": bad + 1, "cell": cell, "strip": strip, "changes": 3,
    })
}

#[test]
fn the_trend_page_works_in_a_browser() {
    let (tools, chromium) = (tools(), chromium());
    let home = tempfile::tempdir().unwrap();
    let expect = home.path().join("expect.json");
    fs::write(&expect, nights(home.path()).to_string()).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_lab"))
        .args(["trend", "--results"])
        .arg(home.path())
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let mut arguments = vec![tools.node_modules(), chromium, expect, home.path().join("trend.html")];
    arguments.extend(env::var_os(PICTURES).map(PathBuf::from));
    agrees(&tools.node(), "browser/trend.mjs", &arguments);
}
