//! Mistyped options, damaged files and missing programs: each gives one line with the fix, and the documented exit code.

use lab_protocol::Outcome;
use lab_record::{event::Event, exit::Exit, synthetic};
use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

fn lab(project: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lab"));
    command.arg("--project").arg(project).args(arguments);
    command
}

/// Asserts the exit code, and that the error is one line that contains these words.
#[track_caller]
fn refused(output: &Output, code: i32, words: &[&str]) {
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{error}");
    let told: Vec<&str> = error.lines().filter(|line| line.starts_with("error: ")).collect();
    assert_eq!(told.len(), 1, "one line of error:\n{error}");
    for word in words {
        assert!(told[0].contains(word), "no `{word}` in: {}", told[0]);
    }
}

/// A project with this matrix and without a lock file.
fn project(matrix: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("kernels.toml"), matrix).unwrap();
    dir
}

#[test]
fn an_unknown_case_selects_nothing() {
    let output = lab(Path::new(ROOT), &["list", "--case", "A02-tcx-lnik*"]).output().unwrap();
    refused(&output, 4, &["A02-tcx-lnik*", "A02-tcx-link"]);
}

#[test]
fn an_unknown_kernel_selects_nothing() {
    let output = lab(Path::new(ROOT), &["list", "--kernel", "6.99"]).output().unwrap();
    refused(&output, 4, &["6.99"]);
}

#[test]
fn an_error_about_a_misspelt_key_names_its_line_and_the_valid_key() {
    let dir = project("[kernels.\"6.1\"]\nclass = \"below-6.7\"\ndefualt = true\n");
    let output = lab(dir.path(), &["kernels", "list"]).output().unwrap();
    refused(&output, 2, &["kernels.toml:3", "defualt", "default", "6.1"]);
}

#[test]
fn a_missing_image_is_named() {
    let matrix = "[kernels.mine]\nclass = \"6.7+\"\ndefault = true\nsource.path = { image = \"no/vmlinuz\" }\n";
    let dir = project(matrix);
    let output = lab(dir.path(), &["kernels", "fetch"])
        .env("PATH", lab_base::programs::search_path())
        .env("NETKIT_LAB_CACHE", dir.path().join("cache"))
        .output()
        .unwrap();
    refused(&output, 2, &["mine", "no/vmlinuz"]);
}

#[test]
fn an_unwritable_cache_is_named() {
    let dir = project("[kernels.mine]\nclass = \"6.7+\"\ndefault = true\nsource.path = { image = \"vmlinuz\" }\n");
    let blocked = dir.path().join("file");
    fs::write(&blocked, "").unwrap();
    let output = lab(dir.path(), &["kernels", "fetch"])
        .env("PATH", lab_base::programs::search_path())
        .env("NETKIT_LAB_CACHE", blocked.join("cache"))
        .output()
        .unwrap();
    refused(&output, 3, &["file/cache"]);
}

/// The hints that a command printed to standard error.
fn hints(output: &Output) -> Vec<String> {
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    said.lines().filter(|line| line.starts_with("hint: ")).map(str::to_owned).collect()
}

#[test]
fn a_renamed_key_works_with_a_hint_and_not_beside_the_new_one() {
    let kernel =
        "[kernels.mine]\nclass = \"below-6.7\"\ndefault = true\nsource.git = { tree = \".\", ref = \"v6.12\" }\n";
    let entry = "[{ capability = \"netkit\", reason = \"off\" }]\n";
    // The class is valid only because of the entry.
    for (key, hinted) in [("departures", 1), ("unsupported", 0)] {
        let dir = project(&format!("{kernel}{key} = {entry}"));
        let cache = dir.path().join("cache");
        let output = lab(dir.path(), &["kernels", "list"]).env("NETKIT_LAB_CACHE", cache).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
        let hints = hints(&output);
        assert_eq!(hints.len(), hinted, "{key}: {hints:?}");
        assert!(hints.iter().all(|hint| hint.contains("kernels.toml:5") && hint.contains("use `unsupported`")));
    }
    let dir = project(&format!("{kernel}departures = {entry}unsupported = {entry}"));
    let output = lab(dir.path(), &["kernels", "list"]).output().unwrap();
    refused(&output, 2, &["kernels.toml:5", "`departures`", "`unsupported`", "mine"]);
}

