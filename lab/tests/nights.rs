//! What counts as a night in `lab history` and `lab trend`, and what a run says of cells that never ran.

use lab_record::{
    event::{Event, RunInfo, Stamped},
    exit::Exit,
    synthetic,
};
use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

fn lab(arguments: &[&str], results: &Path) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lab"));
    command.arg("--project").arg(ROOT).args(arguments).arg("--results").arg(results).output().unwrap()
}

/// A run of so many cells, changed before it is written.
fn run(results: &Path, id: &str, cells: usize, change: impl Fn(&mut RunInfo, &mut Exit)) {
    let mut events: Vec<Stamped> = synthetic::events(synthetic::run_info(id, synthetic::plan(1, cells))).collect();
    let mut exit = Exit::Failed;
    if let Event::RunStarted { run } = &mut events[0].event {
        change(run, &mut exit);
    }
    for stamped in &mut events {
        if let Event::RunFinished { exit: ended, .. } = &mut stamped.event {
            *ended = exit;
        }
    }
    let lines: String = events.iter().map(|stamped| serde_json::to_string(stamped).unwrap() + "\n").collect();
    fs::create_dir_all(results.join(id)).unwrap();
    fs::write(results.join(id).join("events.jsonl"), lines).unwrap();
}

#[test]
fn only_complete_runs_without_deliberate_faults_are_in_the_history() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path();
    run(at, "20261101T020000Z-aaaaaa", 40, |_, _| {});
    run(at, "20261102T020000Z-bbbbbb", 40, |info, _| info.mutant = Some("no-attach".to_owned()));
    run(at, "20261103T020000Z-cccccc", 40, |info, _| info.canary = true);
    run(at, "20261104T020000Z-dddddd", 4, |_, _| {});
    run(at, "20261105T020000Z-eeeeee", 40, |_, exit| *exit = Exit::Interrupted(2));
    run(at, "20261106T020000Z-ffffff", 40, |_, _| {});
    let runs = |arguments: &[&str]| {
        let output = lab(arguments, at);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let ids = json["runs"].as_array().unwrap().iter().map(|run| run["id"].as_str().unwrap()[16..].to_owned());
        (ids.collect::<Vec<_>>(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (nights, said) = runs(&["history", "S0*", "--json"]);
    assert_eq!(nights, ["-aaaaaa", "-ffffff"]);
    for (run, why) in [("bbbbbb", "fault"), ("cccccc", "canaries"), ("dddddd", "a part"), ("eeeeee", "interrupted")] {
        let line = said.lines().find(|line| line.contains(run)).unwrap_or_default();
        assert!(line.starts_with("left out: ") && line.contains(why), "{run}: {said}");
    }
    assert_eq!(runs(&["history", "S0*", "--json", "--every-run"]).0.len(), 6);

    let page = at.join("trend.html");
    let output = lab(&["trend", "--out", page.to_str().unwrap()], at);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = fs::read_to_string(page).unwrap();
    assert!(text.contains("ffffff") && !text.contains("bbbbbb") && !text.contains("dddddd"));
}

/// At a desk every run is one of a few cells, and they are a history too.
#[test]
fn runs_of_the_same_few_cells_are_a_history() {
    let dir = tempfile::tempdir().unwrap();
    for id in ["20261101T020000Z-aaaaaa", "20261102T020000Z-bbbbbb"] {
        run(dir.path(), id, 4, |_, _| {});
    }
    let output = lab(&["history", "S0*", "--json"], dir.path());
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(json["runs"].as_array().unwrap().len(), 2);
}

/// After `lab kernels update` an entry is another kernel: the night says so, and how it differs.
#[test]
fn a_night_with_a_new_kernel_says_how_it_differs_from_its_predecessor() {
    let dir = tempfile::tempdir().unwrap();
    let (before, after) = ("20261101T020000Z-aaaaaa", "20261102T020000Z-bbbbbb");
    run(dir.path(), before, 40, |_, _| {});
    run(dir.path(), after, 40, |info, _| info.plan.kernels[0].facts.version.patch += 1);
    let versions = [before, after].map(|id| {
        let log = fs::read_to_string(dir.path().join(id).join("events.jsonl")).unwrap();
        let first: serde_json::Value = serde_json::from_str(log.lines().next().unwrap()).unwrap();
        let facts = first["run"]["plan"]["kernels"][0]["facts"].clone();
        [&facts["id"], &facts["version"]].map(|field| field.as_str().unwrap().to_owned())
    });
    let [[id, old], [_, new]] = &versions;
    let said = |format: &str| {
        let runs = [before, after].map(|id| dir.path().join(id));
        let mut command = Command::new(env!("CARGO_BIN_EXE_lab"));
        command.arg("--project").arg(ROOT).args(["compare", "--new-only", "--format", format]).args(runs);
        let output = command.output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let line = format!("new kernel {id} ({new}): 0 differences from its predecessor {id} ({old})\n");
    assert!(said("text").contains(&format!("\n{line}")) && said("markdown").contains(&format!("\n- {line}")));
    let json: serde_json::Value = serde_json::from_str(&said("json")).unwrap();
    assert_eq!(json["new_kernels"][0]["predecessor"]["version"], **old);
}
