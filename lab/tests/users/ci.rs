//! Tests of comparisons between runs with different selections, and of the output for CI systems.

use super::support::{Keep, ROOT, as_shard, lab, plan, run, stderr, stdout, write};
use lab_record::shard::Part;
use std::{
    fs,
    os::unix::fs::symlink,
    path::Path,
    process::{Command, Output},
};

const BEFORE: &str = "20261119T020000Z-aaaaaa";
const AFTER: &str = "20261120T020000Z-bbbbbb";

/// A checkout with a built `lab`: everything that the report step needs.
fn checkout() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir_all(dir.path().join("ci")).unwrap();
    fs::create_dir_all(dir.path().join("target/release")).unwrap();
    for script in ["ci/steps", "ci/use"] {
        fs::copy(Path::new(ROOT).join(script), dir.path().join(script)).unwrap();
    }
    symlink(env!("CARGO_BIN_EXE_lab"), dir.path().join("target/release/lab")).unwrap();
    let packed = Command::new("tar").current_dir(dir.path()).args(["-cf", "build.tar", "target"]).status().unwrap();
    assert!(packed.success());
    dir
}

/// Runs `ci/steps report shards/*` like a job on GitHub; returns its output, the summary, and the step's outputs.
fn report(checkout: &Path) -> (Output, String, String) {
    let outputs = checkout.join("outputs");
    let _ = fs::remove_file(&outputs);
    let output = Command::new("bash")
        .current_dir(checkout)
        .args(["-c", "ci/steps report shards/*"])
        .env("GITHUB_ACTIONS", "true")
        .env("GITHUB_OUTPUT", &outputs)
        .output()
        .unwrap();
    let read = |path: &Path| fs::read_to_string(path).unwrap_or_default();
    (output, read(&checkout.join("summary.md")), read(&outputs))
}

#[test]
fn a_narrower_run_is_compared_by_the_common_cells() {
    let dir = tempfile::tempdir().unwrap();
    let night = write(dir.path(), BEFORE, &run(BEFORE, plan(3, 12), &[], ""));
    let narrower = write(dir.path(), AFTER, &run(AFTER, plan(3, 12).keeping(2, 5), &[], ""));
    let compared = |before: &Path, after: &Path, flags: &[&str]| {
        lab(&["compare", "--new-only"]).args(flags).args([before, after]).output().unwrap()
    };
    let output = compared(&night, &narrower, &[]);
    let told = stdout(&output);
    assert_eq!(output.status.code(), Some(0), "{told}");
    assert!(told.contains("not selected in the later run: "), "{told}");
    // Twelve cells and three rows of the omitted kernel, and seven cells of each other kernel.
    assert!(told.contains(": 15 cells, ") && told.contains(": 7 cells"), "{told}");
    assert!(told.contains("\n16 cells are unchanged\n"), "two kernels, five cells and three rows: {told}");
    let json: serde_json::Value =
        serde_json::from_str(&stdout(&compared(&night, &narrower, &["--format", "json"]))).unwrap();
    assert_eq!(json["not_selected"].as_object().map(serde_json::Map::len), Some(3), "{json}");
    // Failures in selected cells still count.
    let failing = run(AFTER, plan(3, 12).keeping(2, 5), &[2], "lost 3 of 3");
    let failing = write(&dir.path().join("failing"), AFTER, &failing);
    assert_eq!(compared(&night, &failing, &[]).status.code(), Some(1));
    // In a run of the whole suite, a missing cell has been removed.
    let mut whole = plan(3, 12).keeping(3, 11);
    whole.every_cell = true;
    let lost = write(&dir.path().join("lost"), AFTER, &run(AFTER, whole, &[], ""));
    let output = compared(&night, &lost, &[]);
    assert_eq!(output.status.code(), Some(1), "{}", stdout(&output));
    assert!(stdout(&output).contains("no longer in the plan: 3\n"), "{}", stdout(&output));
}