#[test]
fn a_class_is_free_text_but_for_misspelt_predefined_ones() {
    let matrix = |class: &str| {
        format!(
            "[kernels.mine]\nclass = \"{class}\"\ndefault = true\nsource.git = {{ tree = \".\", ref = \"v5.15\" }}\n"
        )
    };
    let list = |class: &str, arguments: &[&str]| {
        let dir = project(&matrix(class));
        lab(dir.path(), arguments)
            .env("PATH", lab_base::programs::search_path())
            .env("NETKIT_LAB_CACHE", dir.path().join("cache"))
            .output()
            .unwrap()
    };
    let output = list("vendor-5.15", &["kernels", "list"]);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(String::from_utf8_lossy(&output.stdout).contains("vendor-5.15"));
    let output = list("belov-6.7", &["kernels", "list"]);
    let hint = "class `belov-6.7` of [kernels.\"mine\"] is one of the project's own; did you mean `below-6.7`?";
    assert_eq!(output.status.code(), Some(0));
    assert!(String::from_utf8_lossy(&output.stderr).contains(hint), "{}", String::from_utf8_lossy(&output.stderr));
    refused(&list("6.7+", &["kernels", "list"]), 2, &["kernels.toml:2", "mine", "5.15", "6.7"]);
    refused(&list("Below_6.7", &["kernels", "list"]), 2, &["kernels.toml:2", "`Below_6.7`", "`below-6.7`"]);
    refused(&list("two words", &["kernels", "list"]), 2, &["kernels.toml:2", "two words"]);
    refused(&list("vendor-5.15", &["kernels", "fetch", "--class", "vendor-5.16"]), 4, &["vendor-5.15"]);
}

#[test]
fn a_renamed_command_works_with_a_hint() {
    let dir = tempfile::tempdir().unwrap();
    green_run(dir.path(), "20261119T020000Z-aaaaaa");
    let results = dir.path().to_str().unwrap();
    let run = |command: &str| lab(Path::new(ROOT), &[command, "--results", results]).output().unwrap();
    let (now, formerly) = (run("splats"), run("complaints"));
    assert_eq!((now.status.code(), hints(&now).len()), (Some(0), 0), "{}", String::from_utf8_lossy(&now.stderr));
    assert_eq!(hints(&formerly), ["hint: `lab complaints` is deprecated: use `lab splats`"]);
    assert_eq!(now.stdout, formerly.stdout);
    let help = lab(Path::new(ROOT), &["--help"]).output().unwrap();
    assert!(!String::from_utf8_lossy(&help.stdout).contains("complaints"));
}

/// A run in which everything passed, and its events.
fn green_run(results: &Path, id: &str) -> (PathBuf, Vec<String>) {
    let directory = results.join(id);
    fs::create_dir_all(&directory).unwrap();
    let mut lines = Vec::new();
    for mut stamped in synthetic::events(synthetic::run_info(id, synthetic::plan(2, 12))) {
        if let Event::CellFinished { verdict, .. } = &mut stamped.event
            && verdict.standing().is_bad()
        {
            verdict.outcome = Outcome::Passed;
        }
        if let Event::RunFinished { exit, .. } = &mut stamped.event {
            *exit = Exit::Passed;
        }
        lines.push(serde_json::to_string(&stamped).unwrap() + "\n");
    }
    fs::write(directory.join("events.jsonl"), lines.concat()).unwrap();
    (directory, lines)
}

