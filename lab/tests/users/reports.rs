//! The formats of a run, and what lists and tables look like on a terminal.

use super::support::{Keep, ROOT, as_shard, lab, plan, run, stderr, stdout, write};
use lab_record::{
    event::{Event, Stamped},
    shard::Part,
};
use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

const RUN: &str = "20261119T020000Z-aaaaaa";

/// What a command prints, whatever it exits with.
fn told(arguments: &[&str], run: &Path) -> String {
    let output = lab(arguments).arg(run).output().unwrap();
    assert!(matches!(output.status.code(), Some(0 | 1)), "{}", stderr(&output));
    stdout(&output)
}

/// A run on two kernels in which two cells fail with one message each.
fn failing(below: &Path) -> PathBuf {
    let mut events = run(RUN, plan(2, 9), &[3, 4, 5, 6], "udp arrives: 0 of 3 # not a directive");
    for stamped in &mut events {
        match &mut stamped.event {
            Event::CellFinished { kernel, verdict, .. } if verdict.standing().is_bad() => {
                verdict.files = vec![lab_guard::Inside::new(&format!("{kernel}/cells/x/w0.pcap")).unwrap()];
            }
            Event::RunStarted { run } => {
                let reason = "/dev/kvm opens, but the guest died under it (exit code 1: ioctl(KVM_CREATE_VM) failed: 16 \
                              Device or resource busy); found earlier, remove /c/accel.json to try again";
                run.accelerator.reason = reason.to_owned();
                run.provenance.results = Some("results/night".to_owned());
            }
            _ => {}
        }
    }
    write(below, RUN, &events)
}

#[test]
fn the_end_of_a_run_fits_80_columns_and_lists_a_failure_once() {
    let dir = tempfile::tempdir().unwrap();
    let text = told(&["report"], &failing(dir.path()));
    let table: Vec<&str> = text.lines().take_while(|line| !line.starts_with("FAILED")).collect();
    assert!(table.iter().all(|line| line.chars().count() <= 80), "{}", table.join("\n"));
    assert!(table.iter().any(|line| line.contains("✓") && line.contains("✗")), "{}", table.join("\n"));
    assert_eq!(text.matches("FAILED ").count(), 1, "eight cells failed with one message: {text}");
    assert!(text.contains("  8 cells in total, also "), "{text}");
    assert!(text.contains("\n  lab shell ") && text.contains(" --case "), "what to do next: {text}");
    assert!(text.contains("\ntcg: /dev/kvm opens, but the guest died under it\n"), "the reason in short: {text}");
    assert!(!text.contains("KVM_CREATE_VM"), "{text}");
    let one = told(&["report"], &write(dir.path(), "one", &run(RUN, plan(1, 1), &[], "")));
    assert!(!one.contains("1 cells") && !one.contains("1 kernels"), "{one}");
}

#[test]
fn kernels_are_listed_in_80_columns() {
    let text = stdout(&lab(&["kernels", "list"]).output().unwrap());
    let wide: Vec<&str> = text.lines().filter(|line| line.chars().count() > 80).collect();
    assert!(wide.is_empty(), "{}", wide.join("\n"));
    assert!(text.lines().count() > 10 && text.contains("6.12.43-1~bpo12+1 (bookworm-backports)"), "{text}");
}

#[test]
fn every_list_is_written_as_json_with_a_version_and_by_its_old_flag_too() {
    let dir = tempfile::tempdir().unwrap();
    failing(dir.path());
    let results = dir.path().to_str().unwrap();
    let of_runs = ["--results", results];
    for (command, more, key, old) in [
        (&["kernels", "list"][..], &[][..], "kernels", false),
        (&["results", "list"], &[], "runs", false),
        (&["doctor"], &[], "", true),
        (&["history", "S*"], &of_runs, "runs", true),
        (&["splats"], &of_runs, "", true),
    ] {
        let flags: &[&[&str]] = if old { &[&["--format", "json"], &["--json"]] } else { &[&["--format", "json"]] };
        for flag in flags {
            let output = lab(command).args(more).args(*flag).output().unwrap();
            let json: serde_json::Value = serde_json::from_slice(&output.stdout)
                .unwrap_or_else(|error| panic!("{command:?} {flag:?}: {error}: {}", stderr(&output)));
            assert_eq!(json["version"], 1, "{command:?} {flag:?}: {json}");
            assert!(key.is_empty() || json[key].is_array(), "{command:?}: {json}");
        }
    }
    let run = dir.path().join(RUN);
    let output = lab(&["compare", "--format", "json"]).args([&run, &run]).output().unwrap();
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(json["version"], 1);
}

#[test]
fn junit_names_source_files_and_attachments_that_ci_systems_find() {
    let dir = tempfile::tempdir().unwrap();
    let xml = told(&["report", "--format", "junit"], &failing(dir.path()));
    assert!(xml.contains(" file=\"crates/suite/src/areas/") && xml.contains(" line=\"7\""), "{xml}");
    let kernel = &plan(2, 9).kernels[0].facts.id;
    let line = format!("[[ATTACHMENT|results/night/{RUN}/{kernel}/cells/x/w0.pcap]]");
    assert_eq!(xml.matches(&line).count(), 4, "{xml}");
    assert!(xml.contains("shell: lab shell "), "{xml}");
}

