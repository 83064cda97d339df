//! Histories of several runs.

use super::*;
use crate::results::directory;
use lab_protocol::{AttachRequest, DeviceKind, FailureKind, Outcome};
use lab_record::{
    event::{Event, Stamped},
    plan::Plan,
    synthetic,
    testing::{attached, cell, facts, id, passed, splat},
    verdict::Verdict,
};
use std::{fs, path::Path};

const AUTO: &str = "A04-auto[auto,nk-l3]";
const TC: &str = "A01-clsact[tc,veth]";

fn good(id: &str, used: AttachType, ms: u64) -> Verdict {
    let device = if id == AUTO { DeviceKind::NetkitL3 } else { DeviceKind::Veth };
    let mut report = passed(id, vec![attached(AttachRequest::Auto, device, used)]);
    report.duration_us = ms * 1000;
    Verdict::on(report, Outcome::Passed)
}

fn bad(id: &str) -> Verdict {
    let outcome = Outcome::Failed { kind: FailureKind::Check, message: "lost 3 of 3".into() };
    Verdict { outcome, ..good(id, AttachType::Netkit, 80) }
}

fn night(results: &Path, name: &str, cells: &[&str], verdicts: Vec<Verdict>) {
    let directory = directory::create(results, &id(name)).unwrap();
    let plan = Plan::new(vec![facts("6.12", "6.12.117")], cells.iter().map(|id| cell(id)).collect(), false);
    let started = Event::RunStarted { run: Box::new(synthetic::run_info(name, plan)) };
    let finished = |verdict| Event::CellFinished { kernel: id("6.12"), guest: 1, verdict: Box::new(verdict) };
    let events = std::iter::once(started).chain(verdicts.into_iter().map(finished));
    let line = |event| serde_json::to_string(&Stamped { at_ms: 1, event }).unwrap() + "\n";
    fs::write(directory.join(log::FILE), events.map(line).collect::<String>()).unwrap();
}

fn nights() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let both = [TC, AUTO];
    let tc = |ms| good(TC, AttachType::Tc, ms);
    night(dir.path(), "20261117T020000Z-aaaaaa", &both, vec![tc(90), good(AUTO, AttachType::Netkit, 100)]);
    night(dir.path(), "20261118T020000Z-bbbbbb", &both, vec![tc(92), bad(AUTO)]);
    night(dir.path(), "20261119T020000Z-cccccc", &[TC], vec![tc(91)]);
    night(dir.path(), "20261120T020000Z-dddddd", &both, vec![tc(900), good(AUTO, AttachType::Tcx, 110)]);
    fs::create_dir(dir.path().join("20261116T020000Z-eeeeee")).unwrap();
    let old = "{\"at_ms\":1,\"event\":\"run-started\",\"run\":{\"id\":\"old\"}}\n";
    fs::write(dir.path().join("20261116T020000Z-eeeeee").join(log::FILE), old).unwrap();
    dir
}

fn read(results: &Path) -> (History, Vec<String>) {
    let said = std::cell::RefCell::new(Vec::new());
    let runs = crate::results::stored(results).unwrap();
    let say = |line: &str| said.borrow_mut().push(line.to_owned());
    // Without the rows that every kernel has: these runs had no guests.
    let history = History::read(&runs, |_, cell| cell.as_str().contains('['), false, &say).unwrap();
    (history, said.into_inner())
}