#[test]
fn an_invalid_events_file_is_named_by_every_command() {
    let dir = tempfile::tempdir().unwrap();
    let (good, lines) = green_run(dir.path(), "20261119T020000Z-aaaaaa");
    let root = Path::new(ROOT);
    assert!(lab(root, &["report"]).arg(&good).output().unwrap().status.success(), "the run itself is fine");
    let bad = dir.path().join("bad/20261120T020000Z-bbbbbb");
    fs::create_dir_all(&bad).unwrap();
    let older = lines[0].replacen("\"format\":", "\"was\":", 1);
    let foreign = "<testsuites/>\n";
    for content in ["", foreign, "{\"event\":\"something\"}\n", &older, &lines[1]] {
        fs::write(bad.join("events.jsonl"), content).unwrap();
        for arguments in [vec!["report"], vec!["compare", good.to_str().unwrap()], vec!["rerun", "--failed"]] {
            let output = lab(root, &arguments).arg(&bad).output().unwrap();
            refused(&output, 2, &["20261120T020000Z-bbbbbb/events.jsonl"]);
        }
        let output = lab(root, &["history", "S0*", "--results"]).arg(dir.path().join("bad")).output().unwrap();
        refused(&output, 2, &["20261120T020000Z-bbbbbb/events.jsonl"]);
    }
    let output = lab(root, &["report"]).arg(dir.path().join("none")).output().unwrap();
    refused(&output, 2, &["none", "not a run"]);
}

#[test]
fn a_truncated_run_never_passes() {
    let dir = tempfile::tempdir().unwrap();
    let (good, lines) = green_run(dir.path(), "20261119T020000Z-aaaaaa");
    let cut = dir.path().join("20261120T020000Z-bbbbbb");
    fs::create_dir_all(&cut).unwrap();
    let whole = lines.concat();
    let verdict = lines.iter().position(|line| line.contains("cell-finished")).unwrap();
    let without_one: String =
        lines.iter().enumerate().filter(|(at, _)| *at != verdict).map(|(_, line)| &**line).collect();
    // Truncated in a line, after a line, and without a verdict although the recorded exit is a pass.
    for content in [&whole[..whole.len() * 2 / 3], &lines[..lines.len() / 2].concat(), &without_one] {
        fs::write(cut.join("events.jsonl"), content).unwrap();
        let output = lab(Path::new(ROOT), &["report"]).arg(&cut).output().unwrap();
        assert_eq!(output.status.code(), Some(3), "{}", String::from_utf8_lossy(&output.stdout));
        assert!(fs::read_to_string(cut.join("junit.xml")).unwrap().contains("type=\"not-run\""));
        let output = lab(Path::new(ROOT), &["compare", "--new-only"]).args([&good, &cut]).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{}", String::from_utf8_lossy(&output.stdout));
    }
}

#[test]
fn a_closed_pipe_ends_the_command_without_an_error() {
    let script = format!("'{}' --project '{ROOT}' kernels list | head -c 1 >/dev/null", env!("CARGO_BIN_EXE_lab"));
    let output = Command::new("bash").args(["-c", &script]).output().unwrap();
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn an_invalid_shard_is_named() {
    let output = lab(Path::new(ROOT), &["run", "--partition", "5/4"]).output().unwrap();
    refused(&output, 2, &["5/4", "the last 4/4"]);
    let output =
        lab(Path::new(ROOT), &["run", "--partition", "auto"]).env_clear().env("HOME", "/nonexistent").output().unwrap();
    refused(&output, 2, &["--partition m/n"]);
}

#[test]
fn results_that_are_not_shards_are_named_and_nothing_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    for (bytes, words) in [
        (None, &["shard", "has no events.jsonl"][..]),
        (Some("<testsuites/>\n"), &["shard/events.jsonl:1", "not an event"]),
        (Some("{\"at_ms\":1,\"event\":\"run-started\",\"run\":{\"id\":\"x\"}}\n"), &["shard/events.jsonl", "format 0"]),
    ] {
        let shard = dir.path().join("shard");
        if let Some(bytes) = bytes {
            fs::create_dir_all(&shard).unwrap();
            fs::write(shard.join("events.jsonl"), bytes).unwrap();
        }
        let output = lab(Path::new(ROOT), &["merge"]).arg(&shard).arg("--out").arg(&out).output().unwrap();
        refused(&output, 2, words);
        assert!(!out.exists(), "nothing was written");
    }
}