#[test]
fn the_report_step_is_green_for_a_narrower_run() {
    let checkout = checkout();
    let mut shard = run(AFTER, plan(3, 12).keeping(1, 5), &[], "");
    as_shard(&mut shard, Part { number: 1, count: 1 });
    write(&checkout.path().join("shards/shard-1"), AFTER, &shard);
    write(&checkout.path().join("previous"), BEFORE, &run(BEFORE, plan(3, 12), &[], ""));
    let (output, summary, outputs) = report(checkout.path());
    assert_eq!(output.status.code(), Some(0), "{}{summary}", stderr(&output));
    assert!(summary.contains("not selected in the later run"), "{summary}");
    assert_eq!(outputs, "new=false\n");
}

#[test]
fn the_job_summary_has_totals_and_each_failure_with_and_without_an_earlier_run() {
    for earlier in [None, Some(&[][..]), Some(&[3_usize][..])] {
        let checkout = checkout();
        let mut shard = run(AFTER, plan(2, 9), &[3], "udp arrives: 0 of 3 `|` <b>");
        as_shard(&mut shard, Part { number: 1, count: 1 });
        write(&checkout.path().join("shards/shard-1"), AFTER, &shard);
        if let Some(bad) = earlier {
            write(
                &checkout.path().join("previous"),
                BEFORE,
                &run(BEFORE, plan(2, 9), bad, "udp arrives: 0 of 3 `|` <b>"),
            );
        }
        let (output, summary, outputs) = report(checkout.path());
        assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
        assert!(summary.contains("| kernel | release | tc | tcx | netkit | other | guest |"), "{summary}");
        assert!(summary.contains(" 2 failed,"), "{summary}");
        let id = plan(2, 9).cells[3].id.clone();
        let line = format!(
            "- failed 7.1 `{id}`: `check: udp arrives: 0 of 3 '¦' <b>`; also `7.2 {id}`; `target/release/lab run --kernel 7.1"
        );
        let versions: Vec<String> = plan(2, 9).kernels.iter().map(|kernel| kernel.facts.id.to_string()).collect();
        let line = line.replace("7.1", &versions[0]).replace("7.2", &versions[1]);
        assert!(summary.contains(&line), "{line}\n{summary}");
        assert_eq!(outputs, if earlier == Some(&[3]) { "new=false\n" } else { "new=true\n" });
        let log = stdout(&output);
        let annotation = format!("::error title=failed {} ", versions[0]);
        assert!(
            log.lines().any(|line| line.starts_with(&annotation) && line.contains("::check: udp arrives")),
            "{log}"
        );
    }
}

#[test]
fn a_refused_merge_has_a_summary_with_the_reason_and_the_shards_results() {
    let checkout = checkout();
    let mut shard = run(AFTER, plan(2, 9), &[3], "lost 3 of 3");
    as_shard(&mut shard, Part { number: 1, count: 1 });
    for name in ["shard-1", "shard-2"] {
        write(&checkout.path().join("shards").join(name), AFTER, &shard);
    }
    let (output, summary, outputs) = report(checkout.path());
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
    assert!(summary.contains("shard 1/1"), "the reason: {summary}");
    assert!(summary.contains("| kernel | release |") && summary.contains("`check: lost 3 of 3`"), "{summary}");
    assert_eq!(outputs, "new=true\n");
}

/// A tag can be moved to another commit; a commit can't.
#[test]
fn every_action_is_pinned_by_the_hash_of_a_commit() {
    let mut used = 0;
    let ours =
        ["lab.yml", "nightly.yml", "pull-request.yml", "setup/action.yml"].map(|file| format!("ci/github/{file}"));
    for file in ours.iter().map(|file| &**file).chain(["action.yml"]) {
        let text = fs::read_to_string(Path::new(ROOT).join(file)).unwrap();
        for line in text.lines().filter_map(|line| line.trim_start_matches([' ', '-']).strip_prefix("uses: ")) {
            if line.starts_with("./") {
                continue;
            }
            used += 1;
            let hash = line.split_once('@').and_then(|(_, rest)| rest.split_once(" # v")).map(|(hash, _)| hash);
            let is_hash =
                hash.is_some_and(|hash| hash.len() == 40 && hash.bytes().all(|byte| byte.is_ascii_hexdigit()));
            assert!(is_hash, "{file}: {line}");
        }
    }
    assert!(used >= 10, "{used}");
}