/// The rules of Apache Ant's schema, each of which JUnit of the common dialect breaks.
#[test]
fn the_dialect_of_ant_follows_its_schema() {
    use quick_xml::{Reader, events::Event as Xml};
    let dir = tempfile::tempdir().unwrap();
    let text = told(&["report", "--format", "ant"], &failing(dir.path()));
    let mut reader = Reader::from_str(&text);
    reader.config_mut().expand_empty_elements = true;
    let (mut open, mut suites, mut failures, mut children): (Vec<String>, usize, usize, Vec<String>) =
        (Vec::new(), 0, 0, Vec::new());
    loop {
        match reader.read_event().unwrap() {
            Xml::Start(tag) => {
                let name = String::from_utf8(tag.name().as_ref().to_vec()).unwrap();
                let mut attributes: Vec<(String, String)> = tag
                    .attributes()
                    .map(|it| it.unwrap())
                    .map(|it| {
                        (
                            String::from_utf8(it.key.as_ref().to_vec()).unwrap(),
                            String::from_utf8(it.value.to_vec()).unwrap(),
                        )
                    })
                    .collect();
                attributes.sort();
                let names: Vec<&str> = attributes.iter().map(|(name, _)| name.as_str()).collect();
                let value = |key: &str| attributes.iter().find(|(name, _)| name == key).unwrap().1.clone();
                match name.as_str() {
                    "testsuites" => assert!(names.is_empty(), "{names:?}"),
                    "testsuite" => {
                        let all = [
                            "errors",
                            "failures",
                            "hostname",
                            "id",
                            "name",
                            "package",
                            "skipped",
                            "tests",
                            "time",
                            "timestamp",
                        ];
                        assert_eq!(names, all);
                        assert_eq!(value("id"), suites.to_string());
                        let time = value("timestamp");
                        assert!(time.len() == "2026-11-19T02:00:00".len() && !time.contains(['+', 'Z', '.']), "{time}");
                        suites += 1;
                        children.clear();
                    }
                    "testcase" => assert_eq!(names, ["classname", "name", "time"]),
                    "failure" | "error" => {
                        assert_eq!(names, ["message", "type"]);
                        failures += 1;
                    }
                    "property" => assert_eq!(names, ["name", "value"]),
                    "properties" | "system-out" | "system-err" | "skipped" => {
                        assert!(names.is_empty(), "{name} {names:?}")
                    }
                    other => panic!("<{other}>"),
                }
                if open.last().is_some_and(|it| it == "testcase") {
                    assert!(["failure", "error", "skipped"].contains(&name.as_str()), "<{name}> in a testcase");
                }
                if open.last().is_some_and(|it| it == "testsuite") && children.last() != Some(&name) {
                    children.push(name.clone());
                }
                open.push(name);
            }
            Xml::End(_) => {
                let ended = open.pop().unwrap_or_default();
                assert!(
                    ended != "testsuite" || children == ["properties", "testcase", "system-out", "system-err"],
                    "{children:?}"
                );
            }
            Xml::Eof => break,
            _ => {}
        }
    }
    assert_eq!((suites, failures), (2, 8));
}

#[test]
fn prove_reads_the_flat_tap() {
    let dir = tempfile::tempdir().unwrap();
    for (bad, ok) in [(&[][..], true), (&[3][..], false)] {
        let events: Vec<Stamped> = run(RUN, plan(2, 9), bad, "lost # SKIP everything");
        let text = told(&["report", "--format", "tap"], &write(dir.path(), RUN, &events));
        assert!(text.starts_with("TAP version 13\n1..24\n"), "{text}");
        let file = dir.path().join("run.tap");
        fs::write(&file, &text).unwrap();
        // Perl is on every Debian, and prove with it.
        let mut prove = Command::new("prove");
        let output = prove.args(["--exec", "cat"]).arg(&file).stdin(Stdio::null()).output().unwrap();
        let said = stdout(&output);
        assert_eq!(output.status.success(), ok, "{said}{}", stderr(&output));
        assert!(said.contains("Tests=24") && !said.contains("Parse errors"), "{said}");
        assert!(ok || said.contains("Failed 2/24 subtests"), "{said}");
    }
}

#[test]
fn a_run_names_the_commit_the_ci_job_and_the_command_line() {
    let dir = tempfile::tempdir().unwrap();
    let mut shard = run(RUN, plan(2, 9).keeping(1, 5), &[], "");
    as_shard(&mut shard, Part { number: 1, count: 1 });
    let shard = write(&dir.path().join("shards"), RUN, &shard);
    let out = dir.path().join("out");
    let mut merge = lab(&["merge", "--out"]);
    merge.arg(&out).arg(&shard).envs([
        ("GITHUB_SERVER_URL", "https://github.example"),
        ("GITHUB_REPOSITORY", "a/b"),
        ("GITHUB_RUN_ID", "77"),
    ]);
    for other in ["CI_JOB_URL", "BUILDKITE_BUILD_URL", "CIRCLE_BUILD_URL", "BUILD_URL"] {
        merge.env_remove(other);
    }
    let output = merge.output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let head = Command::new("git").args(["-C", ROOT, "rev-parse", "HEAD"]).output().unwrap();
    let head = stdout(&head).trim().to_owned();
    let latest = out.join("latest");
    let json: serde_json::Value = serde_json::from_slice(&fs::read(latest.join("run.json")).unwrap()).unwrap();
    let provenance = &json["provenance"];
    assert_eq!(provenance["commit"], head.as_str(), "{provenance}");
    assert_eq!(provenance["ci_url"], "https://github.example/a/b/actions/runs/77");
    assert!(provenance["command"].as_array().unwrap().iter().any(|word| word == "merge"), "{provenance}");
    for (file, words) in [("junit.xml", "name=\"commit\" value=\""), ("report.html", "actions/runs/77")] {
        let text = fs::read_to_string(latest.join(file)).unwrap();
        assert!(text.contains(words) && text.contains(&head), "{file}");
    }
    let markdown = told(&["report", "--format", "markdown"], &latest);
    assert!(markdown.contains(&format!("- commit: `{head}")), "{markdown}");
}