#[test]
fn a_row_per_kernel_and_a_line_per_change() {
    let dir = nights();
    let (history, said) = read(dir.path());
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(said[0].contains("20261116T020000Z-eeeeee/events.jsonl"), "{said:?}");
    insta::assert_snapshot!(text(&history), @"
    4 runs, 20261117T020000Z-aaaaaa to 20261120T020000Z-dddddd

    A01-clsact[tc,veth]
      6.12     ✓✓✓✓  tc  median 92 ms

    A04-auto[auto,nk-l3]
      6.12     ✓✗·✓  tcx  median 110 ms
               20261118T020000Z-bbbbbb failed by netkit: check: lost 3 of 3
               20261120T020000Z-dddddd passed by tcx

    ✓ passed, ≈ flaky, • known, ✗ failed, – skipped, ! errored, ? not run, · not in the plan
    ");
    assert_eq!(history.narrow(&["A04*".to_owned()]).unwrap().series.len(), 1);
    let (history, _) = read(dir.path());
    let error = history.narrow(&["A04-atuo".to_owned()]).unwrap_err().to_string();
    assert!(error.contains("A04-auto"), "{error}");
}

#[test]
fn an_error_names_the_file_if_no_run_can_be_read() {
    let dir = nights();
    let runs = crate::results::stored(dir.path()).unwrap();
    let error = History::read(&runs[..1], |_, _| true, false, &|_| ()).unwrap_err().to_string();
    assert!(error.contains("20261116T020000Z-eeeeee/events.jsonl has format 0"), "{error}");
}

#[test]
fn the_page_lists_changed_and_slower_cells() {
    let dir = nights();
    let (history, _) = read(dir.path());
    let mut out = Vec::new();
    page(&history, &mut out).unwrap();
    let page = String::from_utf8(out).unwrap();
    let data = page.split_once("id=\"data\">").unwrap().1.split_once("</script>").unwrap().0;
    let data: serde_json::Value = serde_json::from_str(data).unwrap();
    assert_eq!((&data["cells"], &data["steady"]), (&2.into(), &1.into()));
    assert_eq!(data["unsteady"][0]["cell"], AUTO);
    assert_eq!(data["unsteady"][0]["points"][3], serde_json::json!(["passed", "tcx"]));
    assert_eq!(data["runs"][3]["changed"], 1);
    assert_eq!(data["slower"][0]["cell"], TC);
    assert_eq!(data["slower"][0]["now_ms"], 900);
}

#[test]
fn a_cell_that_always_passes_by_one_attach_type_is_steady_and_by_two_it_is_not() {
    let steady = |types: [AttachType; 2]| {
        let dir = tempfile::tempdir().unwrap();
        for (name, used) in ["20261117T020000Z-aaaaaa", "20261118T020000Z-bbbbbb"].into_iter().zip(types) {
            night(dir.path(), name, &[AUTO], vec![good(AUTO, used, 100)]);
        }
        read(dir.path()).0.series[0].is_steady()
    };
    assert!(steady([AttachType::Netkit, AttachType::Netkit]));
    assert!(!steady([AttachType::Netkit, AttachType::Tcx]));
}

#[test]
fn a_splat_of_several_runs_is_listed_once() {
    const WARN: (&str, &str) = ("warn-ce77f79386", "WARNING: CPU: 0 PID: 7 at net/core/dev.c:1 f+0x1/0x2");
    const OTHER: (&str, &str) = ("oops-231927afab", "BUG: kernel NULL pointer dereference, address: 0");
    let dir = tempfile::tempdir().unwrap();
    let with = |id: &str, (print, title): (&str, &str)| Verdict {
        splats: vec![splat(print, title)],
        ..good(id, AttachType::Tc, 1)
    };
    // In another run with another process id and line number: the same splat.
    let again = (WARN.0, &*WARN.1.replace("PID: 7", "PID: 912").replace("dev.c:1", "dev.c:44"));
    night(dir.path(), "20261117T020000Z-aaaaaa", &[TC, AUTO], vec![with(TC, WARN), with(AUTO, OTHER)]);
    night(dir.path(), "20261118T020000Z-bbbbbb", &[TC], vec![good(TC, AttachType::Tc, 1)]);
    night(dir.path(), "20261119T020000Z-cccccc", &[TC, AUTO], vec![with(AUTO, again)]);
    let runs = crate::results::stored(dir.path()).unwrap();
    let found = splats::recurring(&runs, &|line| panic!("{line}")).unwrap();

    let told: Vec<_> = found.iter().map(|it| (it.splat.times, it.splat.cells.len(), it.runs.len())).collect();
    assert_eq!(told, [(2, 2, 2), (1, 1, 1)], "the newest run's splats come first: {found:?}");
    assert_eq!(found[0].splat.cells[0].1, TC, "the first occurrence stays first");
    let text = splats::render(&found);
    assert!(text.contains("seen 2 times on 6.12, first in 6.12 A01-clsact[tc,veth]"), "{text}");
    assert!(text.contains("in 2 runs, 20261117T020000Z-aaaaaa to 20261119T020000Z-cccccc"), "{text}");
    assert_eq!(splats::render(&[]), "no splats in these runs\n");
}
